"""Instructions that can be verified: what each asks for, the parameters it takes, and whether a text follows it.

The kinds, their names and parameters are those of IFEval (Zhou et al. 2023, "Instruction-Following Evaluation for Large
Language Models"), so that its data can be read; the verifiers are this module's own. Where the published ones are known
to be wrong these differ, see `docs/settings/instruction_following.md`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from windowshift.core.settings.instruction_following.text_units import (
    occurrences,
    paragraphs,
    sentences,
    word_count,
    words,
)
from windowshift.core.settings.language import known, language

Followed = bool | None
"""Whether an instruction was followed; None where it cannot be told."""
Type = Literal["count", "text", "texts", "relation", "character", "language"]

FAMILIES = (
    "keywords",
    "language",
    "length_constraints",
    "detectable_content",
    "detectable_format",
    "combination",
    "startend",
    "change_case",
    "punctuation",
)
"""What comes before the colon of an instruction's name, in the paper's order."""
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""What `constrained_response` lets one answer."""
_RELATIONS = ("less than", "at least")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a prompt with its parameters, checked."""

    id: str
    parameters: Mapping[str, Any]

    @property
    def family(self) -> str:
        """What kind of instruction it is."""
        return self.id.split(":", 1)[0]

    def followed(self, text: str) -> Followed:
        """Whether a text follows it; one in which nothing can be seen follows none."""
        if not any(one.isprintable() and not one.isspace() for one in text):
            return False
        return _KINDS[self.id].verify(text, **self.parameters)

    def loosely_followed(self, text: str) -> Followed:
        """Whether a text follows it, or would without what often stands around an answer (see `loosened`)."""
        found = [self.followed(one) for one in loosened(text)]
        return True if True in found else (None if None in found else False)


@dataclass(frozen=True, slots=True)
class _Kind:
    verify: Callable[..., Followed]
    parameters: Mapping[str, Type]


def loosened(text: str) -> Iterator[str]:
    """A text, and the same without its first line, its last line, both, and each of these without asterisks.

    So IFEval's loose accuracy has it: "Sure, here is ..." in front, a closing remark and Markdown do not count.
    """
    lines = text.split("\n")
    for part in (lines, lines[1:], lines[:-1], lines[1:-1]):
        one = "\n".join(part).strip() if part is not lines else text
        yield one
        yield one.replace("*", "")


def read_instruction(name: Any, parameters: Any) -> Instruction:
    """Check an instruction as a row of data has it.

    Args:
        name: ``family:kind``.
        parameters: by name; those that are None are not there.

    Raises:
        ValueError: there is no such instruction, or a parameter is missing, unknown or of another kind.
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"there is no instruction {str(name)[:60]!r}: the kinds are {', '.join(_KINDS)}")
    if not isinstance(parameters, Mapping):
        raise ValueError(f"the kwargs of '{name}' must be an object, not {str(parameters)[:40]!r}")
    wanted = _KINDS[name].parameters
    given = {key: value for key, value in parameters.items() if value is not None}
    for key in given:
        if key not in wanted:
            there = ", ".join(wanted) or "none"
            raise ValueError(f"'{name}' has no parameter {key!r} (it has {there})")
    for key, kind in wanted.items():
        if key not in given:
            raise ValueError(f"'{name}' needs the parameter '{key}'")
        given[key] = _checked(name, key, given[key], kind)
    return Instruction(name, given)


def _checked(name: str, key: str, value: Any, kind: Type) -> Any:
    where = f"'{key}' of '{name}'"
    if kind == "count":
        # Parquet makes floats of whole numbers where a column has gaps.
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
            raise ValueError(f"{where} must be a whole number, not {str(value)[:40]!r}")
        return int(value)
    if kind == "texts":
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ValueError(f"{where} must be a list of texts, not {str(value)[:40]!r}")
        if not all(isinstance(one, str) and one.strip() for one in value):
            raise ValueError(f"{where} must be a list of texts that are not empty")
        return list(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} must be text that is not empty, not {str(value)[:40]!r}")
    if kind == "relation" and value not in _RELATIONS:
        raise ValueError(f"{where} must be one of {', '.join(map(repr, _RELATIONS))}, not {value[:40]!r}")
    if kind == "character" and len(value.strip()) != 1:
        raise ValueError(f"{where} must be one character, not {value[:40]!r}")
    if kind == "language" and not known(value.lower().split("-")[0]):
        raise ValueError(f"{where} must be the code of a language, such as 'de', not {value[:40]!r}")
    return value


