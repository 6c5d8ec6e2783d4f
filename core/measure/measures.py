"""What is measured on a grid: the measures of docs/architecture.md as frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.family import Claim
from windowshift.core.measure.grid import Tally
from windowshift.core.measure.missing_scores import MissingScores
from windowshift.core.measure.resampled import Key

Direction = Literal["low", "high"]


@dataclass(frozen=True, slots=True)
class CellMeasure:
    """One cell: its mean, and what it is against the base model, paired by prompt.

    `seed` is None where several seeds are pooled. There are no estimates before a cell is done: `progress` counts
    completions, done and planned. `base_mean` is over the prompts that the cell has. `uplift` is on the link scale,
    `effect` as it is shown: the same, but for rates.
    """

    key: Key
    status: str
    progress: tuple[int, int]
    tally: Tally
    mean: Estimate | None
    sd: float | None
    base_mean: float | None
    uplift: Estimate | None
    effect: Estimate | None


@dataclass(frozen=True, slots=True)
class Point:
    """One (generation, train) row of the grouped fit.

    `x` is how surprising D is under the train condition, base mean under it against the mean of D;
    `y` the uplift averaged over eval conditions; both on the link scale. `ratio` is `train_mean_ratio` (None
    where means do not compare by ratio), `effect` the average of the effects as they are shown, and `data` the
    mean of D. A row without `y` says why. `truncated` counts what was cut off behind `ratio`, `x` and `data`.
    """

    generate: str
    train: str
    seed: int | None
    ratio: Estimate | None
    x: Estimate | None
    y: Estimate | None
    effect: Estimate | None
    data: Estimate | None
    reason: str | None
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """A least-squares line through `points` of `rows` rows; None with a `reason` where there is no line.

    The interval of `slope` is over prompts and training runs. `scatter` is the same slope with its interval over
    points: that of Student's t from how far they lie off the line, and at least that of `slope`. `corrected` is the
    slope without the attenuation by noise in x. `predicted` says how much of each row the line through the others
    predicts; `r2`, without an interval, how much of the points the line through all of them explains: noise alone can
    bring it near to 1 or far from it.
    """

    points: int
    rows: int
    slope: Estimate | None
    intercept: Estimate | None
    r2: Estimate | None
    reason: str | None
    scatter: Estimate | None = None
    corrected: Estimate | None = None
    predicted: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """How much instruction following is left in a row.

    `value` is the CV: population sd (ddof 0) of the cell means across eval conditions over their
    mean; where means do not compare by ratio the sd itself. `kept` is value / base value.
    Resampling adds its noise to every mean, so where conditions hardly differ the interval leans up.
    """

    generate: str
    train: str
    value: Estimate | None
    kept: Estimate | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A cell that was chosen as the most extreme on one half of the prompts, and is measured on the other.

    `chosen_on` counts the prompts that chose it; `vs_base` and `vs_no_prefix` are over the others, as in `Extreme`.
    """

    train: str
    evaluate: str
    chosen_on: int
    vs_base: Estimate | None
    vs_no_prefix: Estimate | None


@dataclass(frozen=True, slots=True)
class Extreme:
    """The cell with the lowest (highest) mean among prefixed train conditions of a generation condition.

    `vs_base` and `vs_no_prefix` compare it with the base model and with the `no_prefix` fine-tune under the
    same eval condition, as the scale's change: % difference, or plain difference. The intervals are those of the
    named cell; they do not allow for its being chosen as the most extreme of `cells` (out of `planned`).
    `held_out` allows for that; None where there are too few prompts to halve them.
    `unpushed` says whether the grid has a `no_prefix` fine-tune.
    """

    direction: Direction
    train: str
    evaluate: str
    mean: float
    tally: Tally
    vs_base: Estimate | None
    vs_no_prefix: Estimate | None
    cells: int
    planned: int
    unpushed: bool
    held_out: HeldOut | None = None


@dataclass(frozen=True, slots=True)
class CoursePoint:
    """A row after `step` training examples (0: the base model), over the checkpoints' eval conditions."""

    generate: str
    train: str
    step: int
    mean: Estimate | None
    cv: Estimate | None
    means: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupMeasures:
    """The measures of some rows: of one generation condition, one seed, or a whole arm.

    All are over the arm's own eval conditions, but `cross_spreads`, which are over the other arm's (empty
    where the rows were not evaluated under those).

    The spreads and extremes of a whole arm are those of its first generation condition; the primary
    extreme is `extremes[0]`: low where D's mean lies below the base's `no_prefix` mean, else high.
    """

    points: tuple[Point, ...]
    grouped: Fit
    by_evaluate: dict[str, Fit]
    spreads: tuple[Spread, ...]
    extremes: tuple[Extreme, ...]
    cross_spreads: tuple[Spread, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmMeasures:
    """Everything measured in one arm. `cells` pools seeds; `seed_cells` has every cell of the store.

    `columns` are all eval conditions of its rows, `evaluates` those of the arm itself, `crossed` those of the
    other arm; what pushes nowhere belongs to both.
    `whole` pools seeds too; `by_seed` is empty where there is one seed. With several seeds the
    intervals cover the draw of prompts, and `by_seed` shows what the seeds differ by. `families` has the cells of each
    generation condition beside each other, for whoever picks from them; `uneven` says where cells lack scores of
    different prompts, and `missing` has the pooled final cells of which scores are missing, or of the base model beside
    them.
    """

    arm: str
    scale: Scale
    generates: tuple[str, ...]
    trains: tuple[str, ...]
    columns: tuple[str, ...]
    evaluates: tuple[str, ...]
    crossed: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[CellMeasure, ...]
    seed_cells: tuple[CellMeasure, ...]
    whole: GroupMeasures
    by_generate: dict[str, GroupMeasures]
    by_seed: dict[int, GroupMeasures]
    course: tuple[CoursePoint, ...]
    families: dict[str, tuple[Claim, ...]] = field(default_factory=dict)
    uneven: tuple[str, ...] = ()
    missing: dict[Key, MissingScores] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of one experiment and behaviour, arm by arm."""

    behaviour: Behaviour
    arms: dict[str, ArmMeasures]
