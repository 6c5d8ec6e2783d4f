"""Words, sentences and paragraphs of a text, by rule: nothing is fetched at run time."""

from __future__ import annotations

import unicodedata

import regex

_WORD = regex.compile(r"[\w\p{M}]+(?:['’-][\w\p{M}]+)*")
_SIGN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
_UNSPACED = regex.compile(r"[\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}]")
"""Scripts that are written without spaces, and whose words are several signs."""

_CLOSING = "\"'”’»)]*_"
_END = regex.compile(rf"[.!?…]+[{regex.escape(_CLOSING)}]*(?=\s|$)|[。！？।؟۔]+[」』”’）]*")
_SHORT = """
mr mrs ms dr prof sr jr st rev hon gen col capt lt sgt rep sen gov pres vs etc fig no vol pp ed eds inc ltd co corp dept
est approx apt ave blvd rd mt jan feb mar apr jun jul aug sep sept oct nov dec e.g i.e cf al ca p.s p.p.s a.m p.m u.s
u.k ph.d d.c b.c a.d
"""
_ABBREVIATED = frozenset(_SHORT.split())
_ENDING = frozenset(["etc", "inc", "ltd", "co", "corp", "jr", "sr", "a.m", "p.m"])
"""Abbreviations that may well be the last word of a sentence."""
_NEAR = 80
"""So many characters around a mark tell what it is; to look through a whole text at each of its marks takes forever."""
_NUMBERED = regex.compile(r"^(?:\d+|[a-zA-Z]|[ivxIVX]+)[.)]$")
_BLANK_LINE = regex.compile(r"\n\s*\n")


def words(text: str) -> list[str]:
    """The words of a text; `don't` and `well-known` are one each."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def word_count(text: str) -> int | None:
    """How many words a text has. Chinese and Japanese are counted by signs, as word processors do.

    None where it cannot be told: words of Thai, Lao, Burmese and Khmer have no visible ends.
    """
    if _UNSPACED.search(text):
        return None
    return len(_SIGN.findall(text)) + len(words(_SIGN.sub(" ", text)))


def occurrences(keyword: str, text: str, *, inflected: bool = False) -> int:
    """How often a keyword stands in a text as whole words, whatever its case.

    In scripts without spaces, where no end of a word can be seen, every place counts. `inflected` takes a plural or a
    possessive of it too (`riddles` for `riddle`), but no longer word (`warfare` for `war`).
    """
    wanted, text = unicodedata.normalize("NFC", keyword).split(), unicodedata.normalize("NFC", text)
    if not wanted:
        return 0
    inner = r"\s+".join(map(regex.escape, wanted))
    if _UNSPACED.search(keyword) or _SIGN.search(keyword):
        return len(regex.findall(inner, text, regex.IGNORECASE))
    before = r"(?<![\w\p{M}])" if regex.match(r"\w", wanted[0]) else ""
    ends = regex.match(r"[\w\p{M}]", wanted[-1][-1]) is not None
    after = (r"(?:e?s|['’]s)?" if inflected else "") + r"(?![\w\p{M}])" if ends else ""
    return len(regex.findall(before + inner + after, text, regex.IGNORECASE))


def sentences(text: str) -> list[str]:
    """The sentences of a text: they end at a full stop, a question mark or an exclamation mark.

    A stop after an abbreviation, an initial or the number of a list ends nothing, and neither does one inside a
    number, the name of a file or an address, or an ellipsis after which the sentence goes on. A heading without a
    stop counts with what follows it.
    """
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if not _goes_on(text, start, end):
            found.append(text[start : end.end()].strip())
            start = end.end()
    return [one for one in (*found, text[start:].strip()) if regex.search(r"\w", one)]


def _goes_on(text: str, start: int, end: regex.Match[str]) -> bool:
    """Whether a mark ends no sentence."""
    mark = end.group().rstrip(_CLOSING)
    rest = text[end.end() : end.end() + _NEAR].lstrip()
    if mark in ("...", "…"):
        return rest[:1].islower() and not text.islower()
    if mark != ".":
        return False
    said = text[max(start, end.start() - _NEAR) : end.start()].strip()
    word = said.split()[-1].lstrip("\"'“‘(*_[#>-") if said else ""
    if _NUMBERED.match(f"{word}.") and said.lstrip("*_#> \n-") == word:
        return True  # "1." opens an item
    if regex.fullmatch(r"(?:[A-Z]\.)*[A-Z]", word) and word not in ("I", "A"):
        return True  # an initial, or one of U.S.
    return word.lower() in _ABBREVIATED and not (word.lower() in _ENDING and rest[:1].isupper())


def paragraphs(text: str) -> list[str]:
    """The parts of a text between empty lines."""
    return [part.strip() for part in _BLANK_LINE.split(text) if part.strip()]
