"""What a grid of several behaviours at once looks like: numbers side by side, or shares stacked to a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from windowshift.core.contract.records import BASE
from windowshift.core.contract.truncation import dagger
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import Face, FaceRow, MatrixModel, Metric
from windowshift.tui.read.fits import Fits
from windowshift.tui.read.snapshot import CellKey, GridSnapshot
from windowshift.tui.text.table import TextTable, number, table

PART = 5
"""Columns of screen that a number beside others takes at least, with the line behind it."""

BAR = 9
"""Columns of screen that a bar takes at least, with the gap behind it."""

_ROUNDING = 1e-6


def shares_of(grid: GridSnapshot, train: str, evaluate: str) -> tuple[float, ...] | None:
    """Return the shares of a cell's outcomes, what none of them covers last; None before all of them are known.

    Shares of more than the whole are none of outcomes that exclude each other: () then.
    """
    means = [found.mean if (found := page.cell(train, evaluate)) else None for page in grid.beside]
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means):
        return None
    rest = 1 - sum(known)
    return () if rest < -_ROUNDING else (*known, rest if rest > _ROUNDING else 0.0)


def model(grid: GridSnapshot, metric: Metric, pinned: Sequence[CellKey], fits: Mapping[str, Fits]) -> MatrixModel:
    """Return what the matrix shows of several behaviours, in the rows and columns of the chosen one."""
    first = cell_labels.model(grid, metric, None, pinned, fits.get(grid.behaviour.name))
    outcomes = grid.together is not None and grid.together.kind == "outcomes"
    several = [cell_labels.model(page, metric, None, (), fits.get(page.behaviour.name)) for page in grid.beside]

    def row(shown: FaceRow, train: str) -> FaceRow:
        faces: list[Face] = []
        for evaluate, face in zip(grid.columns, shown.faces, strict=True):
            found = grid.cell(train, evaluate)
            if found is None or found.summary is None:
                faces.append(face)
            elif outcomes:
                cut = dagger(*(bool(cell_labels.cut_of(page.cell(train, evaluate), "mean")) for page in grid.beside))
                bar = replace(face, mark="", level=None, dagger=cut)
                faces.append(_bar(bar, shares_of(grid, train, evaluate)))
            else:
                own = zip(grid.beside, several, strict=True)
                parts = (_part(page, one, train, evaluate) for page, one in own)
                faces.append(replace(face, mark="", level=None, dagger="", parts=tuple(parts)))
        return replace(shown, faces=tuple(faces), summary=())

    return MatrixModel(
        heads=first.heads,
        summaries=(),
        base=row(first.base, BASE),
        rows=tuple(row(shown, own.train) for shown, own in zip(first.rows, grid.rows, strict=True)),
        least=BAR if outcomes else PART * len(grid.beside),
    )


def _part(page: GridSnapshot, drawn: MatrixModel, train: str, evaluate: str) -> Face:
    """The face of one behaviour's cell, whatever the order of its rows and columns is."""
    row = drawn.base if train == BASE else drawn.rows[[one.train for one in page.rows].index(train)]
    return replace(row.faces[page.columns.index(evaluate)], mark="")


def _bar(face: Face, shares: tuple[float, ...] | None) -> Face:
    if not shares:
        return replace(face, text="overlap" if shares is not None else "·", detail="")
    return replace(face, text="", detail=" ".join(f"{100 * share:.0f}" for share in shares[:-1]), shares=shares)


def grid_table(grid: GridSnapshot, metric: Metric, fits: Mapping[str, Fits]) -> TextTable:
    """Return a page as it is shown, numbers in full: a column for each eval condition and behaviour."""
    names = [(evaluate, page) for evaluate in grid.columns for page in grid.beside]
    heads = ("train \\ eval", *(f"{evaluate}: {page.behaviour.name}" for evaluate, page in names))
    rows = []
    for train in (BASE, *grid.names[0]):
        values = []
        for evaluate, page in names:
            cell = page.cell(train, evaluate)
            known = fits.get(page.behaviour.name)
            values.append(number(cell_labels.shown_value(cell, metric, page, known) if cell else None))
        rows.append((train, *values))
    return table(heads, rows)


def numbers_of(
    grid: GridSnapshot, train: str, evaluate: str, metric: Metric, fits: Mapping[str, Fits]
) -> list[tuple[str, float]]:
    """Return the numbers that a cell shows, each under the name of its behaviour."""
    found = []
    for page in grid.beside:
        cell = page.cell(train, evaluate)
        value = cell_labels.shown_value(cell, metric, page, fits.get(page.behaviour.name)) if cell else None
        found += [(page.behaviour.name, value)] if value is not None else []
    return found
