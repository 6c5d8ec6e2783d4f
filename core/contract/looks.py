"""Looks: what a run that stops once its contrasts are decided found each time that it looked at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the contrasts of a spec, after one more row of theirs was trained.

    Attributes:
        at: when, in Unix seconds.
        number: how many rows of the contrasts were trained by then; there is one look for each such number.
        of: how many rows the contrasts name, and so how often there may be a look.
        level: what p, adjusted by Holm, a contrast may have here to be decided: 0.05 over `of` (Bonferroni).
        undecided: the contrasts that were not.
        stopped: whether the run stopped here.
        cells_left: cells that were not done then.
        usd: what they would have cost at most; None: not known.
        seconds: what they would have taken; None: not known.
    """

    at: float
    number: int
    of: int
    level: float
    undecided: tuple[str, ...]
    stopped: bool
    cells_left: int
    usd: float | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Look:
        """The inverse of `to_json`."""
        return cls(**{**data, "undecided": tuple(data["undecided"])})
