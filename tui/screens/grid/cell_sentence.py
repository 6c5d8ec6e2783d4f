"""A cell of the grid in words: the line under the matrix."""

from __future__ import annotations

from windowshift.core.contract import sanitise
from windowshift.core.contract.estimate import Estimate, counts_text
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.records import BASE
from windowshift.core.contract.truncation import counted_dagger
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import Metric
from windowshift.tui.read.fits import Fits, effect_of, mean_of
from windowshift.tui.read.snapshot import BASE_ROW, GridCell, GridSnapshot, finished
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.theme import Ink


def explanation(
    grid: GridSnapshot, found: GridCell | None, at: tuple[int, int], metric: Metric, fits: Fits | None, ink: Ink
) -> Pieces:
    """Say what a cell is, in words; `at` is its row (-1: base) and column."""
    if found is None:
        return [("this part of the grid is not planned", ink.dim)]
    cell, summary, words = found.cell, found.summary, grid.behaviour.scale.words
    name = f"{sanitise.line(cell.train, 60)} → {sanitise.line(cell.evaluate, 60)}"
    pieces: Pieces = [(name, ink.strong), (": ", ink.dim)]
    if cell.state == "failed":
        pieces.append(("failed; J shows why, R there tries again. ", ink.bad))
    if summary is None or summary.mean is None:
        if cell.state == "done":
            return [*pieces, (f"no score; n 0; {summary.missing if summary else cell.done} missing", ink.bad)]
        share = f"{cell.done} of {cell.total} completions" if cell.done else f"{cell.total} completions to come"
        later = "; its numbers come when it is done" if cell.done and cell.state != "failed" else ""
        return [*pieces, (f"{cell.state}, {share}{later}", ink.text)]
    own = mean_of(found, grid.behaviour, fits)
    pieces += [
        (grid.behaviour.value_text(summary.mean, narrow=True), ink.strong),
        (_unbroken(f" {words.value_format.interval(own, narrow=True)}"), ink.text),
    ]
    if at[0] != BASE_ROW:
        base = found.base_mean
        shown = f", base {words.value_format.with_unit(base, narrow=True)}"
        pieces.append((shown if base is not None else ", base not known yet", ink.text))
        effect = effect_of(found, grid.behaviour, fits)
        if effect is not None:
            pieces += [(f"; {words.uplift} ", ink.text), *_changed(effect, words.effect_format, ink)]
            if grid.behaviour.scale.kind == "ratio":
                pieces.append((f" ({2**effect.value - 1:+.0%})".replace("-", formats.MINUS), ink.dim))
            link = effect_of(found, grid.behaviour, fits, link=True) if words.two else None
            if link is not None:
                pieces += [(f"; {words.link_short} ", ink.text), *_changed(link, words.link_format, ink)]
        elif base is not None:
            pieces.append((f"; {words.uplift} of the prompts that both have: measuring …", ink.dim))
    measured = fits.cells.get(found.key) if fits and fits.behaviour == grid.behaviour else None
    prompts = measured.mean.prompts if measured and measured.mean and measured.tally.n == summary.n else None
    seeds = 0 if cell.train == BASE else 1
    pieces.append((f"; n {counts_text(prompts, summary.n, seeds, narrow=True)}", ink.text))
    cut = counted_dagger(summary.truncated) or "0"
    pieces.append((f"; {cut} truncated", ink.warn if summary.truncated else ink.text))
    base_summary = finished(found.base) if at[0] != BASE_ROW else None
    if base_summary is not None and base_summary.truncated:
        pieces.append((f", base {counted_dagger(base_summary.truncated)}", ink.warn))
    if summary.missing:
        pieces.append((f"; {summary.missing} missing", ink.bad))
    pieces += [(f"; {remark}", ink.dim) for remark in _remarks(grid, found, at, metric, fits)]
    return pieces


def _changed(one: Estimate, form: NumberFormat, ink: Ink) -> Pieces:
    interval = form.interval(one, narrow=True)
    value = form.with_unit(one.value, narrow=True)
    return [(_unbroken(value), ink.strong), (_unbroken(f" {interval}") if interval else "", ink.text)]


def _unbroken(text: str) -> str:
    """Text whose inner spaces do not end a line; the first one may."""
    return text[:1] + text[1:].replace(" ", "\u00a0")


def _remarks(
    grid: GridSnapshot, found: GridCell, here: tuple[int, int], metric: Metric, fits: Fits | None
) -> list[str]:
    low, high = cell_labels.extremes(grid, metric, fits)
    remarks = [f"crossed: not in {grid.behaviour.scale.words.spread} and fit"] if _crossed(grid, here) else []
    cells = [cell for row in grid.rows for cell in row.own_cells if cell is not None]
    sofar = " so far" if any(cell.summary is None for cell in cells) else ""
    if here == low:
        remarks.append(f"▾ lowest of this page{sofar}")
    if here == high:
        remarks.append(f"▴ highest of this page{sofar}")
    if found.cell.train == found.cell.evaluate:
        remarks.append("train = eval")
    if found.cell.train == grid.page.generate:
        remarks.append("train = data")
    return remarks


def _crossed(grid: GridSnapshot, here: tuple[int, int]) -> bool:
    return here[1] < len(grid.heads) and grid.heads[here[1]].crossed
