"""The figures of a dose curve: mean with its interval over alpha, the prefix groups as heights, coherence beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windowshift.tui.text.plot import Plot, Rule, Series

if TYPE_CHECKING:
    from windowshift.core.measure.steering_results import DoseCurve, MatchedDose


def dose_plot(curve: DoseCurve, matches: Sequence[MatchedDose], unit: str, *, relative: bool) -> Plot:
    """Return the mean over alpha; where means compare by ratio, the axis is in powers.

    A prefix group's base mean is a height: its line ends where the curve crosses it, at the matched alpha. One
    that is out of reach goes through the figure.
    """
    points = curve.points
    xs, ys = tuple(p.alpha for p in points), tuple(p.mean for p in points)
    low, high = tuple(p.low for p in points), tuple(p.high for p in points)
    own = [one for one in matches if (one.vector, one.tokens) == (curve.vector, curve.tokens)]
    met = [(one.alpha, one.target.value, one.group) for one in own if one.alpha is not None]
    n = {point.n for point in points}
    series = (
        Series(f"mean (n {min(n)})" if n else "mean", "line", xs, ys, low=low, high=high),
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
    ends = [value for value in (*ys, *low, *high, *(one.target.value for one in own)) if value is not None]
    return Plot(
        "dose-response",
        f"Dose-response of the base model: {curve.vector} at layer {curve.layer}",
        "alpha",
        f"mean {unit}",
        series,
        rules=tuple(Rule(one.group, one.target.value, one.alpha) for one in own),
        log=relative and min(ends) > 0,
    )


def coherence_plot(curve: DoseCurve) -> Plot:
    """Return coherence over alpha: the log-probability a token of what is written under it, unpushed."""
    known = [(point.alpha, point.coherence) for point in curve.points if point.coherence is not None]
    xs, ys = tuple(alpha for alpha, _ in known), tuple(value for _, value in known)
    line = Series("coherence", "line", xs, ys, tone="good")
    title = f"Coherence under {curve.vector} at layer {curve.layer}"
    return Plot("coherence", title, "alpha", "nats a token", (line,), note="coherence was not measured")
