"""The dagger: the mark of a number that rests on completions which were cut off at the token limit."""

from __future__ import annotations

from windowshift.core.contract.scale import Scale

DAGGER = "†"


def dagger(*truncated: int) -> str:
    """The mark where any of the counts behind a number, of completions that were cut off, is above 0; else nothing."""
    return DAGGER if any(truncated) else ""


def counted_dagger(truncated: int) -> str:
    """The mark with the count, `†3`; nothing where none was cut off."""
    return f"{DAGGER}{truncated}" if truncated else ""


def dagger_note(scale: Scale, *, narrow: bool = False) -> str:
    """What it means; `narrow`: in a line of a screen."""
    what = "truncated completions" if narrow else "completions that were truncated at the token limit"
    return f"{DAGGER} rests on {what}; {scale.words.truncated}"
