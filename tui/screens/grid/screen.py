"""The grid of one experiment: its home screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual.app import ComposeResult

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import BASE
from windowshift.core.store.reader import Reader
from windowshift.tui.read import cell_labels, together_faces
from windowshift.tui.read.cell_labels import METRICS
from windowshift.tui.read.deep_link import DeepLink, page_of
from windowshift.tui.read.fits import Fits
from windowshift.tui.read.pins import variant
from windowshift.tui.read.places import GridPlace
from windowshift.tui.read.snapshot import GridCell, GridSnapshot, read_grid
from windowshift.tui.screens.grid import together_sentence
from windowshift.tui.screens.grid.cell_sentence import explanation
from windowshift.tui.screens.grid.choosing import Choosing
from windowshift.tui.screens.grid.controls import controls, idle_actions, training_runs
from windowshift.tui.screens.grid.fit_line import FitLine
from windowshift.tui.screens.grid.fit_reading import FitReading
from windowshift.tui.screens.grid.matrix import Matrix
from windowshift.tui.text import actions
from windowshift.tui.text.table import TextTable, number
from windowshift.tui.widgets.experiment_line import experiment_line, model_line
from windowshift.tui.widgets.headline import Headline, KeyLine
from windowshift.tui.widgets.legend import Legend
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.words import Words


class GridScreen(Choosing):
    """Train × eval matrix, one page a generation condition, filling in live."""

    SCREEN_NAME = "grid"
    BINDINGS = actions.bindings("grid")

    def __init__(self, name: str, link: DeepLink | None = None) -> None:
        super().__init__()
        self.experiment = name
        self._link = link if link is not None and link.generate is not None else None
        self.fits: dict[str, Fits] = {}
        self._fitting = FitReading(self, name)
        self._before: GridSnapshot | None = None

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
        picture, line = self.query_one(Picture), self.query_one(FitLine)
        if grid.together is not None:
            self.matrix.show(together_faces.model(grid, self.metric_of(grid), pinned, self.fits))
            traits = [one.behaviour.name for one in grid.beside if grid.together.kind == "traits"]
            picture.show(grid.figure)
            line.show_several([self.fits[name] for name in traits if name in self.fits], grid.page)
        else:
            self.matrix.show(cell_labels.model(grid, self.metric_of(grid), spread, pinned, fits))
            picture.show(fits.marked([variant(key) for key in pinned]) if fits else None)
            line.show(fits, grid.page)
        self._follow_order(grid)
        self.query_one(KeyLine).hide(idle_actions(grid))
        self.query_one("#controls", Headline).show(controls(grid, self.metric_of(grid), self.size.width, self.ink))
        cut = self.matrix.model.daggers
        self.query_one(Legend).show(grid.behaviour, self.metric_of(grid), grid.together, cut=cut)
        self.tick()
        self._follow(grid)
        self._explain()
        names = dict.fromkeys((grid.behaviour.name, *(page.behaviour.name for page in grid.beside)))
        self._fitting.want(tuple(names), grid.experiment.row.cells_done)

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
        note = training_runs(self.snapshot)
        self.query_one(Headline).show(first, *model_line(view, now, self.ink, note, self.size.width))

    def on_resize(self) -> None:
        """Say more where there is room."""
        if self.snapshot is not None:
            metric = self.metric_of(self.snapshot)
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
        grid, found = self.snapshot, self.selected
        if grid is None:
            return
        if grid.together is not None and found is not None and found.summary is not None:
            self.query_one(Words).show(together_sentence.explanation(grid, found, self.fits, self.ink))
            return
        at = (self.matrix.row, self.matrix.column)
        fits, metric = self._fits_of(grid), self.metric_of(grid)
        self.query_one(Words).show(explanation(grid, found, at, metric, fits, self.ink))

    def _fits_of(self, grid: GridSnapshot) -> Fits | None:
        """What was measured, unless it was of another behaviour."""
        found = self.fits.get(grid.behaviour.name)
        return found if found is not None and found.behaviour == grid.behaviour else None

    def on_fit_reading_done(self, message: FitReading.Done) -> None:
        """Show what was measured."""
        message.stop()
        self.fits |= {fits.behaviour.name: fits for fits in message.fits}
        if self.ready and self.snapshot is not None:
            self.show(self.snapshot)
        self._fitting.ended(message)

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
        metric = self.metric_of(self.snapshot)
        metric = metric if metric == "mean" or metric in cell_labels.CHANGES else METRICS[0]
        low, high = cell_labels.extremes(self.snapshot, metric, self._fits_of(self.snapshot))
        here = (self.matrix.row, self.matrix.column)
        target = high if here == low else low
        if target is not None:
            self.matrix.move(*target)

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

    def copied(self) -> tuple[str, str] | None:
        """The number under the cursor, in full."""
        found, grid = self.selected, self.snapshot
        if found is None or grid is None:
            return None
        metric = self.metric_of(grid)
        if grid.together is not None:
            both = together_faces.numbers_of(grid, found.key.train, found.key.evaluate, metric, self.fits)
            text = "\n".join(f"{name}\t{number(value)}" for name, value in both)
            return (f"{metric}-{found.key.train}-{found.key.evaluate}", text) if text else None
        value = cell_labels.shown_value(found, metric, grid, self._fits_of(grid))
        return None if value is None else (f"{metric}-{found.key.train}-{found.key.evaluate}", number(value))

    def table(self) -> tuple[str, TextTable] | None:
        """The page as it is shown, numbers in full."""
        grid = self.snapshot
        if grid is None:
            return None
        metric = self.metric_of(grid)
        if grid.together is not None:
            found = together_faces.grid_table(grid, metric, self.fits)
            return f"{self.experiment}-{grid.page.generate}-{grid.together.name.replace(' ', '-')}", found
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
