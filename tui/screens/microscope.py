"""Train conditions under the microscope: the parts of their effect, their controls, and what leaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Container

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import ExperimentRow, measured_beside
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.microscope_snapshot import MicroscopeSnapshot, read_microscope
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.table import TextTable
from windowshift.tui.text.theme import Ink
from windowshift.tui.widgets.block_lines import block_lines, first_table
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.sheet import Sheet

if TYPE_CHECKING:
    from windowshift.core.measure.microscope import Dissection, Microscope
    from windowshift.core.report.page import Block

WIDE_FROM = 140
"""From this width on, the figure and what leaks stand beside the condition."""


class MicroscopeScreen(StoreScreen[MicroscopeSnapshot]):
    """`M` on a grid leads here."""

    SCREEN_NAME = "microscope"
    BINDINGS = actions.bindings("microscope")

    def __init__(self, name: str, behaviour: str | None = None) -> None:
        super().__init__()
        self.experiment = name
        self.behaviour = behaviour
        self.position = 0

    def body(self) -> ComposeResult:
        """Lay out the condition on the left, figure and leak on the right."""
        yield Headline(id="controls")
        with Container(id="microscope"):
            yield Sheet(id="condition")
            with Container(id="microscope-right"):
                yield Picture(self.shift.workspace, id="parts-figure")
                yield Sheet(id="leak")

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return self.experiment, "microscope"

    def where(self) -> list[Any]:
        """Its name, and the behaviour where one was chosen."""
        return ["microscope", self.experiment, *([self.behaviour] if self.behaviour else [])]

    def reading(self) -> Callable[[Reader], MicroscopeSnapshot | None]:
        """Read what the controls tell."""
        name, behaviour = self.experiment, self.behaviour
        return lambda reader: read_microscope(reader, name, behaviour)

    def nothing(self) -> None:
        """The experiment is not there."""
        self.problem("No such experiment", f"there is no experiment '{self.experiment}' in this workspace")

    def on_resize(self) -> None:
        """Another width has room for other parts."""
        super().on_resize()
        self._show_again()

    # -- showing --------------------------------------------------------------------------------

    def show(self, snapshot: MicroscopeSnapshot) -> None:
        """Show the condition under way, and what stands beside it where there is room."""
        row, ink = snapshot.experiment.row, self.ink
        self.head((self.experiment, "microscope"), [(f"{sanitise.line(snapshot.behaviour.name, 40)} ", ink.dim)], row)
        found = snapshot.found
        if found is None or not found.dissections:
            self.problem("Nothing to take apart", snapshot.problem or "No row of a controlled condition is there yet.")
            return
        self.solved()
        one = self._chosen(found)
        self.query_one("#controls", Headline).show((_choice(one, len(found.dissections), ink), []))
        wide = self.size.width >= WIDE_FROM
        self.query_one("#microscope-right").display = wide
        blocks, leak = self._condition(one, found), self._leak(one, found)
        if wide:
            self.query_one("#parts-figure", Picture).show(self._plot(one, found, row))
            self.query_one("#leak", Sheet).show(
                ("leak", one.arm, one.generate), lambda width: block_lines(leak, width, ink)
            )
        else:
            blocks = [*blocks, *leak]
        subject = (one.arm, one.generate, one.train, snapshot.behaviour.name, wide)
        self.query_one("#condition", Sheet).show(subject, lambda width: block_lines(blocks, width, ink))

    def _chosen(self, found: Microscope) -> Dissection:
        self.position %= len(found.dissections)
        return found.dissections[self.position]

    def _condition(self, one: Dissection, found: Microscope) -> list[Block]:
        from windowshift.core.report.microscope_page import dissection_blocks, legend_blocks

        return [*dissection_blocks(one, found), *legend_blocks(found)]

    def _leak(self, one: Dissection, found: Microscope) -> list[Block]:
        from windowshift.core.report.microscope_page import leak_blocks

        own = [leak for leak in found.leaks if (leak.arm, leak.generate) == (one.arm, one.generate)]
        return [block for leak in own for block in leak_blocks(leak, found)]

    def _plot(self, one: Dissection, found: Microscope, row: ExperimentRow) -> Plot:
        from windowshift.core.report.figure import subject
        from windowshift.core.report.microscope_figures import parts_plot

        of = subject(row, f"{one.arm} arm", f"{one.generate} data", found.behaviour.name)
        return replace(parts_plot(found, one.arm, one.generate), of=of)

    def _show_again(self) -> None:
        if self.ready and self.snapshot is not None:
            self.show(self.snapshot)

    # -- keys -----------------------------------------------------------------------------------

    def copied(self) -> tuple[str, str] | None:
        """The condition on screen as text."""
        if self.snapshot is None or self.snapshot.found is None:
            return None
        one = self._chosen(self.snapshot.found)
        lines = block_lines(self._condition(one, self.snapshot.found), 100, self.ink)
        text = "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)
        return f"{self.experiment}-{one.train}", text + "\n"

    def table(self) -> tuple[str, TextTable] | None:
        """The parts of the condition on screen."""
        if self.snapshot is None or self.snapshot.found is None:
            return None
        found = self.snapshot.found
        one = self._chosen(found)
        made = first_table(self._condition(one, found))
        return None if made is None else (f"{self.experiment}-{one.train}", made)

    def _turn(self, by: int) -> None:
        self.position += by
        self._show_again()

    def action_next(self) -> None:
        """Show the next condition."""
        self._turn(1)

    def action_previous(self) -> None:
        """Show the condition before."""
        self._turn(-1)

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is None:
            return
        beside = measured_beside(self.snapshot.behaviour, self.snapshot.experiment.row.behaviours)
        names = [one.name for one in beside]
        self.behaviour = names[(names.index(self.snapshot.behaviour.name) + 1) % len(names)]
        self.choose()

    def action_export(self) -> None:
        """Write the figure to files."""
        if self.snapshot is None or self.snapshot.found is None:
            return
        found = self.snapshot.found
        one = self._chosen(found)
        plot = self._plot(one, found, self.snapshot.experiment.row)
        self.shift.write_figure(plot, self.experiment, one.arm, one.generate, plot.name)

    def _scroll(self, by: int) -> None:
        for sheet in self.query(Sheet):
            sheet.scroll_relative(y=by, animate=False)

    def action_scroll_up(self) -> None:
        """Scroll up."""
        self._scroll(-1)

    def action_scroll_down(self) -> None:
        """Scroll down."""
        self._scroll(1)

    def action_page_up(self) -> None:
        """Scroll a page up."""
        self._scroll(-max(1, self.query_one("#condition").size.height - 2))

    def action_page_down(self) -> None:
        """Scroll a page down."""
        self._scroll(max(1, self.query_one("#condition").size.height - 2))

    def action_cursor_first(self) -> None:
        """Go to the top."""
        for sheet in self.query(Sheet):
            sheet.scroll_home(animate=False)

    def action_cursor_last(self) -> None:
        """Go to the bottom."""
        for sheet in self.query(Sheet):
            sheet.scroll_end(animate=False)


def _choice(one: Dissection, count: int, ink: Ink) -> Pieces:
    around = ("‹ ", " ›") if count > 1 else ("", "")
    pieces: Pieces = [(" trained under ", ink.dim), (around[0], ink.faint), (sanitise.line(one.train, 60), ink.accent)]
    return [*pieces, (around[1], ink.faint), (f"  {one.arm} arm, {sanitise.line(one.generate, 40)} data", ink.dim)]
