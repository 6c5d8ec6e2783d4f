"""The numbers of a cell in words: what stands over its completions."""

from __future__ import annotations

import math

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import BASE
from windowshift.core.contract.scale import ScaleWords
from windowshift.core.contract.truncation import counted_dagger, dagger
from windowshift.tui.read.cell_snapshot import CellDifference, CellSnapshot
from windowshift.tui.read.snapshot import CellKey, finished, name_beside
from windowshift.tui.text.pieces import Pieces, length
from windowshift.tui.text.theme import Ink
from windowshift.tui.text.words import wrapped


def cell_name(key: CellKey) -> str:
    """Return a cell's name: `long → short`."""
    name = f"{key.train} → {key.evaluate}"
    return name if key.train == BASE else f"{name} on {key.generate} data"


def cell_numbers(found: CellSnapshot, width: int, ink: Ink) -> list[tuple[Pieces, Pieces]]:
    """Return the lines over a cell's completions: its mean, the base's, the change, counts, pushes, the pinned cell.

    No interval is cut where a line ends.
    """
    summary, words = found.summary, found.behaviour.scale.words
    if summary is None or summary.mean is None:
        if found.cell.state != "done" and found.cell.done:
            later = f" {found.cell.done} of {found.cell.total} completions; its numbers come when it is done"
            return [([(later, ink.dim)], [])]
        return [([(" no scores yet", ink.dim)], [])]
    form = words.value_format
    name = name_beside(found.behaviour, found.experiment.row)
    pieces: Pieces = [
        (f" {sanitise.line(name, 40)}" if name else "", ink.text),
        (" rate " if found.behaviour.scale.kind == "rate" else " mean ", ink.dim),
        (found.behaviour.value_text(summary.mean, narrow=True) + dagger(summary.truncated), ink.strong),
        (f" {form.interval(summary.estimate, narrow=True)}", ink.text),
    ]
    base = finished(found.base) if found.key.train != BASE else None
    if base is not None and base.mean is not None:
        pieces += [
            ("  base ", ink.dim),
            (form.with_unit(base.mean, narrow=True) + dagger(base.truncated), ink.blue),
            (f" {form.interval(base.estimate, narrow=True)}", ink.text),
        ]
    on = f" {words.link_short}" if words.uplift == "uplift" else ""
    cut = dagger(summary.truncated, base.truncated if base is not None else 0)
    uplift = _compared(found.uplift, words, ink, f" {words.uplift}{on}", cut=cut)
    counts: Pieces = [(f"n {summary.n}", ink.text)]
    share = f" ({summary.truncated / summary.n:.1%})" if summary.truncated and summary.n else ""
    number = counted_dagger(summary.truncated) or "0"
    counts.append((f" · {number} truncated{share}", ink.warn if summary.truncated else ink.dim))
    if base is not None and base.truncated:
        counts.append((f", base {counted_dagger(base.truncated)}", ink.warn))
    counts.append((f" · {found.failed} failed ", ink.bad if found.failed else ink.dim))
    if (lacking := summary.missing - found.failed) > 0:
        counts.append((f"· {lacking} missing ", ink.bad))
    against = [*_restricted(found, width, ink), *_against(found, width, ink)]
    doses: list[tuple[Pieces, Pieces]] = [
        (line, [])
        for word, push in (("pushed by", found.push), ("trained under", found.train_push))
        if push
        for line in _wrapped([(f"{word} ", ink.dim), (sanitise.line(push, 200), ink.text)], width, ink)
    ]
    whole: Pieces = [*pieces, *([(" ", ink.dim), *uplift] if uplift else [])]
    first: list[tuple[Pieces, Pieces]]
    if width >= 120 and length(whole) + length(counts) < width:
        first = [(whole, counts)]
    elif length(whole) <= width:
        first = [(whole, []), ([(" ", ink.dim), *counts], [])]
    elif length(uplift) + length(counts) < width:  # no interval is cut off
        first = [(pieces, []), (uplift, counts)]
    else:
        first = [(pieces, []), (uplift, []), ([(" ", ink.dim), *counts], [])]
    return [*first, *doses, *((line, []) for line in against)]


def _restricted(found: CellSnapshot, width: int, ink: Ink) -> list[Pieces]:
    """Return what the means are without the bend of the token limit: by the Kaplan-Meier estimate, up to a limit."""
    if found.restricted is None:
        return []
    form, one = found.behaviour.scale.words.value_format, found.restricted
    upto = f", up to {found.behaviour.value_text(one.limit, narrow=True)}" if math.isfinite(one.limit) else ""
    pieces: Pieces = [(_whole(f"† by Kaplan-Meier{upto}:"), ink.dim)]
    for word, summary in (("mean", one.own), ("base", one.base)):
        if summary is not None and summary.mean is not None:
            value, interval = form.with_unit(summary.mean, narrow=True), form.interval(summary.estimate, narrow=True)
            pieces += [(f" {word}\u00a0", ink.dim), (_whole(f"{value} {interval}"), ink.text)]
    return _wrapped(pieces, width, ink)


def _wrapped(pieces: Pieces, width: int, ink: Ink) -> list[Pieces]:
    """Return pieces as lines of a screen's width."""
    return [[(" ", ink.dim), *line] for line in wrapped(pieces, max(20, width - 2))]


def _compared(
    one: CellDifference | None, words: ScaleWords, ink: Ink, label: str, *, whole: bool = False, cut: str = ""
) -> Pieces:
    """Return a cell against another one: as it is shown, then on the link scale where that is another number.

    `whole`: no line ends between a value and its interval. `cut` is the dagger behind the values.
    """
    space = "\u00a0" if whole else " "
    if one is None or one.effect is None:
        return []
    pieces: Pieces = [(label, ink.dim)]
    for measured, form in ((one.effect, words.effect_format), (one.link, words.link_format)):
        if measured is None:
            continue
        if measured is one.link:
            pieces.append((f"  {words.link_short}", ink.dim))
        value, interval = form.with_unit(measured.value, narrow=True) + cut, form.interval(measured, narrow=True)
        if whole:
            pieces.append((f"{space}{_whole(value)}{space}{_whole(interval)}", ink.accent))
        else:
            pieces += [(f" {value}", ink.accent), (f" {interval}", ink.text)]
    return pieces


def _against(found: CellSnapshot, width: int, ink: Ink) -> list[Pieces]:
    """Return this cell against the pinned one: in one line, or with what does not fit below; no interval is cut."""
    if found.pinned is None:
        return []
    pinned = found.pinned
    name = f"{pinned.key.train} → {pinned.key.evaluate}"
    if pinned.key.generate != found.key.generate:
        name = cell_name(pinned.key)
    summary, words = finished(pinned.cell), found.behaviour.scale.words
    pieces: Pieces = [("pinned ", ink.dim), (sanitise.line(name, 60), ink.good)]
    if summary is not None:
        form = words.value_format
        interval = _whole(form.interval(summary.estimate, narrow=True))
        mean = form.with_unit(summary.mean, narrow=True) + dagger(summary.truncated)
        pieces += [(f" {_whole(mean)}\u00a0{interval}", ink.good)]
    on = f"{words.link_short} " if words.uplift == "uplift" else ""
    own = finished(found.cell)
    cut = dagger(*(one.truncated for one in (own, summary) if one is not None))
    pieces += _compared(pinned.against, words, ink, f"  {_whole(f'{on}over it')}", whole=True, cut=cut)
    return _wrapped(pieces, width, ink)


def _whole(text: str) -> str:
    """Return text that is not broken where a line ends."""
    return text.replace(" ", "\u00a0")
