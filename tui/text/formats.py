"""Numbers, times and bars as short text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from windowshift.core.contract.number_format import MINUS, NOTHING, interval, plain, signed

__all__ = ["MINUS", "NOTHING", "interval", "plain", "signed"]

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_HOUR, _DAY = 3600, 86400


def money(usd: float | None, *, local: bool) -> str:
    """Return a cost; a local backend costs nothing, another without a price says so."""
    if usd is None:
        return "$0" if local else "no price"
    return f"${usd:.2f}" if usd < 100 else f"${usd:,.0f}"


def duration(seconds: float) -> str:
    """Return a time span as `0:52`, `1:02:03` or `3d 4h`."""
    whole = max(0, int(seconds))
    if whole >= _DAY:
        return f"{whole // _DAY}d {whole % _DAY // _HOUR}h"
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def age(seconds: float) -> str:
    """Return how long ago something was: `just now`, `5 min ago`, `3 d ago`."""
    if seconds < 60:
        return "just now"
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def rate(value: float | None, unit: str) -> str:
    """Return a rate as `1.2k tok/s`."""
    if value is None:
        return ""
    text = f"{value / 1000:.1f}k" if value >= 1000 else plain(value if value < 10 else round(value))
    return f"{text} {unit}"


def share(done: int, total: int) -> float:
    """Return done / total within 0 .. 1; 0 where there is nothing to do."""
    return min(1.0, max(0.0, done / total)) if total else 0.0


def bar(fraction: float, width: int) -> tuple[str, str]:
    """Return the full and the empty part of a progress bar, heavy and dashed so that it reads without colour."""
    full = int(fraction * width + 1e-9)
    if 0 < fraction < 1:
        full = min(width - 1, max(1, full))
    return "━" * full, "╌" * (width - full)


def spark(values: Sequence[float], width: int) -> str:
    """Return a curve as block characters, averaged down to `width`."""
    points = shrink(values, width)
    if not points:
        return ""
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    return "".join(_EIGHTHS[1 + int((value - low) / span * 7)] for value in points)


def shrink(values: Sequence[float], width: int) -> list[float]:
    """Return at most `width` values, each the mean of its stretch."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges) if b > a]
