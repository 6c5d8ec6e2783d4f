"""The grid of one experiment: its home screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.message import Message

from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.records import BASE
from windowshift.core.store.reader import Reader
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import METRICS, Metric
from windowshift.tui.read.deep_link import DeepLink, page_of
from windowshift.tui.read.fits import Fits, read_fits
from windowshift.tui.read.freed_memory import give_back
from windowshift.tui.read.pins import variant
from windowshift.tui.read.places import GridPlace
from windowshift.tui.read.snapshot import GridCell, GridChoice, GridSnapshot, read_grid
from windowshift.tui.screens.grid.cell_sentence import explanation
from windowshift.tui.screens.grid.controls import controls, idle_actions
from windowshift.tui.screens.grid.fit_line import FitLine
from windowshift.tui.screens.grid.matrix import Matrix
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions
from windowshift.tui.text.table import Table, number
from windowshift.tui.widgets.experiment_line import experiment_line, model_line
from windowshift.tui.widgets.headline import Headline, KeyLine
from windowshift.tui.widgets.legend import Legend
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.words import Words

FIT_REST = 40.0
"""The fit rests this many times as long as the last one took."""


class GridScreen(StoreScreen[GridSnapshot]):
    """Train × eval matrix, one page a generation condition, filling in live."""

    SCREEN_NAME = "grid"
    BINDINGS = actions.bindings("grid")

    @dataclass
    class FitsRead(Message):
        """The fit was computed."""

        fits: Fits | None
        cost: float

    def __init__(self, name: str, link: DeepLink | None = None) -> None:
        super().__init__()
        self.experiment = name
        self._link = link if link is not None and link.generate is not None else None
        self.choice = GridChoice()
        self.metric: Metric = "uplift"
        self.fits: Fits | None = None
        self._before: GridSnapshot | None = None
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
        yield Picture(self.shift.workspace, id="scatter")

    @property
    def matrix(self) -> Matrix:
        """The matrix."""
        return self.query_one(Matrix)

    @property
    def selected(self) -> GridCell | None:
        """The cell under the cursor."""
        grid = self.snapshot
        return grid.at(self.matrix.row, self.matrix.column) if grid is not None and grid.columns else None

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
        wanted = page_of(link, grid)
        if wanted is None:
            self._link = None
            self.shift.say(f"There is no generation condition '{link.generate}' in this experiment.", bad=True)
            return
        if wanted != grid.page:
            self.choice = replace(self.choice, page=wanted)
            self.choose()
            return
        self._link = None
        place = grid.place_of(link.train, link.evaluate)
        # The matrix learns its size with the first layout, and cannot place a cursor before it.
        self.call_after_refresh(self.matrix.move, *place)
        if link.generate is None:
            return
        known = ((link.train, (BASE, *grid.names[0])), (link.evaluate, grid.columns))
        missing = [name for name, there in known if name and name not in there]
        if missing:
            self.shift.say(f"There is no condition '{missing[0]}' on this page.", bad=True)
        elif link.evaluate is not None:
            cell = grid.at(*place)
            if cell is not None:
                self.shift.open("cell", self.experiment, cell.key, grid.behaviour.name)

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
        sentence = f"There is no experiment '{name}' here yet; it appears as soon as a run writes it."
        self.query_one(Words).show([(sentence, self.ink.text)])

    def show(self, snapshot: GridSnapshot) -> None:
        """Show a page."""
        grid = snapshot
        fits = self._fits_of(grid)
        published = fits.published if fits else None
        pinned = self.shift.places.pins.of(self.experiment)
        spread = published.spread(grid.page.generate) if published and grid.page.arm == "prefix" else None
        self.matrix.show(cell_labels.model(grid, self._metric_of(grid), spread, pinned, fits))
        self._follow_order(grid)
        self.query_one(Picture).show(fits.marked([variant(key) for key in pinned]) if fits else None)
        self.query_one(FitLine).show(fits, grid.page)
        self.query_one(KeyLine).hide(idle_actions(grid))
        self.query_one("#controls", Headline).show(controls(grid, self._metric_of(grid), self.size.width, self.ink))
        self.query_one(Legend).show(grid.behaviour, self._metric_of(grid))
        self.tick()
        self._follow(grid)
        self._explain()
        done = (grid.behaviour.name, grid.experiment.row.cells_done)
        if done != self._fit_of:
            self._fit_of = done
            self._ask_fits()

    def _follow_order(self, grid: GridSnapshot) -> None:
        """Where rows or columns of a page came into another order, keep the cursor on its cell and say so."""
        before, self._before = self._before, grid
        if before is None or before.chosen != grid.chosen or before.names == grid.names:
            return
        found = before.at(self.matrix.row, self.matrix.column)
        if found is not None:
            self.matrix.move(*grid.place_of(found.key.train, found.key.evaluate))
        if [set(names) for names in before.names] == [set(names) for names in grid.names]:
            self.shift.say("Rows and columns now stand in the order of the base model's means: all of them are there.")

    def tick(self) -> None:
        """The clock goes on, and a run may have fallen silent."""
        if self.snapshot is None:
            return
        view, now = self.snapshot.experiment, self.shift.now()
        first = (self.crumbs(view.row.name), experiment_line(view, now, self.ink))
        self.query_one(Headline).show(first, *model_line(view, now, self.ink))

    def on_resize(self) -> None:
        """Say more where there is room."""
        if self.snapshot is not None:
            metric = self._metric_of(self.snapshot)
            self.query_one("#controls", Headline).show(controls(self.snapshot, metric, self.size.width, self.ink))

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
            fits, metric = self._fits_of(self.snapshot), self._metric_of(self.snapshot)
            self.query_one(Words).show(explanation(self.snapshot, self.selected, at, metric, fits, self.ink))

    def _fits_of(self, grid: GridSnapshot) -> Fits | None:
        """What was measured, unless it was of another behaviour."""
        return self.fits if self.fits and self.fits.behaviour == grid.behaviour else None

    def _metric_of(self, grid: GridSnapshot) -> Metric:
        """The chosen metric, or the first where this behaviour has no such one."""
        return self.metric if self.metric in cell_labels.metrics_of(grid.behaviour) else METRICS[0]

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

    # -- keys -----------------------------------------------------------------------------------

    def action_cursor_up(self) -> None:
        """Move up; above the first row stands the base model."""
        self.matrix.move(self.matrix.row - 1, self.matrix.column)

    def action_cursor_down(self) -> None:
        """Move down."""
        self.matrix.move(self.matrix.row + 1, self.matrix.column)

    def action_cursor_left(self) -> None:
        """Move left."""
        self.matrix.move(self.matrix.row, self.matrix.column - 1)

    def action_cursor_right(self) -> None:
        """Move right."""
        self.matrix.move(self.matrix.row, self.matrix.column + 1)

    def action_cursor_first(self) -> None:
        """Go to the first column."""
        self.matrix.move(self.matrix.row, 0)

    def action_cursor_last(self) -> None:
        """Go to the last column."""
        self.matrix.move(self.matrix.row, len(self.matrix.model.columns) - 1)

    def action_extreme(self) -> None:
        """Go to the lowest cell; from there to the highest."""
        if self.snapshot is None:
            return
        metric = self._metric_of(self.snapshot)
        metric = metric if metric == "mean" or metric in cell_labels.CHANGES else METRICS[0]
        low, high = cell_labels.extremes(self.snapshot, metric, self._fits_of(self.snapshot))
        here = (self.matrix.row, self.matrix.column)
        target = high if here == low else low
        if target is not None:
            self.matrix.move(*target)

    def action_metric(self) -> None:
        """Show the next metric."""
        if self.snapshot is not None:
            metrics = cell_labels.metrics_of(self.snapshot.behaviour)
            self.metric = metrics[(metrics.index(self._metric_of(self.snapshot)) + 1) % len(metrics)]
            self.show(self.snapshot)

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is None:
            return
        names = [behaviour.name for behaviour in self.snapshot.experiment.row.behaviours]
        if len(names) > 1:
            place = names.index(self.snapshot.behaviour.name)
            self.choice = replace(self.choice, behaviour=names[(place + 1) % len(names)])
            self.choose()

    def _page(self, by: int) -> None:
        if self.snapshot is not None and len(self.snapshot.pages) > 1:
            pages = self.snapshot.pages
            page = pages[(pages.index(self.snapshot.page) + by) % len(pages)]
            self.choice = replace(self.choice, page=page, step=None)
            self.choose()

    def action_next_page(self) -> None:
        """Show the next generation condition."""
        self._page(1)

    def action_previous_page(self) -> None:
        """Show the previous generation condition."""
        self._page(-1)

    def _seed(self, by: int) -> None:
        if self.snapshot is not None and len(self.snapshot.seeds) > 1:
            seeds = self.snapshot.seeds
            self.choice = replace(self.choice, seed=seeds[(seeds.index(self.snapshot.seed) + by) % len(seeds)])
            self.choose()

    def action_next_seed(self) -> None:
        """Show the next seed."""
        self._seed(1)

    def action_previous_seed(self) -> None:
        """Show the previous seed."""
        self._seed(-1)

    def _step(self, by: int) -> None:
        if self.snapshot is not None and self.snapshot.steps:
            steps: list[int | None] = [*self.snapshot.steps, None]
            place = steps.index(self.snapshot.step) + by
            self.choice = replace(self.choice, step=steps[max(0, min(len(steps) - 1, place))])
            self.choose()

    def action_next_step(self) -> None:
        """Show the next checkpoint, at last the end of training."""
        self._step(1)

    def action_previous_step(self) -> None:
        """Show the checkpoint before."""
        self._step(-1)

    def action_open(self) -> None:
        """Open the cell."""
        found = self.selected
        if found is not None and self.snapshot is not None:
            self.shift.open("cell", self.experiment, found.key, self.snapshot.behaviour.name)

    def action_pin(self) -> None:
        """Pin the row under the cursor, at this cell."""
        if self.selected is not None and self.snapshot is not None:
            self.shift.toggle_pin(self.experiment, self.selected.key)
            self.show(self.snapshot)

    def action_unpin(self) -> None:
        """Take all pins away."""
        self.shift.places.pins.clear(self.experiment)
        if self.snapshot is not None:
            self.show(self.snapshot)

    def action_compare(self) -> None:
        """Compare the pinned rows."""
        self.shift.open("compare", self.experiment, self.choice.behaviour)

    def action_plots(self) -> None:
        """Show the figures."""
        self.shift.open("plots", self.experiment, self.choice.behaviour)

    def action_steering(self) -> None:
        """Show vectors and doses."""
        self.shift.open("steering", self.experiment)

    def action_microscope(self) -> None:
        """Show what the controls of train conditions tell."""
        self.shift.open("microscope", self.experiment, self.choice.behaviour)

    def action_arm(self) -> None:
        """Show the other arm's page of the same data."""
        grid = self.snapshot
        if grid is None:
            return
        page = next((p for p in grid.pages if p.arm != grid.page.arm and p.generate == grid.page.generate), None)
        if page is None:
            self.shift.say("This experiment has one arm on this data.")
        else:
            self.choice = replace(self.choice, page=page, step=None)
            self.choose()

    def copied(self) -> tuple[str, str] | None:
        """The number under the cursor, in full."""
        found, grid = self.selected, self.snapshot
        if found is None or grid is None:
            return None
        metric = self._metric_of(grid)
        value = cell_labels.shown_value(found, metric, grid, self._fits_of(grid))
        return None if value is None else (f"{metric}-{found.key.train}-{found.key.evaluate}", number(value))

    def table(self) -> tuple[str, Table] | None:
        """The page as it is shown, numbers in full."""
        grid = self.snapshot
        if grid is None:
            return None
        metric = self._metric_of(grid)
        found = cell_labels.grid_table(grid, metric, self._fits_of(grid))
        return f"{self.experiment}-{grid.page.generate}-{metric}", found

    def action_pause(self) -> None:
        """Pause the run, or let it go on."""
        if self.snapshot is not None:
            self.shift.pause_or_resume(self.snapshot.experiment)

    def action_cancel(self) -> None:
        """Cancel the run."""
        if self.snapshot is not None:
            self.shift.cancel(self.snapshot.experiment)
