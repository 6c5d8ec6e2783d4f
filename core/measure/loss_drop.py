"""How far the loss of a training fell: whether there was anything to learn under its condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.contract.stats import RESAMPLES, Floats, estimate
from windowshift.core.contract.training import LOSS_WINDOW
from windowshift.core.store.reader import Reader

FEWEST_STEPS = 2
"""Steps that a window must have, so that they show how they differ."""
_STREAM = 7919


@dataclass(frozen=True, slots=True, eq=False)
class LossDrop:
    """Losses over the first and over the last tenth of a training's examples, in nats a completion token.

    `drop` is first minus last, with its resamples, (resamples,). Steps are resampled by their place, the same for every
    condition, so that conditions which see the same examples in the same order are paired. `n` counts steps.
    """

    first: Estimate
    last: Estimate
    drop: Estimate
    samples: Floats
    n: int


@dataclass(frozen=True, slots=True)
class TrainingLosses:
    """The losses of one training: examples seen after a step, and the loss of that step, in nats a token."""

    examples: tuple[int, ...]
    values: tuple[float, ...]

    def window(self, *, last: bool) -> Floats:
        """The losses of the first or of the last tenth."""
        total = self.examples[-1]
        examples = np.array(self.examples)
        chosen = (
            examples > total * (1 - LOSS_WINDOW) if last else examples <= max(total * LOSS_WINDOW, self.examples[0])
        )
        return np.array(self.values)[chosen]


def losses_of(reader: Reader, cells: Sequence[CellRow]) -> dict[tuple[str, str, str], list[TrainingLosses]]:
    """The losses behind grid rows, one a seed, by (arm, generation condition, train condition).

    A row whose training tells none, as a service may, and one from before they were kept, is left out.
    """
    found: dict[tuple[str, str, str], dict[int, TrainingLosses]] = {}
    for cell in cells:
        key = (cell.arm, cell.generate, cell.train)
        if cell.train == BASE or not cell.final or cell.seed in found.get(key, {}):
            continue
        for number in reader.job_numbers(list(reader.job(cell.job).parents)).values():
            job = reader.job(number)
            if job.kind == "train" and job.result.get("losses"):
                examples, values = zip(*job.result["losses"], strict=True)
                found.setdefault(key, {})[cell.seed] = TrainingLosses(examples, values)
    return {key: [seeds[seed] for seed in sorted(seeds)] for key, seeds in found.items()}


def loss_drop(runs: Sequence[TrainingLosses], *, resamples: int = RESAMPLES, seed: int = 0) -> LossDrop | None:
    """How far the loss fell, over the runs of all seeds; None where too few steps are on record."""
    first = [run.window(last=False) for run in runs]
    last = [run.window(last=True) for run in runs]
    if not runs or any(len(one) < FEWEST_STEPS for one in (*first, *last)):
        return None
    ends = []
    for place, windows in enumerate((first, last)):
        drawn = [_resampled(values, resamples, (seed, _STREAM, place, number)) for number, values in enumerate(windows)]
        value = float(np.mean([values.mean() for values in windows]))
        ends.append((value, np.mean(drawn, axis=0), sum(map(len, windows))))
    (begun, begun_samples, n), (ended, ended_samples, end_n) = ends
    samples = begun_samples - ended_samples
    made = (
        estimate(begun, begun_samples, n),
        estimate(ended, ended_samples, end_n),
        estimate(begun - ended, samples, n + end_n),
    )
    if any(one is None for one in made):
        return None
    start, end, drop = (one for one in made if one is not None)
    return LossDrop(start, end, drop, samples, n + end_n)


def _resampled(values: Floats, resamples: int, key: tuple[int, ...]) -> Floats:
    weights = np.random.default_rng(key).poisson(1.0, (resamples, len(values))).astype(np.float64)
    weights[weights.sum(axis=1) == 0] = 1.0
    return np.asarray(weights @ values / weights.sum(axis=1))
