"""The language of a text, told by a model that comes with its package: nothing is fetched at run time."""

from __future__ import annotations

from functools import cache
from typing import Any

_COMMON = """
ar bg bn cs da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv ml mr ne nl no pa pl pt ro ru sk sl sv sw ta
te th tl tr uk ur vi zh
"""
COMMON = frozenset(_COMMON.split())
"""The languages that a text is told apart by, unless another one is asked for: the model knows many more, whose short
texts look alike (Catalan and Spanish, Cantonese and Chinese)."""

MARGIN = 3.0
"""How much likelier (natural logarithm) the likeliest language must be than the next: twenty times. "Hello." is not."""
_UNKNOWN = -1e37  # the score of a text in which the model knows nothing


def language(text: str, wanted: str | None = None) -> str | None:
    """The language of a text, among the common ones and `wanted`, as its ISO 639-1 code.

    None where it cannot be told: the text has no letters, none that the model knows, or so few that two languages are
    about as likely. Capitals are looked at as small letters: the model learned from texts that have few of them.
    """
    if not any(character.isalpha() for character in text):
        return None
    also = wanted if wanted is not None and wanted not in COMMON else None
    (code, score), (_, next_score) = _identifier(also).rank(text.lower())[:2]
    return None if score < _UNKNOWN or score - next_score < MARGIN else str(code)


def known(code: str) -> bool:
    """Whether the model knows a language."""
    return code in _identifier(None, restricted=False).labels


@cache
def _identifier(also: str | None, restricted: bool = True) -> Any:
    # Late: it takes half a second, and only settings that ask for it need it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    made = LanguageIdentifier.from_model_file(MODEL_FILE)
    if restricted:
        made.set_languages([*sorted(COMMON), *([also] if also else [])])
    return made
