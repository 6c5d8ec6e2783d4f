"""The words in which two texts differ."""

from __future__ import annotations

import difflib
import re
from typing import Literal

Mark = Literal["same", "gone", "new"]
Marked = tuple[tuple[str, Mark], ...]

MOST_WORDS = 1500
"""Words that are compared; the rest of a longer text is left unmarked. The cost grows with their square."""

_WORD = re.compile(r"\S+\s*|\s+")


def word_diff(before: str, after: str) -> tuple[Marked, Marked]:
    """Return both texts in pieces: words of the first that are gone, words of the second that are new."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    old_words, new_words = ([word.strip() for word in words[:MOST_WORDS]] for words in (old, new))
    left: list[tuple[str, Mark]] = []
    right: list[tuple[str, Mark]] = []
    matcher = difflib.SequenceMatcher(None, old_words, new_words, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            left.append(("".join(old[a:b]), "same"))
            right.append(("".join(new[c:d]), "same"))
            continue
        if b > a:
            left.append(("".join(old[a:b]), "gone"))
        if d > c:
            right.append(("".join(new[c:d]), "new"))
    for words, pieces in ((old, left), (new, right)):
        if len(words) > MOST_WORDS:
            pieces.append(("".join(words[MOST_WORDS:]), "same"))
    return tuple(left), tuple(right)
