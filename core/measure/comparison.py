"""Comparing rows of a grid side by side: the measures of two to four of them, with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES, Estimate, Floats, estimate
from windowshift.core.measure.arm import Arm
from windowshift.core.measure.effect import change
from windowshift.core.measure.grid import Grid, Tally
from windowshift.core.measure.resampled import Resampled

Row = tuple[str, str, str]
"""What is compared: (arm, generation condition, train condition); a steering row is one like any other."""

MeasureName = Literal["train_mean_ratio", "uplift", "link", "cv", "cv_kept", "extreme"]
MEASURES: tuple[MeasureName, ...] = ("train_mean_ratio", "uplift", "link", "cv", "cv_kept", "extreme")


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of every row; a missing value has a reason in its place.

    `difference` is the second row minus the first, each resample of one minus the same resample of the
    other: eval prompts are drawn once for the whole grid, so the difference is paired by prompt.
    """

    measure: str
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
        """Return one measure; `link` is there where it is another number than `uplift`."""
        return next(one for one in self.measures if one.measure == name)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A value with its resamples, (resamples,), and what it rests on; or a reason why there is none."""

    value: float = np.nan
    samples: Floats | None = None
    n: int = 0
    reason: str = ""

    @property
    def estimate(self) -> Estimate | None:
        """The value with its interval; None where it is missing."""
        return None if self.samples is None else estimate(self.value, self.samples, self.n)


def compare(grid: Grid, rows: Sequence[Row], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """As `compare_rows`, of a grid that is not resampled yet."""
    return compare_rows(Resampled(grid, resamples, seed), rows)


def compare_rows(r: Resampled, rows: Sequence[Row]) -> Comparison:
    """Compare rows of one grid; seeds are pooled.

    The measures, with M the base model and M' the row's:

    - `train_mean_ratio`: base mean under the train condition over the mean of D; where means do not compare by
      ratio, their distance on the link scale.
    - `uplift`: mean over the arm's eval conditions of the effect, as it is shown (log2 of M' over M, or a difference).
    - `link`: the same on the link scale; for rates alone, where it is another number.
    - `cv`: population sd over mean of the mean scores across eval conditions (sd alone where they are no ratios).
    - `cv_kept`: `cv` over the base model's.
    - `extreme`: M' against M under the eval condition where M scores lowest: the scale's change (%, or a difference).

    Args:
        r: the grid of one experiment and behaviour.
        rows: what to compare; one that the grid does not have gets reasons and no values.
    """
    arms: dict[str, Arm] = {name: Arm(r, name) for name in r.arms}
    shown = [name for name in MEASURES if name != "link" or r.scale.words.two]
    numbers: dict[MeasureName, list[Measured]] = {name: [] for name in shown}
    lowest: list[str | None] = []
    tallies: list[Tally] = []
    for name, generate, train in rows:
        arm = arms.get(name)
        if arm is None or (generate, train) not in arm.rows:
            for measured in numbers.values():
                measured.append(Measured(reason="no such row in this experiment"))
            lowest.append(None)
            tallies.append(Tally(0, 0, 0, 0))
            continue
        place = lowest_condition(arm)
        lowest.append(place)
        tallies.append(_tally(arm, generate, train))
        numbers["train_mean_ratio"].append(surprise(arm, generate, train))
        numbers["uplift"].append(mean_effect(arm, generate, train))
        if "link" in numbers:
            numbers["link"].append(mean_uplift(arm, generate, train))
        cv, kept = cv_and_kept(arm, generate, train)
        numbers["cv"].append(cv)
        numbers["cv_kept"].append(kept)
        numbers["extreme"].append(extreme(arm, generate, train, place))
    return Comparison(
        tuple(rows),
        r.scale,
        tuple(
            Compared(
                measure,
                tuple(one.estimate for one in found),
                tuple(one.reason for one in found),
                paired_difference(found[0], found[1]) if len(found) > 1 else None,
            )
            for measure, found in numbers.items()
        ),
        tuple(lowest),
        tuple(tallies),
    )


def paired_difference(first: Measured, second: Measured) -> Estimate | None:
    """The second minus the first, resample by resample."""
    if first.samples is None or second.samples is None:
        return None
    with np.errstate(invalid="ignore"):  # what is infinite in both (all that is kept of nothing) has no difference
        samples = second.samples - first.samples
    return estimate(second.value - first.value, samples, min(first.n, second.n))


def surprise(arm: Arm, generate: str, train: str) -> Measured:
    """`train_mean_ratio` of a row."""
    r, parts = arm.resampled, arm.parts(generate, train, None)
    base = r.base_under(arm.name, parts, None) if parts else None
    if base is None:
        return Measured(reason="the base model's cell under the train condition, or D, is not there")
    base_mean, base_samples, base_n = base
    mean, drawn, n = r.dataset(parts)
    if not np.isfinite(mean):
        return Measured(reason="D is not there")
    if r.scale.kind == "ratio":
        value, samples = r.scale.against(base_mean, mean), r.scale.against(base_samples, drawn)
    else:
        value = r.scale.linked(base_mean, base_n, mean, n)
        samples = r.scale.linked(base_samples, base_n, drawn, n)
    return Measured(float(value), samples, n)


def mean_effect(arm: Arm, generate: str, train: str) -> Measured:
    """`uplift` of a row."""
    return _average(arm, generate, train, *arm.resampled.effects)


def mean_uplift(arm: Arm, generate: str, train: str) -> Measured:
    """`link` of a row."""
    return _average(arm, generate, train, *arm.resampled.uplifts)


def _average(arm: Arm, generate: str, train: str, values: Floats, samples: Floats) -> Measured:
    columns = [arm.column(generate, train, evaluate, None) for evaluate in arm.evaluates]
    done = [column for column in columns if column is not None and np.isfinite(values[column])]
    if len(done) < len(columns) or not done:
        return Measured(reason=f"{len(done)} of {len(columns)} eval cells done")
    return Measured(float(values[done].mean()), samples[:, done].mean(axis=1), int(arm.resampled.n[done].sum()))


def cv_and_kept(
    arm: Arm, generate: str, train: str, evaluates: tuple[str, ...] | None = None
) -> tuple[Measured, Measured]:
    """`cv` and `cv_kept` of a row, over the arm's own eval conditions or over `evaluates`."""
    evaluates = arm.evaluates if evaluates is None else evaluates
    n = len(evaluates)
    done, value, samples = arm.spread_of(generate, train, None, evaluates)
    if n < 2:
        missing = Measured(reason="a spread needs two eval conditions")
        return missing, missing
    if done < n:
        missing = Measured(reason=f"{done} of {n} eval cells done")
        return missing, missing
    base_done, base, base_samples = arm.spread_of("", "base", None, evaluates)
    own = Measured(value, samples, n)
    if base_done < n or not base > 0:
        return own, Measured(reason=f"{base_done} of {n} cells of the base model done")
    with np.errstate(divide="ignore", invalid="ignore"):
        return own, Measured(value / base, samples / base_samples, n)


