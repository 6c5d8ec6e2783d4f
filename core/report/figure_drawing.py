"""Figures as matplotlib draws them: where every mark and every label stands, so that none covers another one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from windowshift.core.contract.errors import MissingExtraError
from windowshift.core.contract.number_format import signed
from windowshift.core.report.figure import GLYPHS, Box, Heat, Plot, Rule, Series

_MARKERS = dict(zip(GLYPHS, "o^sDP*oX", strict=True))
_COLOURS = {
    "accent": "#e69f00", "blue": "#0072b2", "good": "#009e73", "warn": "#cc79a7", "bad": "#d55e00",
    "dim": "#7f7f7f", "strong": "#000000",
}  # fmt: skip
_SIZE = (8.0, 5.0)
_SHEET = (15.0, 7.5)
"""Inches, of one figure and of a sheet of several."""
_SMALL = 7.0
"""Points of the letters of labels."""
_DASHES = ("-", "--", "-.", ":")
"""What tells lines of one colour apart."""


@contextmanager
def with_matplotlib(there: str = "") -> Iterator[None]:
    """Have matplotlib as every figure has it; `there` is where the numbers are, for those who lack it."""
    try:
        matplotlib = import_module("matplotlib")
        import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError(f"a picture{there}", "export", "matplotlib") from error
    # Names are text, no formulas between dollar signs; letters that the font lacks are boxes, not a page of warnings.
    with matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": "windowshift"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph .* missing from")
        yield


def drawn(plot: Plot) -> Any:
    """Return a figure of matplotlib: title and subject are whole, and no label stands over another one or a point."""
    figure = _blank(_SIZE)
    _draw(figure, plot)
    return figure


def drawn_sheet(plots: Sequence[Plot], title: str, of: str) -> Any:
    """Return several figures as one of matplotlib, the first one as large as four of the others.

    `title` stands over all of them, and `of` says what they are of, as `Plot.of`.
    """
    figure = _blank(_SHEET)
    figure.suptitle(_wrapped(figure, title, 12), x=0.012, ha="left", fontsize=12, weight="bold")
    figure.supxlabel(_wrapped(figure, of, 7), x=0.012, ha="left", fontsize=7, color="#555555")
    large, small = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    first, *others = plots
    _draw(large, first)
    rows = math.ceil(len(others) / 2)
    for part, plot in zip(small.subfigures(rows, 2).flat, others, strict=False):
        _draw(part, plot)
    return figure


def _blank(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(figure: Any, plot: Plot) -> None:
    """Draw a figure into one of matplotlib, or into a part of such a one."""
    figure.suptitle(_wrapped(figure, plot.title, 11), x=0.012, ha="left", fontsize=11, weight="bold")
    if plot.of:
        figure.supxlabel(_wrapped(figure, plot.of, 7), x=0.012, ha="left", fontsize=7, color="#555555")
    axes = figure.add_subplot()
    if plot.heat is not None:
        _heat(figure, axes, plot.heat, plot.y)
    elif plot.boxes:
        _boxes(axes, plot.boxes, plot.y)
    elif plot.empty:
        axes.set_axis_off()
        axes.annotate(_wrapped(figure, plot.note or "nothing to draw", 10), (0.5, 0.5), ha="center", va="center")
    else:
        _axes(figure, axes, plot)


def _lay_out(figure: Any) -> None:
    """Let matplotlib find out where everything stands: what is placed by hand goes by that."""
    figure.get_figure(root=True).draw_without_rendering()


def _wrapped(figure: Any, text: str, size: float) -> str:
    """Break text into lines that are no wider than the figure, as its font is."""
    room = figure.bbox.width * 0.965
    lines: list[str] = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _extent(figure, longer, size)[0] > room:
            lines.append("")
            longer = word
        while len(longer) > 1 and _extent(figure, longer, size)[0] > room:  # one word alone is wider
            fits = (n for n in range(len(longer) - 1, 1, -1) if _extent(figure, longer[:n], size)[0] <= room)
            kept = next(fits, 1)
            lines[-1], longer = longer[:kept], longer[kept:]
            lines.append("")
        lines[-1] = longer
    return "\n".join(lines)


def _extent(figure: Any, text: str, size: float) -> tuple[float, float]:
    """Return width and height of a text in pixels."""
    from matplotlib.text import Text

    shown = Text(0, 0, text, fontsize=size, weight="bold")
    shown.set_figure(figure)
    box = shown.get_window_extent(figure.canvas.get_renderer())
    return float(box.width), float(box.height)


def _axes(figure: Any, axes: Any, plot: Plot) -> None:
    places = [one for one in plot.series if one.kind == "points"]
    span = max((x for one in plot.series for x in one.xs), default=1) - min(
        (x for one in plot.series for x in one.xs), default=0
    )
    banded = any(one.kind == "band" for one in plot.series)
    floor = [0.0] * max((len(one.xs) for one in plot.series), default=0)
    for one in plot.series:
        # Series with points at the same places stand a little apart, so that every interval is seen.
        apart = (places.index(one) - (len(places) - 1) / 2) * span * 0.008 if one in places and len(places) > 2 else 0.0
        alike = [other for other in plot.series if other.kind == "line" and other.tone == one.tone]
        dashes = _DASHES[alike.index(one) % len(_DASHES)] if one in alike else "-"
        _series(axes, one, apart, banded, floor if plot.stacked else None, dashes, plot.bar_width)
    if plot.ticks:
        axes.set_xticks([at for at, _ in plot.ticks], [name for _, name in plot.ticks], rotation=30, ha="right")
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    if plot.log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif not plot.stacked:
        axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.margins(x=0.08, y=0.12 if places else 0.05)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes, plot)
    _rules(figure, axes, plot.rules)
    _labels(figure, axes, plot)


def _series(
    axes: Any, one: Series, apart: float, banded: bool, floor: list[float] | None, dashes: str, width: float
) -> None:
    colour = _COLOURS[one.tone]
    xs = [x + apart for x in one.xs]
    if one.kind in ("line", "band"):
        if one.kind == "line":
            axes.plot(xs, one.ys, dashes, color=colour, label=one.name)
        ends = zip(xs, one.low, one.high, strict=False)
        known = [(x, low, high) for x, low, high in ends if low is not None and high is not None]
        if known and (one.kind == "band" or not banded):
            label = one.name if one.kind == "band" else None
            shade = 0.2 if one.kind == "band" else 0.12
            axes.fill_between(*zip(*known, strict=True), color=colour, alpha=shade, linewidth=0, label=label)
        return
    if one.kind == "bars":
        axes.bar(xs, one.ys, width=width, color=colour, label=one.name, bottom=floor)
    else:
        axes.plot(xs, one.ys, _MARKERS.get(one.glyph, "o"), color=colour, label=one.name)
    for number, (x, low, high) in enumerate(zip(xs, one.low, one.high, strict=False)):
        if low is not None and high is not None:
            under = floor[number] if floor is not None else 0.0
            axes.plot(
                [x, x], [low + under, high + under], color=colour if one.kind == "points" else "#444444", linewidth=1
            )
    for y, left, right in zip(one.ys, one.left, one.right, strict=False):
        if left is not None and right is not None:
            axes.plot([left, right], [y, y], color=colour, linewidth=1)
    if floor is not None:
        floor[:] = [a + b for a, b in zip(floor, one.ys, strict=True)]


def _legend(figure: Any, axes: Any, plot: Plot) -> None:
    """Explain several series: in one line above the axes where it fits and nothing else stands there, else beside."""
    handles, names = axes.get_legend_handles_labels()
    if len(plot.series) < 2:
        return
    width = sum(_extent(figure, name, 8)[0] + 45 * figure.dpi / 72 for name in names)
    if width < figure.bbox.width * 0.85 and not _shared_labels(plot):
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": len(names), "borderaxespad": 0.3}
        axes.legend(handles, names, frameon=False, fontsize=8, **place)
    else:
        figure.legend(handles, names, frameon=False, fontsize=8, loc="outside right center")


def _named_points(plot: Plot) -> list[tuple[float, float, str]]:
    points = (one for one in plot.series if one.kind == "points")
    named = (named for one in points for named in zip(one.xs, one.ys, one.labels, strict=False))
    return [(x, y, label) for x, y, label in named if label]


def _shared_labels(plot: Plot) -> bool:
    """Whether several series have their points at the same places, under the same names: most of them, not just one."""
    known = _named_points(plot)
    return 1 < len({(x, label) for x, _, label in known}) <= len(known) / 2


def _rules(figure: Any, axes: Any, rules: Sequence[Rule]) -> None:
    """Draw named heights; the names stand to the right of the axes, pushed apart where heights are close."""
    if not rules:
        return
    start, stop = axes.get_xlim()
    axes.set_xlim(start, stop)
    ordered = sorted(rules, key=lambda one: one.y)
    named = []
    for rule in ordered:
        end = stop if rule.end is None else rule.end
        axes.hlines(rule.y, start, end, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
        named.append(
            axes.annotate(
                rule.name, (1.0, rule.y), xycoords=("axes fraction", "data"), xytext=(1.02, 0.5),
                textcoords="axes fraction", fontsize=_SMALL, va="center", annotation_clip=False,
                arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5},
            )
        )  # fmt: skip
    step = max(_extent(figure, rule.name, _SMALL)[1] for rule in ordered) * 1.1
    _lay_out(figure)  # as in `_over`
    bottom, top = (float(axes.transAxes.transform((0, end))[1]) for end in (0, 1))
    wanted = [float(axes.transData.transform((stop, rule.y))[1]) for rule in ordered]
    for one, pixel in zip(named, _apart(wanted, step, bottom, top), strict=True):
        one.set_position((1.02, (pixel - bottom) / (top - bottom)))


def _labels(figure: Any, axes: Any, plot: Plot) -> None:
    """Name points: by a label beside each, or over the axes where several series have the same places."""
    known = _named_points(plot)
    marked = {(x, y): word for x, y, word in plot.marks}
    if _shared_labels(plot):
        _over(figure, axes, sorted({(x, label) for x, _, label in known}))
        known = []
    named = [(x, y, f"{marked.pop((x, y))} {label}" if (x, y) in marked else label) for x, y, label in known]
    named += [(x, y, word) for (x, y), word in marked.items()]
    _beside(figure, axes, named, plot.series)


def _over(figure: Any, axes: Any, places: Sequence[tuple[float, str]]) -> None:
    """Name places on the x axis above the axes, upright, pushed apart where they are close."""
    named = [
        axes.annotate(
            label, (x, 1.0), xycoords=("data", "axes fraction"), xytext=(0.5, 1.04), textcoords="axes fraction",
            fontsize=_SMALL, rotation=90, ha="center", va="bottom", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
        )
        for x, label in places
    ]  # fmt: skip
    step = max(_extent(figure, label, _SMALL)[1] for _, label in places) * 1.15
    _lay_out(figure)  # the names take room from the axes: only now it is known where these end
    left, right = (float(axes.transAxes.transform((end, 0))[0]) for end in (0, 1))
    wanted = [float(axes.transData.transform((x, 0))[0]) for x, _ in places]
    for one, pixel in zip(named, _apart(wanted, step, left, right), strict=True):
        one.set_position(((pixel - left) / (right - left), 1.04))


def _apart(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones, in their order, `step` or more apart; within the ends where there is room."""
    at: list[float] = []
    for place in wanted:
        at.append(max(place, at[-1] + step) if at else max(place, low))
    limit = max(high, low + step * (len(at) - 1))
    for number in range(len(at) - 1, -1, -1):
        at[number] = min(at[number], limit)
        limit = at[number] - step
    return at


