"""The steering of an experiment: vectors, layers, doses, matches, controls, and both arms at matched dose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import work
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message

from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.estimate import runs_note
from windowshift.core.report.figure import Plot
from windowshift.core.report.gallery import coherence_plot, dose_plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.freed_memory import give_back
from windowshift.tui.read.steering_snapshot import SteeringSnapshot, read_steering
from windowshift.tui.screens.steering.parts import PARTS, Shown, SteeringPart, part_lines, part_table, parts_of, stacked
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.table import TextTable
from windowshift.tui.text.theme import Ink
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.inked import few_colours
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.sheet import Sheet

if TYPE_CHECKING:
    from windowshift.core.measure.arm_comparison import ArmsComparison
    from windowshift.core.measure.inside_results import MeasuredInside

NARROW: tuple[tuple[tuple[SteeringPart, ...], tuple[SteeringPart, ...]], ...] = tuple(
    ((part,), ()) for part in (*PARTS, "inside")
)
WIDE: tuple[tuple[tuple[SteeringPart, ...], tuple[SteeringPart, ...]], ...] = (
    (("vectors",), ("cosines", "layers")),
    (("doses",), ("matches", "controls")),
    (("pairs", "arms"), ()),
    (("inside",), ()),
)
"""Which parts stand side by side, on screens of this width or more."""
WIDE_FROM = 140
MEASURING = "measuring both arms …"


class SteeringScreen(StoreScreen[SteeringSnapshot]):
    """`s` on a grid leads here. What steering came to is read at once; the arms' comparison follows from a worker."""

    SCREEN_NAME = "steering"
    BINDINGS = actions.bindings("steering")

    class ArmsRead(Message):
        """The arms were compared."""

        def __init__(self, asked: int, found: ArmsComparison | None, problem: str) -> None:
            super().__init__()
            self.asked = asked
            self.found = found
            self.problem = problem

    def __init__(self, name: str) -> None:
        super().__init__()
        self.experiment = name
        self.part: SteeringPart = PARTS[0]
        self.vector: str | None = None
        self.pair = 0
        self.arms: ArmsComparison | None = None
        self._waiting = MEASURING
        self._measured: int | None = None
        self._inside: dict[str, MeasuredInside] = {}

    def body(self) -> ComposeResult:
        """Lay out the names of the parts, and two sheets with the figures over the first."""
        yield Headline(id="controls")
        with Container(id="steering"):
            with Container(id="steering-left"):
                with Container(id="dose-figures"):
                    yield Picture(self.shift.workspace, id="dose-figure")
                    yield Picture(self.shift.workspace, id="coherence-figure")
                yield Sheet(id="left")
            with Container(id="steering-right"):
                yield Sheet(id="right")

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return self.experiment, "steering"

    def where(self) -> list[Any]:
        """Its name."""
        return ["steering", self.experiment]

    def reading(self) -> Callable[[Reader], SteeringSnapshot | None]:
        """Read the steering."""
        name, measured = self.experiment, self._inside
        return lambda reader: read_steering(reader, name, measured)

    def nothing(self) -> None:
        """The experiment is not there."""
        self.problem("No such experiment", f"there is no experiment '{self.experiment}' in this workspace")

    def on_resize(self) -> None:
        """Another width has room for other parts."""
        if self.ready and self.snapshot is not None:
            self.show(self.snapshot)

    # -- showing --------------------------------------------------------------------------------

    def show(self, snapshot: SteeringSnapshot) -> None:
        """Show the part under way, and what stands beside it where there is room."""
        found, ink = snapshot, self.ink
        row = found.experiment.row
        self.head(
            (self.experiment, "steering"),
            [(f"{sanitise.line(row.setting, 40)} ", ink.dim)],
            row,
            runs_note(found.seeds),
        )
        if not found.results:
            self.problem(
                "This experiment does not steer",
                "Its spec has no vectors: windowshift init -t demo writes one that has. Esc goes back.",
            )
            return
        if self.vector not in found.names:
            self.vector = found.names[0]
        if self.part not in parts_of(found):  # a spec that was changed reads nothing inside the model any more
            self.part = PARTS[0]
        self.query_one("#controls", Headline).show(*self._controls(found, self.vector, ink))
        if row.cells_done != self._measured:
            self._measured = row.cells_done
            self._compare_arms(self._measured, self.experiment)
        shown = Shown(found, self.vector, self.arms, self._waiting, self.pair)
        left, right = next(page for page in self._pages if self.part in (*page[0], *page[1]))
        self.query_one("#steering-right").display = bool(right)
        self.query_one("#dose-figures").display = "doses" in left or "inside" in left
        self._figures(found, self.vector)
        for place, parts in (("left", left), ("right", right)):
            subject = (parts, self.vector, self.pair if "pairs" in parts else 0)
            made = partial(stacked, parts, self.part, shown, ink, few_colours(self))
            self.query_one(f"#{place}", Sheet).show(subject, made)

    @property
    def _pages(self) -> tuple[tuple[tuple[SteeringPart, ...], tuple[SteeringPart, ...]], ...]:
        return WIDE if self.size.width >= WIDE_FROM else NARROW

    def _controls(self, found: SteeringSnapshot, vector: str, ink: Ink) -> list[tuple[Pieces, Pieces]]:
        parts: Pieces = [(" ", ink.dim)]
        for one in parts_of(found):
            parts += [(one, ink.accent if one == self.part else ink.dim), ("  ", ink.dim)]
        around = ("‹ ", " ›") if len(found.names) > 1 else ("", "")
        layer = found.layer(vector)
        chosen: Pieces = [(" vector ", ink.dim), (around[0], ink.faint), (sanitise.line(vector, 40), ink.accent)]
        chosen += [(around[1], ink.faint), (" no layer yet" if layer is None else f" at layer {layer}", ink.dim)]
        rows = self.arms.rows if self.arms else ()
        right: Pieces = []
        if rows:
            pair = rows[self.pair % len(rows)].pair
            words = sanitise.line(f"{pair.prefix} | {pair.steering}", 40)
            right = [("pair ", ink.dim), ("‹ ", ink.faint), (words, ink.accent), (" › ", ink.faint)]
        return [(parts, []), (chosen, right)]

    def _figures(self, found: SteeringSnapshot, vector: str) -> None:
        plots = self._plots(found, vector)
        for place, plot in zip(("#dose-figure", "#coherence-figure"), plots, strict=True):
            self.query_one(place, Picture).show(plot)

    def _plots(self, found: SteeringSnapshot, vector: str) -> tuple[Plot, Plot]:
        if self.part == "inside":
            return inside_plots_of(found, vector)
        curve = next(iter(found.curves(vector)), None)
        if curve is None:
            note = f"no dose curve of '{sanitise.line(vector, 40)}'"
            return Plot("dose-response", note, note=note), Plot("coherence", note, note=" ")
        return dose_plot(curve, found.results.matches, found.behaviour), coherence_plot(curve)

    @work(thread=True, exit_on_error=False, exclusive=True, group="arms")
    def _compare_arms(self, asked: int, name: str) -> None:
        from windowshift.core.measure.arm_comparison import compare_arms

        found, problem = None, ""
        try:
            found = compare_arms(self.shift.workspace, name)
        except WindowshiftError as error:
            problem = str(error)
        except (ValueError, ArithmeticError, LookupError) as error:
            self.log.error(repr(error))
            problem = f"the comparison failed: {error}"
        give_back()
        self.post_message(self.ArmsRead(asked, found, problem))

    def on_steering_screen_arms_read(self, message: ArmsRead) -> None:
        """Show the arms, unless more cells are done by now."""
        message.stop()
        if not self.ready or message.asked != self._measured:
            return
        self.arms = message.found
        self._waiting = message.problem or MEASURING
        if self.snapshot is not None:
            self.show(self.snapshot)

    # -- keys -----------------------------------------------------------------------------------

    def copied(self) -> tuple[str, str] | None:
        """The part on screen as text."""
        shown = self._shown()
        if shown is None:
            return None
        lines = part_lines(self.part, shown, 100, self.ink)
        text = "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)
        return f"{self.experiment}-{self.part}", text + "\n"

    def table(self) -> tuple[str, TextTable] | None:
        """The table of the part on screen."""
        shown = self._shown()
        found = part_table(self.part, shown) if shown else None
        return None if found is None else (f"{self.experiment}-{self.part}", found)

    def _shown(self) -> Shown | None:
        if self.snapshot is None or self.vector is None:
            return None
        return Shown(self.snapshot, self.vector, self.arms, self._waiting, self.pair)

    def _show_again(self) -> None:
        if self.snapshot is not None:
            self.show(self.snapshot)

    def _turn(self, by: int) -> None:
        if self.snapshot is None:
            return
        parts = parts_of(self.snapshot)
        self.part = parts[(parts.index(self.part) + by) % len(parts)]
        self._show_again()

    def action_next(self) -> None:
        """Show the next part."""
        self._turn(1)

    def action_previous(self) -> None:
        """Show the part before."""
        self._turn(-1)

    def action_vector(self) -> None:
        """Show the next vector."""
        if self.snapshot is not None and self.vector is not None:
            names = self.snapshot.names
            self.vector = names[(names.index(self.vector) + 1) % len(names)]
            self._show_again()

    def _pair(self, by: int) -> None:
        if self.arms is None:
            self.shift.say(f"There is no matched pair to choose: {self._waiting}")
            return
        self.pair = (self.pair + by) % len(self.arms.rows)
        self.part = "pairs"
        self._show_again()

    def action_next_pair(self) -> None:
        """Show the next matched pair."""
        self._pair(1)

    def action_previous_pair(self) -> None:
        """Show the matched pair before."""
        self._pair(-1)

    def action_compare(self) -> None:
        """Pin both rows of the matched pair, in place of what was pinned, and compare them."""
        shown = self._shown()
        if shown is None or shown.paired is None:
            self.shift.say(f"There is no matched pair to compare: {self._waiting}")
            return
        self.shift.places.pins.replace(self.experiment, shown.snapshot.pinned(shown.paired.pair))
        self.shift.open("compare", self.experiment)

    def action_export(self) -> None:
        """Write the dose-response to files; of what was read inside the model, the drift."""
        if self.snapshot is None or self.vector is None:
            return
        from windowshift.core.report.figure import subject

        what = () if self.part == "inside" else ("base model",)
        of = subject(self.snapshot.experiment.row, *what, f"vector {self.vector}")
        plot = replace(self._plots(self.snapshot, self.vector)[0], of=of)
        self.shift.write_figure(plot, self.experiment, self.vector, plot.name)

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
        self._scroll(-max(1, self.query_one("#left").size.height - 2))

    def action_page_down(self) -> None:
        """Scroll a page down."""
        self._scroll(max(1, self.query_one("#left").size.height - 2))

    def action_cursor_first(self) -> None:
        """Go to the top."""
        for sheet in self.query(Sheet):
            sheet.scroll_home(animate=False)

    def action_cursor_last(self) -> None:
        """Go to the bottom."""
        for sheet in self.query(Sheet):
            sheet.scroll_end(animate=False)


def inside_plots_of(found: SteeringSnapshot, vector: str) -> tuple[Plot, Plot]:
    """Return the first drift along a vector, and the gradient's alignment with it."""
    from windowshift.core.report.inside_figures import alignment_plot, drift_plot

    own, name = found.inside.along(vector), sanitise.line(vector, 40)
    under = [one for one in own.drifts if one.evaluate == own.drifts[0].evaluate]
    nothing = f"no drift along '{name}' was asked for", f"no gradient along '{name}' was asked for"
    drift = drift_plot(under) if under else Plot("drift", nothing[0], note=nothing[0])
    aligned = alignment_plot(own.alignments) if own.alignments else Plot("gradient", nothing[1], note=nothing[1])
    return drift, aligned
