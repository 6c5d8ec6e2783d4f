"""The redactor: no form of a key gets through, and what is no key does."""

from __future__ import annotations

import base64
import json
import logging
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_plan import SPEC, planned
from windowshift.backends.shared.key import find_key
from windowshift.core.contract.redaction import REDACTED, Redactor, brief, without_keys
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.run import logging_to
from windowshift.core.store.writer import Writer
from windowshift.say import say, say_block, say_json

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