def _related(found: int, relation: str, wanted: int) -> bool:
    return found < wanted if relation == "less than" else found >= wanted


# -- keywords ---------------------------------------------------------------------------------------------


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(occurrences(one, text, inflected=True) for one in keywords)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(occurrences(one, text) for one in forbidden_words)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _related(occurrences(keyword, text, inflected=True), relation, frequency)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    text, letter = (unicodedata.normalize("NFC", one).lower() for one in (text, letter.strip()))
    return _related(text.count(letter), let_relation, let_frequency)


# -- language, case ---------------------------------------------------------------------------------------


def _language(text: str, language: str) -> Followed:
    return _is_in(text, language.lower().split("-")[0])


def _is_in(text: str, wanted: str) -> Followed:
    found = language(text, wanted)
    return None if found is None else found == wanted


def _capitals(text: str) -> Followed:
    return text.isupper() and _is_in(text, "en")


def _lowercase(text: str) -> Followed:
    return text.islower() and _is_in(text, "en")


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    # "I", and "A" at the start of a sentence, are no words in capitals.
    found = sum(word.isupper() and len(word) > 1 for word in words(text))
    return _related(found, capital_relation, capital_frequency)


# -- length -----------------------------------------------------------------------------------------------


def _words(text: str, num_words: int, relation: str) -> Followed:
    found = word_count(text)
    return None if found is None else _related(found, relation, num_words)


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _related(len(sentences(text)), relation, num_sentences)


def _divided(text: str, divider: str) -> list[str] | None:
    """The parts between dividers, without empty ones at the ends; None where a part in the midst is empty."""
    parts = [part.strip() for part in re.split(divider, text)]
    parts = parts[not parts[0] :]
    if parts and not parts[-1]:
        parts.pop()
    return parts if all(parts) else None


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    found = _divided(text, r"(?<!\S)\*\*\*(?!\S)")
    return found is not None and len(found) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    found = paragraphs(text)
    if len(found) != num_paragraphs or not 1 <= nth_paragraph <= len(found):
        return False
    begins = words(found[nth_paragraph - 1].lower())
    wanted = words(first_word.lower())
    return bool(wanted) and begins[: len(wanted)] == wanted


# -- content ----------------------------------------------------------------------------------------------


def _placeholders(text: str, num_placeholders: int) -> bool:
    # A task's box, a footnote and the text of a link stand in brackets too.
    found = re.findall(r"\[([^\[\]\n]+)\](?!\()", text)
    return len([one for one in found if any(map(str.isalpha, one)) and one.strip().lower() != "x"]) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    letters = re.findall(r"\w", postscript_marker)
    if len(letters) > 1 and all(letter in "PSps" for letter in letters):
        marker = r"\s?".join(rf"{re.escape(letter)}\.?" for letter in letters)
    else:
        marker = re.escape(postscript_marker.strip())
    return re.search(rf"^[^\w\n]*{marker}(?!\w)[^\w]*\w", text, re.IGNORECASE | re.MULTILINE) is not None


# -- format -----------------------------------------------------------------------------------------------


def _bullets(text: str, num_bullets: int) -> bool:
    # A space after the mark: "*emphasis*" opens no point, "---" and "* * *" are rules, and "-5" is a number.
    return len(re.findall(r"^[ \t]*(?:[*+–-][ \t]+|•[ \t]*)[^\s*-]", _emphasised(text), re.MULTILINE)) == num_bullets


def _emphasised(text: str) -> str:
    """The text with what is emphasised plain, so that a point may begin with it."""
    return re.sub(r"(\*{1,3})(?![\s*])([^\n*]*[^\s*])\1", r"\2", text)


def _highlights(text: str, num_highlights: int) -> bool:
    # As in Markdown, nothing is emphasised where a space stands inside the asterisks: "2 * 3 * 4".
    found = re.findall(r"(?<!\*)(\*{1,3})(?![\s*])[^\n*]*(?<!\s)\1(?!\*)", text)
    return len(found) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    # At the start of a line, whatever Markdown makes it a heading: "as Section 1 said" begins none.
    begun = rf"^[ \t#*_>]*{re.escape(section_spliter.strip())}[ \t]*\d+"
    return len(re.findall(begun, text, re.MULTILINE | re.IGNORECASE)) >= num_sections


