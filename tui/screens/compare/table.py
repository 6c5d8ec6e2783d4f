"""The measures of pinned rows as a table: rows side by side, the paired difference, and what is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.geometry import Size
from textual.strip import Strip

from windowshift.core.contract import sanitise
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.truncation import counted_dagger, dagger, dagger_note
from windowshift.core.report.figure import Plot
from windowshift.tui.read.snapshot import CellKey
from windowshift.tui.screens.compare.aligned import title
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.text.table import TextTable, table
from windowshift.tui.text.theme import Ink
from windowshift.tui.text.words import wrapped
from windowshift.tui.widgets.inked import Drawn, ink_of

if TYPE_CHECKING:
    from windowshift.core.contract.estimate import Estimate
    from windowshift.core.measure.base_match import BaseMatch, Verdict
    from windowshift.core.measure.comparison import Comparison
    from windowshift.core.measure.grid import Tally
    from windowshift.core.settings.published import Published

DIFFERENCE = "difference 2−1"
MATCHED: dict[Verdict | None, str] = {"matched": "matched", "off": "not matched", "open": "open", None: "not known"}
"""Whether the base model's mean under the dose is that under the prefix, within 10 %."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of pinned rows, with the scatter of all rows and what is published.

    `dose` is of a row under a prefix and one at the dose that is matched to it.
    """

    pinned: tuple[CellKey, ...]
    comparison: Comparison
    scatter: Plot
    published: Published | None
    dose: BaseMatch | None = None


@dataclass(frozen=True, slots=True)
class MeasureLine:
    """A measure as text: each value with its interval, the difference, the published value; `why` one is missing."""

    label: str
    values: tuple[tuple[str, str], ...]
    difference: tuple[str, str]
    published: str = ""


def number(form: NumberFormat, one: Estimate | None, cut: str = "") -> tuple[str, str]:
    """Return a value, with its dagger, and its interval as text."""
    if one is None:
        return formats.NOTHING, ""
    return form.with_unit(one.value, narrow=True) + cut, form.interval(one, narrow=True)


def formats_of(measure: str, scale: Scale) -> tuple[NumberFormat, NumberFormat]:
    """Return how a measure is written, and how the difference of two rows is."""
    words = scale.words
    kept = NumberFormat(0, factor=100, unit=" %")
    found = {
        "train_mean_ratio": (words.surprise_format, words.surprise_change_format),
        "uplift": (words.effect_format, words.effect_format),
        "link": (words.link_format, words.link_format),
        "cv": (words.spread_format, words.spread_change_format),
        "cv_kept": (kept, replace(kept, sign=True)),
        "extreme": (words.change_format, words.change_format),
    }
    return found[measure]


def _short(reason: str) -> str:
    """A reason in the words that a column has room for."""
    return reason.replace("eval cells done", "cells").replace("eval cells, all done,", "cells")


def lines_of(found: Measured) -> list[MeasureLine]:
    """Return the table's lines."""
    comparison = found.comparison
    words = comparison.scale.words
    ratio = comparison.scale.kind == "ratio"
    labels = {
        "train_mean_ratio": words.surprise if ratio else f"D off, {words.link_short}",
        "uplift": f"uplift {words.effect_short}, mean" if ratio else "difference, mean",
        "link": f"{words.link_short}, mean",
        "cv": words.spread,
        "cv_kept": f"{words.spread} kept",
        "extreme": _extreme(comparison.lowest),
    }
    lines = []
    for one in comparison.measures:
        counts = comparison.data_truncated if one.measure == "train_mean_ratio" else comparison.truncated
        cut = [dagger(count) for count in counts]
        form, difference = formats_of(one.measure, comparison.scale)
        values = tuple(
            number(form, value, mark) if value else (formats.NOTHING, _short(reason))
            for value, reason, mark in zip(one.values, one.reasons, cut, strict=True)
        )
        lines.append(
            MeasureLine(
                labels.get(one.measure, one.measure),
                values,
                number(difference, one.difference, dagger(*counts[:2])),
                _published(one.measure, found),
            )
        )
    none = (("", ""),) * len(comparison.rows)
    if found.dose is not None and found.dose.against is not None:
        cut_dose = dagger(found.dose.truncated)
        value, interval = number(words.against_format, found.dose.against, cut_dose)
        lines.append(MeasureLine(f"dose: {MATCHED[found.dose.verdict]}", none, (value, interval)))
    missing = comparison.missing
    if missing is not None and missing.differs and missing.worst is not None:
        form, worst = words.effect_format, missing.worst
        both = f"{form.text(worst.least, narrow=True)} … {form.text(worst.greatest, narrow=True)}"
        ends = [form.text(end, narrow=True) for end in worst.interval or ()]
        lines.append(MeasureLine("means, worst case", none, (both, "[{}, {}]".format(*ends) if ends else "")))
    lines.append(
        MeasureLine(
            "n · truncated",
            tuple((_scored(t), f"{counted_dagger(t.truncated) or 0} truncated") for t in comparison.tallies),
            (f"{100 * missing.difference.value:+.0f} % scored".replace("-", formats.MINUS), "missing unequally")
            if missing is not None and missing.differs
            else ("", ""),
        )
    )
    return lines


def _scored(tally: Tally) -> str:
    """Return how many completions have a score, of how many where some have none."""
    return f"{tally.n} of {tally.n + tally.missing}" if tally.missing else str(tally.n)


