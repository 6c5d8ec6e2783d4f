"""The comparison of the arms as one picture, drawn by matplotlib into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.measure.arm_comparison import ArmMeasure, ArmsComparison

COLOURS = {"prefix": "#0072b2", "steering": "#d55e00"}  # Okabe-Ito: told apart by colour-blind readers
MARKERS = {"prefix": "o", "steering": "s"}
ENDINGS = (".png", ".svg", ".pdf")
PANELS: tuple[tuple[ArmMeasure, str], ...] = (
    ("cv_kept", "CV kept"),
    ("extreme", "extreme elicitation, %"),
    ("leak", "leak: uplift without a push"),
    ("coherence", "coherence against the base model, nats a token"),
)


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
    for number, (measure, title) in enumerate(PANELS):
        _panel(figure.add_subplot(grid[number // 2, 1 + number % 2]), found, measure, title)
    rehearsal = " (rehearsal model, not evidence about LLMs)" if found.experiment.rehearsal else ""
    figure.suptitle(f"{found.experiment.name}: {found.behaviour.name} on {found.experiment.model}{rehearsal}")
    with whole_file(path, force=True) as partial:
        figure.savefig(partial, format=path.suffix.lower()[1:])


def _scatter(axes: Any, found: ArmsComparison) -> None:
    import math

    for side, arm in enumerate(("prefix", "steering")):
        known = []
        for row in found.rows:
            x, y = (row.measures[name].values[side] for name in ("train_mean_ratio", "uplift"))
            if x is not None and y is not None:
                known.append((math.log2(x.value) if found.scale == "log2" else x.value, y, row.pair.prefix))
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
    log = "log2 " if found.scale == "log2" else ""
    axes.set_xlabel(f"{log}train_mean_ratio")
    axes.set_ylabel(f"mean uplift ({found.scale}), own arm's eval conditions")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)


def _panel(axes: Any, found: ArmsComparison, measure: ArmMeasure, title: str) -> None:
    for side, arm in enumerate(("prefix", "steering")):
        for place, row in enumerate(found.rows):
            value = row.measures[measure].values[side]
            if value is not None:
                _error_bar(axes, place + (side - 0.5) * 0.25, value.value, value.low, value.high, arm)
    names = [row.pair.prefix for row in found.rows]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
    axes.set_title(title, fontsize=9)
    _plain(axes)


def _error_bar(axes: Any, x: float, y: float, low: float | None, high: float | None, arm: str) -> None:
    axes.plot([x], [y], MARKERS[arm], color=COLOURS[arm], markersize=5)
    if low is not None and high is not None:
        axes.plot([x, x], [low, high], color=COLOURS[arm], linewidth=1)


def _plain(axes: Any) -> None:
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
