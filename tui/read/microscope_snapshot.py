"""Frozen snapshots of an experiment under the microscope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import Behaviour
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import ExperimentView, behaviour_of, read_experiment

if TYPE_CHECKING:
    from windowshift.core.measure.microscope import Microscope


@dataclass(frozen=True, slots=True)
class MicroscopeSnapshot:
    """What the controls of an experiment tell of one behaviour; `found` is None where `problem` says why."""

    experiment: ExperimentView
    behaviour: Behaviour
    found: Microscope | None
    problem: str = ""


def read_microscope(reader: Reader, name: str, behaviour: str | None) -> MicroscopeSnapshot | None:
    """Look at an experiment through the microscope; runs in a worker thread, because it loads every score."""
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.loss_drop import losses_of
    from windowshift.core.measure.microscope import dissect
    from windowshift.core.measure.resampled import Resampled

    view = read_experiment(reader, name)
    if view is None:
        return None
    chosen = behaviour_of(view.row, behaviour)
    grid = load_grid(reader, view.row, chosen)
    try:
        return MicroscopeSnapshot(view, chosen, dissect(Resampled(grid), losses_of(reader, grid.cells)))
    except SpecError as error:
        return MicroscopeSnapshot(view, chosen, None, str(error))
