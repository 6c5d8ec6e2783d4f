"""Frozen snapshots of an experiment's steering: vectors, sweeps, curves, matches, controls, and what is not done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE, VECTOR_KINDS, Behaviour, JobKind, JobState
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import CellKey, ExperimentView, behaviour_of, read_experiment, trained_seeds

if TYPE_CHECKING:
    from windowshift.core.measure.arm_comparison import Pair
    from windowshift.core.measure.inside_results import InsideResults, MeasuredInside
    from windowshift.core.measure.steering_results import DoseCurve, LayerSweep, SteeringResults, VectorLine
    from windowshift.core.measure.vector_cosines import Cosines

CosineRows = tuple[tuple[float | None, ...], ...]
"""Cosines by row and column; None where there is none."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A job of the steering arm that is not done, and why."""

    kind: JobKind
    label: str
    state: JobState
    error: str | None


@dataclass(frozen=True, slots=True)
class VectorCosines:
    """Cosines of one vector: of all `names` at the layer in use (None: there is none yet), and across its layers.

    `problem` says why its file gives none.
    """

    layer: int | None
    names: tuple[str, ...]
    between: CosineRows
    across: CosineRows
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class SteeringSnapshot:
    """What the steering of an experiment came to so far.

    `rows` name a cell of every trained row, of which there are `seeds` training runs. `inside` is what was read along
    the vectors inside the model.
    """

    experiment: ExperimentView
    behaviour: Behaviour
    results: SteeringResults
    inside: InsideResults
    cosines: dict[str, VectorCosines]
    unfinished: tuple[Unfinished, ...]
    rows: dict[tuple[str, str, str], CellKey]
    seeds: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The vectors."""
        return tuple(one.name for one in self.results.vectors)

    def vector(self, name: str) -> VectorLine:
        """A vector by name."""
        return next(one for one in self.results.vectors if one.name == name)

    def sweeps(self, name: str) -> tuple[LayerSweep, ...]:
        """The layer sweeps of a vector, one for each kind of tokens that is pushed."""
        return tuple(one for one in self.results.sweeps if one.vector == name)

    def curves(self, name: str) -> tuple[DoseCurve, ...]:
        """The dose curves of a vector, one for each kind of tokens that is pushed."""
        return tuple(one for one in self.results.curves if one.vector == name)

    def layer(self, name: str) -> int | None:
        """The layer at which a vector is used; None until it is known. A control's is that of its vector."""
        return self.results.layer(name)

    def pinned(self, pair: Pair) -> tuple[CellKey, ...]:
        """Cells of a matched pair's two rows, both without a push where both have that."""
        rows = [("prefix", pair.generate, pair.prefix), ("steering", pair.generate, pair.steering)]
        return tuple(self.rows[row] for row in rows if row in self.rows)


def read_steering(
    reader: Reader, name: str, measured: dict[str, MeasuredInside] | None = None
) -> SteeringSnapshot | None:
    """Read an experiment's steering; runs in a worker thread, because it loads numpy and every score.

    The doses are of the experiment's first behaviour, which they were measured and matched on. `measured` is a
    screen's: what was measured inside the model at an earlier look is not bootstrapped again.
    """
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.inside_results import MeasuredInside, inside_along
    from windowshift.core.measure.resampled import Resampled
    from windowshift.core.measure.steering_results import steering_results

    view = read_experiment(reader, name)
    if view is None:
        return None
    behaviour = behaviour_of(view.row, None)
    resampled = Resampled(load_grid(reader, view.row, behaviour))
    results = steering_results(reader, view.row, resampled)
    unfinished = tuple(
        Unfinished(job.kind, job.label, job.state, job.error)
        for job in reader.jobs(view.row.id)
        if job.kind in VECTOR_KINDS and job.state != "done"
    )
    neutral = {str(one["name"]) for one in view.row.conditions.get("evaluate", []) if one.get("kind") == "none"}
    rows: dict[tuple[str, str, str], CellKey] = {}
    cells = reader.cells(view.row.id, behaviour.name)
    for cell in cells:
        row = (cell.arm, cell.generate, cell.train)
        if cell.train != BASE and cell.final and (row not in rows or cell.evaluate in neutral):
            rows[row] = CellKey(cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step)
    kept = MeasuredInside() if measured is None else measured.setdefault(name, MeasuredInside())
    inside, seeds = inside_along(reader, view.row, measured=kept), trained_seeds(cells)
    return SteeringSnapshot(view, behaviour, results, inside, _cosines(results), unfinished, rows, seeds)


def _cosines(results: SteeringResults) -> dict[str, VectorCosines]:
    """Cosines of every vector that is made."""
    from windowshift.core.contract.vector_file import read_vector
    from windowshift.core.measure.vector_cosines import cosines_across, cosines_at

    directions = {}
    found: dict[str, VectorCosines] = {}
    for line in results.vectors:
        if line.file is None or line.header is None:
            continue
        try:
            directions[line.name] = read_vector(line.file)[1]
        except SpecError as error:
            found[line.name] = VectorCosines(None, (), (), (), str(error))
    for name, own in directions.items():
        layer = results.layer(name)
        between = _plain(cosines_at(list(directions.values()), layer)) if layer is not None else ()
        found[name] = VectorCosines(layer, tuple(directions), between, _plain(cosines_across(own)))
    return found


def _plain(values: Cosines) -> CosineRows:
    return tuple(tuple(None if math.isnan(value) else value for value in row) for row in values.tolist())
