"""The filter of a cell's completions: a line of text, read into terms that all have to hold.

`bees` and `"len>2"` look for a text in completion, prompt and phrase, whatever its case; `/^The/` and
`/bees/i` for a regular expression; `len>200`, `tokens<=5`, `score!=3`, `row<10` and `end=cut` compare;
a `-` before a text or an expression turns it round. Words side by side are one text.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from windowshift.core.contract.errors import WindowshiftError

Field = Literal["len", "score", "tokens", "row"]
FIELDS: tuple[Field, ...] = ("len", "score", "tokens", "row")
ENDS = {"stop": "stop", "cut": "length", "failed": "failed"}
"""How a completion ended, as people write it and as the store does."""

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_COMPARISON = re.compile(r"([A-Za-z_]+)\s*(<=|>=|!=|==|=|<|>)\s*(\S*)")
_QUOTED = re.compile(r'(-?)"([^"]*)(?:"|$)')
_PATTERN = re.compile(r"(-?)/((?:[^/\\]|\\.)*)/(\S*)")
_WORD = re.compile(r"\S+")


class FilterError(WindowshiftError):
    """A filter that cannot be read or applied, in one sentence."""


@dataclass(frozen=True, slots=True)
class Compare:
    """`len>200`: characters, score, tokens or row number against a number."""

    field: Field
    sign: str
    value: float

    def holds(self, value: float | None) -> bool:
        """Tell whether a value fits; one that is missing never does."""
        return value is not None and OPERATORS[self.sign](value, self.value)

    @property
    def shown(self) -> str:
        """The term as it is read."""
        return f"{self.field}{self.sign}{self.value:g}"


@dataclass(frozen=True, slots=True)
class End:
    """`end=cut`: how a completion ended; `finish` is the store's word."""

    finish: str
    other: bool

    @property
    def shown(self) -> str:
        """The term as it is read."""
        word = next(word for word, finish in ENDS.items() if finish == self.finish)
        return f"end{'!=' if self.other else '='}{word}"


@dataclass(frozen=True, slots=True)
class TextTerm:
    """A text that is there, or is not; `text` is casefolded."""

    text: str
    without: bool

    @property
    def shown(self) -> str:
        """The term as it is read."""
        return f"{'not ' if self.without else ''}“{self.text}”"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that is found, or is not."""

    pattern: str
    any_case: bool
    without: bool

    @property
    def shown(self) -> str:
        """The term as it is read."""
        return f"{'not ' if self.without else ''}/{self.pattern}/{'i' if self.any_case else ''}"


Term = Compare | End | TextTerm | Pattern
RowFilter = tuple[Term, ...]


def parse(text: str) -> RowFilter:
    """Read a filter; an empty one has no terms.

    Raises:
        FilterError: it cannot be read; the sentence says where and how it would be right.
    """
    terms: list[Term] = []
    words: list[str] = []
    place = 0

    def end_words() -> None:
        if words:
            joined = " ".join(words)
            without = len(words[0]) > 1 and words[0].startswith("-")
            terms.append(TextTerm(joined[without:].casefold(), without))
            words.clear()

    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        found = _QUOTED.match(text, place)
        if found:
            end_words()
            if found[2]:
                terms.append(TextTerm(found[2].casefold(), bool(found[1])))
        elif text.startswith(("/", "-/"), place):
            end_words()
            found = _PATTERN.match(text, place)
            terms.append(_pattern(found, text[place:]))
        elif found := _COMPARISON.match(text, place):
            end_words()
            terms.append(_comparison(*found.groups()))
        else:
            found = _WORD.match(text, place)
            assert found is not None
            if len(found[0]) > 1 and found[0].startswith("-"):
                end_words()
            words.append(found[0])
        place = found.end() if found else len(text)
    end_words()
    return tuple(terms)


def _pattern(found: re.Match[str] | None, rest: str) -> Pattern:
    if found is None:
        raise FilterError(f'{rest} has no closing /: write /bees/, or "/bees" to look for the text itself')
    minus, pattern, flags = found.groups()
    if flags not in ("", "i"):
        raise FilterError(f"/{pattern}/{flags}: the one flag is i, for any case; a space comes before the next term")
    if not pattern:
        raise FilterError("// is an empty regular expression: write one between the slashes, as in /^The/")
    pattern = pattern.replace(r"\/", "/")
    try:
        with warnings.catch_warnings():  # of a "possible nested set": it means what it says
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        reason = error.msg if isinstance(error, re.error) else str(error)
        where = f" at character {error.pos + 1}" if isinstance(error, re.error) and error.pos is not None else ""
        raise FilterError(f"/{pattern}/ is no regular expression: {reason}{where}") from error
    return Pattern(pattern, flags == "i", bool(minus))


def _comparison(name: str, sign: str, value: str) -> Compare | End:
    sign = "=" if sign == "==" else sign
    field = {"length": "len"}.get(name.lower(), name.lower())
    if field == "end":
        finish = ENDS.get(value.lower())
        if finish is None or sign not in ("=", "!="):
            raise FilterError(f"{name}{sign}{value}: write end=stop, end=cut or end=failed, or != in place of =")
        return End(finish, sign == "!=")
    known = next((one for one in FIELDS if one == field), None)
    if known is None:
        listed = ", ".join((*FIELDS, "end"))
        raise FilterError(
            f"there is no '{name}' to compare: known are {listed}; \"{name}{sign}{value}\" finds the text"
        )
    try:
        number = float(value.replace("−", "-"))
    except ValueError:
        raise FilterError(f"{name}{sign}{value} needs a number, as in {known}{sign}20") from None
    return Compare(known, sign, number)
