"""Comparing rows of a grid side by side: the measures of two to four of them, with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from windowshift.core.arm import Arm
from windowshift.core.grid import Grid, Tally
from windowshift.core.resampled import Resampled, Scale, on_scale
from windowshift.core.stats import RESAMPLES, Estimate, Floats, estimate

Row = tuple[str, str, str]
"""What is compared: (arm, generation condition, train condition); a steering row is one like any other."""

MeasureName = Literal["train_mean_ratio", "uplift", "cv", "cv_kept", "extreme"]
MEASURES: tuple[MeasureName, ...] = ("train_mean_ratio", "uplift", "cv", "cv_kept", "extreme")


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of every row; a missing value has a reason in its place.

    `difference` is the second row minus the first, each resample of one minus the same resample of the
    other: eval prompts are drawn once for the whole grid, so the difference is paired by prompt.
    """

    measure: MeasureName
    values: tuple[Estimate | None, ...]
    reasons: tuple[str, ...]
    difference: Estimate | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows side by side. `lowest` is the eval condition of each row's extreme; `tallies` count its cells."""

    rows: tuple[Row, ...]
    scale: Scale
    measures: tuple[Compared, ...]
    lowest: tuple[str | None, ...]
    tallies: tuple[Tally, ...]

    def measure(self, name: MeasureName) -> Compared:
        """Return one measure."""
        return self.measures[MEASURES.index(name)]


@dataclass(frozen=True, slots=True, eq=False)
class _Number:
    """A value with its resamples, (resamples,), and what it rests on; or a reason why there is none."""

    value: float = np.nan
    samples: Floats | None = None
    n: int = 0
    reason: str = ""

    @property
    def estimate(self) -> Estimate | None:
        return None if self.samples is None else estimate(self.value, self.samples, self.n)


