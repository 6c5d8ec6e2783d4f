"""Cells that are not trained yet, predicted from base-model quantities and the rows that are.

Rows of one arm and one D are the units: the cells of a row share a training, so each eval condition has a regression
of its own over rows, by least squares, and whatever a row's cells have in common (a random effect of the row) is part
of its residuals. The regressors are of the base model alone:

- how surprising D is under the train condition (`train_mean_ratio` on its axis);
- how far the base model's means under the train and the eval condition are from each other, for what was learnt under
  a condition comes back under its like;
- the score of a `selection:` by log-probability uplift, where the spec has one.

The first is there from three rows on; a further one only where it leaves three degrees of freedom. That goes by the
number of rows and never by their effects, so that intervals stay what they say: those of a new response in normal
regression, t(n - p) · s · √(1 + h), h being the new row's leverage (Seber and Lee 2003, Linear Regression Analysis,
section 5.3). They hold the *measured* uplift of a cell on the same prompts and as many seeds.

What to train next is where the regression knows least: the row of the largest leverage, then the one of the largest
leverage with that row in it (greedy D-optimal design: Wynn 1970). It goes by base-model quantities alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windowshift.core.contract.confidence import student_t
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import Behaviour, ExperimentRow
from windowshift.core.contract.stats import RESAMPLES, Floats
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import position, surprise
from windowshift.core.store.reader import Reader

LEAST_ROWS = 3
SPARE = 3
"""Degrees of freedom that a further regressor must leave."""
SURPRISE, DISTANCE, SCORE = "train_mean_ratio", "distance of base means", "log-probability uplift"
_RIDGE = 1e-6


@dataclass(frozen=True, slots=True)
class PredictedCell:
    """One cell that is not trained.

    Attributes:
        train: its train condition.
        evaluate: its eval condition.
        base_mean: of the base model under the eval condition; None: not done.
        uplift: predicted, on the link scale; `n` counts the trained rows behind it. None where there is none.
        degrees: of freedom of its interval.
        by: the regressors.
        leverage: of the row in the regression; None where there is none.
        reason: why it is not predicted.
    """

    train: str
    evaluate: str
    base_mean: float | None
    uplift: Estimate | None
    degrees: int = 0
    by: tuple[str, ...] = ()
    leverage: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PredictedRows:
    """The rows of one arm and one D.

    Attributes:
        arm: its name.
        generate: whose D.
        trained: rows with a done cell.
        cells: every cell that is not done.
        surprise: how surprising D is under each train condition, as the scale shows it; None: not known.
        order: the rows that are not trained, the most informative first.
        held: of the trained cells, those within the interval that the other rows predict; `held_of` of how many.
        reason: why nothing is predicted.
    """

    arm: str
    generate: str
    trained: tuple[str, ...]
    cells: tuple[PredictedCell, ...]
    surprise: Mapping[str, Estimate | None]
    order: tuple[str, ...]
    held: int
    held_of: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """An experiment and a behaviour, as the store has them now; `spec` is the text that was last run."""

    experiment: ExperimentRow
    behaviour: Behaviour
    rows: tuple[PredictedRows, ...]
    spec: str


def predict(
    workspace: str | Path, name: str, behaviour: str | None = None, *, resamples: int = RESAMPLES
) -> Prediction:
    """Predict what is not trained of an experiment.

    Args:
        workspace: the folder.
        name: of the experiment.
        behaviour: what is predicted; None: the primary one.
        resamples: of the bootstrap.

    Raises:
        SpecError: there is no such experiment or behaviour.
        StoreError: the workspace cannot be read.
    """
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        chosen = experiment.find_behaviour(behaviour)
        grid = load_grid(reader, experiment, chosen)
        spec = reader.spec_text(experiment.id)
    return Prediction(experiment, chosen, predicted(Resampled(grid, resamples)), spec)


def predicted(r: Resampled) -> tuple[PredictedRows, ...]:
    """Every arm and D of a grid."""
    return tuple(
        _Rows(arm, generate).predicted() for arm in (ArmAxes(r, one) for one in r.arms) for generate in arm.generates
    )


@dataclass(frozen=True, slots=True, eq=False)
class Extrapolated:
    """What a regression says of one new row: its value, how far its interval reaches, degrees of freedom, leverage."""

    value: float
    reach: float
    degrees: int
    leverage: float


def extrapolated(regressors: Floats, effects: Floats, new: Floats) -> Extrapolated | None:
    """Least squares with an intercept, and the prediction interval of a new row.

    Args:
        regressors: (rows, regressors).
        effects: (rows,).
        new: (regressors,).

    Returns:
        None where the regressors of the rows depend on each other, or leave no degree of freedom.
    """
    rows = len(effects)
    # Centred and scaled, so that the rank is not that of units.
    middle, size = regressors.mean(axis=0), regressors.std(axis=0)
    if not np.isfinite(size).all() or (size <= 1e-9 * (1 + np.abs(middle))).any():
        return None
    design = np.column_stack([np.ones(rows), (regressors - middle) / size])
    at = np.concatenate([[1.0], (new - middle) / size])
    degrees = rows - design.shape[1]
    if degrees < 1 or np.linalg.cond(design) > 1e6:
        return None
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ effects
    left = effects - design @ fitted
    leverage = float(at @ inverse @ at)
    error = math.sqrt(float(left @ left) / degrees * (1 + leverage))
    return Extrapolated(float(at @ fitted), student_t(degrees) * error, degrees, leverage)


def most_informative(trained: Sequence[float], candidates: Mapping[str, float]) -> tuple[str, ...]:
    """Candidates by how little a line through the trained rows and the candidates before them knows of them.

    Args:
        trained: where the trained rows stand, on the axis of `train_mean_ratio`.
        candidates: where each of the others does.
    """
    everything = np.array([*trained, *candidates.values()])
    middle, size = (everything.mean(), everything.std() or 1.0) if len(everything) else (0.0, 1.0)
    places = {name: np.array([1.0, (value - middle) / size]) for name, value in candidates.items()}
    # A trace of a ridge lets the leverage say where to begin, too.
    known = _RIDGE * np.eye(2)
    for value in trained:
        place = np.array([1.0, (value - middle) / size])
        known = known + np.outer(place, place)
    found: list[str] = []
    while places:
        inverse = np.linalg.inv(known)
        best = max(places, key=lambda name: float(places[name] @ inverse @ places[name]))
        place = places.pop(best)
        known = known + np.outer(place, place)
        found.append(best)
    return tuple(found)


class _Rows:
    """The rows of one arm and D, and their regressors."""

    def __init__(self, arm: ArmAxes, generate: str) -> None:
        self.arm, self.generate, self.r = arm, generate, arm.resampled
        self.trains = [train for train in arm.trains if (generate, train) in arm.rows]
        self.places = {train: position(arm, generate, train, None) for train in self.trains}
        self.scores = self._scores()

    def predicted(self) -> PredictedRows:
        """All of it."""
        trained = [
            one for one in self.trains if any(self._effect(one, under) is not None for under in self.arm.columns)
        ]
        waiting = [one for one in self.trains if one not in trained]
        placed = [one for one in trained if self.places[one].there]
        cells = tuple(
            self._cell(train, under)
            for train in self.trains
            for under in self.arm.columns
            if self._effect(train, under) is None
        )
        held, held_of = self._held_out()
        known = {one: self.places[one].value for one in waiting if self.places[one].there}
        order = most_informative([self.places[one].value for one in placed], known)
        short = ""
        if len(placed) < LEAST_ROWS:
            short = (
                f"a prediction needs {LEAST_ROWS} trained rows of one D, and {len(placed)} of {len(self.trains)} of "
                f"{self.generate} data are done"
            )
        return PredictedRows(
            self.arm.name,
            self.generate,
            tuple(trained),
            cells,
            {one: surprise(self.arm, self.generate, one, None).estimate for one in self.trains},
            (*order, *(one for one in waiting if one not in known)),
            held,
            held_of,
            short if cells else "",
        )

    def _scores(self) -> dict[str, float]:
        """The scores of a selection that ranked by log-probability, by train condition."""
        for entry in self.r.grid.experiment.conditions.get("selections", []):
            if entry["by"] == "uplift" and entry["generate"] == self.generate and entry.get("withdrawn") is None:
                return {str(name): float(value) for name, value in entry["scores"].items()}
        return {}

    def _effect(self, train: str, evaluate: str) -> float | None:
        column = self.arm.column(self.generate, train, evaluate, None)
        value = self.r.uplifts.values[column] if column is not None else math.nan
        return float(value) if math.isfinite(value) else None

    def _base(self, evaluate: str) -> int | None:
        column = self.r.base(self.arm.name, evaluate, None)
        return column if self.r.done(column) else None

    def _distance(self, train: str, evaluate: str) -> float:
        """Between the base model's means under both conditions, on the link scale; NaN where one is not there."""
        column = self._base(evaluate)
        under = self.r.base_under(self.arm.name, self.arm.parts(self.generate, train, None), None)
        if column is None or under is None:
            return math.nan
        mean, _, n, _ = under
        return abs(float(self.r.scale.linked(mean, n, self.r.means[column], self.r.n[column])))

    def _regressors(self, evaluate: str, rows: Sequence[str], new: str) -> tuple[tuple[str, ...], Floats]:
        """The names of the regressors, and their values (rows and the new one, regressors)."""
        everyone = [*rows, new]
        names, columns = [SURPRISE], [[self.places[one].value for one in everyone]]
        further = (
            (DISTANCE, [self._distance(one, evaluate) for one in everyone]),
            (SCORE, [self.scores.get(one, math.nan) for one in everyone]),
        )
        for name, values in further:
            if len(rows) - len(names) - 2 >= SPARE and np.isfinite(values).all() and _new(columns, values):
                names.append(name)
                columns.append(values)
        return tuple(names), np.array(columns, dtype=np.float64).T

    def _regressed(
        self, train: str, evaluate: str, left_out: str | None = None
    ) -> tuple[Extrapolated | None, tuple[str, ...], int, str]:
        """One cell from the other rows: what is found, the regressors, how many rows, or why nothing is."""
        rows = [
            one
            for one in self.trains
            if one not in (train, left_out) and self.places[one].there and self._effect(one, evaluate) is not None
        ]
        if not self.places[train].there:
            return None, (), len(rows), self.places[train].reason
        if len(rows) < LEAST_ROWS:
            return (
                None,
                (),
                len(rows),
                f"{LEAST_ROWS} trained rows are needed under {evaluate}, and {len(rows)} are done and scored",
            )
        names, table = self._regressors(evaluate, rows, train)
        effects = np.array([self._effect(one, evaluate) for one in rows], dtype=np.float64)
        found = extrapolated(table[:-1], effects, table[-1])
        return found, names, len(rows), "" if found else "the trained rows do not differ in how surprising D is"

    def _cell(self, train: str, evaluate: str) -> PredictedCell:
        column = self._base(evaluate)
        base = None if column is None else float(self.r.means[column])
        found, names, rows, reason = self._regressed(train, evaluate)
        if found is None:
            return PredictedCell(train, evaluate, base, None, reason=reason)
        seeds = len(self.arm.seeds)
        value = Estimate(found.value, found.value - found.reach, found.value + found.reach, rows, None, seeds)
        return PredictedCell(train, evaluate, base, value, found.degrees, names, found.leverage)

    def _held_out(self) -> tuple[int, int]:
        """Trained cells within the interval that the other rows predict for them, and of how many."""
        held = count = 0
        for train in self.trains:
            for evaluate in self.arm.columns:
                effect = self._effect(train, evaluate)
                found = self._regressed(train, evaluate)[0] if effect is not None else None
                if effect is not None and found is not None:
                    count += 1
                    held += abs(effect - found.value) <= found.reach
        return held, count


def _new(columns: Sequence[Sequence[float]], values: Sequence[float]) -> bool:
    """Whether values of the trained rows tell something that the columns before do not."""
    rows = np.array([*columns, values], dtype=np.float64).T[:-1]
    size = rows.std(axis=0)
    if (size <= 1e-9 * (1 + np.abs(rows.mean(axis=0)))).any():
        return False
    return bool(np.linalg.cond(np.column_stack([np.ones(len(rows)), (rows - rows.mean(axis=0)) / size])) < 100)
