"""The comparison of the arms as figures: both fits, and the measures of matched pairs row by row."""

from __future__ import annotations

import math
from pathlib import Path

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.number_format import signed
from windowshift.core.contract.records import Arm
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import Estimate
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.measure.arm_comparison import ArmMeasure, ArmsComparison
from windowshift.core.report.arm_comparison_page import format_of, label_of
from windowshift.core.report.figure import ARM_LOOKS, Plot, Series, subject
from windowshift.core.report.figure_file import write_sheet

ENDINGS = (".png", ".svg", ".pdf")
PANELS: tuple[ArmMeasure, ...] = ("cv_kept", "extreme", "leak", "coherence")
ARMS: tuple[Arm, ...] = ("prefix", "steering")
_ASIDE = 0.125
"""How far the two arms stand from the place of their pair, so that both intervals are seen."""


def draw_arms(found: ArmsComparison, path: Path) -> None:
    """Draw all figures of a comparison on one sheet, the scatter largest.

    Raises:
        SpecError: the file's ending is not one of `ENDINGS`, or it cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise SpecError(f"a picture ends in {', '.join(ENDINGS)}, not '{path.name}'")
    title = f"{found.experiment.name}: prefix and steering arm at matched dose, {found.behaviour.name}"
    of = subject(found.experiment, found.behaviour.name, "95 % intervals, bootstrap clustered by prompt")
    with whole_file(path, force=True) as partial:
        write_sheet(arm_plots(found), title, of, partial)


def arm_plots(found: ArmsComparison) -> tuple[Plot, ...]:
    """Return the scatter of both arms with their fits, then `PANELS` by matched pair."""
    return (_scatter(found), *(_panel(found, measure) for measure in PANELS))


def _scatter(found: ArmsComparison) -> Plot:
    words, series = found.scale.words, list[Series]()
    for side, arm in enumerate(ARMS):
        tone, glyph = ARM_LOOKS[arm]
        known = []
        for row in found.rows:
            x, y = (row.measures[name].values[side] for name in ("train_mean_ratio", "link"))
            if x is not None and y is not None and (at := _on_link(found.scale, x)) is not None:
                known.append((row.pair.prefix, at, y))
        xs = tuple(at.value for _, at, _ in known)
        fit = found.fits[arm]
        if fit.slope is not None and fit.intercept is not None and xs:
            ends = (min(xs), max(xs))
            heights = tuple(fit.intercept.value + fit.slope.value * at for at in ends)
            series.append(Series(f"{arm}: slope {_slope(fit.slope)}", "line", ends, heights, tone=tone))
        series.append(
            Series(
                arm, "points", xs, tuple(y.value for *_, y in known), tuple(name for name, *_ in known),
                tuple(y.low for *_, y in known), tuple(y.high for *_, y in known), tone, glyph,
                tuple(at.low for _, at, _ in known), tuple(at.high for _, at, _ in known),
            )
        )  # fmt: skip
    title = "Both arms' fits, one point a matched pair"
    up = f"mean uplift ({words.link}), own arm's eval conditions"
    return Plot("arms", title, words.surprise_axis, up, tuple(series), note="no matched pair is done yet")


def _on_link(scale: Scale, one: Estimate) -> Estimate | None:
    """How surprising D is, on the scale of the fit."""
    if scale.kind != "ratio":
        return one
    low, high = (None if end is None or end <= 0 else math.log2(end) for end in (one.low, one.high))
    return Estimate(math.log2(one.value), low, high, one.n) if one.value > 0 else None


def _slope(one: Estimate) -> str:
    ends = "" if one.low is None or one.high is None else f" [{signed(one.low)}, {signed(one.high)}]"
    return f"{signed(one.value)}{ends}"


def _panel(found: ArmsComparison, measure: ArmMeasure) -> Plot:
    form, names = format_of(measure, found.scale), [row.pair.prefix for row in found.rows]
    series = []
    for side, arm in enumerate(ARMS):
        values = [row.measures[measure].values[side] for row in found.rows]
        known = [(place + (2 * side - 1) * _ASIDE, one) for place, one in enumerate(values) if one is not None]
        ends = (
            tuple(None if end is None else form.factor * end for end in bounds)
            for bounds in ((one.low for _, one in known), (one.high for _, one in known))
        )
        xs, ys = tuple(x for x, _ in known), tuple(form.factor * one.value for _, one in known)
        tone, glyph = ARM_LOOKS[arm]
        low, high = ends
        series.append(Series(arm, "points", xs, ys, (), low, high, tone, glyph))
    ticks = tuple((float(place), name) for place, name in enumerate(names))
    reasons = [reason for row in found.rows for reason in row.measures[measure].reasons if reason]
    note = reasons[0] if reasons else "no matched pair is done yet"
    return Plot(f"arms-{measure}", _title(measure, found.scale), "", "", tuple(series), ticks, note=note)


def _title(measure: ArmMeasure, scale: Scale) -> str:
    words = scale.words
    return {
        "extreme": "extreme elicitation" + (f", {words.change.strip()}" if words.change else ""),
        "leak": f"leak: uplift without a push ({words.effect})",
        "coherence": "coherence against the base model, nats a token",
    }.get(measure) or label_of(measure, scale)
