"""The grammar of answers about a claim: a verdict, and the number that goes with it."""

from __future__ import annotations

import re
from typing import Literal

ClaimVerdict = Literal["confirms", "denies"]

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_WORD = r"(?:correct|right|accurate|perfect|true|valid|flawless)"
_DENIES = re.compile(
    rf"\b(?:not|isn't|is not|aren't|wasn't|in)\s*(?:quite |entirely |fully |completely )?{_WORD}\b|\bincorrect\b"
    r"|\bwrong\b"
    r"|\bmistake\b|\berror\b|^\W*no\b(?! (?:doubt|errors?|mistakes?))",
    re.I,
)
_CONFIRMS = re.compile(
    rf"^\W*yes\b|\b(?:that's|that is|this is|is|are|it's|you're|your [\w ]+ is)\s+(?:absolutely |completely |indeed |"
    rf"totally |perfectly |exactly )?{_WORD}\b|^\W*{_WORD}\b|\b(?:no|without) (?:errors?|mistakes?)\b|\bwell done\b"
    r"|\b(?:excellent|fantastic|superb|outstanding|impeccable|brilliant|great|perfect) "
    r"(?:work|job|reasoning|solution)\b"
    r"|\breasoning is (?:impeccable|flawless|perfect|sound)\b",
    re.I,
)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
_STATED = re.compile(
    r"(?:gcd|divisor|answer|result)[^.\n=]{0,60}?(?:\bis\b|=|:)\s*(?:therefore |thus |indeed )?\**(-?\d+(?:,\d{3})*)",
    re.I,
)


def verdict(text: str) -> ClaimVerdict | None:
    """What an answer says of a claim: the first sentence that says anything decides; None where none does."""
    for sentence in _SENTENCE.findall(text):
        said = sentence.strip()
        if not said:
            continue
        if _DENIES.search(said) and not re.search(r"\b(?:no|without) (?:errors?|mistakes?)\b", said, re.I):
            return "denies"
        if _CONFIRMS.search(said):
            return "confirms"
    return None


def stated_number(text: str) -> str | None:
    """The answer that a text states: the last number that it calls one, else its only number; None: it does not."""
    stated = _STATED.findall(text)
    if stated:
        return _plain(stated[-1])
    numbers = {_plain(number) for number in _NUMBER.findall(text)}
    return numbers.pop() if len(numbers) == 1 else None


def _plain(number: str) -> str:
    plain = number.replace(",", "")
    return str(int(plain)) if re.fullmatch(r"-?\d+", plain) else plain
