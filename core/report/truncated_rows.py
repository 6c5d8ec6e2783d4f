"""The dagger: which rows and cells of a page rest on completions that were cut off."""

from __future__ import annotations

from windowshift.core.contract.records import BASE
from windowshift.core.contract.truncation import dagger
from windowshift.core.measure.measures import ArmMeasures


def cut_cells(arm: ArmMeasures, generate: str) -> frozenset[tuple[str, str]]:
    """The (train, evaluate) of final cells that have a completion that was cut off, or whose base cell has."""
    own = {
        (cell.key.train, cell.key.evaluate): cell.tally.truncated
        for cell in arm.cells
        if cell.key.final and (cell.key.train == BASE or cell.key.generate == generate)
    }
    return frozenset(place for place, cut in own.items() if dagger(cut, own.get((BASE, place[1]), 0)))


def row_dagger(arm: ArmMeasures, generate: str, train: str) -> str:
    """A dagger where a number over a row's eval conditions rests on a cell that was cut off; else nothing."""
    cut = cut_cells(arm, generate)
    return dagger(*((train, evaluate) in cut for evaluate in arm.evaluates))
