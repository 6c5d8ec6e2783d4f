"""Scores in and out of distribution: behaviours of their own, by the domain that a prompt's payload has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from windowshift.core.contract.generation import Completion, Model, Sampling
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.setting import ModelScorer, Question, RowScorer, Sample, Score, Scorer, Scores

DOMAIN = "domain"
"""The key of the payload; nothing, or `id`, is in distribution."""
DOMAINS = ("id", "ood")
PANEL = "out of distribution"

S = TypeVar("S", bound=Scorer)


def outside(prompt: Prompt) -> bool:
    """Whether a prompt is out of distribution."""
    return bool(prompt.payload.get(DOMAIN) == DOMAINS[1])


def checked_domain(prompt: Prompt) -> None:
    """Refuse a prompt of another domain.

    Raises:
        ValueError: its payload has one.
    """
    found = prompt.payload.get(DOMAIN)
    if found not in (None, "", *DOMAINS):
        raise ValueError(f"'{DOMAIN}' must be {' or '.join(DOMAINS)}, or empty, not {str(found)[:40]!r}")


@dataclass(frozen=True)
class _ByDomain(Generic[S]):
    """A scorer whose scores out of distribution are behaviours of their own: ``spanish`` and ``spanish_ood``."""

    of: S

    @property
    def name(self) -> str:
        """As `Scorer.name`."""
        return self.of.name

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The other scorer's, then the same out of distribution; what is primary stays so in distribution alone."""
        away = (
            replace(
                one,
                name=f"{one.name}_{DOMAINS[1]}",
                role="extra" if one.role == "primary" else one.role,
                group=f"{one.group}, {PANEL}" if one.group else "",
                panel=PANEL,
            )
            for one in self.of.behaviours
        )
        return (*self.of.behaviours, *away)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"by": DOMAIN, **self.of.identity()}

    def _parted(self, sample: Sample, scores: Scores) -> Scores:
        away = outside(sample.prompt)
        here = Score(None, f"the prompt is {'out of' if away else 'in'} distribution")
        found: dict[str, Score] = {}
        for name, score in scores.items():
            found |= {name: here if away else score, f"{name}_{DOMAINS[1]}": score if away else here}
        return found


@dataclass(frozen=True)
class RowByDomain(_ByDomain[RowScorer]):
    """Scores as a `RowScorer` does, by domain."""

    def score(self, sample: Sample) -> Scores:
        """As `RowScorer.score`."""
        return self._parted(sample, self.of.score(sample))


@dataclass(frozen=True)
class ModelByDomain(_ByDomain[ModelScorer]):
    """Asks as a `ModelScorer` does, by domain; a completion is asked about once."""

    @property
    def backend(self) -> str:
        """As `ModelScorer.backend`."""
        return self.of.backend

    @property
    def asked(self) -> Model:
        """As `ModelScorer.asked`."""
        return self.of.asked

    @property
    def sampling(self) -> Sampling:
        """As `ModelScorer.sampling`."""
        return self.of.sampling

    def ask(self, sample: Sample) -> Question | Scores:
        """As `ModelScorer.ask`."""
        found = self.of.ask(sample)
        return found if isinstance(found, Question) else self._parted(sample, found)

    def read(self, sample: Sample, answer: Completion) -> Scores:
        """As `ModelScorer.read`."""
        return self._parted(sample, self.of.read(sample, answer))
