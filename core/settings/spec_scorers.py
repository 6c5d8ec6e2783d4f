"""Scorers that stand in a spec: regular expressions, keywords, characters, words, JSON and lengths."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import regex

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scorer, Scores
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.settings.inspect_task import load_inspect_scorer
from windowshift.core.settings.length import UNCOUNTED
from windowshift.core.settings.python_scorer import load_python_scorer
from windowshift.core.settings.table_file import find_file
from windowshift.core.spec.scorer_section import AnyOf, ScorerSection, Within, WordFile
from windowshift.core.spec.spec import read_text

PATTERN_SECONDS = 1.0
"""How long a regular expression may look at one completion."""
PATIENCE = 20
"""After running away on so many completions it is not tried on more: a run must end."""

Found = tuple[float | None, str | None]
"""A score, or None and why there is none."""


@dataclass(frozen=True)
class RuleScorer:
    """One behaviour by a rule on the completion's text.

    Attributes:
        name: the behaviour.
        behaviour: with its unit and scale.
        rule: what determines the score, as JSON.
        measure: the rule itself.
    """

    name: str
    behaviour: Behaviour
    rule: Mapping[str, Any]
    measure: Callable[[Completion], Found]

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The one."""
        return (self.behaviour,)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "rule", "version": 1, "name": self.name, **self.rule}

    def score(self, sample: Sample) -> Scores:
        """Measure one completion."""
        return {self.name: Score(*self.measure(sample.completion))}


def scorers_of(sections: Sequence[ScorerSection], folder: Path, taken: Sequence[str]) -> list[Scorer]:
    """The scorers that a spec names, one with the role `primary` first.

    Args:
        sections: what stands under `scorers`.
        folder: where files and modules are looked for first.
        taken: the behaviours that are measured already.

    Raises:
        SpecError: a name that is taken, an expression that is none, a file or function that is not there.
    """
    found: list[Scorer] = []
    names = list(taken)
    for place, section in enumerate(sections):
        where = f"scorers[{place}]"
        if section.name in names:
            raise SpecError(f"{where}: '{section.name}' is measured already: give the scorer another name")
        names.append(section.name)
        found.append(_scorer(section, where, folder))
    primary = [place for place, section in enumerate(sections) if section.role == "primary"]
    if len(primary) > 1:
        raise SpecError(f"scorers[{primary[1]}]: '{sections[primary[0]].name}' is the primary behaviour already")
    for place in primary:
        found.insert(0, found.pop(place))
    return found


def behaviour_of(section: ScorerSection) -> Behaviour:
    """The behaviour of a section: rates and shares compare by difference, as counts do unless `scale` says ratio."""
    scale = section.scale or ("rate" if section.is_rate else "difference")
    usual = {"count": "matches", "share": "share"}.get(section.measured or "", "rate" if section.is_rate else "")
    unit, role, group = section.unit or usual or section.name, section.role or "extra", section.group or ""
    return Behaviour(section.name, unit, Scale.from_json(scale), role, group)


def _scorer(section: ScorerSection, where: str, folder: Path) -> Scorer:
    behaviour, measured, fold = behaviour_of(section), section.measured, section.ignore_case
    rule: dict[str, Any] = {"way": section.way}
    if measured is not None:
        rule["measure"] = measured
    if section.python is not None:
        return load_python_scorer(
            section.python, behaviour, where, folder, rate=section.scale == "rate", timeout=section.timeout
        )
    if section.inspect is not None:
        return load_inspect_scorer(
            section.inspect,
            behaviour,
            where,
            folder,
            args=section.args or {},
            target=section.target or "target",
            key=section.key,
            timeout=section.timeout,
        )
    if section.regex is not None:
        rule |= {"pattern": section.regex, "ignore_case": fold}
        seconds = section.timeout or PATTERN_SECONDS
        return RuleScorer(section.name, behaviour, rule, _Pattern(section.regex, fold, str(measured), where, seconds))
    if section.keywords is not None:
        rule |= {"keywords": section.keywords, "ignore_case": fold}
        return RuleScorer(section.name, behaviour, rule, _Keywords(tuple(section.keywords), fold, str(measured)))
    if section.characters is not None:
        chosen = section.characters
        kind, alphabet = ("any_of", chosen.any_of) if isinstance(chosen, AnyOf) else (chosen, "")
        rule |= {"characters": kind, "alphabet": "".join(sorted(set(alphabet)))}
        return RuleScorer(section.name, behaviour, rule, _Characters(kind, frozenset(alphabet), str(measured)))
    if section.words is not None:
        words = _read_words(section.words, where, folder)
        text = json.dumps(sorted(words))
        rule |= {"words": hashlib.sha256(text.encode()).hexdigest()[:16], "ignore_case": fold}
        return RuleScorer(section.name, behaviour, rule, _Words(words, fold, str(measured)))
    if section.is_json is not None:
        rule["is_json"] = section.is_json
        return RuleScorer(section.name, behaviour, rule, _Json(section.is_json))
    assert section.within is not None  # one way is there: the section saw to it
    rule["within"] = section.within.model_dump()
    return RuleScorer(section.name, behaviour, rule, _Lengths(section.within))


