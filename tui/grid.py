"""The grid of one experiment: its home screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from textual import work
from textual.app import ComposeResult
from textual.message import Message

from windowshift.core.errors import WindowshiftError
from windowshift.core.reader import Reader
from windowshift.tui import actions, faces, figures, sanitise
from windowshift.tui.experiment_line import experiment_line, model_line
from windowshift.tui.faces import METRICS, Metric
from windowshift.tui.fit_line import FitLine, Fits, read_fits
from windowshift.tui.grid_words import explanation
from windowshift.tui.headline import Headline, KeyLine
from windowshift.tui.legend import Legend
from windowshift.tui.matrix import BASE_ROW, Matrix
from windowshift.tui.pieces import Pieces
from windowshift.tui.snapshot import GridCell, GridChoice, GridSnapshot, read_grid
from windowshift.tui.store_screen import StoreScreen
from windowshift.tui.words import Words

PUBLISHED_OF = "length_chars"
"""The behaviour that the published numbers are of."""


class GridScreen(StoreScreen[GridSnapshot]):
    """Train × eval matrix, one page a generation condition, filling in live."""

    SCREEN_NAME = "grid"
    BINDINGS = actions.bindings("grid")

    class FitsRead(Message):
        """The fit was computed."""

        def __init__(self, fits: Fits | None) -> None:
            super().__init__()
            self.fits = fits

    def __init__(self, name: str) -> None:
        super().__init__()
        self.experiment = name
        self.choice = GridChoice()
        self.metric: Metric = "uplift"
        self.fits: Fits | None = None
        self._fitting = False
        self._fit_again = False
        self._fit_of: tuple[str, int] | None = None

    def body(self) -> ComposeResult:
        """Lay out controls, matrix, and what stands below it."""
        yield Headline(id="controls")
        matrix = Matrix()
        matrix.add_class("body")
        yield matrix
        yield Legend()
        yield Words(id="words")
        yield FitLine()

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

    @property
    def matrix(self) -> Matrix:
        """The matrix."""
        return self.query_one(Matrix)

    @property
    def selected(self) -> GridCell | None:
        """The cell under the cursor."""
        grid, row, column = self.snapshot, self.matrix.row, self.matrix.column
        if grid is None or not grid.columns or row >= len(grid.rows):
            return None
        shown = grid.base if row == BASE_ROW else grid.rows[row]
        return shown.cells[column] if column < len(shown.cells) else None

    def show(self, snapshot: GridSnapshot) -> None:
        """Show a page."""
        grid = snapshot
        published = self.fits.published if self.fits and grid.behaviour.name == PUBLISHED_OF else None
        self.matrix.show(faces.model(grid, self.metric, published.spread(grid.page.generate) if published else None))
        self.query_one(FitLine).show(self.fits, grid.page, grid.behaviour.name == PUBLISHED_OF)
        self.query_one(KeyLine).hide(
            frozenset(
                ([] if len(grid.pages) > 1 else ["previous_page"])
                + ([] if len(grid.seeds) > 1 else ["previous_seed"])
                + ([] if grid.steps else ["previous_step"])
                + ([] if len(grid.experiment.row.behaviours) > 1 else ["behaviour"])
            )
        )
        self.query_one("#controls", Headline).show(self._controls(grid))
        self.query_one(Legend).show(grid.behaviour, self.metric)
        self.tick()
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
        pieces += switch("metric", faces.metric_name(self.metric, grid.behaviour), False)
        if len(grid.seeds) > 1:
            pieces += switch("seed", str(grid.seed), True)
        if grid.steps:
            pieces += switch("step", "final" if grid.step is None else str(grid.step), True)
        means = {row.data_mean for row in grid.rows if row.data_mean is not None}
        data = f"D {figures.plain(means.pop())} {grid.behaviour.unit}, " if len(means) == 1 else "D "
        if grid.experiment.row.data_size:
            data += f"n {grid.experiment.row.data_size}"
        return pieces, [(f"{data} ", ink.dim)]

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
        self._fitting = True
        self._read_fits(self.experiment, self._fit_of[0] if self._fit_of else "")

    @work(thread=True, exit_on_error=False, group="fits")
    def _read_fits(self, name: str, behaviour: str) -> None:
        fits: Fits | None = None
        try:
            fits = self.shift.store.read(lambda reader: read_fits(reader, name, behaviour))
        except (WindowshiftError, ValueError, ArithmeticError) as error:
            self.log.error(repr(error))
        self.post_message(self.FitsRead(fits))

    def on_grid_screen_fits_read(self, message: FitsRead) -> None:
        """Show the fit."""
        message.stop()
        self._fitting = False
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
        low, high = faces.extremes(self.snapshot)
        here = (self.matrix.row, self.matrix.column)
        target = high if here == low else low
        if target is not None:
            self.matrix.move(*target)

    def action_metric(self) -> None:
        """Show the next metric."""
        self.metric = METRICS[(METRICS.index(self.metric) + 1) % len(METRICS)]
        if self.snapshot is not None:
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
            self.shift.open_cell(self.experiment, found.key, self.snapshot.behaviour.name)

    def action_jobs(self) -> None:
        """Open the jobs."""
        self.shift.open_jobs(self.experiment)

    def action_pause(self) -> None:
        """Pause the run, or let it go on."""
        if self.snapshot is not None:
            self.shift.pause_or_resume(self.snapshot.experiment)

    def action_cancel(self) -> None:
        """Cancel the run."""
        if self.snapshot is not None:
            self.shift.cancel(self.snapshot.experiment)
