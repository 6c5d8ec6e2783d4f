"""The comparison of the arms as one picture, drawn by matplotlib into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.measure.arm_comparison import ArmMeasure, ArmsComparison
from windowshift.core.report.arm_comparison_page import format_of, label_of

COLOURS = {"prefix": "#0072b2", "steering": "#d55e00"}  # Okabe-Ito: told apart by colour-blind readers
MARKERS = {"prefix": "o", "steering": "s"}
ENDINGS = (".png", ".svg", ".pdf")
PANELS: tuple[ArmMeasure, ...] = ("cv_kept", "extreme", "leak", "coherence")


def draw_arms(found: ArmsComparison, path: Path) -> None:
    """Draw the scatter of both arms with their fits, and four measures row by row, with 95 % intervals.

    Raises:
        SpecError: the file's ending is not one of `ENDINGS`, or it cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise SpecError(f"a picture ends in {', '.join(ENDINGS)}, not '{path.name}'")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a picture", "export", "matplotlib") from error
    figure = Figure(figsize=(13, 6.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3, width_ratios=(1.5, 1, 1))
    _scatter(figure.add_subplot(grid[:, 0]), found)
    for number, measure in enumerate(PANELS):
        _panel(figure.add_subplot(grid[number // 2, 1 + number % 2]), found, measure)
    rehearsal = " (rehearsal model, not evidence about LLMs)" if found.experiment.rehearsal else ""
    figure.suptitle(f"{found.experiment.name}: {found.behaviour.name} on {found.experiment.model}{rehearsal}")
    with whole_file(path, force=True) as partial:
        figure.savefig(partial, format=path.suffix.lower()[1:])


def _scatter(axes: Any, found: ArmsComparison) -> None:
    import math

    for side, arm in enumerate(("prefix", "steering")):
        known = []
        for row in found.rows:
            x, y = (row.measures[name].values[side] for name in ("train_mean_ratio", "link"))
            if x is not None and y is not None:
                known.append((math.log2(x.value) if found.scale.link == "log2" else x.value, y, row.pair.prefix))
        for at, y, name in known:
            _error_bar(axes, at, y.value, y.low, y.high, arm)
            axes.annotate(name, (at, y.value), textcoords="offset points", xytext=(6, 4), fontsize=7)
        fit = found.fits[arm]
        label = arm
        if fit.slope is not None and fit.intercept is not None and known:
            ends = [min(at for at, *_ in known), max(at for at, *_ in known)]
            axes.plot(ends, [fit.intercept.value + fit.slope.value * at for at in ends], color=COLOURS[arm])
            span = "" if fit.slope.low is None else f" [{fit.slope.low:.2f}, {fit.slope.high:.2f}]"
            label = f"{arm}: slope {fit.slope.value:.2f}{span}"
        axes.plot([], [], MARKERS[arm], color=COLOURS[arm], label=label)
    axes.set_xlabel(found.scale.words.surprise_axis)
    axes.set_ylabel(f"mean uplift ({found.scale.words.link}), own arm's eval conditions")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)


def _title(measure: ArmMeasure, scale: Scale) -> str:
    words = scale.words
    return {
        "extreme": "extreme elicitation" + (f", {words.change.strip()}" if words.change else ""),
        "leak": f"leak: uplift without a push ({words.effect})",
        "coherence": "coherence against the base model, nats a token",
    }.get(measure) or label_of(measure, scale)


def _panel(axes: Any, found: ArmsComparison, measure: ArmMeasure) -> None:
    # Coherence is on a scale of its own.
    factor = 1.0 if measure == "coherence" else format_of(measure, found.scale).factor
    for side, arm in enumerate(("prefix", "steering")):
        for place, row in enumerate(found.rows):
            value = row.measures[measure].values[side]
            if value is not None:
                low, high = (None if end is None else factor * end for end in (value.low, value.high))
                _error_bar(axes, place + (side - 0.5) * 0.25, factor * value.value, low, high, arm)
    names = [row.pair.prefix for row in found.rows]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
    axes.set_title(_title(measure, found.scale), fontsize=9)
    _plain(axes)


def _error_bar(axes: Any, x: float, y: float, low: float | None, high: float | None, arm: str) -> None:
    axes.plot([x], [y], MARKERS[arm], color=COLOURS[arm], markersize=5)
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=COLOURS[arm], linewidth=1)


def _plain(axes: Any) -> None:
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