class _Pattern:
    """A regular expression, which may take longer than there is time."""

    def __init__(self, pattern: str, ignore_case: bool, measure: str, where: str, seconds: float) -> None:
        self._pattern, self._measure, self._seconds = pattern, measure, seconds
        self._ran_away = 0
        try:
            self._compiled = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
        except (regex.error, OverflowError, RecursionError) as error:
            raise SpecError(f"{where}.regex is not a regular expression: {error}") from error

    def __call__(self, completion: Completion) -> Found:
        if self._ran_away >= PATIENCE:
            return None, f"the expression took too long on {PATIENCE} completions, so it was not tried on this one"
        text = completion.text
        try:
            if self._measure == "any":
                there = self._compiled.search(text, timeout=self._seconds, concurrent=True)
                return float(there is not None), None
            spans = [found.span() for found in self._compiled.finditer(text, timeout=self._seconds, concurrent=True)]
        except TimeoutError:
            self._ran_away += 1
            return None, (
                f"the expression took more than {self._seconds:g} s: nested repeats such as (a+)+ do; write it without"
            )
        except MemoryError:
            self._ran_away += 1
            return None, "the expression took more memory than there is"
        if self._measure == "count":
            return float(len(spans)), None
        if not text:
            return None, "an empty completion has no share"
        return sum(end - start for start, end in spans) / len(text), None


class _Keywords:
    """Keywords as whole words, whatever stands around them."""

    def __init__(self, keywords: tuple[str, ...], ignore_case: bool, measure: str) -> None:
        self._measure = measure
        flags = regex.IGNORECASE if ignore_case else 0
        self._each = [regex.compile(rf"(?<!\w){regex.escape(word)}(?!\w)", flags) for word in dict.fromkeys(keywords)]

    def __call__(self, completion: Completion) -> Found:
        text = completion.text
        if self._measure == "count":
            return float(sum(len(each.findall(text)) for each in self._each)), None
        there = (each.search(text) is not None for each in self._each)
        return float(all(there) if self._measure == "all" else any(there)), None


class _Characters:
    """How many characters are of a class: capitals among letters that have a case, others among all but spaces."""

    def __init__(self, kind: str, alphabet: frozenset[str], measure: str) -> None:
        self._kind, self._alphabet, self._measure = kind, alphabet, measure

    def __call__(self, completion: Completion) -> Found:
        text = completion.text
        if self._kind == "capitals":
            among = [one for one in text if one.isupper() or one.islower()]
            what = "letters"
        elif self._kind == "spaces" or any(one.isspace() for one in self._alphabet):
            among, what = list(text), "characters"
        else:
            among, what = [one for one in text if not one.isspace()], "characters"
        count = sum(map(self._of, among))
        if self._measure == "count":
            return float(count), None
        return (count / len(among), None) if among else (None, f"the completion has no {what}")

    def _of(self, one: str) -> bool:
        match self._kind:
            case "capitals":
                return one.isupper()
            case "letters":
                return one.isalpha()
            case "digits":
                return one.isdigit()
            case "punctuation":
                return unicodedata.category(one).startswith("P")
            case "spaces":
                return one.isspace()
            case "non_ascii":
                return not one.isascii()
        return one in self._alphabet


class _Words:
    """How many of a text's words stand in a list."""

    def __init__(self, words: frozenset[str], ignore_case: bool, measure: str) -> None:
        self._fold = str.casefold if ignore_case else str
        self._words = frozenset(map(self._fold, words))
        self._measure = measure

    def __call__(self, completion: Completion) -> Found:
        said = [self._fold(word) for word in regex.findall(r"\w+(?:['’-]\w+)*", completion.text)]
        count = sum(word in self._words for word in said)
        if self._measure == "share":
            return (count / len(said), None) if said else (None, "the completion has no words")
        return float(count if self._measure == "count" else count > 0), None


class _Json:
    """Whether a completion is JSON, and nothing besides."""

    def __init__(self, wanted: bool | str) -> None:
        self._type: type | None = {"object": dict, "array": list}.get(str(wanted))

    def __call__(self, completion: Completion) -> Found:
        try:
            value = json.loads(completion.text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return 0.0, None
        return float(self._type is None or isinstance(value, self._type)), None


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class _Lengths:
    """Whether every length is in its bounds."""

    def __init__(self, within: Within) -> None:
        self._bounds = {name: bounds for name in Within.model_fields if (bounds := getattr(within, name)) is not None}

    def __call__(self, completion: Completion) -> Found:
        if "tokens" in self._bounds and completion.tokens is None:
            return None, UNCOUNTED
        text = completion.text.strip()
        lengths = {
            "characters": len(text),
            "words": len(text.split()),
            "lines": len(text.splitlines()),
            "tokens": completion.tokens,
        }
        inside = (
            (low is None or lengths[name] >= low) and (high is None or lengths[name] <= high)
            for name, (low, high) in self._bounds.items()
        )
        return float(all(inside)), None


def _read_words(words: list[str] | WordFile, where: str, folder: Path) -> frozenset[str]:
    if isinstance(words, WordFile):
        path = find_file(words.file, folder)
        listed = [line.strip() for line in read_text(path, "word file").splitlines()]
        words = [word for word in listed if word and not word.startswith("#")]
        if not words:
            raise SpecError(f"{path} has no words: one a line")
    for word in words:
        require_whole(word, where)
        if not regex.fullmatch(r"\w+(?:['’-]\w+)*", word.strip()):
            raise SpecError(f"{where}.words: '{word}' is not one word; look for phrases with  keywords")
    return frozenset(word.strip() for word in words)
