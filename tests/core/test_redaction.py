"""The redactor: no form of a key gets through, and what is no key does."""

from __future__ import annotations

import base64
import json
import logging
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_plan import SPEC, planned
from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.options import OpenAIOptions
from windowshift.backends.shared.faults import Fault, ServiceError
from windowshift.backends.shared.key import find_key
from windowshift.backends.shared.reach import reach
from windowshift.core.contract.errors import (
    BackendError,
    SandboxError,
    SpecError,
    StoreError,
    UnaskedError,
    WindowshiftError,
)
from windowshift.core.contract.redaction import REDACTED, Redactor, brief, tell, without_keys
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.run import logging_to
from windowshift.core.store.writer import Writer
from windowshift.say import say, say_block, say_json


def ServiceFault(said: str) -> WindowshiftError:  # noqa: N802 - stands beside classes
    return ServiceError(said, Fault("again", said))


KEY = "k3y/With+Odd=Chars&-0123456789-abcdefXYZ"
REDACTOR = Redactor([KEY])


@pytest.mark.parametrize(
    "said",
    [
        KEY,
        KEY.upper(),
        KEY[:12],
        KEY[-12:],
        KEY[5:20],
        f"{KEY[:20]} {KEY[20:]}",
        quote(KEY, safe=""),
        quote(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.b64encode(f":{KEY}".encode()).decode(),
        base64.b64encode(f"user:{KEY}\n".encode()).decode(),
        KEY.encode().hex(),
        json.dumps(KEY)[1:-1],
        "".join(f"\\u{ord(each):04x}" for each in KEY),
        f"{KEY[:6]}********{KEY[-4:]}",
        f"{KEY[:4]}...{KEY[-4:]}",
        f"***{KEY[-4:]}",
        KEY[::-1],
        quote(quote(KEY, safe=""), safe=""),
        "".join(f"&#{ord(each)};" for each in KEY),
        "".join(f"&#x{ord(each):X};" for each in KEY),
        "".join(f"\\x{ord(each):02x}" for each in KEY),
        "".join(f"\\{ord(each):03o}" for each in KEY),
        ":".join(f"{ord(each):02x}" for each in KEY),
        " ".join(f"{ord(each):02X}" for each in KEY),
        base64.b64encode(KEY.encode("utf-16-le")).decode(),
        base64.b64encode(f"Bearer {KEY}".encode("utf-16-le")).decode(),
        base64.b64encode(base64.b64encode(KEY.encode())).decode(),
        base64.b32encode(KEY.encode()).decode(),
    ],
)
def test_every_form_of_a_key_is_taken_out(said: str) -> None:
    for sentence in (f"Incorrect key provided: {said}.", f"<{said}>", f"a{said}", f"key='{said}', status 401"):
        found = REDACTOR.redact(sentence)
        assert REDACTED in found
        whole = found.lower()
        for form in (KEY, base64.b64encode(KEY.encode()).decode(), KEY.encode().hex()):
            assert not any(form[at : at + 8].lower() in whole for at in range(len(form) - 7))


@pytest.mark.parametrize(
    "between", ["\n", "\r\n  ", "\\n", "\\r\\n", '" "', '", "', "\u200b", "\\u000a", "'+'", " | ", "\\\n", "\0"]
)
@pytest.mark.parametrize("width", [1, 4, 6, 7, 12, 30])
@pytest.mark.parametrize("form", ["plain", "base64", "hex"])
def test_a_key_that_is_spread_over_lines(between: str, width: int, form: str) -> None:
    raw = KEY.encode()
    whole = {"plain": KEY, "base64": base64.b64encode(b"Bearer " + raw).decode(), "hex": raw.hex()}[form]
    spread = between.join(whole[at : at + width] for at in range(0, len(whole), width))
    for found in (REDACTOR.redact(f"it said: {spread}"), REDACTOR.said(f"it said: {spread}"), REDACTOR.own(spread)):
        assert REDACTED in found
        left = re.sub(r"[^A-Za-z0-9]|\\[nr]", "", found.replace(REDACTED, ""))
        middle = re.sub(r"[^A-Za-z0-9]", "", whole)[16:-16]
        assert not any(middle[at : at + 8] in left for at in range(len(middle) - 7))
    if form != "base64":
        assert REDACTOR.holds(f"x {spread} x")


def test_the_last_stop_knows_every_key_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "zq-last-stop-9517538426"
    monkeypatch.setenv("ZQ_KEY", key)
    assert without_keys(f"it said {key}") == f"it said {key}"  # nobody has asked for it yet
    find_key("ZQ_KEY")
    assert without_keys(f"it said {key} and sk-other-keyqwertz") == "it said [key] and sk-other-keyqwertz"


def test_what_is_printed_logged_and_stored_passes_the_last_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "zq-everywhere-0123456789abcdef"
    monkeypatch.setenv("ZQ_KEY", key)
    find_key("ZQ_KEY")
    say(f"line {key}")
    say(f"line {key}", err=True)
    say_block(f"a\n{key}")
    say_json({"x": [key], key: 1})
    with logging_to(tmp_path / "run.log"):
        try:
            raise ValueError(f"Bearer {key}")
        except ValueError:
            logging.getLogger("windowshift.x").exception("it failed: %s", key)
    with closing(Writer(tmp_path)) as writer:
        plan = planned(SPEC)
        ledger = Ledger(plan, writer)
        job = ledger.ready()[0]
        ledger.said(job, f"said {key}")
        ledger.fail(job, f"failed: {key}")
    printed = capsys.readouterr()
    logged = (tmp_path / "run.log").read_text(encoding="utf-8")
    for text in (printed.out, printed.err, logged):
        assert "[key]" in text
        assert "everywhere" not in text
    assert "ValueError" in logged
    with closing(sqlite3.connect(tmp_path / "windowshift.db")) as store:
        dump = "\n".join(store.iterdump())
    assert "everywhere" not in dump
    assert dump.count("[key]") >= 2


@pytest.mark.parametrize("begins", range(380, 402))
def test_a_text_is_redacted_before_it_is_cut(begins: int) -> None:
    found = REDACTOR.said("x" * begins + " " + KEY + " and more")
    assert "k3y" not in found
    assert len(found) <= 404


@pytest.mark.parametrize("begins", range(185, 202))
def test_a_librarys_error_is_redacted_before_it_is_cut(begins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "zq-brief-7410852963abcdef"
    monkeypatch.setenv("ZQ_KEY", key)
    find_key("ZQ_KEY")
    found = brief(ValueError("x" * begins + f" {key} and\nmore"), 200)
    assert "brief" not in found
    assert len(found) <= 200


@pytest.mark.parametrize(
    "said",
    [
        "Authorization: Bearer abcdefgh12345678",
        "sk-proj-abcdefghijkl",
        "hf_abcdefghijklmnop",
        "https://user:hunter22@host.example/v1",
        "https://host.example/v1?api_key=abcdefgh12345",
        "x-api-key: abcdefgh12345",
        "AIzaSyA1234567890",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_somebody_elses_key_goes_too(said: str) -> None:
    found = Redactor().redact(f"it said {said}")
    assert REDACTED in found
    for secret in ("abcdefgh", "hunter22", "SyA123", "c2lnbm"):
        assert secret not in found


@pytest.mark.parametrize(
    "said",
    [
        "no model named rivers-7b is loaded",
        "unknown key: frequency_penalty",
        "max_tokens must be at most 4096 (got 9999)",
        "the server failed (500: upstream timed out after 30 s) ... try again",
        "invalid token 'temperature' at line 3",
        "rate limit of 60,000 tokens a minute; please retry in 6m0s",
    ],
)
def test_other_sentences_stay_as_they_are(said: str) -> None:
    assert REDACTOR.redact(said) == said
    assert Redactor(["none"]).redact("none of these") == "none of these"


@given(st.text(max_size=60), st.text(max_size=60))
def test_wherever_it_stands(before: str, after: str) -> None:
    found = REDACTOR.redact(f"{before}{KEY}{after}")
    assert KEY not in found
    assert KEY[4:24] not in found


def test_what_a_terminal_would_obey_is_taken_out() -> None:
    assert Redactor().said("\x1b]52;c;aGk=\x07 a\u202eb\nc\td") == "]52;c;aGk= ab c d"


HASH, SLUG = "9f86d081884c7d659a2feaa0c55ad015", "s3cr3tkey12345"
KEYED = [
    (f"https://gw.example/v1/{SLUG}/openai/v1", "https://gw.example/v1/[key]/openai/v1"),
    (f"https://gw.example/v1/{HASH}", "https://gw.example/v1/[key]"),
    ("https://gw.example/123e4567-e89b-12d3-a456-426614174000/v1", "https://gw.example/[key]/v1"),
    ("https://gw.example/AbCdEfGhIjKlMnOpQrSt/v1", "https://gw.example/[key]/v1"),
    ("https://gw.example/token/abcdefghij/v1", "https://gw.example/token/[key]/v1"),
    ("https://gw.example/sk-abcdefghijkl/v1", "https://gw.example/[key]/v1"),
    ("https://gw.example/apiKey/abcdefghij/v1", "https://gw.example/apiKey/[key]/v1"),
    ("https://gw.example/my-auth-token/abcdefghij", "https://gw.example/my-auth-token/[key]"),
    ("https://gw.example/prod_aB3dE6gH9k/v1", "https://gw.example/[key]/v1"),
    (f"https://h/resolve/{HASH}/x", "https://h/resolve/[key]/x"),
    ("https://h/x?sig=abcdefgh&n=1", "https://h/x?sig=[key]&n=1"),
    (f"https://h/x?n=1&which={HASH}#top", "https://h/x?n=1&which=[key]#top"),
    ("wss://user:hunter22@h:3128/x", "wss://[key]@h:3128/x"),
    ("socks5h://hunter22@h", "socks5h://[key]@h"),
]
"""Addresses with a key in them, and what is said of them."""
PLAIN = [
    "http://localhost:8000/v1",
    "https://tinker.thinkingmachines.dev/services/tinker-prod",
    "https://api.openai.com/v1/fine_tuning/jobs/ftjob-abc",
    "https://h/models/llama-3.1-70b-instruct-2024-07-18/v1",
    "https://huggingface.co/google/gemma-3-270m-it/resolve/main/config.json",
    "https://h/deployments/gpt4omini/chat?api-version=2024-10-21",
    "tinker://9f86d081884c7d659a2f/weights/last",
    "https://huggingface.co/bigcode/starcoder2-15b",
    "https://github.com/microsoft/vscode/extensions",
    "https://h/models/meta_llama_3_1_8b_instruct/v1",
    "https://h/data/tqa_eval2024_v2.csv?file=emergent_misalignment_2025.jsonl",
    "https://doi.org/10.1162/tacl_a_00447",
    "https://huggingface.co/o/m/resolve/0e9e39f249a16976918f6564b8830bc894c89659/config.json",
    "https://github.com/o/r/commit/0e9e39f249a16976918f6564b8830bc894c89659",
]


@pytest.mark.parametrize(("address", "shown"), KEYED)
def test_a_key_in_an_address_is_never_said(address: str, shown: str) -> None:
    for before, after in (("", ""), ("POST ", ": 404"), ("(", ")"), ("see '", "'."), ("", ", twice"), ("at\n", "\n")):
        said = f"{before}{address}{after}"
        assert without_keys(said) == f"{before}{shown}{after}"
        assert str(SpecError(said)) == " ".join(f"{before}{shown}{after}".split())
        assert Redactor().redact(said) == f"{before}{shown}{after}"


@pytest.mark.parametrize("address", PLAIN)
def test_other_addresses_stay_as_they_are(address: str) -> None:
    assert without_keys(f"see {address}, or ask") == f"see {address}, or ask"


def test_a_key_in_the_path_of_a_server_is_known_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server, a library and a log say the path without the host too."""
    slug = "zq4path77servers91"
    options = OpenAIOptions.parse({"base_url": f"http://127.0.0.1:1/gateway/{slug}/v1", "key_env": None})
    assert options.base_url.endswith(f"/{slug}/v1")  # it is sent
    with logging_to(tmp_path / "run.log"):
        logging.getLogger("windowshift").info("POST /gateway/%s/v1/chat", slug)
    said = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "/gateway/[key]/v1/chat" in said
    found = reach(options.base_url, OpenAIConnection(options))
    say(f"{found.address}: {found.problem}")
    printed = capsys.readouterr().out
    assert "http://127.0.0.1:1/gateway/[key]/v1: " in printed
    assert slug not in printed
    assert slug not in str(found.problem)


@pytest.mark.parametrize("kind", [SpecError, StoreError, BackendError, UnaskedError, SandboxError, ServiceFault])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\x85", "\u2028", "\n\n  \t"])
def test_what_is_wrong_is_one_sentence(kind: Callable[[str], WindowshiftError], end: str) -> None:
    """Libraries say things in several lines; what was quoted from elsewhere may drive a terminal."""
    library = ValueError(f"line 1{end}line 2 \x1b]0;title\x07 and\u202eback{end}")
    assert str(kind(f"x.yaml cannot be read ({library}): look at  it")) == (
        "x.yaml cannot be read (line 1 line 2 ␛]0;title␇ and‹U+202E›back ): look at  it"
    )


def test_an_address_that_this_process_made_is_told_whole() -> None:
    """The token of `tui --serve` is the way in: an address without it opens nothing."""
    told, other = "wFq3nE8TzJ0aPx5LkYc2VbRd7GhMs4Uo", "aQ2wS4eD6rF8tG0yH3uJ5iK7oL9pZ1xC"
    said = f"http://127.0.0.1:8000/{told}/ beside http://127.0.0.1:8000/{other}/"
    assert told not in without_keys(said)
    tell(told)
    assert without_keys(said) == f"http://127.0.0.1:8000/{told}/ beside http://127.0.0.1:8000/{REDACTED}/"
