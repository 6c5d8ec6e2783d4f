"""The fit of the grid in two lines under the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.strip import Strip

from windowshift.core.contract import sanitise
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.scale import Scale, ScaleWords
from windowshift.tui.read.fits import Fits
from windowshift.tui.read.snapshot import Page
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces, length, spread
from windowshift.tui.text.theme import Ink
from windowshift.tui.widgets.inked import Drawn, ink_of

if TYPE_CHECKING:
    from windowshift.core.measure.measures import ArmMeasures, Fit
    from windowshift.core.settings.published import Published


class FitLine(Drawn):
    """Slope of the run with its intervals on the left, the published ones, labelled with their model, on the right."""

    DEFAULT_CSS = "FitLine { height: 2; }"

    def __init__(self) -> None:
        super().__init__()
        self._arm: ArmMeasures | None = None
        self._published: Published | None = None
        self._page = Page("prefix", "")
        self._words = Scale.ratio().words
        self._several: tuple[Fits, ...] = ()

    def show(self, fits: Fits | None, page: Page) -> None:
        """Show an arm's fit, and the spreads of one page; published numbers beside the behaviour they are of."""
        arm = fits.arms.get(page.arm) if fits else None
        known = fits.published if fits else None
        words = fits.behaviour.scale.words if fits else self._words
        if self._several or (arm, known, page, words) != (self._arm, self._published, self._page, self._words):
            self._arm, self._published, self._page, self._words = arm, known, page, words
            self._several = ()
            self.refresh()

    def show_several(self, several: Sequence[Fits], page: Page) -> None:
        """Show the fit of each of the first behaviours on a line of its own; nothing for none."""
        if (tuple(several), page) != (self._several, self._page) or self._arm is not None:
            self._several, self._page, self._arm = tuple(several), page, None
            self.refresh()

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines(200))

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        lines = self._lines(self.size.width)
        return self.drawn(lines[y] if y < len(lines) else [])

    def _lines(self, width: int) -> list[Pieces]:
        ink, arm = ink_of(self), self._arm
        if arm is None:
            several = [(one.behaviour, one.arms.get(self._page.arm)) for one in self._several]
            return [
                _slope(arm.whole.grouped, one.scale.words, ink, width, one.name)
                for one, arm in several
                if arm is not None
            ][:2]
        own = _slope(arm.whole.grouped, self._words, ink, width)
        other: Pieces = []
        for known in self._published.grouped if self._published else ():
            numbers = f"{formats.signed(known.slope)} {_short(known.r2)}"
            # What is published is of prefixes: beside doses it says so.
            first = "published: " if self._page.arm == "prefix" else "published for prefixes: "
            before = " · " if other else first
            more: Pieces = [(f"{before}{known.model} ", ink.dim), (numbers, ink.text)]
            if length(own) + length(other) + length(more) + 3 > width:
                break
            other += more
        return [spread(own, [*other, (" ", ink.dim)] if other else [], width), self._spreads(arm, width)]

    def _spreads(self, arm: ArmMeasures, width: int) -> Pieces:
        """CV or sd of the base model, then of the rows that keep most and least of it."""
        ink = ink_of(self)
        comparable = self._published if self._page.arm == "prefix" else None
        known = comparable.spread(self._page.generate) if comparable else None
        form, unit = self._words.spread_format, self._words.spread_format.unit
        row: Pieces = [(f" {self._words.spread}{unit}", ink.dim)]
        group = arm.by_generate.get(self._page.generate)
        spreads = [(one.train, one.value) for one in group.spreads if one.value is not None] if group else []
        first = [one for one in spreads if one[0] in ("base", "no_prefix")]
        for name, number in [*first, *(one for one in reversed(spreads) if one not in first)]:
            more: Pieces = [
                (f"  {sanitise.line(name, 40)} ", ink.dim),
                (form.text(number.value, narrow=True), ink.text),
            ]
            more.append((f" {form.interval(number, narrow=True)}", ink.dim))
            if known and name in known.values:
                more.append((f" {known.model} {_short(known.values[name])}", ink.faint))
            if length(row) + length(more) > width:
                break
            row += more
        return row if len(row) > 1 else []


def _slope(fit: Fit, words: ScaleWords, ink: Ink, width: int, name: str = "") -> Pieces:
    """The slope with its intervals, and the name of its behaviour where others stand beside it.

    What has no room is left out, the interval of sampling last.
    """
    of = f"{sanitise.line(name, 30)}: " if name else ""
    if fit.slope is None:
        return [(f" {of}no fit yet: {fit.reason or 'too few rows are there'}", ink.dim)]
    on = f" on {words.link_short}" if words.two else ""
    own: Pieces = [(f" {of}fit{on}: slope ", ink.dim), (formats.signed(fit.slope.value), ink.strong)]
    own.append((f" {_ends(fit.slope)}", ink.text))
    parts: list[Pieces] = []
    if fit.scatter is not None:
        parts.append([(" by sampling, ", ink.dim), (_ends(fit.scatter), ink.text), (" by scatter", ink.dim)])
    parts.append([(f"   {fit.points} points", ink.dim)])
    if fit.predicted is not None:
        parts.append([("   predicted R² ", ink.dim), (formats.signed(fit.predicted.value), ink.text)])
        parts[-1].append((f" {_ends(fit.predicted)}", ink.dim))
    for part in parts:
        if length(own) + length(part) < width:
            own += part
    return own


def _ends(one: Estimate) -> str:
    return formats.interval(one.low, one.high, sign=True)


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
