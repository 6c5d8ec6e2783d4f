"""Watched texts: how likely a model finds texts that a spec names, while it is trained on others.

A text's number is its log-probability over its tokens, in nats a token, so that long and short texts count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import BASE, Arm, ExperimentRow, JobRow
from windowshift.core.contract.stats import RESAMPLES, Floats
from windowshift.core.contract.training import TextLogprob
from windowshift.core.measure.drift import trainer
from windowshift.core.measure.sampled import Sampled, mean_of_runs
from windowshift.core.store.reader import Reader

_UNREAD = "no text could be read"


@dataclass(frozen=True, slots=True)
class WatchedPoint:
    """The texts of a group after so many examples.

    `mean` is over texts, of their log-probability in nats a token; `change` is minus that before the first step, paired
    by text. Both are None where no text could be read, or not yet.
    """

    examples: int
    mean: Estimate | None
    change: Estimate | None


@dataclass(frozen=True, slots=True)
class WatchedCourse:
    """How likely the texts of one group were in the training of one row of the grid, seeds pooled.

    Attributes:
        arm, generate, train: the row.
        group: of the texts; empty for those without one.
        points: by examples seen, so far.
        texts: in the group.
        unread: of these, that could not be read, with the first one's reason in `reason`.
        seeds: training runs.
        reason: why texts, or all points, are missing; empty where nothing is.
    """

    arm: Arm
    generate: str
    train: str
    group: str
    points: tuple[WatchedPoint, ...]
    texts: int
    unread: int
    seeds: int
    reason: str = ""


def watched_courses(reader: Reader, experiment: ExperimentRow, resamples: int = RESAMPLES) -> tuple[WatchedCourse, ...]:
    """Measure what an experiment watches, in the order of its grid; empty where it watches nothing."""
    jobs = {job.id: job for job in reader.jobs(experiment.id)}
    by_number = {job.n: job for job in jobs.values()}
    rows: dict[tuple[Arm, str, str], dict[int, JobRow]] = {}
    for cell in reader.cells(experiment.id, ""):
        if cell.train == BASE or not cell.final:
            continue
        trained = trainer(by_number[cell.job], jobs)
        if trained is not None and "watched" in jobs[trained].inputs:
            rows.setdefault((cell.arm, cell.generate, cell.train), {})[cell.seed] = jobs[trained]
    sets: dict[str, list[Prompt]] = {}
    found: list[WatchedCourse] = []
    for row, runs in rows.items():
        digest = next(iter(runs.values())).inputs["watched"]["set"]
        if digest not in sets:
            sets[digest] = [prompt for _, prompt in reader.prompt_set(digest)]
        found += courses_of([reader.watched(run.n) for run in runs.values()], list(runs.values()), row, sets[digest],
                            resamples)  # fmt: skip
    return tuple(found)


def courses_of(
    runs: Sequence[Mapping[int, Sequence[TextLogprob]]],
    jobs: Sequence[JobRow],
    row: tuple[Arm, str, str],
    texts: Sequence[Prompt],
    resamples: int = RESAMPLES,
) -> list[WatchedCourse]:
    """The course of each group of texts.

    Args:
        runs: what each training run read, by examples seen.
        jobs: the jobs of these runs.
        row: arm, generation and train condition.
        texts: what is watched.
        resamples: of the bootstrap.
    """
    found = []
    groups = [str(one.payload.get("group", "")) for one in texts]
    for group in dict.fromkeys(groups):
        places = [place for place, own in enumerate(groups) if own == group]
        readings = [(place, read[place]) for steps in runs for read in steps.values() for place in places]
        problems = [text.problem for _, text in readings if text.problem is not None]
        unread = {place for place, text in readings if text.logprob is None}
        steps = sorted(set(runs[0]).intersection(*runs[1:]))
        begun = [_values(run.get(0), places) for run in runs]
        points = []
        for step in steps:
            values = np.stack([_values(run[step], places) for run in runs])
            mean = mean_of_runs(values, _UNREAD, resamples)
            since = step and 0 in steps
            change = mean_of_runs(values - np.stack(begun), _UNREAD, resamples) if since else Sampled()
            points.append(WatchedPoint(step, mean.estimate, change.estimate))
        reason = problems[0] if problems else ""
        if not points:
            first = next((one for one in jobs if one.state != "done"), jobs[0])
            reason = first.error or f"nothing was read yet: '{first.label}' is {first.state}"
        found.append(WatchedCourse(*row, group, tuple(points), len(places), len(unread), len(runs), reason))
    return found


def _values(read: Sequence[TextLogprob] | None, places: Sequence[int]) -> Floats:
    """Log-probabilities a token, NaN where there is none."""
    if read is None:
        return np.full(len(places), np.nan)
    chosen = [read[place] for place in places]
    return np.array([np.nan if one.logprob is None or not one.tokens else one.logprob / one.tokens for one in chosen])
