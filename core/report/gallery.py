"""The figures of an experiment, from its measures: for the screens, and as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.number_format import interval, signed
from windowshift.core.contract.records import BASE, Behaviour, CellRow, ExperimentRow, primary_of
from windowshift.core.report.behaviour_figures import behaviour_figures
from windowshift.core.report.figure import ARM_LOOKS, GLYPHS, TONES, Box, Heat, Plot, Rule, Series, Tone, subject
from windowshift.core.report.question_figures import question_figures

if TYPE_CHECKING:
    from windowshift.core.contract.estimate import Estimate
    from windowshift.core.measure.calibration import DosePoint
    from windowshift.core.measure.measures import ArmMeasures, CoursePoint, Fit, Measures, Point
    from windowshift.core.measure.resampled import Resampled
    from windowshift.core.measure.steering_results import DoseCurve, MatchedDose
    from windowshift.core.settings.published import Published
    from windowshift.core.store.reader import Reader

PinNumbers = Mapping[tuple[str, str, str], int]
"""The number under which rows (arm, generation, train) are pinned."""

_NO_COURSE = "no checkpoints: a spec with  checkpoints: {every: 100}  evaluates during training"


def gallery(measures: Measures, published: Published | None, arm: str, generate: str) -> tuple[Plot, ...]:
    """Return the figures of one arm and generation condition; the first one has every arm."""
    found = measures.arms[arm]
    words = found.scale.words
    return (
        grouped(measures, {}, published),
        by_evaluate(found, generate),
        bars(found, generate),
        heatmap(found, generate),
        course(found, generate, "cv", words.spread),
        course(found, generate, "mean", measures.behaviour.mean_label),
    )


def _axes(found: ArmMeasures) -> tuple[str, str]:
    words = found.scale.words
    return words.surprise_axis, f"{words.link_short} uplift" if words.uplift == "uplift" else f"uplift, {words.link}"


def _effect(found: ArmMeasures) -> tuple[str, float]:
    """The axis of effects as they are shown, and what they are multiplied by on it."""
    words = found.scale.words
    label = f"{words.effect_short} uplift" if words.uplift == "uplift" else f"uplift, {words.effect}"
    return label, words.effect_format.factor


def _times(factor: float, one: Estimate) -> tuple[float, float | None, float | None]:
    low, high = (None if end is None else factor * end for end in (one.low, one.high))
    return factor * one.value, low, high


def grouped(measures: Measures, pinned: PinNumbers, published: Published | None = None) -> Plot:
    """Return the grouped scatter: one point a (generation, train) row, one line an arm, pinned rows numbered."""
    series: list[Series] = []
    marks: list[tuple[float, float, str]] = []
    x = y = ""
    for name, found in measures.arms.items():
        tone, glyph = ARM_LOOKS.get(name, ("good", "■"))
        x, y = _axes(found)
        known = [(p, p.x, p.y) for p in found.whole.points if p.x is not None and p.y is not None]
        xs = tuple(one.value for _, one, _ in known)
        line = _line(found.whole.grouped, xs, name, tone)
        series += [line] if line else []
        series.append(
            Series(
                name,
                "points",
                xs,
                tuple(one.value for *_, one in known),
                tuple(_name(point, found) for point, *_ in known),
                tuple(one.low for *_, one in known),
                tuple(one.high for *_, one in known),
                tone,
                glyph,
            )
        )
        marks += [
            (at.value, up.value, str(number))
            for point, at, up in known
            if (number := pinned.get((name, point.generate, point.train)))
        ]
    title = "Uplift against how surprising the data is, one point a row"
    if published:
        fits = ", ".join(f"{fit.model} {signed(fit.slope)}" for fit in published.grouped[:2])
        title += f" (published slopes: {fits})"
    return Plot(
        "grouped", title, x, y, tuple(series), note=_nothing("row", *measures.arms.values()), marks=tuple(marks)
    )


def _nothing(what: str, *arms: ArmMeasures) -> str:
    """Why there is nothing to show of rows or cells."""
    if any(cell.status != "done" for found in arms for cell in found.cells if cell.key.final):
        return f"no {what} is finished yet"
    reasons = (point.reason for found in arms for point in found.whole.points if point.reason)
    return next(reasons, f"no {what} has a score")


def _name(point: Point, found: ArmMeasures) -> str:
    return point.train if len(found.generates) == 1 else f"{point.generate}: {point.train}"


def _line(fit: Fit, xs: Sequence[float], name: str, tone: Tone) -> Series | None:
    if fit.slope is None or fit.intercept is None or not xs:
        return None
    slope, intercept = fit.slope.value, fit.intercept.value
    ends = (min(xs), max(xs))
    # A terminal line is drawn through its points: a few in between keep it straight when it is cut.
    between = tuple(ends[0] + (ends[1] - ends[0]) * i / 8 for i in range(9))
    return Series(
        f"{name} fit {signed(slope)} {interval(fit.slope.low, fit.slope.high, sign=True)}".rstrip(),
        "line",
        between,
        tuple(intercept + slope * at for at in between),
        tone=tone,
    )


def by_evaluate(found: ArmMeasures, generate: str) -> Plot:
    """Return the scatter with a series for every eval condition."""
    positions = {
        point.train: point.x.value for point in found.whole.points if point.generate == generate and point.x is not None
    }
    series = []
    for place, evaluate in enumerate(found.evaluates):
        known = [
            (positions[cell.key.train], cell.uplift, cell.key.train)
            for cell in found.cells
            if (cell.key.generate, cell.key.evaluate, cell.key.final) == (generate, evaluate, True)
            and cell.uplift is not None
            and cell.key.train in positions
        ]
        series.append(
            Series(
                evaluate,
                "points",
                tuple(x for x, *_ in known),
                tuple(uplift.value for _, uplift, _ in known),
                tuple(train for *_, train in known),
                tuple(uplift.low for _, uplift, _ in known),
                tuple(uplift.high for _, uplift, _ in known),
                TONES[place % len(TONES)],
                GLYPHS[place % len(GLYPHS)],
            )
        )
    x, y = _axes(found)
    title = f"Uplift by eval condition, {found.arm} arm, {generate} data"
    return Plot("by-evaluate", title, x, y, tuple(series), note=_nothing("cell", found))


def bars(found: ArmMeasures, generate: str) -> Plot:
    """Return the mean uplift of every train condition as bars."""
    axis, factor = _effect(found)
    known = [
        (p.train, _times(factor, p.effect))
        for p in found.whole.points
        if p.generate == generate and p.effect is not None
    ]
    one = Series(
        "mean uplift",
        "bars",
        tuple(float(place) for place in range(len(known))),
        tuple(y for _, (y, *_) in known),
        tuple(train for train, _ in known),
        tuple(low for _, (_, low, _) in known),
        tuple(high for _, (*_, high) in known),
    )
    ticks = tuple((float(place), train) for place, (train, _) in enumerate(known))
    title = f"Mean uplift by train condition, {found.arm} arm, {generate} data"
    return Plot("by-train", title, "", axis, (one,), ticks, note=_nothing("row", found))


def heatmap(found: ArmMeasures, generate: str) -> Plot:
    """Return the uplift of every cell."""
    factor = _effect(found)[1]
    known = {
        (cell.key.train, cell.key.evaluate): factor * cell.effect.value
        for cell in found.cells
        if cell.key.generate == generate and cell.key.final and cell.effect is not None
    }
    trains = [train for train in found.trains if any((train, e) in known for e in found.columns)]
    on = "" if found.scale.kind == "ratio" else f" ({found.scale.words.effect})"
    title = f"Uplift{on}, train × eval, {found.arm} arm, {generate} data"
    if not known:
        return Plot("heatmap", title, note=_nothing("cell", found))
    values = tuple(tuple(known.get((train, e)) for e in found.columns) for train in trains)
    return Plot("heatmap", title, y=_effect(found)[0], heat=Heat(tuple(trains), found.columns, values))


def course(found: ArmMeasures, generate: str, what: str, word: str) -> Plot:
    """Return the spread or the mean over the examples seen in training, a line a train condition."""
    words = found.scale.words
    form = words.spread_format if what == "cv" else words.value_format
    if what == "cv" and form.unit:
        word += f",{form.unit}"
    title = f"{word} over training, {found.arm} arm, {generate} data"
    series: list[Series] = []
    for place, train in enumerate(found.trains):
        own: list[CoursePoint] = [p for p in found.course if (p.generate, p.train) == (generate, train)]
        known = [(p.step, _times(form.factor, e)) for p in own if (e := p.cv if what == "cv" else p.mean) is not None]
        if not known:
            continue
        series.append(
            Series(
                train,
                "line",
                tuple(float(step) for step, _ in known),
                tuple(value for _, (value, *_) in known),
                low=tuple(low for _, (_, low, _) in known),
                high=tuple(high for _, (*_, high) in known),
                tone=TONES[place % len(TONES)],
            )
        )
    name = f"{words.spread.lower() if what == 'cv' else 'mean'}-over-training"
    return Plot(name, title, "training examples", word, tuple(series), note=_NO_COURSE)


def dose_plot(curve: DoseCurve, matches: Sequence[MatchedDose], behaviour: Behaviour) -> Plot:
    """Return the mean over alpha; where means compare by ratio, the axis is in powers.

    A prefix group's base mean is a height: its line ends where the curve crosses it, at the matched alpha. One
    that is out of reach goes through the figure.
    """
    points = curve.points
    factor = behaviour.scale.words.value_format.factor
    xs, ys = tuple(p.alpha for p in points), tuple(factor * p.mean for p in points)
    low, high = (tuple(None if end is None else factor * end for end in ends) for ends in _ends(points))
    own = [one for one in matches if (one.vector, one.tokens) == (curve.vector, curve.tokens)]
    met = [(one.alpha, factor * one.target.value, one.group) for one in own if one.alpha is not None]
    cut = sum(point.truncated for point in points)
    series = (
        Series(f"mean{_counts([p.n for p in points], cut)}", "line", xs, ys, low=low, high=high),
        Series(
            "matched",
            "points",
            tuple(alpha for alpha, *_ in met),
            tuple(target for _, target, _ in met),
            tuple(group for *_, group in met),
            tone="blue",
            glyph="◆",
        ),
        Series("95 %", "band", xs, ys, low=low, high=high, tone="dim"),
    )
    ends = [value for value in (*ys, *low, *high, *(factor * one.target.value for one in own)) if value is not None]
    return Plot(
        "dose-response",
        f"Dose-response of the base model: {curve.vector} at layer {curve.layer}",
        "alpha",
        behaviour.mean_label,
        series,
        rules=tuple(Rule(one.group, factor * one.target.value, one.alpha) for one in own),
        log=behaviour.scale.kind == "ratio" and min(ends) > 0,
    )


def _ends(points: Sequence[DosePoint]) -> tuple[list[float | None], list[float | None]]:
    return [point.low for point in points], [point.high for point in points]


def _counts(n: Sequence[int], truncated: int) -> str:
    """The completions a point, and how many of all were cut off."""
    if not any(n):
        return ""
    span = str(min(n)) if min(n) == max(n) else f"{min(n)} to {max(n)}"
    return f" (n {span}, †{truncated})" if truncated else f" (n {span})"


def coherence_plot(curve: DoseCurve) -> Plot:
    """Return coherence over alpha: the log-probability a token of what is written under it, unpushed."""
    known = [(point.alpha, point.coherence) for point in curve.points if point.coherence is not None]
    xs, ys = tuple(alpha for alpha, _ in known), tuple(value for _, value in known)
    measured = [point.n if point.coherence_n is None else point.coherence_n for point in curve.points]
    line = Series(f"coherence{_counts(measured, 0)}", "line", xs, ys, tone="good")
    title = f"Coherence under {curve.vector} at layer {curve.layer}"
    return Plot("coherence", title, "alpha", "nats a token", (line,), note="coherence was not measured")


def distributions(reader: Reader, cells: Sequence[CellRow], behaviour: Behaviour, evaluate: str) -> Plot:
    """Return the scores under one eval condition as boxes: the base model's, then those of each train condition."""
    import numpy as np

    boxes = []
    seen: set[int] = set()
    one_seed = len({cell.seed for cell in cells}) < 2
    for cell in sorted(cells, key=lambda one: one.train != BASE):
        if cell.evaluate != evaluate or not cell.final or cell.state != "done" or cell.job in seen:
            continue
        seen.add(cell.job)
        rows = reader.scores(cell.job, behaviour.name)
        counted = [behaviour.scale.counted(score, finish) for *_, score, finish in rows]
        scores = [score for score in counted if score is not None]
        if scores:
            p5, p25, p50, p75, p95 = (float(one) for one in np.percentile(scores, (5, 25, 50, 75, 95)))
            name = cell.train if one_seed else f"{cell.train}, seed {cell.seed}"
            tone: Tone = "blue" if cell.train == BASE else "accent"
            boxes.append(Box(name, (p5, p25, p50, p75, p95), float(np.mean(scores)), len(scores), tone))
    title = f"Scores under {evaluate} by train condition: median, quartiles, 5th to 95th percentile, mean (◆)"
    return Plot(f"scores-under-{evaluate}", title, "", behaviour.unit, note="no cell is done", boxes=tuple(boxes))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure of an experiment, and the parts of its files' name."""

    names: tuple[str, ...]
    plot: Plot


