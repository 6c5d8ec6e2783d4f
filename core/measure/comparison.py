"""Comparing rows of a grid side by side: the measures of two to four of them, with paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.grid import Grid, Tally
from windowshift.core.measure.missing_scores import MissingScores, missing_between
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import (
    NO_CONDITION,
    by_run,
    cell_change,
    cut_in_data,
    kept,
    mean_effect,
    mean_uplift,
    spread,
    surprise,
)
from windowshift.core.measure.sampled import Sampled

RowKey = tuple[str, str, str]
"""What is compared: (arm, generation condition, train condition); a steering row is one like any other."""

MeasureName = Literal["train_mean_ratio", "uplift", "link", "cv", "cv_kept", "extreme"]
MEASURES: tuple[MeasureName, ...] = ("train_mean_ratio", "uplift", "link", "cv", "cv_kept", "extreme")


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of every row; a missing value has a reason in its place.

    `difference` is the second row minus the first, each draw of one minus the same draw of the other: eval prompts
    are drawn once for the whole grid, so the difference is paired by prompt; training runs are paired by seed.
    """

    measure: str
    values: tuple[Estimate | None, ...]
    reasons: tuple[str, ...]
    difference: Estimate | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows side by side.

    `lowest` is the eval condition of each row's extreme; `tallies` count its cells. `truncated` counts what was cut
    off of those and of the base model's under the same conditions, which nearly every measure is against,
    `data_truncated` what was of D and of the base model under the train condition. `missing`
    says what scores the second row lacks against the first, over the arms' own eval conditions.
    """

    rows: tuple[RowKey, ...]
    scale: Scale
    measures: tuple[Compared, ...]
    lowest: tuple[str | None, ...]
    tallies: tuple[Tally, ...]
    truncated: tuple[int, ...] = ()
    data_truncated: tuple[int, ...] = ()
    missing: MissingScores | None = None

    def measure(self, name: MeasureName) -> Compared:
        """Return one measure; `link` is there where it is another number than `uplift`."""
        return next(one for one in self.measures if one.measure == name)


def compare(grid: Grid, rows: Sequence[RowKey], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """As `compare_rows`, of a grid that is not resampled yet."""
    return compare_rows(Resampled(grid, resamples, seed), rows)


def compare_rows(r: Resampled, rows: Sequence[RowKey]) -> Comparison:
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
    arms: dict[str, ArmAxes] = {name: ArmAxes(r, name) for name in r.arms}
    shown = [name for name in MEASURES if name != "link" or r.scale.words.two]
    numbers: dict[MeasureName, list[Sampled]] = {name: [] for name in shown}
    lowest: list[str | None] = []
    tallies: list[Tally] = []
    truncated: list[int] = []
    in_data: list[int] = []
    for name, generate, train in rows:
        arm = arms.get(name)
        if arm is None or (generate, train) not in arm.rows:
            for missing in numbers.values():
                missing.append(Sampled(reason="no such row in this experiment"))
            lowest.append(None)
            tallies.append(Tally(0, 0, 0, 0))
            truncated.append(0)
            in_data.append(0)
            continue
        place = lowest_condition(arm)
        lowest.append(place)
        tallies.append(_tally(arm, generate, train))
        truncated.append(cut_in_cells(arm, generate, train))
        in_data.append(cut_in_data(arm, generate, train))
        found: dict[MeasureName, Callable[[int | None], Sampled]] = {
            "train_mean_ratio": partial(surprise, arm, generate, train),
            "uplift": partial(mean_effect, arm, generate, train),
            "link": partial(mean_uplift, arm, generate, train),
            "cv": partial(spread, arm, generate, train, None),
            "cv_kept": partial(kept, arm, generate, train, None),
        }
        for measure, measured in found.items():
            if measure in numbers:
                numbers[measure].append(by_run(arm, measured))
        numbers["extreme"].append(extreme(arm, generate, train, place))
    return Comparison(
        tuple(rows),
        r.scale,
        tuple(
            Compared(
                measure,
                tuple(one.estimate for one in several),
                tuple(one.reason for one in several),
                paired_difference(several[0], several[1]) if len(several) > 1 else None,
            )
            for measure, several in numbers.items()
        ),
        tuple(lowest),
        tuple(tallies),
        tuple(truncated),
        tuple(in_data),
        _missing(r, arms, rows[0], rows[1]) if len(rows) > 1 else None,
    )


def done_columns(arm: ArmAxes, generate: str, train: str) -> list[int]:
    """The columns of a row, one an eval condition of the arm's own; nothing where one is not done."""
    found = [arm.column(generate, train, evaluate, None) for evaluate in arm.evaluates]
    done = [column for column in found if column is not None]
    return done if len(done) == len(found) else []


def _missing(r: Resampled, arms: dict[str, ArmAxes], first: RowKey, second: RowKey) -> MissingScores | None:
    both = [done_columns(arms[arm], generate, train) for arm, generate, train in (second, first) if arm in arms]
    return missing_between(r, *both) if len(both) > 1 else None


def paired_difference(first: Sampled, second: Sampled) -> Estimate | None:
    """The second minus the first, draw by draw and run by run."""
    return second.minus(first).estimate


def lowest_condition(arm: ArmAxes) -> str | None:
    """The eval condition under which the base model scores lowest, once the base row is whole."""
    columns = {evaluate: arm.column("", BASE, evaluate, None) for evaluate in arm.evaluates}
    done = {evaluate: column for evaluate, column in columns.items() if column is not None}
    if len(done) < len(columns):
        return None
    return min(done, key=lambda evaluate: arm.resampled.means[done[evaluate]], default=None)


def extreme(arm: ArmAxes, generate: str, train: str, evaluate: str | None) -> Sampled:
    """`extreme` of a row, under the condition that `lowest_condition` names."""
    if evaluate is None:
        return Sampled(reason=arm.lacking_of("", BASE, arm.evaluates, None) or NO_CONDITION)
    return by_run(arm, lambda seed: cell_change(arm, generate, train, evaluate, BASE, seed))


def cut_in_cells(arm: ArmAxes, generate: str, train: str) -> int:
    """The completions of a row that were cut off, and of the base model under the same eval conditions."""
    return _tally(arm, generate, train).truncated + _tally(arm, generate, BASE).truncated


def _tally(arm: ArmAxes, generate: str, train: str) -> Tally:
    columns = [arm.column(generate, train, evaluate, None) for evaluate in arm.evaluates]
    found = (arm.resampled.tally(column) for column in columns if column is not None)
    return sum(found, Tally(0, 0, 0, 0))
