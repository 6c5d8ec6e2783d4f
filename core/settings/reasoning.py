"""Scores of what a model thought, for specs that ask for them: behaviours of their own beside the answer's."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.setting import BatchScorer, RowScorer, Sample, Score, Scorer, Scores

ScoredText = Literal["answer", "reasoning", "both"]
"""What a spec has scored: the answers alone, unless it says otherwise."""

_MARKS = 2  # tokens that a thought of nothing has: what opens it, and what closes it
S = TypeVar("S", bound=Scorer)


@dataclass(frozen=True)
class _Thoughts(Generic[S]):
    """A scorer of answers, put to reasoning; ``length_chars`` becomes ``reasoning_length_chars``."""

    of: S
    first: bool = False

    @property
    def name(self) -> str:
        """As `Scorer.name`."""
        return f"reasoning {self.of.name}"

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The other scorer's, under names of their own."""
        return tuple(
            replace(each, name=_name(each.name), role=each.role if self.first else "extra")
            for each in self.of.behaviours
        )

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"of": "reasoning", **self.of.identity()}

    def _missing(self, sample: Sample) -> Scores | None:
        """The scores where there is nothing to score; None where there is."""
        completion = sample.completion
        if completion.reasoning is None:
            reason = "the model did not think"
        elif not completion.reasoning and completion.reasoning_tokens > _MARKS:
            reason = "the server does not show what the model thought"
        else:
            return None
        return {each.name: Score(None, reason) for each in self.behaviours}


@dataclass(frozen=True)
class ThoughtRowScorer(_Thoughts[RowScorer]):
    """Scores reasoning as a `RowScorer` scores answers."""

    def score(self, sample: Sample) -> Scores:
        """As `RowScorer.score`."""
        missing = self._missing(sample)
        return _named(self.of.score(_thought(sample))) if missing is None else missing


@dataclass(frozen=True)
class ThoughtBatchScorer(_Thoughts[BatchScorer]):
    """Scores reasoning as a `BatchScorer` scores answers."""

    @property
    def batch_size(self) -> int:
        """As `BatchScorer.batch_size`."""
        return self.of.batch_size

    @property
    def workers(self) -> int:
        """As `BatchScorer.workers`."""
        return self.of.workers

    @property
    def timeout(self) -> float | None:
        """As `BatchScorer.timeout`."""
        return self.of.timeout

    @property
    def process(self) -> bool:
        """As `BatchScorer.process`."""
        return self.of.process

    def score_batch(self, samples: Sequence[Sample]) -> Sequence[Scores] | Awaitable[Sequence[Scores]]:
        """As `BatchScorer.score_batch`."""
        missing = [self._missing(sample) for sample in samples]
        thought = [_thought(sample) for sample, scores in zip(samples, missing, strict=True) if scores is None]
        found = self.of.score_batch(thought) if thought else []
        if not inspect.isawaitable(found):
            return _filled(missing, found)

        async def wait() -> Sequence[Scores]:
            return _filled(missing, await found)

        return wait()


def scored_parts(scorers: Iterable[Scorer], scored: ScoredText) -> tuple[Scorer, ...]:
    """The scorers of what a spec has scored, those of its primary part first; models judge answers alone."""
    own = tuple(scorers)
    if scored == "answer":
        return own
    first = scored == "reasoning"
    thought: list[Scorer] = []
    for scorer in own:
        if isinstance(scorer, BatchScorer):
            thought.append(ThoughtBatchScorer(scorer, first))
        elif isinstance(scorer, RowScorer):
            thought.append(ThoughtRowScorer(scorer, first))
    if scored == "both":
        return (*own, *thought)
    return (*thought, *(scorer for scorer in own if not isinstance(scorer, BatchScorer | RowScorer)))


def _thought(sample: Sample) -> Sample:
    completion = sample.completion
    text, tokens = completion.reasoning or "", completion.reasoning_tokens
    return replace(sample, completion=replace(completion, text=text, tokens=tokens, logprob=None, reasoning=None))


def _filled(missing: Sequence[Scores | None], found: Sequence[Scores]) -> list[Scores]:
    rest = iter(found)
    return [_named(next(rest)) if scores is None else scores for scores in missing]


def _named(scores: Scores) -> Scores:
    return {_name(name): score for name, score in scores.items()}


def _name(behaviour: str) -> str:
    return f"reasoning_{behaviour}"
