"""The redactor: no form of a key gets through, and what is no key does."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowshift.backends.shared.redaction import REDACTED, Redactor

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
    ],
)
def test_every_form_of_a_key_is_taken_out(said: str) -> None:
    for sentence in (f"Incorrect key provided: {said}.", f"<{said}>", f"a{said}", f"key='{said}', status 401"):
        found = REDACTOR.redact(sentence)
        assert REDACTED in found
        whole = found.lower()
        for form in (KEY, base64.b64encode(KEY.encode()).decode(), KEY.encode().hex()):
            assert not any(form[at : at + 8].lower() in whole for at in range(len(form) - 7))


@pytest.mark.parametrize("begins", range(380, 402))
def test_a_text_is_redacted_before_it_is_cut(begins: int) -> None:
    found = REDACTOR.said("x" * begins + " " + KEY + " and more")
    assert "k3y" not in found
    assert len(found) <= 404


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