def compare(grid: Grid, rows: Sequence[Row], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compare rows of one grid; seeds are pooled.

    The measures, with M the base model and M' the row's:

    - `train_mean_ratio`: base mean under the train condition over the mean of D; for behaviours that
      compare by difference, their distance on the grid's scale.
    - `uplift`: mean over the arm's eval conditions of the uplift on the grid's scale (log2 of M' over M).
    - `cv`: population sd over mean of the mean scores across eval conditions (sd alone for differences).
    - `cv_kept`: `cv` over the base model's.
    - `extreme`: M' against M under the eval condition where M scores lowest, in % (a plain difference
      for behaviours that compare by difference).

    Args:
        grid: of one experiment and behaviour.
        rows: what to compare; one that the grid does not have gets reasons and no values.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    r = Resampled(grid, resamples, seed)
    arms: dict[str, Arm] = {name: Arm(r, name) for name in r.arms}
    numbers: dict[MeasureName, list[_Number]] = {name: [] for name in MEASURES}
    lowest: list[str | None] = []
    tallies: list[Tally] = []
    for name, generate, train in rows:
        arm = arms.get(name)
        if arm is None or (generate, train) not in arm.rows:
            for measured in numbers.values():
                measured.append(_Number(reason="no such row in this experiment"))
            lowest.append(None)
            tallies.append(Tally(0, 0, 0, 0))
            continue
        place = _lowest(arm)
        lowest.append(place)
        tallies.append(_tally(arm, generate, train))
        numbers["train_mean_ratio"].append(_surprise(arm, generate, train))
        numbers["uplift"].append(_uplift(arm, generate, train))
        cv, kept = _spread(arm, generate, train)
        numbers["cv"].append(cv)
        numbers["cv_kept"].append(kept)
        numbers["extreme"].append(_extreme(arm, generate, train, place))
    return Comparison(
        tuple(rows),
        r.scale,
        tuple(
            Compared(
                measure,
                tuple(one.estimate for one in found),
                tuple(one.reason for one in found),
                _difference(found[0], found[1]) if len(found) > 1 else None,
            )
            for measure, found in numbers.items()
        ),
        tuple(lowest),
        tuple(tallies),
    )


def _difference(first: _Number, second: _Number) -> Estimate | None:
    if first.samples is None or second.samples is None:
        return None
    return estimate(second.value - first.value, second.samples - first.samples, min(first.n, second.n))


def _surprise(arm: Arm, generate: str, train: str) -> _Number:
    r, parts = arm.resampled, arm.parts(generate, train, None)
    base = r.base_under(arm.name, parts, None) if parts else None
    if base is None:
        return _Number(reason="the base model's cell under the train condition, or D, is not there")
    base_mean, base_samples, base_n = base
    mean, drawn, n = r.dataset(parts)
    if r.scale == "log2":
        with np.errstate(divide="ignore", invalid="ignore"):
            return _Number(float(base_mean / mean), base_samples / drawn, n)
    value = on_scale(np.array([base_mean]), base_n, r.scale)[0] - on_scale(np.array([mean]), n, r.scale)[0]
    return _Number(float(value), on_scale(base_samples, base_n, r.scale) - on_scale(drawn, n, r.scale), n)


def _uplift(arm: Arm, generate: str, train: str) -> _Number:
    values, samples = arm.resampled.uplifts
    columns = [arm.column(generate, train, evaluate, None) for evaluate in arm.evaluates]
    done = [column for column in columns if column is not None and np.isfinite(values[column])]
    if len(done) < len(columns) or not done:
        return _Number(reason=f"{len(done)} of {len(columns)} eval cells done")
    return _Number(float(values[done].mean()), samples[:, done].mean(axis=1), int(arm.resampled.n[done].sum()))


def _spread(arm: Arm, generate: str, train: str) -> tuple[_Number, _Number]:
    n = len(arm.evaluates)
    done, value, samples = arm.spread_of(generate, train, None)
    if n < 2:
        missing = _Number(reason="a spread needs two eval conditions")
        return missing, missing
    if done < n:
        missing = _Number(reason=f"{done} of {n} eval cells done")
        return missing, missing
    base_done, base, base_samples = arm.spread_of("", "base", None)
    own = _Number(value, samples, n)
    if base_done < n or not base > 0:
        return own, _Number(reason=f"{base_done} of {n} cells of the base model done")
    with np.errstate(divide="ignore", invalid="ignore"):
        return own, _Number(value / base, samples / base_samples, n)


def _lowest(arm: Arm) -> str | None:
    """The eval condition under which the base model scores lowest, once the base row is whole."""
    columns = {evaluate: arm.column("", "base", evaluate, None) for evaluate in arm.evaluates}
    done = {evaluate: column for evaluate, column in columns.items() if column is not None}
    if len(done) < len(columns):
        return None
    return min(done, key=lambda evaluate: arm.resampled.means[done[evaluate]], default=None)


def _extreme(arm: Arm, generate: str, train: str, evaluate: str | None) -> _Number:
    if evaluate is None:
        return _Number(reason="the base model's row is not done")
    column, base = arm.column(generate, train, evaluate, None), arm.column("", "base", evaluate, None)
    if column is None or base is None:
        return _Number(reason=f"the cell under {evaluate} is not done")
    value, reference, samples, reference_samples = arm.resampled.compared(column, base)
    n = int(arm.resampled.n[column])
    if arm.resampled.scale != "log2":
        return _Number(value - reference, samples - reference_samples, n)
    if reference <= 0:
        return _Number(reason="the base model's mean is 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        return _Number(100 * (value / reference - 1), 100 * (samples / reference_samples - 1), n)


def _tally(arm: Arm, generate: str, train: str) -> Tally:
    columns = [arm.column(generate, train, evaluate, None) for evaluate in arm.evaluates]
    found = (arm.resampled.tally(column) for column in columns if column is not None)
    return sum(found, Tally(0, 0, 0, 0))