_AROUND = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_Area = tuple[float, float, float, float]


def _beside(figure: Any, axes: Any, named: Sequence[tuple[float, float, str]], series: Sequence[Series]) -> None:
    """Write a label beside each point, where it covers neither another label nor a point nor an interval.

    Each takes the free place that is nearest to its point; where that is far, a thin line leads there.
    """
    if not named:
        return
    _lay_out(figure)
    pixel = figure.dpi / 72
    taken: list[_Area] = []
    for one in (one for one in series if one.kind == "points"):
        for at, y in axes.transData.transform(list(zip(one.xs, one.ys, strict=True))) if one.xs else ():
            taken.append((at - 4 * pixel, y - 4 * pixel, at + 4 * pixel, y + 4 * pixel))
        for x, low, high in zip(one.xs, one.low, one.high, strict=False):
            if low is not None and high is not None:
                (left, bottom), (_, top) = axes.transData.transform([(x, low), (x, high)])
                taken.append((left - pixel, bottom, left + pixel, top))
        for y, start, end in zip(one.ys, one.left, one.right, strict=False):
            if start is not None and end is not None:
                (left, bottom), (right, _) = axes.transData.transform([(start, y), (end, y)])
                taken.append((left, bottom - pixel, right, bottom + pixel))
    frame = axes.get_window_extent()
    for x, y, label in named:
        at = axes.transData.transform((x, y))
        width, height = _extent(figure, label, _SMALL)
        best: tuple[float, _Area, float] | None = None
        for far in (6, 14, 24, 36, 52, 72):
            for right, up in _AROUND:
                left = at[0] + right * far * pixel - (0 if right > 0 else width if right < 0 else width / 2)
                low = at[1] + up * far * pixel - (0 if up > 0 else height if up < 0 else height / 2)
                area = (left, low, left + width, low + height)
                outside = max(0.0, frame.x0 - left, area[2] - frame.x1, frame.y0 - low, area[3] - frame.y1)
                cost = sum(_shared(area, other) for other in taken) + outside * height
                if best is None or cost + far * 0.01 < best[0]:
                    best = (cost + far * 0.01, area, far)
            if best is not None and best[0] < 1:
                break
        assert best is not None
        taken.append(best[1])
        offset = ((best[1][0] - at[0]) / pixel, (best[1][1] - at[1]) / pixel)
        line = {"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.5} if best[2] > 14 else None
        shown = axes.annotate(
            label, (x, y), xytext=offset, textcoords="offset points", fontsize=_SMALL, arrowprops=line
        )
        shown.set_in_layout(False)  # it was placed in the axes as they are now


def _shared(one: _Area, other: _Area) -> float:
    """The area that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _boxes(axes: Any, boxes: Sequence[Box], unit: str) -> None:
    for place, one in enumerate(boxes):
        p5, p25, p50, p75, p95 = one.percentiles
        stats = {"whislo": p5, "q1": p25, "med": p50, "q3": p75, "whishi": p95, "fliers": []}
        colour = _COLOURS[one.tone]
        axes.bxp(
            [stats], positions=[place], widths=0.5, showfliers=False, patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour}, medianprops={"color": "#222222"},
            whiskerprops={"color": colour}, capprops={"color": colour}, manage_ticks=False,
        )  # fmt: skip
        axes.plot([place], [one.mean], "D", color=colour, markersize=5)
    names = [f"{one.name}\nn {one.n}" for one in boxes]
    axes.set_xticks(range(len(boxes)), names, rotation=30 if len(boxes) > 5 else 0, fontsize=8)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)


def _heat(figure: Any, axes: Any, heat: Heat, word: str) -> None:
    values = [[float("nan") if value is None else value for value in row] for row in heat.values]
    limit = max((abs(v) for row in values for v in row if v == v), default=1.0) or 1.0
    image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(heat.columns)), heat.columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(heat.rows)), heat.rows, fontsize=8)
    axes.set_xlabel("eval condition")
    axes.set_ylabel("train condition")
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            if value == value:
                ink = "#ffffff" if abs(value) > limit * 0.65 else "#000000"
                axes.text(c, r, signed(value), ha="center", va="center", fontsize=_SMALL, color=ink)
    figure.colorbar(image, label=word)
