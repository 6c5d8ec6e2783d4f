"""An experiment in one line: state, cells, time and cost."""

from __future__ import annotations

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import ExperimentRow
from windowshift.tui.read.snapshot import ExperimentView
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces, length
from windowshift.tui.text.status import elapsed, experiment_status
from windowshift.tui.text.theme import Ink


def experiment_line(view: ExperimentView, now: float, ink: Ink) -> Pieces:
    """Return state, cells done, time and cost."""
    row = view.row
    state = experiment_status(row, view.run, now)
    full, empty = formats.bar(formats.share(row.cells_done, row.cells_total), 8)
    spent = elapsed(row, view.run, now)
    cost = formats.money(row.usd, local=row.backend == "local")
    pieces: Pieces = [(state.text, state.style(ink)), ("  ", ink.dim)]
    if row.cells_done < row.cells_total:
        pieces += [(full, state.style(ink)), (empty, ink.faint), (" ", ink.dim)]
    pieces.append((f"{row.cells_done}/{row.cells_total} cells", ink.text))
    if spent is not None:
        pieces.append((f" · {formats.duration(spent)}", ink.dim))
    pieces.append((f" · {cost} ", ink.dim))
    return pieces


def model_mark(row: ExperimentRow, ink: Ink) -> Pieces:
    """Return the model and, always apart from its name, that it is only a rehearsal."""
    name = sanitise.line(row.model, 40)
    mark = ("(rehearsal) · ", ink.warn) if row.rehearsal else ("", ink.dim)
    return [(f"{name} " if row.rehearsal else f"{name} · ", ink.text), mark]


def model_line(
    view: ExperimentView, now: float, ink: Ink, note: str = "", width: int = 0
) -> list[tuple[Pieces, Pieces]]:
    """Return what was done to which model, and what to do where the run stopped.

    A note on the numbers stands at the right end where it has room, else in a line of its own.
    """
    row = view.row
    left: Pieces = [
        (f" {sanitise.line(row.setting, 40)} · ", ink.dim),
        (sanitise.line(row.model, 60), ink.text),
        (" (rehearsal)" if row.rehearsal else "", ink.warn),
        (f" · {sanitise.line(row.backend, 20)}", ink.dim),
    ]
    right: Pieces = []
    if experiment_status(row, view.run, now).word == "interrupted":
        right = [("run the same command again to go on ", ink.accent)]
    elif row.error:
        right = [(sanitise.line(row.error, 80) + " ", ink.bad)]
    if not note:
        return [(left, right)]
    said: Pieces = [(f"{note} ", ink.dim)]
    if not right and length([*left, *said]) < width:
        return [(left, said)]
    return [(left, right), ([(" ", ink.dim), *said], [])]
