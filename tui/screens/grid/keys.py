"""The keys of the grid: cursor, pages, metrics, pins, copying, and where they lead."""

from __future__ import annotations

from dataclasses import replace

from windowshift.core.contract.records import BASE
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import METRICS, Metric
from windowshift.tui.read.snapshot import GridCell, GridChoice, GridSnapshot
from windowshift.tui.screens.grid.matrix import Matrix
from windowshift.tui.screens.grid.matrix_view import BASE_ROW
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text.table import Table, number, table


class GridKeys(StoreScreen[GridSnapshot]):
    """What each key of the grid does."""

    experiment: str
    choice: GridChoice
    metric: Metric

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
        low, high = cell_labels.extremes(self.snapshot)
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
        self.shift.open_compare(self.experiment, self.choice.behaviour)

    def action_plots(self) -> None:
        """Show the figures."""
        self.shift.open_plots(self.experiment, self.choice.behaviour)

    def action_steering(self) -> None:
        """Show vectors and doses."""
        self.shift.open_steering(self.experiment)

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
        found = self.selected
        value = None if found is None or self.snapshot is None else self._value(found)
        if found is None or value is None:
            return None
        return f"{self.metric}-{found.key.train}-{found.key.evaluate}", number(value)

    def table(self) -> tuple[str, Table] | None:
        """The page as it is shown, numbers in full."""
        grid = self.snapshot
        if grid is None:
            return None
        columns = (f"{head.name} (crossed)" if head.crossed else head.name for head in grid.heads)
        heads = (f"{cell_labels.metric_name(self.metric, grid.behaviour)}: train \\ eval", *columns, "CV")
        rows = [
            (
                row.train,
                *(number(self._value(cell) if cell else None) for cell in row.cells),
                number(cell_labels.coefficient(row)),
            )
            for row in (grid.base, *grid.rows)
        ]
        return f"{self.experiment}-{grid.page.generate}-{self.metric}", table(heads, rows)

    def _value(self, cell: GridCell) -> float | None:
        compare = self.snapshot.behaviour.compare if self.snapshot else "ratio"
        base = cell.cell.train == BASE
        return cell_labels.value(cell, "mean" if base and self.metric == "uplift" else self.metric, compare)

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
