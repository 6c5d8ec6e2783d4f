"""Settings and scorers: prompts, behaviours, what measures them, and the condition groups that make sense for them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from windowshift.core.contract.conditions import Condition
from windowshift.core.contract.generation import Completion, Model, Sampling
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour


@dataclass(frozen=True, slots=True)
class Score:
    """One behaviour of one completion.

    A `value` of None is a missing measurement, and `reason` says why; it is never a 0. `evidence` is JSON that a
    person sees beside the completion: which test failed, what was expected, what came, what a judge said. `weight` is
    how many things the value is a mean of, where the behaviour says what it `counts` (the instructions of a prompt):
    so many times it stands in the cell's mean.
    """

    value: float | None
    reason: str | None = None
    evidence: Mapping[str, Any] | None = None
    weight: int = 1


Scores = Mapping[str, Score]
"""Behaviour → score."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a scorer sees of one completion, which did not fail.

    `condition` is the name of the condition that it was written under, empty where there is none; `phrase` its
    prefix.
    """

    prompt: Prompt
    completion: Completion
    condition: str = ""
    phrase: str | None = None


@runtime_checkable
class Scorer(Protocol):
    """Measures one or more behaviours on completions. Each is of one of four kinds.

    `RowScorer` for a function of one completion that takes well under a millisecond; `BatchScorer` for what is slow,
    takes many at once or runs processes; `ModelScorer` for what asks a model; `DerivedScorer` for what follows from
    the scores of others. Whatever a scorer raises, and a time
    limit that it runs into, is a missing score with that reason.
    """

    @property
    def name(self) -> str:
        """What people read."""
        ...

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """What it measures, the primary behaviour first."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that determines a score besides the sample, as JSON, for job hashes."""
        ...


@runtime_checkable
class RowScorer(Scorer, Protocol):
    """Scores in the runner's own process, as completions arrive; one that proves slow goes on beside the run."""

    def score(self, sample: Sample) -> Scores:
        """Score one completion."""
        ...


@runtime_checkable
class BatchScorer(Scorer, Protocol):
    """Scores beside the run, off its event loop.

    The attributes may be fields, properties or class attributes.
    """

    @property
    def batch_size(self) -> int:
        """How many samples a call takes at most."""
        ...

    @property
    def workers(self) -> int:
        """How many calls go on at once."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take; None: no limit."""
        ...

    @property
    def process(self) -> bool:
        """Whether each worker is a process of its own, which is ended at the time limit; else it is a thread.

        The scorer is pickled for it. Python that may never return (a regular expression of a person's own) belongs
        there; what starts processes itself and ends them in time does not need it.
        """
        ...

    def score_batch(self, samples: Sequence[Sample]) -> Sequence[Scores] | Awaitable[Sequence[Scores]]:
        """Score some completions, in their order; a coroutine runs on an event loop of its worker's own.

        A call that raises is made again for each of its samples alone.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a `ModelScorer` asks about one completion; `logprobs` as in `GenerateRequest`."""

    text: str
    logprobs: int | None = None


@runtime_checkable
class ModelScorer(Scorer, Protocol):
    """Scores by asking a model. Answers are kept, cached by content, paid once and counted to the budget.

    Its `identity` holds ``backend``, ``model`` and ``sampling`` as the inputs of any sampling job do.
    """

    @property
    def backend(self) -> str:
        """The name of the backend that answers."""
        ...

    @property
    def asked(self) -> Model:
        """The model that answers."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How it answers; greedily, so that an answer can be cached."""
        ...

    def ask(self, sample: Sample) -> Question | Scores:
        """The question about one completion; its scores, all of them, where there is nothing to ask."""
        ...

    def read(self, sample: Sample, answer: Completion) -> Scores:
        """Read an answer, which did not fail; one that says nothing usable is a missing score."""
        ...


@runtime_checkable
class DerivedScorer(Scorer, Protocol):
    """Scores by other scores of the same completion: misaligned is what is badly aligned, and coherent."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The behaviours whose scores it needs; other scorers measure them."""
        ...

    def derive(self, scores: Scores) -> Scores:
        """Score one completion, which has scores of all that is read, some of them missing."""
        ...


class Setting(Protocol):
    """What an experiment is about. Found by name through the entry points `windowshift.settings`."""

    @property
    def name(self) -> str:
        """The name in specs."""
        ...

    @property
    def scorers(self) -> Sequence[Scorer]:
        """The scorers, the one of the primary behaviour first."""
        ...

    def conditions(self) -> Mapping[str, Condition]:
        """The conditions that a spec may name, in their natural order."""
        ...

    def default_prompts(self) -> str | None:
        """The prompt source where a spec names none; None: a spec must name one.

        A setting whose rehearsal has a world of its own names it here, and as its attribute `rehearsal`: the
        embedded model that ``model: microworld`` then is. Its attribute `answer_tokens` is how long answers may be
        where it is a guard of an experiment, whose own answers may be of one token.
        """
        ...