def drawings(reader: Reader, experiment: ExperimentRow, behaviour: Behaviour) -> Iterator[Drawing]:
    """Return every figure of an experiment and a behaviour, one after the other.

    They are those that the screens have, the distributions of scores under each eval condition where scores are
    more than yes and no, and both arms at matched dose. Figures that have nothing to show come with the reason in
    their `note`.
    """
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.grid_measures import measure_resampled
    from windowshift.core.measure.guard_results import guard_results
    from windowshift.core.measure.inside_results import inside_results
    from windowshift.core.measure.loss_drop import losses_of
    from windowshift.core.measure.microscope import controls_of, dissect
    from windowshift.core.measure.resampled import Resampled
    from windowshift.core.report.guard_figures import guard_plots
    from windowshift.core.report.inside_figures import inside_plots
    from windowshift.core.report.microscope_figures import parts_plot
    from windowshift.core.settings.published import published

    grid = load_grid(reader, experiment, behaviour)
    resampled = Resampled(grid)
    measures = measure_resampled(resampled)
    known = published(experiment.setting, behaviour.name)
    first = True
    for arm, found in measures.arms.items():
        for generate in found.generates:
            whole, *others = gallery(measures, known, arm, generate)
            if first:
                arms = " and ".join(f"{one} arm" for one in measures.arms)
                yield Drawing((whole.name,), replace(whole, of=subject(experiment, arms, behaviour.name)))
                first = False
            what = (f"{arm} arm", f"{generate} data", behaviour.name)
            for plot in others:
                yield Drawing((arm, generate, plot.name), replace(plot, of=subject(experiment, *what)))
            if behaviour == primary_of(experiment.behaviours):
                for plot in behaviour_figures(reader, experiment, arm, generate, found.columns):
                    yield Drawing((arm, generate, plot.name), replace(plot, of=subject(experiment, *what[:2])))
            for plot in question_figures(reader, experiment, behaviour, found, generate, found.columns):
                yield Drawing((arm, generate, plot.name), replace(plot, of=subject(experiment, *what)))
            if behaviour.scale.kind == "rate":
                continue
            cells = [c for c in grid.cells if c.train == BASE or (c.arm, c.generate) == (arm, generate)]
            for evaluate in found.columns:
                plot = distributions(reader, cells, behaviour, evaluate)
                yield Drawing((arm, generate, plot.name), replace(plot, of=subject(experiment, *what)))
    if controls_of(experiment):
        seen = dissect(resampled, losses_of(reader, grid.cells))
        for arm, generate in dict.fromkeys((one.arm, one.generate) for one in seen.dissections):
            plot = parts_plot(seen, arm, generate)
            of = subject(experiment, f"{arm} arm", f"{generate} data", behaviour.name)
            yield Drawing((arm, generate, plot.name), replace(plot, of=of))
    if behaviour == primary_of(experiment.behaviours):
        yield from _dose_drawings(reader, experiment, resampled)
        for plot in (
            *guard_plots(guard_results(reader, experiment)),
            *inside_plots(inside_results(reader, experiment)),
        ):
            yield Drawing((plot.name,), replace(plot, of=subject(experiment)))
    if len(measures.arms) > 1:
        yield from _arms_drawings(reader, experiment, behaviour)


