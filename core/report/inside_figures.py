"""Figures of what was read inside the model: drift by layer, alignments beside their null, and watched texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowshift.core.contract.estimate import Estimate
from windowshift.core.measure.alignment import Alignment
from windowshift.core.measure.drift import Drift
from windowshift.core.measure.inside_results import InsideResults
from windowshift.core.measure.watched import WatchedCourse
from windowshift.core.report.figure import GLYPHS, TONES, Plot, Rule, Series
from windowshift.core.report.inside_blocks import MOST_LAYERS, TOKENS, few, row_name

ASIDE = 0.06
"""How far the vector's cosine and those of random directions stand apart."""


def inside_plots(found: InsideResults) -> Iterator[Plot]:
    """One figure for each vector and eval condition of a drift, each vector of a gradient, each group of texts."""
    for key in dict.fromkeys((one.vector, one.evaluate) for one in found.drifts):
        yield drift_plot([one for one in found.drifts if (one.vector, one.evaluate) == key])
    for vector in dict.fromkeys(one.vector for one in found.alignments):
        yield alignment_plot([one for one in found.alignments if one.vector == vector])
    for group in dict.fromkeys(one.group for one in found.courses):
        yield watched_plot([one for one in found.courses if one.group == group])


def drift_plot(found: Sequence[Drift]) -> Plot:
    """Return the drift along one vector by layer, a line a fine-tune, in % of the residual stream's RMS norm."""
    first, series = found[0], []
    for number, one in enumerate(found):
        known = [(at.layer, at.relative) for at in one.layers if at.relative is not None]
        if known:
            prompts = _counts([shift.prompts or shift.n for _, shift in known])
            series.append(_line(f"{row_name(one, found)} (n {prompts})", known, number, 100.0))
    layers = few(max(([at.layer for at in one.layers] for one in found), key=len), MOST_LAYERS)
    used = "" if first.layer is None else f", used at layer {first.layer}"
    return Plot(
        f"drift-{first.vector}-under-{first.evaluate}",
        f"Drift along {first.vector}{used}, under {first.evaluate}, {TOKENS[first.tokens]}",
        "layer",
        "shift, % of the stream's RMS",
        tuple(series),
        tuple((float(layer), str(layer)) for layer in layers),
        note=_reason([one.reason for one in found], "no drift was measured"),
        rules=(Rule("base model", 0.0),),
    )


def alignment_plot(found: Sequence[Alignment]) -> Plot:
    """Return the cosine of D's gradient with one vector, a place a row, beside the middle 95 % of random directions."""
    first = found[0]
    known = [(one, one.cosine, one.null) for one in found if one.cosine is not None and one.null is not None]
    places = tuple(float(place) for place in range(len(known)))
    nulls = Series(
        f"95 % of {max((one.directions for one in found), default=0)} random directions",
        "points",
        tuple(place + ASIDE for place in places),
        tuple((null[0] + null[1]) / 2 for *_, null in known),
        (),
        tuple(null[0] for *_, null in known),
        tuple(null[1] for *_, null in known),
        "dim",
        "○",
    )
    own = Series(
        f"{first.vector} (n {_counts([cosine.n for _, cosine, _ in known])} examples)" if known else first.vector,
        "points",
        tuple(place - ASIDE for place in places),
        tuple(cosine.value for _, cosine, _ in known),
        (),
        tuple(cosine.low for _, cosine, _ in known),
        tuple(cosine.high for _, cosine, _ in known),
    )
    layer = next((one.layer for one in found if one.layer is not None), None)
    at = "" if layer is None else f" at layer {layer}"
    return Plot(
        f"gradient-{first.vector}",
        f"Does the gradient of D point along {first.vector}{at}?",
        "",
        "cos(−gradient, v)",
        (nulls, own) if known else (),
        tuple((place, row_name(one, found)) for place, (one, *_) in zip(places, known, strict=True)),
        note=_reason([one.reason for one in found], "no gradient was taken"),
        rules=(Rule("orthogonal", 0.0),),
    )


def watched_plot(found: Sequence[WatchedCourse]) -> Plot:
    """Return how the log-probability of the texts of a group changes over the examples seen, a line a row."""
    first, series = found[0], []
    for number, one in enumerate(found):
        known = [(point.examples, point.change) for point in one.points if point.change is not None]
        if known and one.points[0].examples == 0:
            begun = one.points[0].mean
            known = [(0, Estimate(0.0, None, None, begun.n if begun else 0)), *known]
        if known:
            texts = _counts([change.prompts or change.n for examples, change in known if examples])
            series.append(_line(f"{row_name(one, found)} (n {texts} texts)", known, number, 1.0))
    group = f" {first.group}" if first.group else ""
    return Plot(
        f"watched{f'-{first.group}' if first.group else ''}",
        f"Watched texts{group}: log-probability over training, against before",
        "training examples",
        "change, nats a token",
        tuple(series),
        note=_reason([one.reason for one in found], "no text was read"),
        rules=(Rule("before", 0.0),),
    )


def _line(name: str, known: Sequence[tuple[int, Estimate]], number: int, factor: float) -> Series:
    return Series(
        name,
        "line",
        tuple(float(x) for x, _ in known),
        tuple(factor * one.value for _, one in known),
        low=tuple(None if one.low is None else factor * one.low for _, one in known),
        high=tuple(None if one.high is None else factor * one.high for _, one in known),
        tone=TONES[number % len(TONES)],
        glyph=GLYPHS[number % len(GLYPHS)],
    )


def _counts(n: Sequence[int]) -> str:
    """One number where they are the same, else the least and the most."""
    return str(min(n)) if min(n) == max(n) else f"{min(n)} to {max(n)}"


def _reason(reasons: Sequence[str], otherwise: str) -> str:
    return next((one for one in reasons if one), otherwise)
