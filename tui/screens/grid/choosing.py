"""What of a grid is shown, and the keys that choose something else: data, arm, seed, checkpoint, behaviour, metric."""

from __future__ import annotations

from dataclasses import replace

from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_labels import METRICS, Metric
from windowshift.tui.read.snapshot import GridChoice, GridSnapshot
from windowshift.tui.read.together import togethers
from windowshift.tui.screens.store_screen import StoreScreen


class Choosing(StoreScreen[GridSnapshot]):
    """A screen that shows one part of a grid and a metric."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = GridChoice()
        self.metric: Metric = "uplift"

    def metric_of(self, grid: GridSnapshot) -> Metric:
        """The chosen metric, or the first where this behaviour has no such one."""
        return self.metric if self.metric in cell_labels.metrics_of(grid.behaviour) else METRICS[0]

    def action_metric(self) -> None:
        """Show the next metric."""
        together = self.snapshot.together if self.snapshot is not None else None
        if together is not None and together.kind == "outcomes":
            self.shift.say("Outcomes are shares of the whole; t leads to the numbers of one behaviour.")
        elif self.snapshot is not None:
            metrics = cell_labels.metrics_of(self.snapshot.behaviour)
            self.metric = metrics[(metrics.index(self.metric_of(self.snapshot)) + 1) % len(metrics)]
            self.show(self.snapshot)

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is None:
            return
        names = [behaviour.name for behaviour in self.snapshot.experiment.row.behaviours]
        if len(names) > 1:
            place = names.index(self.snapshot.behaviour.name)
            self.choice = replace(self.choice, behaviour=names[(place + 1) % len(names)], together=None)
            self.choose()

    def action_together(self) -> None:
        """Show the next of what belongs together in one cell, at last one behaviour alone again."""
        grid = self.snapshot
        names = [one.name for one in togethers(grid.experiment.row)] if grid is not None else []
        if grid is None or not names:
            self.shift.say("No traits of this experiment stand side by side, and no outcomes make a whole.")
            return
        order = [None, *names]
        place = order.index(grid.together.name if grid.together is not None else None)
        self.choice = replace(self.choice, together=order[(place + 1) % len(order)])
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
