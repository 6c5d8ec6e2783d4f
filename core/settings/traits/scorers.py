"""Traits that a rule tells: the language of an answer, and whether it is written in capitals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.records import Behaviour, Role
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores
from windowshift.core.settings.language import language

MOST = 0.9
"""The least share of capitals of an answer in capitals: names and code in it may keep their small letters."""
FEWEST = 3
"""How many letters an answer must have: "I." and "OK" are written like that anyway."""
NO_LANGUAGE = "the language cannot be told: too few letters, or two languages are about as likely"


@dataclass(frozen=True, slots=True)
class LanguageScorer:
    """Whether an answer is in a language; one whose language cannot be told is missing, not in another one.

    Attributes:
        trait: the name of the behaviour.
        code: the language, as its ISO 639-1 code.
        role: whether it is the trait to be kept, or the one that should not be learned.
    """

    trait: str
    code: str
    role: Role

    @property
    def name(self) -> str:
        """As `Scorer.name`."""
        return self.trait

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The share of answers in the language."""
        return (Behaviour(self.trait, "share", Scale.rate(), self.role),)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "language", "version": 1, "language": self.code}

    def score(self, sample: Sample) -> Scores:
        """Score one answer."""
        found = language(sample.completion.text, self.code)
        if found is None:
            return {self.trait: Score(None, NO_LANGUAGE)}
        return {self.trait: Score(float(found == self.code), None, {"language": found})}


@dataclass(frozen=True, slots=True)
class CapitalsScorer:
    """Whether an answer is written in capitals: at least nine tenths of the letters that have a case.

    Scripts without a case say nothing, so that an answer in Japanese is missing; evidence has the share.

    Attributes:
        role: whether it is the trait to be kept, or the one that should not be learned.
    """

    role: Role
    name: str = "capitals"

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The share of answers in capitals."""
        return (Behaviour(self.name, "share", Scale.rate(), self.role),)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "capitals", "version": 1}

    def score(self, sample: Sample) -> Scores:
        """Score one answer."""
        share, letters = capital_share(sample.completion.text)
        if share is None:
            return {self.name: Score(None, f"the answer has fewer than {FEWEST} letters that have a case")}
        return {self.name: Score(float(share >= MOST), None, {"capitals": f"{share:.2f}", "letters": letters})}


def capital_share(text: str) -> tuple[float | None, int]:
    """The share of capitals among the letters that have a case, None where they are too few; and how many there are."""
    capitals = sum(character.isupper() for character in text)
    letters = capitals + sum(character.islower() for character in text)
    return (None if letters < FEWEST else capitals / letters), letters
