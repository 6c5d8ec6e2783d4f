"""The line over the matrix: what the page shows, what can be chosen instead, and its D."""

from __future__ import annotations

from windowshift.core.contract import sanitise
from windowshift.core.contract.estimate import ONE_RUN
from windowshift.core.contract.truncation import dagger
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import Metric
from windowshift.tui.read.snapshot import GridSnapshot, name_beside
from windowshift.tui.read.together import togethers
from windowshift.tui.screens.grid.together_sentence import number_words
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.theme import Ink

UNIT_FROM = 100
"""On screens of this width or more the mean of D has its unit beside it."""


def controls(grid: GridSnapshot, metric: Metric, width: int, ink: Ink) -> tuple[Pieces, Pieces]:
    """Return the choices on the left and D on the right."""

    def switch(name: str, value: str, several: bool) -> Pieces:
        left, right = ("‹ ", " ›") if several else ("", "")
        shown = sanitise.line(value, 60)
        return [(f" {name} ", ink.dim), (left, ink.faint), (shown, ink.accent), (f"{right}  ", ink.faint)]

    pieces = switch("generate", grid.page.generate or "–", len(grid.pages) > 1)
    if len({page.arm for page in grid.pages}) > 1:
        pieces += switch("arm", grid.page.arm, True)
    name = name_beside(grid.behaviour, grid.experiment.row)
    number = cell_labels.metric_name(metric, grid.behaviour)
    shown = number_words(grid, metric) or (f"{name}: {number}" if name else number)
    pieces += switch("metric", shown, False)
    if len(grid.seeds) > 1:
        pieces += switch("seed", str(grid.seed), True)
    if grid.steps:
        pieces += switch("step", "final" if grid.step is None else str(grid.step), True)
    means = {row.data_mean for row in grid.rows if row.data_mean is not None}
    form = grid.behaviour.scale.words.value_format
    written = grid.behaviour.value_text if width >= UNIT_FROM else form.with_unit
    cut = dagger(*(row.data_cut for row in grid.rows))
    data = f"D {written(means.pop(), narrow=True)}{cut}, " if len(means) == 1 and grid.together is None else "D "
    if grid.experiment.row.data_size:
        data += f"n {grid.experiment.row.data_size}"
    return pieces, [(f"{data} ", ink.dim)]


def idle_actions(grid: GridSnapshot) -> frozenset[str]:
    """Return the actions that have nothing to choose on this page."""
    busy = {
        "previous_page": len({page.generate for page in grid.pages}) > 1,
        "arm": len({page.arm for page in grid.pages}) > 1,
        "steering": len({page.arm for page in grid.pages}) > 1,
        "microscope": any(one.get("control") for one in grid.experiment.row.conditions.get("train", [])),
        "previous_seed": len(grid.seeds) > 1,
        "previous_step": bool(grid.steps),
        "behaviour": len(grid.experiment.row.behaviours) > 1,
        "together": bool(togethers(grid.experiment.row)),
        "metric": grid.together is None or grid.together.kind == "traits",
    }
    return frozenset(name for name, something in busy.items() if not something)


def training_runs(grid: GridSnapshot) -> str:
    """Say how many training runs the numbers of a page are of: cells are of one, the fit is of all."""
    if not grid.rows:
        return ""
    if len(grid.seeds) < 2:
        return ONE_RUN
    spread = grid.behaviour.scale.words.spread
    return f"a cell is one of {len(grid.seeds)} training runs; fit and {spread} below are of all"
