"""The figures of an experiment, one at a time, and as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult

from windowshift.core.contract import sanitise
from windowshift.core.contract.estimate import runs_note
from windowshift.core.contract.records import Behaviour
from windowshift.core.report.behaviour_figures import behaviour_figures, plainest
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import ExperimentView, Page, behaviour_of, name_beside, read_experiment
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions
from windowshift.tui.text.pieces import Pieces, length
from windowshift.tui.text.table import TextTable, table
from windowshift.tui.text.words import wrapped
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.picture import Picture

if TYPE_CHECKING:
    from windowshift.core.measure.measures import Measures
    from windowshift.core.settings.published import Published


@dataclass(frozen=True, slots=True)
class PlotsSnapshot:
    """An experiment's measures, the pages (arm, generation condition) that figures can be of.

    `several` are the figures of several behaviours at once, `questions` those with a bar a question.
    """

    experiment: ExperimentView
    behaviour: Behaviour
    pages: tuple[Page, ...]
    measures: Measures
    published: Published | None
    several: dict[Page, tuple[Plot, ...]]
    questions: dict[Page, tuple[Plot, ...]]


def read_plots(reader: Reader, name: str, behaviour_name: str | None) -> PlotsSnapshot | None:
    """Measure an experiment; runs in a worker thread, because it loads numpy and every score."""
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.grid_measures import measure
    from windowshift.core.settings.published import published

    view = read_experiment(reader, name)
    if view is None:
        return None
    behaviour = behaviour_of(view.row, behaviour_name)
    measures = measure(load_grid(reader, view.row, behaviour))
    pages = tuple(
        Page("steering" if arm == "steering" else "prefix", generate)
        for arm, found in measures.arms.items()
        for generate in found.generates
    )
    known = published(view.row.setting, behaviour.name)
    several = {page: behaviour_figures(reader, view.row, *page) for page in pages}
    questions = {page: _questions(reader, view, behaviour, measures, page) for page in pages}
    return PlotsSnapshot(view, behaviour, pages, measures, known, several, questions)


def _questions(
    reader: Reader, view: ExperimentView, behaviour: Behaviour, measures: Measures, page: Page
) -> tuple[Plot, ...]:
    from windowshift.core.report.question_figures import question_figures

    found = measures.arms[page.arm]
    evaluates = plainest(view.row, found.columns)
    return question_figures(reader, view.row, behaviour, found, page.generate, evaluates)


class PlotsScreen(StoreScreen[PlotsSnapshot]):
    """`p` on a grid leads here."""

    SCREEN_NAME = "plots"
    BINDINGS = actions.bindings("plots")

    def __init__(self, name: str, behaviour: str | None = None) -> None:
        super().__init__()
        self.experiment = name
        self.behaviour = behaviour
        self.number = 0
        self.page: Page | None = None
        self.plots: tuple[Plot, ...] = ()

    def body(self) -> ComposeResult:
        """Lay out titles and figure."""
        yield Headline(id="controls")
        yield Picture(self.shift.workspace, id="plot")

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return self.experiment, "plots"

    def where(self) -> list[Any]:
        """Its name."""
        return ["plots", self.experiment]

    def reading(self) -> Callable[[Reader], PlotsSnapshot | None]:
        """Measure the experiment."""
        name, behaviour = self.experiment, self.behaviour
        return lambda reader: read_plots(reader, name, behaviour)

    def nothing(self) -> None:
        """The experiment is not there."""
        self.problem("No such experiment", f"there is no experiment '{self.experiment}' in this workspace")

    @property
    def plot(self) -> Plot | None:
        """The figure on screen."""
        return self.plots[self.number] if self.plots else None

    def show(self, snapshot: PlotsSnapshot) -> None:
        """Show a figure."""
        from windowshift.core.report.gallery import gallery

        found, ink = snapshot, self.ink
        if not found.pages:
            self.problem("No figures yet", "No cell of this experiment is planned; Esc goes back.")
            return
        if self.page not in found.pages:
            self.page = found.pages[0]
        own = gallery(found.measures, found.published, *self.page)
        self.plots = (*own, *found.questions[self.page], *found.several[self.page])
        self.number = min(self.number, len(self.plots) - 1)
        plot = self.plots[self.number]
        count: Pieces = [(f"{self.number + 1} of {len(self.plots)} ", ink.dim)]
        seeds = max((len(arm.seeds) for arm in found.measures.arms.values() if arm.generates), default=0)
        self.head((self.experiment, "plots"), count, found.experiment.row, runs_note(seeds))
        names = self._names()
        several = len(found.pages) > 1
        page = f"{self.page.arm} · {sanitise.line(self.page.generate, 30)}"
        name = name_beside(found.behaviour, found.experiment.row) or found.behaviour.unit
        page += "" if self._of_several else f" · {sanitise.line(name, 40)}"
        right: Pieces = [(f"‹ {page} › " if several else f"{page} ", ink.dim)]
        title: Pieces = [(f" {sanitise.line(plot.title, 200)}", ink.strong)]
        lines: list[tuple[Pieces, Pieces]] = [(names, []), (title, right)]
        if length(title) + length(right) >= self.size.width:  # the title is whole, on lines of its own where it must be
            rows = wrapped([(title[0][0].strip(), ink.strong)], max(20, self.size.width - 2))
            lines = [(names, []), *(([(" ", ink.strong), *row], []) for row in rows), ([], right)]
        self.query_one("#controls", Headline).show(*lines)
        self.query_one(Picture).show(plot)

    @property
    def _of_several(self) -> bool:
        """Whether the figure on screen is of several behaviours, whichever is chosen."""
        several = self.snapshot.several.get(self.page, ()) if self.snapshot and self.page else ()
        return self.number >= len(self.plots) - len(several)

    def _names(self) -> Pieces:
        """Return the names of the figures; where not all fit, those around the one on screen."""
        ink, narrow = self.ink, self.size.width < 100
        words = []
        for one in self.plots:
            word = sanitise.line(one.name.partition("-under-")[0].replace("-", " "), 40)
            # The title says the rest.
            words.append(word.removesuffix(" over training").partition(" of ")[0] if narrow else word)
        first = 0
        while first < self.number and sum(len(word) + 3 for word in words[first : self.number + 1]) >= self.size.width:
            first += 1
        names: Pieces = [(" " if first == 0 else " … ", ink.dim)]
        for place, word in enumerate(words[first:], first):
            names += [(word, ink.accent if place == self.number else ink.dim), ("   ", ink.dim)]
        return names

    def on_resize(self) -> None:
        """Lay the title out for the new width."""
        if self.snapshot is not None and self.ready:
            self.show(self.snapshot)

    # -- keys -----------------------------------------------------------------------------------

    def table(self) -> tuple[str, TextTable] | None:
        """The numbers behind the figure."""
        return (f"{self.experiment}-{self.plot.name}", table(*self.plot.rows())) if self.plot else None

    def copied(self) -> tuple[str, str] | None:
        """The numbers behind the figure, with tabs."""
        return (f"{self.experiment}-{self.plot.name}", table(*self.plot.rows()).tsv()) if self.plot else None

    def _turn(self, by: int) -> None:
        if self.snapshot is not None and self.plots:
            self.number = (self.number + by) % len(self.plots)
            self.show(self.snapshot)

    def action_next(self) -> None:
        """Show the next figure."""
        self._turn(1)

    def action_previous(self) -> None:
        """Show the figure before."""
        self._turn(-1)

    def _page(self, by: int) -> None:
        if self.snapshot is not None and self.page in self.snapshot.pages:
            pages = self.snapshot.pages
            self.page = pages[(pages.index(self.page) + by) % len(pages)]
            self.show(self.snapshot)

    def action_next_page(self) -> None:
        """Show the next arm or generation condition."""
        self._page(1)

    def action_previous_page(self) -> None:
        """Show the arm or generation condition before."""
        self._page(-1)

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is not None:
            names = [behaviour.name for behaviour in self.snapshot.experiment.row.behaviours]
            self.behaviour = names[(names.index(self.snapshot.behaviour.name) + 1) % len(names)]
            self.choose()

    def action_export(self) -> None:
        """Write the figure to files."""
        if self.plot is None or self.page is None or self.snapshot is None:
            return
        from windowshift.core.report.figure import subject

        row, name = self.snapshot.experiment.row, self.snapshot.behaviour.name
        every = " and ".join(f"{arm} arm" for arm in self.snapshot.measures.arms)
        what = (every,) if self.number == 0 else (f"{self.page.arm} arm", f"{self.page.generate} data")
        what = what if self._of_several else (*what, name)
        plot = replace(self.plot, of=subject(row, *what))
        self.shift.write_figure(plot, self.experiment, *([] if self.number == 0 else self.page), plot.name)
