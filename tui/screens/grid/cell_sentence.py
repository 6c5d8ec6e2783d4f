"""A cell of the grid in words: the line under the matrix."""

from __future__ import annotations

from windowshift.tui.read import cell_labels
from windowshift.tui.read.fits import Fits
from windowshift.tui.read.snapshot import GridCell, GridSnapshot
from windowshift.tui.screens.grid.matrix_view import BASE_ROW
from windowshift.tui.text import formats, sanitise
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.theme import Ink


def explanation(grid: GridSnapshot, found: GridCell | None, at: tuple[int, int], fits: Fits | None, ink: Ink) -> Pieces:
    """Say what a cell is, in words; `at` is its row (-1: base) and column."""
    if found is None:
        return [("this part of the grid is not planned", ink.dim)]
    cell, summary = found.cell, found.cell.summary
    name = f"{sanitise.line(cell.train, 60)} → {sanitise.line(cell.evaluate, 60)}"
    pieces: Pieces = [(name, ink.strong), (": ", ink.dim)]
    if cell.state == "failed":
        pieces.append(("failed; J shows why, R there tries again. ", ink.bad))
    if summary is None or summary.mean is None:
        share = f"{cell.done} of {cell.total} completions" if cell.done else f"{cell.total} completions to come"
        return [*pieces, (f"{cell.state}, {share}", ink.text)]
    interval = formats.interval(summary.low, summary.high).replace(" ", "\u00a0")
    pieces += [
        (f"{formats.plain(summary.mean)} {grid.behaviour.unit}", ink.strong),
        (f" {interval}", ink.text),
    ]
    if at[0] != BASE_ROW:
        change, base = found.change(grid.behaviour.scale.kind), found.base_mean
        pieces.append((f", base {formats.plain(base)}" if base is not None else ", base not known yet", ink.text))
        if change is not None:
            word = "uplift" if grid.behaviour.scale.kind == "ratio" else "difference"
            uplift = fits.uplift(found.key).replace(" ", "\u00a0") if fits else ""
            pieces += [(f"; {word} ", ink.text), (formats.signed(change), ink.strong)]
            pieces.append((f" {uplift}" if uplift else "", ink.text))
            if grid.behaviour.scale.kind == "ratio":
                pieces.append((f" ({2**change - 1:+.0%})".replace("-", formats.MINUS), ink.dim))
    pieces.append((f"; n {summary.n}", ink.text))
    pieces.append((f"; {summary.truncated} truncated", ink.warn if summary.truncated else ink.text))
    if summary.missing:
        pieces.append((f"; {summary.missing} missing", ink.bad))
    pieces += [(f"; {remark}", ink.dim) for remark in _remarks(grid, found, at)]
    return pieces


def _remarks(grid: GridSnapshot, found: GridCell, here: tuple[int, int]) -> list[str]:
    low, high = cell_labels.extremes(grid)
    remarks = ["crossed: not in CV and fit"] if _crossed(grid, here) else []
    if here == low:
        remarks.append("▾ lowest of this page")
    if here == high:
        remarks.append("▴ highest of this page")
    if found.cell.train == found.cell.evaluate:
        remarks.append("train = eval")
    if found.cell.train == grid.page.generate:
        remarks.append("train = data")
    return remarks


def _crossed(grid: GridSnapshot, here: tuple[int, int]) -> bool:
    return here[1] < len(grid.heads) and grid.heads[here[1]].crossed
