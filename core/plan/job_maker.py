"""What plans D and vectors needs of what plans the grid: jobs, prompts, conditions and the scorers that jobs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from windowshift.core.contract.conditions import Channel, Condition, NoPrefix
from windowshift.core.contract.controls import EmptySystem
from windowshift.core.contract.setting import Scorer
from windowshift.core.plan.jobs import Job
from windowshift.core.settings.prompt_source import DrawnPrompts
from windowshift.core.spec.dose import SteeringDose
from windowshift.core.spec.grid_spec import GridSpec
from windowshift.core.spec.spec import Spec

ConditionIdentity = tuple[dict[str, Any], tuple[str, ...]]
"""A condition's identity with jobs in place of names, and the jobs that have to be done before."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where D's prompts and the eval prompts come from, as job inputs have it."""

    data: dict[str, Any]
    evaluation: dict[str, Any]


class JobMaker(Protocol):
    """Makes the jobs of one spec; the same job asked for twice is the same job."""

    spec: Spec
    grid: GridSpec
    drawn: DrawnPrompts
    model: dict[str, Any]
    jobs: dict[str, Job]
    scorers: Sequence[Scorer]

    @property
    def read_scores(self) -> dict[str, Any]:
        """What determines the scores that a job reads, as its inputs have it; empty for those of `length`."""
        ...

    def add(self, job: Job) -> Job:
        """Take a job into the plan; the one that is there already, where there is one."""
        ...

    def know(self, condition: Condition, identity: Mapping[str, Any] | None = None) -> None:
        """Let the run find a condition by its identity in job inputs."""
        ...

    def chosen(self, seed: int) -> Chosen:
        """Where the prompts of a seed come from."""
        ...

    def sampled(
        self, use: str, condition: Condition, seed: int, channel: Channel, place: dict[str, Any]
    ) -> ConditionIdentity:
        """Inputs of a job that samples the base model, and its parents so far."""
        ...

    def evaluate(
        self,
        condition: Condition,
        seed: int,
        chosen: Chosen,
        channel: Channel,
        *,
        label: str,
        parent: Job | None = None,
        step: int = 0,
    ) -> Job:
        """The job that samples the eval prompts under a condition, from the base model or from an adapter."""
        ...

    def score(self, sampled: Job, rows: int) -> None:
        """Score a job's completions by every scorer."""
        ...

    def score_job(self, scorer: Scorer, sampled: Job, rows: int) -> Job:
        """The job that scores a job's completions by one scorer."""
        ...


def channel_of(condition: Condition, channel: Channel) -> Channel:
    """The channel of a condition's prefix; one without a prefix is the same in either."""
    bare = isinstance(condition, NoPrefix | EmptySystem) or (
        isinstance(condition, SteeringDose) and condition.prefix is None
    )
    return "user" if bare else channel
