"""The figures of an experiment, from its measures. Plain functions; they run in a worker thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from windowshift.tui.text import formats
from windowshift.tui.text.plot import GLYPHS, TONES, Heat, Plot, Series, Tone

if TYPE_CHECKING:
    from windowshift.core.measure.measures import ArmMeasures, CoursePoint, Fit, Measures, Point
    from windowshift.core.settings.published import Published

Pinned = Mapping[tuple[str, str, str], int]
"""The number under which rows (arm, generation, train) are pinned."""

ARM_LOOKS: dict[str, tuple[Tone, str]] = {"prefix": ("accent", "●"), "steering": ("blue", "▲")}

_NO_COURSE = "no checkpoints: a spec with  checkpoints: {every: 100}  evaluates during training"


def gallery(measures: Measures, published: Published | None, arm: str, generate: str) -> tuple[Plot, ...]:
    """Return the figures of one arm and generation condition; the first one has every arm."""
    found = measures.arms[arm]
    unit = measures.behaviour.unit
    return (
        grouped(measures, {}, published),
        by_evaluate(found, generate),
        bars(found, generate),
        heatmap(found, generate),
        course(found, generate, "cv", "CV"),
        course(found, generate, "mean", f"mean {unit}"),
    )


def _axes(found: ArmMeasures) -> tuple[str, str]:
    if found.scale == "log2":
        return "log2 train_mean_ratio", "log2 uplift"
    return f"distance of D, {found.scale}", f"uplift, {found.scale}"


def grouped(measures: Measures, pinned: Pinned, published: Published | None = None) -> Plot:
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
        fits = ", ".join(f"{fit.model} {formats.signed(fit.slope)}" for fit in published.grouped[:2])
        title += f" (published slopes: {fits})"
    return Plot("grouped", title, x, y, tuple(series), note="no row is finished yet", marks=tuple(marks))


def _name(point: Point, found: ArmMeasures) -> str:
    return point.train if len(found.generates) == 1 else f"{point.generate}: {point.train}"


def _line(fit: Fit, xs: Sequence[float], name: str, tone: Tone) -> Series | None:
    if fit.slope is None or fit.intercept is None or not xs:
        return None
    slope, intercept = fit.slope.value, fit.intercept.value
    ends = (min(xs), max(xs))
    # A terminal line is drawn through its points: a few in between keep it straight when it is cut.
    between = tuple(ends[0] + (ends[1] - ends[0]) * i / 8 for i in range(9))
    r2 = f" R² {fit.r2.value:.2f}" if fit.r2 else ""
    return Series(
        f"{name} fit {formats.signed(slope)}{r2}",
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
    return Plot("by-evaluate", title, x, y, tuple(series), note="no cell is finished yet")


def bars(found: ArmMeasures, generate: str) -> Plot:
    """Return the mean uplift of every train condition as bars."""
    known = [(p.train, p.y) for p in found.whole.points if p.generate == generate and p.y is not None]
    one = Series(
        "mean uplift",
        "bars",
        tuple(float(place) for place in range(len(known))),
        tuple(y.value for _, y in known),
        tuple(train for train, _ in known),
        tuple(y.low for _, y in known),
        tuple(y.high for _, y in known),
    )
    ticks = tuple((float(place), train) for place, (train, _) in enumerate(known))
    title = f"Mean uplift by train condition, {found.arm} arm, {generate} data"
    return Plot("by-train", title, "", _axes(found)[1], (one,), ticks, note="no row is finished yet")


def heatmap(found: ArmMeasures, generate: str) -> Plot:
    """Return the uplift of every cell."""
    known = {
        (cell.key.train, cell.key.evaluate): cell.uplift.value
        for cell in found.cells
        if cell.key.generate == generate and cell.key.final and cell.uplift is not None
    }
    trains = [train for train in found.trains if any((train, e) in known for e in found.columns)]
    title = f"Uplift, train × eval, {found.arm} arm, {generate} data"
    if not known:
        return Plot("heatmap", title, note="no cell is finished yet")
    values = tuple(tuple(known.get((train, e)) for e in found.columns) for train in trains)
    return Plot("heatmap", title, heat=Heat(tuple(trains), found.columns, values))


def course(found: ArmMeasures, generate: str, what: str, word: str) -> Plot:
    """Return CV or mean over the examples seen in training, a line a train condition."""
    title = f"{word} over training, {found.arm} arm, {generate} data"
    series: list[Series] = []
    for place, train in enumerate(found.trains):
        own: list[CoursePoint] = [p for p in found.course if (p.generate, p.train) == (generate, train)]
        known = [(p.step, e) for p in own if (e := p.cv if what == "cv" else p.mean) is not None]
        if not known:
            continue
        series.append(
            Series(
                train,
                "line",
                tuple(float(step) for step, _ in known),
                tuple(one.value for _, one in known),
                low=tuple(one.low for _, one in known),
                high=tuple(one.high for _, one in known),
                tone=TONES[place % len(TONES)],
            )
        )
    name = f"{'cv' if what == 'cv' else 'length'}-over-training"
    return Plot(name, title, "training examples", word, tuple(series), note=_NO_COURSE)
