"""Whether a dose is matched: the base model's mean under it against the one under the prefix that it stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import PairedMeans
from windowshift.core.measure.effect import against, linked, shown_effect
from windowshift.core.measure.family import Reach
from windowshift.core.measure.resampled import Resampled

Verdict = Literal["matched", "off", "open"]


@dataclass(frozen=True, slots=True)
class BaseMatch:
    """The base mean under a dose against that under a prefix, by ratio or difference; `truncated` counts both."""

    against: Estimate | None
    verdict: Verdict | None
    truncated: int


def base_match(r: Resampled, prefix: str, dose: str) -> BaseMatch | None:
    """The base model under a train or eval dose against the one under a prefix group; None: one is not done."""
    group, column = r.base_as_trained("prefix", prefix), r.base_as_trained("steering", dose)
    if group is None or column is None or not (r.done(group) and r.done(column)):
        return None
    pair = r.compared(column, group)
    cut = r.tally(column).truncated + r.tally(group).truncated
    return BaseMatch(against(r.scale, pair).estimate, equivalent(r.scale, pair), cut)


def matched_rows(r: Resampled, rows: Sequence[tuple[str, str, str]]) -> BaseMatch | None:
    """Of two rows (arm, generate, train), one under a prefix and one under the dose that is matched to it."""
    trained = {arm: train for arm, _, train in rows}
    if len(rows) != 2 or set(trained) != {"prefix", "steering"}:
        return None
    entries = r.grid.experiment.conditions.get("train", [])
    wanted = trained["prefix"], trained["steering"]
    there = any((entry.get("match"), entry["name"]) == wanted for entry in entries if not entry.get("prefix"))
    return base_match(r, *wanted) if there else None


MARGIN = 0.1
"""Means that differ by less than this share of the target are matched."""


def equivalent(scale: Scale, pair: PairedMeans) -> Verdict | None:
    """Whether the first mean lies within 10 % of the second one, by two one-sided tests at 5 % (Schuirmann 1987).

    Matched: the 90 % interval of the difference lies within the margin. Off: the 95 % interval lies beyond it on one
    side. Else it is open, and more prompts would tell. None: there is no interval, or the target is 0.
    """
    number = linked(scale, pair) if scale.kind == "ratio" else shown_effect(scale, pair)
    whole = number.estimate
    if whole is None or whole.low is None or whole.high is None or not pair.other:
        return None
    least, most = (
        (math.log2(1 - MARGIN), math.log2(1 + MARGIN))
        if scale.kind == "ratio"
        else (-MARGIN * abs(pair.other), MARGIN * abs(pair.other))
    )
    low, high = Reach.of_number(number).ends(0.90)
    if least < low and high < most:
        return "matched"
    return "off" if whole.low > most or whole.high < least else "open"
