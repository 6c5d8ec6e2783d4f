"""A cell of several behaviours in words: the line under the matrix."""

from __future__ import annotations

from collections.abc import Mapping

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import BASE
from windowshift.core.contract.truncation import dagger
from windowshift.tui.read import cell_labels
from windowshift.tui.read.fits import Fits, effect_of
from windowshift.tui.read.snapshot import GridCell, GridSnapshot
from windowshift.tui.read.together_faces import shares_of
from windowshift.tui.text import share_bar
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.theme import Ink


def explanation(grid: GridSnapshot, found: GridCell, fits: Mapping[str, Fits], ink: Ink) -> Pieces:
    """Say what stands in a finished cell: each behaviour with its interval, and against the base model."""
    train, evaluate = found.cell.train, found.cell.evaluate
    name = f"{sanitise.line(train, 60)} → {sanitise.line(evaluate, 60)}"
    outcomes = grid.together is not None and grid.together.kind == "outcomes"
    known = [one.summary for page in grid.beside if (one := page.cell(train, evaluate)) is not None]
    counts = {summary.n for summary in known if summary is not None}
    missing = max((summary.missing for summary in known if summary is not None), default=0)
    pieces: Pieces = [(name, ink.strong), (f", n\u00a0{_range(counts)}", ink.text)]
    pieces += [(f", {missing}\u00a0missing", ink.bad)] if missing else []
    pieces.append((": ", ink.dim))
    for number, page in enumerate(grid.beside):
        one, words = page.cell(train, evaluate), page.behaviour.scale.words
        summary = one.summary if one is not None else None
        pieces.append(("; " if number else "", ink.dim))
        if outcomes:
            glyph, style = share_bar.look(number, ink)
            pieces.append((f"{glyph} ", style))
        pieces.append((f"{sanitise.line(page.behaviour.name, 40)} ", ink.text))
        if one is None or summary is None or summary.mean is None:
            pieces.append((f"no score, {summary.missing} missing" if summary else "no score", ink.bad))
            continue
        pieces.append((page.behaviour.value_text(summary.mean, narrow=True) + dagger(summary.truncated), ink.strong))
        pieces.append((f"\u00a0{_joined(words.value_format.interval(summary.estimate, narrow=True))}", ink.text))
        if train != BASE and not outcomes:
            effect = effect_of(one, page.behaviour, fits.get(page.behaviour.name))
            if effect is not None:
                value = words.effect_format.with_unit(effect.value, narrow=True) + cell_labels.cut_of(one, "uplift")
                interval = _joined(words.effect_format.interval(effect, narrow=True))
                pieces.append((", vs base ", ink.dim))
                pieces.append((_joined(f"{value} {interval}".rstrip()), ink.text))
    if outcomes:
        shares = shares_of(grid, train, evaluate)
        if shares == ():
            pieces.append(("; these overlap: some completions have two of them at once", ink.bad))
        elif shares and shares[-1]:
            form = grid.beside[0].behaviour.scale.words.value_format
            pieces.append((f"; {share_bar.REST} none of these {form.with_unit(shares[-1], narrow=True)}", ink.dim))
    return pieces


def _range(counts: set[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _joined(text: str) -> str:
    """Text whose spaces end no line."""
    return text.replace(" ", "\u00a0")


def number_words(grid: GridSnapshot, metric: cell_labels.Metric) -> str:
    """What the numbers of the cells are, for the line over the matrix."""
    if grid.together is None:
        return ""
    if grid.together.kind == "outcomes":
        return f"{grid.together.name}: shares"
    names = list(dict.fromkeys(cell_labels.metric_name(metric, page.behaviour) for page in grid.beside))
    return f"{grid.together.name}: {names[0] if len(names) == 1 else metric}"
