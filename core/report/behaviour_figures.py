"""Figures of several behaviours at once: outcomes stacked to the whole, traits side by side and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow
from windowshift.core.report.figure import BARS, GLYPHS, TONES, Plot, Series, Tone

if TYPE_CHECKING:
    from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class TrainedMean:
    """The mean of one behaviour, over all seeds, of what was trained under a condition (or the base model)."""

    train: str
    evaluate: str
    mean: Estimate


BehaviourMeans = Mapping[str, Sequence[TrainedMean]]
"""By behaviour, in the order of the store."""


def behaviour_figures(
    reader: Reader, experiment: ExperimentRow, arm: str, generate: str, evaluates: Iterable[str] | None = None
) -> tuple[Plot, ...]:
    """Return the figures of several behaviours for one arm and generation condition, under each eval condition.

    There is one of all traits of a panel that are rates, one for every pair of a `positive` and a `negative` trait of a
    panel, and one for every group of outcomes; none for an experiment whose behaviours have neither.

    Args:
        reader: of the store.
        experiment: the experiment.
        arm: which arm's rows; the base model stands beside them.
        generate: the generation condition of D.
        evaluates: the eval conditions, one figure each; None: the one without a push, else the first one.
    """
    pairs = [
        (one, other)
        for one, other in product(with_role(experiment, "positive"), with_role(experiment, "negative"))
        if one.panel == other.panel
    ]
    groups, panels = outcome_groups(experiment), trait_panels(experiment)
    several = [*pairs, *groups.values(), *panels.values()]
    wanted = dict.fromkeys(one for some in several for one in some)
    if not wanted:
        return ()
    means = {one.name: _means(reader, experiment, one, arm, generate) for one in wanted}
    known = list(dict.fromkeys(mean.evaluate for some in means.values() for mean in some))
    given = any(one["name"] == generate and one.get("kind") in _GIVEN for one in experiment.conditions["generate"])
    chosen = list(evaluates) if evaluates is not None else plainest(experiment, known)
    found = []
    for evaluate in chosen:
        found += [rates(means, panel, group, generate, evaluate) for panel, group in panels.items()]
        unshifted = evaluate if given else generate
        found += [
            traits(means, positive, negative, unshifted, evaluate, "evaluation" if given else "data")
            for positive, negative in pairs
        ]
        found += [outcomes(means, name, group, generate, evaluate) for name, group in groups.items()]
    return tuple(found)


_GIVEN = ("data", "answers")


def _means(
    reader: Reader, experiment: ExperimentRow, behaviour: Behaviour, arm: str, generate: str
) -> list[TrainedMean]:
    cells = [cell for cell in reader.cells(experiment.id, behaviour.name) if cell.final and cell.state == "done"]
    own = [cell for cell in cells if cell.train == BASE or (cell.arm, cell.generate) == (arm, generate)]
    if len({cell.seed for cell in own}) > 1:
        return _pooled(reader, experiment, behaviour, arm, generate)
    means = ((cell, None if cell.summary is None else cell.summary.estimate) for cell in own)
    return [TrainedMean(cell.train, cell.evaluate, mean) for cell, mean in means if mean is not None]


def _pooled(
    reader: Reader, experiment: ExperimentRow, behaviour: Behaviour, arm: str, generate: str
) -> list[TrainedMean]:
    """The means over several seeds, as every other page has them."""
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.grid_measures import measure

    found = measure(load_grid(reader, experiment, behaviour)).arms.get(arm)
    cells = [cell for cell in (found.cells if found else ()) if cell.mean is not None and cell.status == "done"]
    return [
        TrainedMean(cell.key.train, cell.key.evaluate, cell.mean)
        for cell in cells
        if cell.mean is not None and (cell.key.train == BASE or (cell.key.generate == generate and cell.key.final))
    ]


def trait_panels(experiment: ExperimentRow) -> dict[str, tuple[Behaviour, ...]]:
    """Return the traits that are rates by panel, two or more each, in the order of the spec."""
    panels: dict[str, list[Behaviour]] = {}
    for one in experiment.behaviours:
        if one.role in ("positive", "negative") and one.scale.kind == "rate":
            panels.setdefault(one.panel, []).append(one)
    return {name: tuple(some) for name, some in panels.items() if len(some) > 1}


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


def plainest(experiment: ExperimentRow, known: Sequence[str]) -> list[str]:
    """Return the eval condition that figures on screen are of: the one without a push, else the first; none of none."""
    neutral = [str(one["name"]) for one in experiment.conditions.get("evaluate", []) if one.get("kind") == "none"]
    return next(([name] for name in (*neutral, *known) if name in known), [])


def _under(means: Sequence[TrainedMean], evaluate: str) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for one in means:
        if one.evaluate == evaluate:
            found.setdefault(one.train, one.mean)
    return found


def _shared(tables: Sequence[Mapping[str, Estimate]], *, some: bool = False) -> list[str]:
    """The train conditions that all tables have (`some`: that any has), the base model first, else in their order."""
    every = dict.fromkeys(train for table in tables for train in table)
    common = [train for train in every if some or all(train in table for table in tables)]
    return sorted(common, key=lambda train: train != BASE)


def rates(means: BehaviourMeans, panel: str, behaviours: Sequence[Behaviour], generate: str, evaluate: str) -> Plot:
    """Return the rates of several traits side by side, a bar each with its interval, for every train condition."""
    tables = [_under(means[one.name], evaluate) for one in behaviours]
    trains = _shared(tables, some=True)
    percent = all(one.scale.percent for one in behaviours)
    width = BARS / len(behaviours)
    series = []
    for number, (one, table) in enumerate(zip(behaviours, tables, strict=True)):
        there = [(place, table[train]) for place, train in enumerate(trains) if train in table]
        values = [written(mean, percent) for _, mean in there]
        at = tuple(place + (number - (len(behaviours) - 1) / 2) * width for place, _ in there)
        ys = tuple(value for value, *_ in values)
        ends = (tuple(low for _, low, _ in values), tuple(high for *_, high in values))
        looks = (TONES[number % len(TONES)], GLYPHS[number % len(GLYPHS)])
        series.append(Series(one.name, "bars", at, ys, (), *ends, *looks))
    name = f"rates{_slug(panel)}-under-{evaluate}"
    title = f"Traits{f' {panel}' if panel else ''} under {evaluate} by train condition, {generate} data"
    y = "rate, %" if percent else "rate"
    ticks = tuple((float(place), train) for place, train in enumerate(trains))
    names = tuple(one.name for one in behaviours)
    return Plot(name, title, "", y, tuple(series), ticks, note="no cell is done and scored yet", behaviours=names)


def _slug(panel: str) -> str:
    return f"-{panel.replace(' ', '-')}" if panel else ""


def traits(
    means: BehaviourMeans, positive: Behaviour, negative: Behaviour, unshifted: str, evaluate: str, like: str = "data"
) -> Plot:
    """Return the wanted trait against the unwanted one, one point a train condition, with intervals of both.

    The base model, and the row without a window shift, which was trained under the condition `unshifted`, are series
    of their own: that of D or, where D is given, that of the evaluation, as `like` says. To the lower right lies what
    one hopes for.
    """
    across, up = (_under(means[one.name], evaluate) for one in (positive, negative))
    trains = _shared([across, up])
    series = []
    looks: tuple[tuple[str, Tone, str, list[str]], ...] = (
        ("fine-tuned", "accent", "●", [train for train in trains if train not in (BASE, unshifted)]),
        (f"no shift: train = {like}", "bad", "★", [train for train in trains if train == unshifted]),
        ("base model", "blue", "△", [train for train in trains if train == BASE]),
    )
    for name, tone, glyph, own in looks:
        if not own:
            continue
        xs, ys = (
            [written(table[train], one.scale.percent) for train in own]
            for one, table in ((positive, across), (negative, up))
        )
        series.append(
            Series(
                name, "points", tuple(x for x, *_ in xs), tuple(y for y, *_ in ys), tuple(own),
                tuple(low for _, low, _ in ys), tuple(high for *_, high in ys), tone, glyph,
                tuple(left for _, left, _ in xs), tuple(right for *_, right in xs),
            )
        )  # fmt: skip
    title = f"{negative.name} against {positive.name} under {evaluate}, one point a train condition"
    name = f"traits-{positive.name}-{negative.name}-under-{evaluate}"
    x, y = (f"{one.name}, {one.mean_label}" for one in (positive, negative))
    both = (positive.name, negative.name)
    return Plot(name, title, x, y, tuple(series), note="no cell is done and scored yet", behaviours=both)


def written(mean: Estimate, percent: bool) -> tuple[float, float | None, float | None]:
    """Return a mean with its interval as it is written: rates in per cent where their scale says so."""
    times = 100.0 if percent else 1.0
    low, high = (None if end is None else end * times for end in (mean.low, mean.high))
    return mean.value * times, low, high


def outcomes(means: BehaviourMeans, group: str, behaviours: Sequence[Behaviour], generate: str, evaluate: str) -> Plot:
    """Return the shares of outcomes that exclude each other, stacked, one bar a train condition, the base model first.

    What no outcome of the group covers stands on top, so that a bar is always the whole of what was scored. Rates that
    overlap are no parts of a whole, and there is no figure of them.
    """
    tables = [_under(means[one.name], evaluate) for one in behaviours]
    trains = _shared(tables)
    places = tuple(float(number) for number in range(len(trains)))
    percent = all(one.scale.percent for one in behaviours)
    whole = 100.0 if percent else 1.0
    series = []
    left = [whole] * len(trains)
    for number, (one, table) in enumerate(zip(behaviours, tables, strict=True)):
        values = [written(table[train], percent) for train in trains]
        ys = tuple(value[0] for value in values)
        left = [rest - y for rest, y in zip(left, ys, strict=True)]
        looks = (TONES[number % len(TONES)], GLYPHS[number % len(GLYPHS)])
        ends = (tuple(value[1] for value in values), tuple(value[2] for value in values))
        series.append(Series(one.name, "bars", places, ys, (), *ends, *looks))
    name = f"outcomes-{group}-under-{evaluate}"
    title = f"Outcomes ({group}) under {evaluate} by train condition, {generate} data"
    names = tuple(one.name for one in behaviours)
    if any(rest < -whole * 1e-6 for rest in left):
        note = f"the outcomes of '{group}' overlap: some completions have two of them at once"
        return Plot(name, title, note=note, behaviours=names)
    if any(rest > whole * 1e-6 for rest in left):
        series.append(Series("none of these", "bars", places, tuple(max(0.0, rest) for rest in left), tone="dim"))
    ticks = tuple(zip(places, trains, strict=True))
    y = "share of completions, %" if percent else "share of completions"
    plot = tuple(series) if trains else ()
    note = "no cell is done and scored yet"
    return Plot(name, title, "", y, plot, ticks, note=note, stacked=True, behaviours=names)