def _extreme(lowest: Sequence[str | None]) -> str:
    known = {one for one in lowest if one is not None}
    where = next(iter(known)) if len(known) == 1 else "lowest eval"
    return f"extreme, {sanitise.line(where, 30)}"


def _published(measure: str, found: Measured) -> str:
    if found.published is None:
        return ""
    if measure == "extreme":
        best = found.published.grouped[0]
        return f"{found.comparison.scale.words.change_format.with_unit(best.vs_base_pct, narrow=True)} lowest"
    if measure not in ("cv", "cv_kept"):
        return ""
    values = []
    for key in found.pinned:
        spread = found.published.spread(key.generate) if key.arm == "prefix" else None
        value = spread.values.get(key.train) if spread else None
        base = spread.values.get("base") if spread else None
        if measure == "cv_kept":
            values.append(f"{100 * value / base:.0f} %" if value is not None and base else formats.NOTHING)
        else:
            values.append(
                formats.NOTHING if value is None else Scale.ratio().words.spread_format.text(value, narrow=True)
            )
    return "" if set(values) == {formats.NOTHING} else " / ".join(values)


def as_table(found: Measured) -> TextTable:
    """Return the table for copying."""
    names = [title(found.pinned, key) for key in found.pinned]
    model = f"published, {found.published.grouped[0].model}" if found.published else "published"
    return table(
        ("measure", *names, DIFFERENCE, model),
        [
            (
                line.label,
                *(" ".join(value).strip() for value in line.values),
                " ".join(line.difference).strip(),
                line.published,
            )
            for line in lines_of(found)
        ],
    )


class CompareTable(Drawn):
    """Measures as rows, pinned rows as columns; intervals go under their values where columns are narrow."""

    LABEL = 19
    PUBLISHED = 15
    ONE_LINE = 19
    SMALLEST = 12
    """Columns narrower than this leave intervals out: a part of one would mislead."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: tuple[CellKey, ...] = ()
        self.found: Measured | None = None
        self._problem = ""

    def show(self, pinned: tuple[CellKey, ...], found: Measured | None, problem: str = "") -> None:
        """Show what was measured of pinned rows; None while it is being measured."""
        if (pinned, found, problem) != (self.pinned, self.found, self._problem):
            self.pinned, self.found, self._problem = pinned, found, problem
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - Textual's
        """Return the lines that the table takes."""
        return len(self.lines(width))

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        lines = self.lines(self.size.width)
        return self.drawn(lines[y] if y < len(lines) else [])

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in line) for line in self.lines(self.size.width))

    def lines(self, width: int) -> list[Pieces]:
        """Return the drawn lines."""
        ink = ink_of(self)
        count = len(self.pinned) + 1
        model = self.found.published.grouped[0].model if self.found and self.found.published else ""
        beside = bool(model) and width >= 76 + 12 * (len(self.pinned) - 2)
        each = (width - self.LABEL - (self.PUBLISHED if beside else 0) - 1) // max(1, count)
        heads: Pieces = [(" " * self.LABEL, ink.dim)]
        for place, key in enumerate(self.pinned, 1):
            heads.append((fit(f"{place} {sanitise.line(title(self.pinned, key), 60)}", each - 1) + " ", ink.strong))
        heads.append((fit(DIFFERENCE, each - 1) + " ", ink.strong))
        heads.append((fit(f"{model}, publ.", self.PUBLISHED) if beside else "", ink.dim))
        if self.found is None:
            return [heads, [(f" {self._problem or 'measuring …'}", ink.bad if self._problem else ink.dim)]]
        lines = [heads]
        shown = lines_of(self.found)
        pairs = [pair for line in shown for pair in (*line.values, line.difference) if pair[1].startswith("[")]
        # No interval is cut off.
        tall = each < max([self.ONE_LINE, *(len(value) + len(interval) + 2 for value, interval in pairs)])
        for line in shown:
            lines += self._line(line, each, ink, beside=beside, tall=tall)
        if any((*self.found.comparison.truncated, *self.found.comparison.data_truncated)):
            note: Pieces = [(dagger_note(self.found.comparison.scale, narrow=True), ink.dim)]
            lines += [[(" ", ink.dim), *line] for line in wrapped(note, max(20, width - 2))]
        return lines

    def _line(self, line: MeasureLine, each: int, ink: Ink, *, beside: bool, tall: bool) -> list[Pieces]:
        values = [*line.values, line.difference]
        first: Pieces = [(" " + fit(line.label, self.LABEL - 1), ink.text)]
        second: Pieces = [(" " * self.LABEL, ink.dim)]
        for place, (value, interval) in enumerate(values):
            style = ink.accent if place == len(values) - 1 else ink.text
            if tall and each < self.SMALLEST:
                first.append((fit(value, each - 1) + " ", style))
            elif tall:
                first.append((fit(value, each), style))
                second.append((fit(interval, each - 1) + " ", ink.dim))
            else:
                first += [(value, style), (" " + fit(interval, each - len(value) - 2) + " ", ink.dim)]
        if beside:
            first.append((fit(line.published, self.PUBLISHED), ink.dim))
        under = tall and each >= self.SMALLEST and any(interval for _, interval in values)
        return [first, second] if under else [first]
