"""What the guards of an experiment say: each fine-tune against the base model on other prompts, paired by prompt."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow
from windowshift.core.contract.stats import RESAMPLES
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.grid_measures import measure_resampled
from windowshift.core.measure.measures import CellMeasure
from windowshift.core.measure.resampled import Resampled
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class GuardResult:
    """One behaviour of a guard: the base model's cells, and those of every fine-tune at the end of its training.

    Seeds are pooled. A fine-tune's `effect` is what it lost or gained against the base model under the same eval
    condition, over the prompts that both have a score for, with the interval of the joint bootstrap; its `n` counts
    what the behaviour counts (instructions, else completions). A cell that is not done has neither.
    """

    behaviour: Behaviour
    base: tuple[CellMeasure, ...]
    tuned: tuple[CellMeasure, ...]

    @property
    def guard(self) -> str:
        """The guard that it belongs to."""
        return self.behaviour.guard


def guard_results(reader: Reader, experiment: ExperimentRow, resamples: int = RESAMPLES) -> tuple[GuardResult, ...]:
    """Measure the guards of an experiment; empty where it has none."""
    return tuple(
        guard_result(reader, experiment, behaviour, resamples) for behaviour in experiment.behaviours if behaviour.guard
    )


def guard_result(reader: Reader, experiment: ExperimentRow, behaviour: Behaviour, resamples: int) -> GuardResult:
    """Measure one behaviour of a guard."""
    measures = measure_resampled(Resampled(load_grid(reader, experiment, behaviour), resamples))
    # The base model's cells stand in every arm.
    cells = {cell.key: cell for arm in measures.arms.values() for cell in arm.cells if cell.key.final}
    base = tuple(cell for key, cell in cells.items() if key.train == BASE)
    return GuardResult(behaviour, base, tuple(cell for key, cell in cells.items() if key.train != BASE))
