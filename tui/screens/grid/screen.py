"""The grid of one experiment: its home screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.message import Message

from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.records import BASE
from windowshift.core.store.reader import Reader
from windowshift.tui import actions
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import METRICS, Metric
from windowshift.tui.read.deep_link import DeepLink
from windowshift.tui.read.freed_memory import give_back
from windowshift.tui.read.pins import variant
from windowshift.tui.read.places import GridPlace
from windowshift.tui.read.snapshot import GridChoice, GridSnapshot, Page, read_grid
from windowshift.tui.screens.grid.cell_sentence import explanation
from windowshift.tui.screens.grid.fit_line import FitLine, Fits, read_fits
from windowshift.tui.screens.grid.keys import GridKeys
from windowshift.tui.screens.grid.matrix import Matrix
from windowshift.tui.screens.grid.matrix_view import BASE_ROW
from windowshift.tui.text import formats, sanitise
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.words import Words
from windowshift.tui.widgets.experiment_line import experiment_line, model_line
from windowshift.tui.widgets.headline import Headline, KeyLine
from windowshift.tui.widgets.legend import Legend
from windowshift.tui.widgets.picture import Picture

FIT_REST = 40.0
"""The fit rests this many times as long as the last one took."""

UNIT_FROM = 100
"""On screens of this width or more the mean of D has its unit beside it."""

PUBLISHED_OF = "length_chars"
"""The behaviour that the published numbers are of."""


class GridScreen(GridKeys):
    """Train × eval matrix, one page a generation condition, filling in live."""

    SCREEN_NAME = "grid"
    BINDINGS = actions.bindings("grid")

    class FitsRead(Message):
        """The fit was computed."""

        def __init__(self, fits: Fits | None, cost: float) -> None:
            super().__init__()
            self.fits = fits
            self.cost = cost

    def __init__(self, name: str, link: DeepLink | None = None) -> None:
        super().__init__()
        self.experiment = name
        self._link = link if link is not None and link.generate is not None else None
        self.choice = GridChoice()
        self.metric: Metric = "uplift"
        self.fits: Fits | None = None
        self._fitting = False
        self._fit_again = False
        self._fit_of: tuple[str, int] | None = None
        self._fit_rest = 0.0

    def body(self) -> ComposeResult:
        """Lay out controls, matrix, and what stands below it."""
        yield Headline(id="controls")
        matrix = Matrix()
        matrix.add_class("body")
        yield matrix
        yield Legend()
        yield Words(id="words")
        yield FitLine()
        yield Picture(id="scatter")

    # -- the place ------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Go on where this grid was left."""
        kept = self.shift.places.grids.get(self.experiment)
        if kept is not None and self._link is None:
            self.choice = kept.choice
            self.metric = next((metric for metric in METRICS if metric == kept.metric), "uplift")
            if kept.train is not None:
                self._link = DeepLink(self.experiment, None, kept.train, kept.evaluate)

    def where(self) -> list[Any]:
        """Its name; cursor and page are kept beside."""
        return ["grid", self.experiment]

    def leaving(self) -> None:
        """Keep page, metric and cursor."""
        if self.snapshot is not None:
            found = self.selected
            train, evaluate = (found.key.train, found.key.evaluate) if found else (None, None)
            self.shift.places.grids[self.experiment] = GridPlace(self.choice, self.metric, train, evaluate)

    def _follow(self, grid: GridSnapshot) -> None:
        """Go where a link leads: to a page, which is another reading, then to a row, then into a cell."""
        link = self._link
        if link is None:
            return
        wanted = self._linked(grid, link)
        if wanted is None:
            self._link = None
            self.shift.say(f"There is no generation condition '{link.generate}' in this experiment.", bad=True)
            return
        if wanted != grid.page:
            self.choice = replace(self.choice, page=wanted)
            self.choose()
            return
        self._link = None
        trains = {row.train: place for place, row in enumerate(grid.rows)} | {BASE: BASE_ROW}
        row = trains.get(link.train or "", 0)
        column = grid.columns.index(link.evaluate) if link.evaluate in grid.columns else 0
        # The matrix learns its size with the first layout, and cannot place a cursor before it.
        self.call_after_refresh(self.matrix.move, row, column)
        if link.generate is None:
            return
        missing = [
            name for name, known in ((link.train, trains), (link.evaluate, grid.columns)) if name and name not in known
        ]
        if missing:
            self.shift.say(f"There is no condition '{missing[0]}' on this page.", bad=True)
        elif link.evaluate is not None:
            shown = grid.base if row == BASE_ROW else grid.rows[row]
            cell = shown.cells[column]
            if cell is not None:
                self.shift.open_cell(self.experiment, cell.key, grid.behaviour.name)

    def _linked(self, grid: GridSnapshot, link: DeepLink) -> Page | None:
        """The page that a link leads to: of its generation condition, and of the arm of its train condition."""
        if link.generate is None:
            return grid.page
        conditions = grid.experiment.row.conditions
        part, name = ("evaluate", link.evaluate) if link.train == BASE else ("train", link.train)
        arm = next((entry["arm"] for entry in conditions.get(part, []) if entry["name"] == name), grid.page.arm)
        pages = [page for page in grid.pages if page.generate == link.generate]
        return next((page for page in pages if page.arm == arm), next(iter(pages), None))

    # -- reading --------------------------------------------------------------------------------

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return (self.experiment,)

    def reading(self) -> Callable[[Reader], GridSnapshot | None]:
        """Read the chosen page."""
        name, choice = self.experiment, self.choice
        return lambda reader: read_grid(reader, name, choice)

    def nothing(self) -> None:
        """The experiment is not there yet: a run that has just been started writes it in a moment."""
        self.query_one(Headline).show((self.crumbs(self.experiment), []))
        name = sanitise.line(self.experiment, 80)
        self.query_one(Words).show(
            [(f"There is no experiment '{name}' here yet; it appears as soon as a run writes it.", self.ink.text)]
        )

    def show(self, snapshot: GridSnapshot) -> None:
        """Show a page."""
        grid = snapshot
        published = self.fits.published if self.fits and grid.behaviour.name == PUBLISHED_OF else None
        pinned = self.shift.places.pins.of(self.experiment)
        spread = published.spread(grid.page.generate) if published and grid.page.arm == "prefix" else None
        self.matrix.show(cell_labels.model(grid, self.metric, spread, pinned))
        self.query_one(Picture).show(self.fits.marked([variant(key) for key in pinned]) if self.fits else None)
        self.query_one(FitLine).show(self.fits, grid.page, grid.behaviour.name == PUBLISHED_OF)
        self.query_one(KeyLine).hide(
            frozenset(
                ([] if len({page.generate for page in grid.pages}) > 1 else ["previous_page"])
                + ([] if len({page.arm for page in grid.pages}) > 1 else ["arm", "steering"])
                + ([] if len(grid.seeds) > 1 else ["previous_seed"])
                + ([] if grid.steps else ["previous_step"])
                + ([] if len(grid.experiment.row.behaviours) > 1 else ["behaviour"])
            )
        )
        self.query_one("#controls", Headline).show(self._controls(grid))
        self.query_one(Legend).show(grid.behaviour, self.metric)
        self.tick()
        self._follow(grid)
        self._explain()
        done = (grid.behaviour.name, grid.experiment.row.cells_done)
        if done != self._fit_of:
            self._fit_of = done
            self._ask_fits()

    def tick(self) -> None:
        """The clock goes on, and a run may have fallen silent."""
        if self.snapshot is None:
            return
        view, now = self.snapshot.experiment, self.shift.now()
        self.query_one(Headline).show(
            (self.crumbs(view.row.name), experiment_line(view, now, self.ink)),
            *model_line(view, now, self.ink),
        )

    def _controls(self, grid: GridSnapshot) -> tuple[Pieces, Pieces]:
        ink = self.ink

        def switch(name: str, value: str, several: bool) -> Pieces:
            around = ("‹ ", " ›") if several else ("", "")
            left, right = around
            shown = sanitise.line(value, 60)
            return [(f" {name} ", ink.dim), (left, ink.faint), (shown, ink.accent), (f"{right}  ", ink.faint)]

        pieces = switch("generate", grid.page.generate or "–", len(grid.pages) > 1)
        if len({page.arm for page in grid.pages}) > 1:
            pieces += switch("arm", grid.page.arm, True)
        pieces += switch("metric", cell_labels.metric_name(self.metric, grid.behaviour), False)
        if len(grid.seeds) > 1:
            pieces += switch("seed", str(grid.seed), True)
        if grid.steps:
            pieces += switch("step", "final" if grid.step is None else str(grid.step), True)
        means = {row.data_mean for row in grid.rows if row.data_mean is not None}
        unit = f" {grid.behaviour.unit}" if self.size.width >= UNIT_FROM else ""
        data = f"D {formats.plain(means.pop())}{unit}, " if len(means) == 1 else "D "
        if grid.experiment.row.data_size:
            data += f"n {grid.experiment.row.data_size}"
        return pieces, [(f"{data} ", ink.dim)]

    def on_resize(self) -> None:
        """Say more where there is room."""
        if self.snapshot is not None:
            self.query_one("#controls", Headline).show(self._controls(self.snapshot))

    # -- words ----------------------------------------------------------------------------------

    def on_matrix_moved(self, message: Matrix.Moved) -> None:
        """Explain the cell under the cursor."""
        message.stop()
        self._explain()

    def on_matrix_opened(self, message: Matrix.Opened) -> None:
        """Open the cell that was clicked."""
        message.stop()
        self.action_open()

    def _explain(self) -> None:
        if self.snapshot is not None:
            at = (self.matrix.row, self.matrix.column)
            self.query_one(Words).show(explanation(self.snapshot, self.selected, at, self.fits, self.ink))

    # -- the fit --------------------------------------------------------------------------------

    def _ask_fits(self) -> None:
        if self._fitting:
            self._fit_again = True
            return
        wait = self._fit_rest - time.monotonic()
        if wait > 0 and self.fits is not None:
            # Every score is read for a fit: a grid that fills by the second must not be read without end.
            self._fitting = self._fit_again = True
            self.set_timer(wait, self._fit_rested)
            return
        self._fitting = True
        self._read_fits(self.experiment, self._fit_of[0] if self._fit_of else "")

    def _fit_rested(self) -> None:
        self._fitting = self._fit_again = False
        self._fit_rest = 0.0
        self._ask_fits()

    @work(thread=True, exit_on_error=False, group="fits")
    def _read_fits(self, name: str, behaviour: str) -> None:
        fits: Fits | None = None
        began = time.thread_time()
        try:
            fits = self.shift.store.read(lambda reader: read_fits(reader, name, behaviour))
        except (WindowshiftError, ValueError, ArithmeticError) as error:
            self.log.error(repr(error))
        give_back()
        self.post_message(self.FitsRead(fits, time.thread_time() - began))

    def on_grid_screen_fits_read(self, message: FitsRead) -> None:
        """Show the fit."""
        message.stop()
        self._fitting = False
        self._fit_rest = time.monotonic() + FIT_REST * message.cost
        self.fits = message.fits
        if not self.ready:
            return
        if self.snapshot is not None:
            self.show(self.snapshot)
        if self._fit_again:
            self._fit_again = False
            self._ask_fits()
