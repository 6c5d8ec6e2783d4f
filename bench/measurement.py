"""One measured number beside its target and a baseline of the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measurement:
    """A median in `unit`; `better` says which side of `target` is good; the baseline is in the same unit."""

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"] = "lower"
    target: float | None = None
    baseline: float | None = None
    against: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over baseline; None without a baseline."""
        return self.value / self.baseline if self.baseline else None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def record(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {**asdict(self), "ratio": self.ratio, "reached": self.reached}


def milliseconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def table(measurements: Sequence[Measurement]) -> Table:
    """Return the measurements as a table."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("measure")
    for title in ("median", "target", "baseline", "ratio"):
        shown.add_column(title, justify="right")
    shown.add_column("")
    shown.add_column("against, note")
    for one in measurements:
        sign = "≥" if one.better == "higher" else "≤"
        shown.add_row(
            one.name,
            f"{_number(one.value)} {one.unit}",
            "" if one.target is None else f"{sign} {_number(one.target)}",
            "" if one.baseline is None else _number(one.baseline),
            "" if one.ratio is None else f"{one.ratio:.2f}×",
            {True: "ok", False: "MISSED", None: ""}[one.reached],
            "; ".join(filter(None, [one.against, one.note])),
        )
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
