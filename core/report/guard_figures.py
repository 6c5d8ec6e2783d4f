"""Figures of guards: what each fine-tune lost or gained against the base model, behaviour by behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowshift.core.measure.comparison import RowKey
from windowshift.core.measure.guard_results import GuardResult
from windowshift.core.measure.measures import CellMeasure
from windowshift.core.report.figure import BARS, GLYPHS, TONES, Plot, Rule, Series


def guard_plots(results: Sequence[GuardResult]) -> Iterator[Plot]:
    """One figure for each guard, eval condition and unit: a place a behaviour, a series a fine-tune.

    Points are fine-tune minus base model, paired by prompt, with their intervals; at 0 nothing was lost.
    """
    for guard in dict.fromkeys(one.guard for one in results):
        own = [one for one in results if one.guard == guard]
        for evaluate in dict.fromkeys(cell.key.evaluate for one in own for cell in one.base):
            for number, label in enumerate(dict.fromkeys(one.behaviour.effect_label for one in own), 1):
                alike = [one for one in own if one.behaviour.effect_label == label]
                name = f"guard-{guard}-under-{evaluate}" + (f"-{number}" if number > 1 else "")
                title = f"Guard {guard} under {evaluate}: fine-tunes minus the base model"
                yield _plot(name, title, label, alike, evaluate)


def _plot(name: str, title: str, label: str, results: Sequence[GuardResult], evaluate: str) -> Plot:
    tables = [_cells(one, evaluate) for one in results]
    tuned = list(dict.fromkeys(found for table in tables for found in table))
    several = [len(set(part)) > 1 for part in zip(*tuned, strict=True)]
    series = []
    for number, one in enumerate(tuned):
        said = ": ".join(part for part, told in zip(one, (*several[:2], True), strict=True) if told)
        there = [(place, *_ends(results[place], table[one])) for place, table in enumerate(tables) if one in table]
        there = [point for point in there if point[1] is not None]
        shift = (number - (len(tuned) - 1) / 2) * BARS / max(1, len(tuned))
        xs, ys = tuple(place + shift for place, *_ in there), tuple(value or 0.0 for _, value, *_ in there)
        ends = (tuple(low for _, _, low, _ in there), tuple(high for *_, high in there))
        looks = (TONES[number % len(TONES)], GLYPHS[number % len(GLYPHS)])
        series.append(Series(said, "points", xs, ys, (), *ends, *looks))
    ticks = tuple((float(place), one.behaviour.name) for place, one in enumerate(results))
    note = "no fine-tune has answered the guard yet"
    return Plot(name, title, "", label, tuple(series), ticks, note=note, rules=(Rule("base model", 0.0),))


def _cells(result: GuardResult, evaluate: str) -> dict[RowKey, CellMeasure]:
    return {
        (cell.key.arm, cell.key.generate, cell.key.train): cell
        for cell in result.tuned
        if cell.key.evaluate == evaluate
    }


def _ends(result: GuardResult, cell: CellMeasure) -> tuple[float | None, float | None, float | None]:
    """The effect with its interval, as it is written."""
    one, times = cell.effect, 100.0 if result.behaviour.scale.percent else 1.0
    if one is None:
        return None, None, None
    return (
        one.value * times,
        None if one.low is None else one.low * times,
        None if one.high is None else one.high * times,
    )