def lowest_condition(arm: Arm) -> str | None:
    """The eval condition under which the base model scores lowest, once the base row is whole."""
    columns = {evaluate: arm.column("", "base", evaluate, None) for evaluate in arm.evaluates}
    done = {evaluate: column for evaluate, column in columns.items() if column is not None}
    if len(done) < len(columns):
        return None
    return min(done, key=lambda evaluate: arm.resampled.means[done[evaluate]], default=None)


def extreme(arm: Arm, generate: str, train: str, evaluate: str | None) -> Measured:
    """`extreme` of a row, under the condition that `lowest_condition` names."""
    if evaluate is None:
        return Measured(reason="the base model's row is not done")
    column, base = arm.column(generate, train, evaluate, None), arm.column("", "base", evaluate, None)
    if column is None or base is None:
        return Measured(reason=f"the cell under {evaluate} is not done")
    pair = arm.resampled.compared(column, base)
    value, samples = change(arm.resampled.scale, pair)
    if not np.isfinite(value):
        return Measured(reason="the base model's mean is 0" if pair.prompts else "no prompt has a score in both")
    return Measured(value, samples, int(pair.n))


def _tally(arm: Arm, generate: str, train: str) -> Tally:
    columns = [arm.column(generate, train, evaluate, None) for evaluate in arm.evaluates]
    found = (arm.resampled.tally(column) for column in columns if column is not None)
    return sum(found, Tally(0, 0, 0, 0))
