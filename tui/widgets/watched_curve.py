"""How likely watched texts are while a job trains: a line a group of texts, and the first group's curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

from windowshift.core.contract import sanitise
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.number_format import NumberFormat, interval, signed
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.widgets.inked import Drawn, ink_of
from windowshift.tui.widgets.loss_curve import curve

if TYPE_CHECKING:
    from windowshift.core.measure.watched import WatchedCourse

_LEAST = 3
"""Lines that a curve takes at least."""
_CHANGE, _MEAN = NumberFormat(3, sign=True), NumberFormat(2)


class WatchedCurve(Drawn):
    """The texts that the job under the cursor watches; nothing where it watches none."""

    DEFAULT_CSS = "WatchedCurve { width: 1fr; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._courses: tuple[WatchedCourse, ...] = ()
        self.display = False

    def show(self, courses: tuple[WatchedCourse, ...]) -> None:
        """Show the courses of a job."""
        self.display = bool(courses)
        if courses != self._courses:
            self._courses = courses
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        width, height = self.size
        ink = ink_of(self)
        told, drawn = drawn_lines(self._courses, width, height)
        if y < len(told):
            return self.drawn([(told[y], ink.text)])
        label, dots = drawn[y - len(told)] if y - len(told) < len(drawn) else ("", "")
        pieces: Pieces = [(label, ink.dim), (dots, ink.dim if y - len(told) == len(drawn) - 1 else ink.blue)]
        return self.drawn(pieces)


def drawn_lines(courses: tuple[WatchedCourse, ...], width: int, height: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return what each group came to, and where there is room the curve of the first one as (label, dots) lines."""
    told = [fit(f" {_words(one, width - 1)}", width) for one in courses[:height]]
    points = [(point.examples, point.mean.value) for point in courses[0].points if point.mean] if courses else []
    room = height - len(told)
    return told, curve(tuple(points), width, room) if room >= _LEAST else []


def _words(one: WatchedCourse, width: int) -> str:
    """What a group came to: its last change since before the first step, with its interval over texts.

    Where there is little room the name of the group gives way, and never a number.
    """
    name = sanitise.line(one.group, 30) if one.group else "watched texts"
    there = [point for point in one.points if point.mean is not None]
    if not there or there[-1].mean is None:
        return f"{name}: nothing read: {sanitise.line(one.reason, 200)}" if one.reason else f"{name}: nothing read yet"
    count = f" (n {one.texts - one.unread} of {one.texts})" if one.unread else f" (n {one.texts})"
    last, change = there[-1].mean, there[-1].change
    full = f"{count} {_MEAN.text(last.value) if change is None else _CHANGE.whole(change)} nats a token"
    if len(name) + len(full) <= width:
        return f"{name}{full}"
    brief = _MEAN.text(last.value) if change is None else f"{signed(change.value)} {_ends(change)}"
    return f"{fit(name, max(3, min(len(name), width - len(count) - 1 - len(brief))))}{count} {brief}"


def _ends(one: Estimate) -> str:
    return interval(one.low, one.high, sign=True) or "[no interval]"