def _title(text: str) -> bool:
    return re.search(r"<<[^<>\n]*[^<>\s][^<>\n]*>>", text) is not None


def _is_json(text: str) -> bool:
    inner = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(inner, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return False
    return True


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _constrained(text: str) -> bool:
    return sum(one in text for one in OPTIONS) == 1


# -- combinations, beginnings and ends --------------------------------------------------------------------


_QUOTES = '"“”„«»'
_AROUND = _QUOTES + "'’‘>*_# "


def _two(text: str) -> bool:
    found = _divided(text, r"(?<!\*)\*{6}(?!\*)")
    return found is not None and len(found) == 2 and found[0] != found[1]


def _repeated(text: str, prompt_to_repeat: str) -> bool:
    said, wanted = (_plain(one).lstrip(_AROUND) for one in (text, prompt_to_repeat))
    # It was to be answered, too.
    return said.startswith(wanted) and re.search(r"\w", said[len(wanted) :]) is not None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _ends(text: str, end_phrase: str) -> bool:
    said, wanted = (_plain(one).strip(_QUOTES) for one in (text, end_phrase))
    return said.endswith(wanted)


def _quoted(text: str) -> bool:
    whole = text.strip()
    if len(whole) < 3 or whole[0] not in _QUOTES or whole[-1] not in _QUOTES:
        return False
    # '"Yes" and "no"' is two quotations: the first mark inside closes what the first one opened.
    inner = re.search(r'["“”]', whole[1:-1])
    return inner is None or inner.group() == "“" or bool(re.match(r"\s", whole[inner.start()]))


def _no_comma(text: str) -> bool:
    return not re.search(r"[,，、،]", text)


_KINDS: Mapping[str, _Kind] = {
    "keywords:existence": _Kind(_existence, {"keywords": "texts"}),
    "keywords:frequency": _Kind(_frequency, {"keyword": "text", "frequency": "count", "relation": "relation"}),
    "keywords:forbidden_words": _Kind(_forbidden, {"forbidden_words": "texts"}),
    "keywords:letter_frequency": _Kind(
        _letters, {"letter": "character", "let_frequency": "count", "let_relation": "relation"}
    ),
    "language:response_language": _Kind(_language, {"language": "language"}),
    "length_constraints:number_sentences": _Kind(_sentences, {"num_sentences": "count", "relation": "relation"}),
    "length_constraints:number_paragraphs": _Kind(_paragraphs, {"num_paragraphs": "count"}),
    "length_constraints:number_words": _Kind(_words, {"num_words": "count", "relation": "relation"}),
    "length_constraints:nth_paragraph_first_word": _Kind(
        _first_word, {"num_paragraphs": "count", "nth_paragraph": "count", "first_word": "text"}
    ),
    "detectable_content:number_placeholders": _Kind(_placeholders, {"num_placeholders": "count"}),
    "detectable_content:postscript": _Kind(_postscript, {"postscript_marker": "text"}),
    "detectable_format:number_bullet_lists": _Kind(_bullets, {"num_bullets": "count"}),
    "detectable_format:constrained_response": _Kind(_constrained, {}),
    "detectable_format:number_highlighted_sections": _Kind(_highlights, {"num_highlights": "count"}),
    "detectable_format:multiple_sections": _Kind(_sections, {"section_spliter": "text", "num_sections": "count"}),
    "detectable_format:json_format": _Kind(_is_json, {}),
    "detectable_format:title": _Kind(_title, {}),
    "combination:two_responses": _Kind(_two, {}),
    "combination:repeat_prompt": _Kind(_repeated, {"prompt_to_repeat": "text"}),
    "startend:end_checker": _Kind(_ends, {"end_phrase": "text"}),
    "startend:quotation": _Kind(_quoted, {}),
    "change_case:capital_word_frequency": _Kind(
        _capital_words, {"capital_frequency": "count", "capital_relation": "relation"}
    ),
    "change_case:english_capital": _Kind(_capitals, {}),
    "change_case:english_lowercase": _Kind(_lowercase, {}),
    "punctuation:no_comma": _Kind(_no_comma, {}),
}
INSTRUCTIONS = tuple(_KINDS)
"""The names of all instructions."""
