"""Every interval that reports, comparisons and screens print of a simulated grid, and how often it holds the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.simulated_grids import CONDITIONS, DOSES, PLAIN, ROWS, Drawn, World, draw
from windowshift.core.contract.confidence import Floats
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.stats import ols
from windowshift.core.measure.arm_comparison import ArmMeasure, compare_arms_of
from windowshift.core.measure.comparison import MEASURES, Comparison, compare_rows
from windowshift.core.measure.contrasts import contrasts
from windowshift.core.measure.grid_measures import measure_resampled
from windowshift.core.measure.line import predicted_share
from windowshift.core.measure.measures import Extreme, GroupMeasures, Measures
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.steering_results import SteeringResults

Count = dict[str, tuple[int, int]]
"""By the name of an interval, how often it held the truth, and how often it was asked."""
Asked = tuple[str, Estimate | None, float]
"""The name of an interval, what was printed, and the truth."""
COMPARED = ("no_prefix", "long")
"""The rows that are put side by side."""


def covered(world: World, seed: int, resamples: int = 1000) -> Count:
    """How often the intervals of one simulated grid hold the truth."""
    drawn = draw(world, seed)
    r = Resampled(drawn.grid, resamples)
    measures = measure_resampled(r)
    counts = counted([*_of_grid(drawn, measures), *_of_rows(drawn, r), *_of_contrasts(drawn, r)])
    if world.steered:
        counts |= counted(_of_arms(drawn, r))
    bands = [one.uplift for family in measures.arms["prefix"].families.values() for one in family]
    truth = uplift_of(drawn).ravel()
    counts["all uplifts at once"] = (int(all(holds(*one) for one in zip(bands, truth, strict=True))), 1)
    return counts


def counted(asked: Sequence[Asked] | Iterator[Asked]) -> Count:
    """How often each interval held the truth."""
    found: Count = {}
    for name, one, value in asked:
        held, of = found.get(name, (0, 0))
        found[name] = (held + holds(one, value), of + 1)
    return found


def holds(one: Estimate | None, value: float) -> bool:
    """Whether an interval is there and holds a number."""
    return one is not None and one.low is not None and one.high is not None and bool(one.low <= value <= one.high)


def uplift_of(drawn: Drawn) -> Floats:
    """True uplifts on the link scale, (trains, evals)."""
    return drawn.scale.linked(drawn.cells, np.inf, drawn.base, np.inf)


def _shown(drawn: Drawn, cells: Floats, base: Floats) -> Floats:
    """Effects as they are shown."""
    return drawn.scale.effect(cells, np.inf, base, np.inf)


def _surprise(drawn: Drawn) -> Floats:
    return drawn.scale.linked(drawn.base, np.inf, drawn.data, np.inf)


def _of_grid(drawn: Drawn, measures: Measures) -> Iterator[Asked]:
    """What the report has of one arm."""
    arm, scale = measures.arms["prefix"], drawn.scale
    cells = {(cell.key.train, cell.key.evaluate): cell for cell in arm.cells}
    uplift, effect = uplift_of(drawn), _shown(drawn, drawn.cells, drawn.base)
    for column, evaluate in enumerate(CONDITIONS):
        yield "base mean", cells["base", evaluate].mean, drawn.base_as_said[column]
        for row, train in enumerate(CONDITIONS):
            cell = cells[train, evaluate]
            yield "cell mean", cell.mean, drawn.cells_as_said[row, column]
            yield "uplift", cell.uplift, uplift[row, column]
            if scale.words.two:
                yield "effect", cell.effect, effect[row, column]
    yield from _of_lines(drawn, arm.whole, uplift)
    points = {point.train: point for point in arm.whole.points}
    spreads = {one.train: one for one in arm.whole.spreads}
    for row, train in enumerate(CONDITIONS):
        point, spread = points[train], spreads[train]
        yield "mean uplift", point.y, uplift[row].mean()
        if scale.words.two:
            yield "mean effect", point.effect, effect[row].mean()
        yield "x", point.x, _surprise(drawn)[row]
        yield "mean of D", point.data, drawn.data_as_said
        own, base = scale.spread(drawn.cells[row]), scale.spread(drawn.base)
        yield "spread", spread.value, float(own)
        yield "spread kept", spread.kept, float(own / base)
    yield from _extremes(drawn, arm.whole.extremes)


def _of_lines(drawn: Drawn, whole: GroupMeasures, uplift: Floats) -> Iterator[Asked]:
    x, y = _surprise(drawn), uplift.mean(axis=1)
    slope, intercept, _ = ols(x, y)
    fit = whole.grouped
    yield "slope", fit.slope, float(slope)
    yield "slope without attenuation", fit.corrected, float(slope)
    yield "slope by scatter", fit.scatter, drawn.slope
    yield "intercept", fit.intercept, float(intercept)
    yield "predicted R²", fit.predicted, float(predicted_share(x[None], y[None])[0])
    for column, evaluate in enumerate(CONDITIONS):
        own = ols(x, uplift[:, column])[0]
        yield "slope under a condition", whole.by_evaluate[evaluate].slope, float(own)


def _extremes(drawn: Drawn, extremes: Sequence[Extreme]) -> Iterator[Asked]:
    """Extreme cells against the base model and the no_prefix fine-tune, over the half that did not choose them."""
    for held in (one.held_out for one in extremes):
        if held is None:
            continue
        row, column = CONDITIONS.index(held.train), CONDITIONS.index(held.evaluate)
        cell, plain = drawn.cells[row, column], drawn.cells[CONDITIONS.index(PLAIN), column]
        yield "extreme cell", held.vs_base, float(drawn.scale.change(cell, drawn.base[column]))
        yield "extreme cell", held.vs_no_prefix, float(drawn.scale.change(cell, plain))


def _of_rows(drawn: Drawn, r: Resampled) -> Iterator[Asked]:
    """What is said of two rows side by side."""
    found = compare_rows(r, [("prefix", "med_short", train) for train in COMPARED])
    for name in MEASURES:
        if name != "link" or drawn.scale.words.two:
            first, second = (_of_row(drawn, found, name, place) for place in (0, 1))
            yield f"difference of two rows: {name}", found.measure(name).difference, second - first


def _of_row(drawn: Drawn, found: Comparison, name: str, place: int) -> float:
    scale, row = drawn.scale, CONDITIONS.index(COMPARED[place])
    if name == "train_mean_ratio":
        x = float(_surprise(drawn)[row])
        return float(2**x) if scale.kind == "ratio" else x
    if name in ("uplift", "link"):
        return float((uplift_of(drawn) if name == "link" else _shown(drawn, drawn.cells, drawn.base))[row].mean())
    if name in ("cv", "cv_kept"):
        spread = float(scale.spread(drawn.cells[row]))
        return spread if name == "cv" else spread / float(scale.spread(drawn.base))
    column = CONDITIONS.index(str(found.lowest[place]))
    return float(scale.change(drawn.cells[row, column], drawn.base[column]))


def _of_contrasts(drawn: Drawn, r: Resampled) -> Iterator[Asked]:
    found = {one.name: one.effect for one in contrasts(r)}
    plain = CONDITIONS.index(PLAIN)
    for of, against in ROWS:
        own = drawn.cells[CONDITIONS.index(of)]
        other = drawn.base if against == "base" else drawn.cells[CONDITIONS.index(against)]
        shown = _shown(drawn, own, other)
        yield "contrast", found[of], float(shown.mean() if against == "base" else shown[plain])


def _of_arms(drawn: Drawn, r: Resampled) -> Iterator[Asked]:
    """Both arms at matched dose: averages, differences, the slopes."""
    assert drawn.steered is not None
    found = compare_arms_of(r, None, SteeringResults())
    arms = (drawn.cells, drawn.steered)
    x = _surprise(drawn)
    uplifts = [drawn.scale.linked(cells, np.inf, drawn.base, np.inf) for cells in arms]
    slopes = [float(ols(x, uplift.mean(axis=1))[0]) for uplift in uplifts]
    yield "arms: difference of slopes", found.slopes.difference, slopes[1] - slopes[0]
    plain = CONDITIONS.index(PLAIN)
    pushing = [place for place, name in enumerate(CONDITIONS) if name != PLAIN]
    shown = [_shown(drawn, cells, drawn.base) for cells in arms]
    kept = [drawn.scale.spread(cells) / drawn.scale.spread(drawn.base) for cells in arms]
    average: dict[ArmMeasure, list[float]] = {
        "uplift": [float(one[pushing].mean()) for one in shown],
        "cv_kept": [float(one[pushing].mean()) for one in kept],
        "leak": [float(one[pushing, plain].mean()) for one in shown],
    }
    for name, (prefix, steering) in average.items():
        one = found.average[name]
        yield f"arms: average {name}", one.values[0], prefix
        yield f"arms: average {name}", one.values[1], steering
        yield f"arms: difference of {name}", one.difference, steering - prefix
    rows = {row.pair.prefix: row for row in found.rows}
    for place, (train, dose) in enumerate(zip(CONDITIONS, DOSES, strict=True)):
        row = rows[train]
        assert row.pair.steering == dose
        leaks = [float(one[place, plain]) for one in shown]
        shares = [leak / float(one[place, pushing].mean()) for leak, one in zip(leaks, shown, strict=True)]
        for name, values in (("leak", leaks), ("leak_share", shares)):
            both = row.measures[name]  # type: ignore[index] # one of its names
            for value, printed in zip(values, both.values, strict=True):
                yield f"arms: {name} of a row", printed, value
        yield (
            "arms: difference of a row's uplift",
            row.measures["uplift"].difference,
            float(shown[1][place].mean() - shown[0][place].mean()),
        )
