"""Lists of texts that a person hands over: a plain text is a list of letters to Python, and never meant as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from windowshift.core.contract.errors import SpecError


def texts(value: Iterable[object], what: str) -> tuple[str, ...]:
    """The texts of a list.

    Args:
        value: what was given.
        what: what it is called, e.g. ``prompts``.

    Raises:
        SpecError: it is one text, or holds something else than texts.
    """
    if isinstance(value, str | bytes):
        shown = repr(value if len(value) <= 40 else value[:40])
        raise SpecError(f"{what} must be a list of texts, and {shown} is one text: write [{shown}]")
    try:
        if isinstance(value, Mapping | Set):
            raise TypeError  # names alone, or in no order
        found = tuple(value)
    except TypeError as error:
        raise SpecError(f"{what} must be a list of texts, not {value!r:.80}") from error
    for place, each in enumerate(found):
        if not isinstance(each, str):
            raise SpecError(f"{what}[{place}] must be a text, not {each!r:.80}")
    return tuple(str(each) for each in found)
