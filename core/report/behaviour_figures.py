"""Figures of several behaviours at once: outcomes stacked to the whole, and a wanted trait against an unwanted one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from windowshift.core.contract.records import BASE, Behaviour, CellRow, ExperimentRow
from windowshift.core.report.figure import GLYPHS, TONES, Plot, Series, Tone

if TYPE_CHECKING:
    from windowshift.core.store.reader import Reader

Cells = Mapping[str, Sequence[CellRow]]
"""The cells of an experiment by behaviour; each has the summary of that behaviour."""


def behaviour_figures(
    reader: Reader, experiment: ExperimentRow, arm: str, generate: str, evaluates: Iterable[str] | None = None
) -> tuple[Plot, ...]:
    """Return the figures of several behaviours for one arm and generation condition, under each eval condition.

    There is one for every pair of a `positive` and a `negative` trait, and one for every group of outcomes; none for
    an experiment whose behaviours have neither.

    Args:
        reader: of the store.
        experiment: the experiment.
        arm: which arm's rows; the base model stands beside them.
        generate: the generation condition of D.
        evaluates: the eval conditions, one figure each; None: the one without a push, else the first one.
    """
    pairs = list(product(with_role(experiment, "positive"), with_role(experiment, "negative")))
    groups = outcome_groups(experiment)
    wanted = {one.name for pair in pairs for one in pair} | {one.name for group in groups.values() for one in group}
    if not wanted:
        return ()
    cells = {
        name: [
            cell
            for cell in reader.cells(experiment.id, name)
            if cell.final
            and cell.state == "done"
            and (cell.train == BASE or (cell.arm, cell.generate) == (arm, generate))
        ]
        for name in wanted
    }
    known = list(dict.fromkeys(cell.evaluate for some in cells.values() for cell in some))
    chosen = list(evaluates) if evaluates is not None else _plainest(experiment, known)
    found = []
    for evaluate in chosen:
        found += [traits(cells, positive, negative, generate, evaluate) for positive, negative in pairs]
        found += [outcomes(cells, name, group, generate, evaluate) for name, group in groups.items()]
    return tuple(found)


def _done(cells: Sequence[CellRow], arm: str, generate: str) -> list[CellRow]:
    own = (cell for cell in cells if cell.train == BASE or (cell.arm, cell.generate) == (arm, generate))
    return [cell for cell in own if cell.final and cell.state == "done"]


def with_role(experiment: ExperimentRow, role: str) -> tuple[Behaviour, ...]:
    """Return the behaviours of an experiment that play a role."""
    return tuple(one for one in experiment.behaviours if one.role == role)


def outcome_groups(experiment: ExperimentRow) -> dict[str, tuple[Behaviour, ...]]:
    """Return the groups of rates that exclude each other, two behaviours or more each, in the order of the spec."""
    groups: dict[str, list[Behaviour]] = {}
    for one in experiment.behaviours:
        if one.group and one.scale.kind == "rate":
            groups.setdefault(one.group, []).append(one)
    return {name: tuple(group) for name, group in groups.items() if len(group) > 1}


def _plainest(experiment: ExperimentRow, known: Sequence[str]) -> list[str]:
    neutral = [str(one["name"]) for one in experiment.conditions.get("evaluate", []) if one.get("kind") == "none"]
    return next(([name] for name in (*neutral, *known) if name in known), [])


Row = tuple[str, int]
"""A train condition and a seed."""


def _by_row(cells: Sequence[CellRow], evaluate: str) -> dict[Row, CellRow]:
    found: dict[Row, CellRow] = {}
    for cell in cells:
        if cell.evaluate == evaluate and cell.summary is not None and cell.summary.mean is not None:
            found.setdefault((cell.train, cell.seed), cell)
    return found


def _shared(rows: Sequence[Mapping[Row, CellRow]]) -> list[Row]:
    """The rows that all behaviours have, the base model first, else in the order of the store."""
    common = [row for row in rows[0] if all(row in other for other in rows[1:])] if rows else []
    base = next((row for row in common if row[0] == BASE), None)  # it has no training seed
    return [*([base] if base else []), *(row for row in common if row[0] != BASE)]


def _names(rows: Sequence[Row]) -> list[str]:
    several = len({seed for train, seed in rows if train != BASE}) > 1
    return [f"{train}, seed {seed}" if several and train != BASE else train for train, seed in rows]


def traits(cells: Cells, positive: Behaviour, negative: Behaviour, generate: str, evaluate: str) -> Plot:
    """Return the wanted trait against the unwanted one, one point a train condition, with intervals of both.

    The base model, and the rows without a window shift, which were trained under the condition that D was written
    under, are series of their own. To the lower right lies what one hopes for.
    """
    across, up = (_by_row(cells[one.name], evaluate) for one in (positive, negative))
    rows = _shared([across, up])
    names = dict(zip(rows, _names(rows), strict=True))
    looks: tuple[tuple[str, Tone, str], ...] = (
        ("fine-tuned", "accent", "●"),
        ("no shift: train = data", "bad", "★"),
        ("base model", "blue", "△"),
    )
    series = []
    for name, tone, glyph in looks:
        own = [
            row for row in rows if name == (looks[2] if row[0] == BASE else looks[1 if row[0] == generate else 0])[0]
        ]
        if not own:
            continue
        xs, ys = ([_written(one, table[row]) for row in own] for one, table in ((positive, across), (negative, up)))
        series.append(
            Series(
                name, "points", tuple(x for x, *_ in xs), tuple(y for y, *_ in ys), tuple(names[row] for row in own),
                tuple(low for _, low, _ in ys), tuple(high for *_, high in ys), tone, glyph,
                tuple(left for _, left, _ in xs), tuple(right for *_, right in xs),
            )
        )  # fmt: skip
    title = f"{negative.name} against {positive.name} under {evaluate}, one point a train condition"
    name = f"traits-{positive.name}-{negative.name}-under-{evaluate}"
    x, y = (f"{one.name}, {one.mean_label}" for one in (positive, negative))
    return Plot(name, title, x, y, tuple(series), note="no cell is finished yet")


def _written(behaviour: Behaviour, cell: CellRow) -> tuple[float, float | None, float | None]:
    """A mean with its interval as it is written: rates in per cent where their scale says so."""
    summary, times = cell.summary, 100.0 if behaviour.scale.percent else 1.0
    assert summary is not None
    assert summary.mean is not None
    ends = (None if end is None else end * times for end in (summary.low, summary.high))
    low, high = ends
    return summary.mean * times, low, high


def outcomes(cells: Cells, group: str, behaviours: Sequence[Behaviour], generate: str, evaluate: str) -> Plot:
    """Return the shares of outcomes that exclude each other, stacked, one bar a train condition, the base model first.

    What no outcome of the group covers stands on top, so that a bar is always the whole of what was scored. Rates that
    overlap are no parts of a whole, and there is no figure of them.
    """
    tables = [_by_row(cells[one.name], evaluate) for one in behaviours]
    rows = _shared(tables)
    places = tuple(float(number) for number in range(len(rows)))
    percent = all(one.scale.percent for one in behaviours)
    whole = 100.0 if percent else 1.0
    series = []
    left = [whole] * len(rows)
    for number, (one, table) in enumerate(zip(behaviours, tables, strict=True)):
        times = whole / (100.0 if one.scale.percent else 1.0)
        values = [tuple(None if v is None else v * times for v in _written(one, table[row])) for row in rows]
        ys = tuple(value[0] or 0.0 for value in values)
        left = [rest - y for rest, y in zip(left, ys, strict=True)]
        looks = (TONES[number % len(TONES)], GLYPHS[number % len(GLYPHS)])
        ends = (tuple(value[1] for value in values), tuple(value[2] for value in values))
        series.append(Series(one.name, "bars", places, ys, (), *ends, *looks))
    name = f"outcomes-{group}-under-{evaluate}"
    title = f"Outcomes ({group}) under {evaluate} by train condition, {generate} data"
    if any(rest < -whole * 1e-6 for rest in left):
        return Plot(name, title, note=f"the outcomes of '{group}' overlap: some completions have two of them at once")
    if any(rest > whole * 1e-6 for rest in left):
        series.append(Series("none of these", "bars", places, tuple(max(0.0, rest) for rest in left), tone="dim"))
    ticks = tuple(zip(places, _names(rows), strict=True))
    y = "share of completions, %" if percent else "share of completions"
    plot = tuple(series) if rows else ()
    return Plot(name, title, "", y, plot, ticks, note="no cell is finished yet", stacked=True)