def _dose_drawings(reader: Reader, experiment: ExperimentRow, resampled: Resampled) -> Iterator[Drawing]:
    """The dose-responses of the base model, which were measured on the primary behaviour."""
    from windowshift.core.measure.steering_results import steering_results

    results = steering_results(reader, experiment, resampled)
    for curve in results.curves:
        for plot in (dose_plot(curve, results.matches, resampled.grid.behaviour), coherence_plot(curve)):
            what = subject(experiment, "base model", f"vector {curve.vector}", f"{curve.tokens} tokens")
            yield Drawing((curve.vector, curve.tokens, plot.name), replace(plot, of=what))


def _arms_drawings(reader: Reader, experiment: ExperimentRow, behaviour: Behaviour) -> Iterator[Drawing]:
    """Both arms at matched dose, as `windowshift compare --picture` has them on one sheet."""
    from windowshift.core.measure.arm_comparison import compare_arms
    from windowshift.core.report.arm_comparison_figure import arm_plots

    try:
        found = compare_arms(reader.workspace, experiment.name, behaviour.name)
    except SpecError:  # nothing in them is matched
        return
    what = subject(experiment, "prefix arm and steering arm", behaviour.name)
    for plot in arm_plots(found):
        yield Drawing((plot.name,), replace(plot, of=what))
