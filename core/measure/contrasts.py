"""The contrasts that a spec named before the run, measured: the experiment's own questions, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.effect import shown_effect
from windowshift.core.measure.family import Reach, holm
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import average, by_run
from windowshift.core.measure.sampled import Sampled


@dataclass(frozen=True, slots=True)
class ContrastMeasure:
    """One contrast: the first row against the second, as the scale shows effects.

    Attributes:
        name: what the spec calls it, or what it compares.
        hash: of what is compared.
        registered: when a run first had it, in Unix seconds.
        cells_done: cells that were done by then: 0 says that it was named before there was any result.
        withdrawn: when the spec did not have it any more; None: it has.
        effect: the difference, with its interval; None where it is not there yet.
        p: two-sided, of the interval; None where there is none.
        holm: p adjusted by Holm over all contrasts of the behaviour that there are; of one with a margin the smaller
            of p and `same`. A contrast cannot both be 0 and beyond its margin, so that one of the two claims at most
            is false (Shaffer 1986).
        reason: why there is no difference.
        margin: how small a difference is as good as none; None: the spec does not say.
        same: the p value of two one-sided tests that it is as small.
    """

    name: str
    hash: str
    registered: float
    cells_done: int
    withdrawn: float | None
    effect: Estimate | None
    p: float | None
    holm: float | None
    reason: str
    margin: float | None = None
    same: float | None = None


def contrasts(r: Resampled) -> tuple[ContrastMeasure, ...]:
    """Every contrast of the grid's behaviour, also those that were withdrawn."""
    entries = [
        entry
        for entry in r.grid.experiment.conditions.get("contrasts", [])
        if entry.get("behaviour") == r.grid.behaviour.name
    ]
    arms: dict[str, ArmAxes] = {name: ArmAxes(r, name) for name in r.arms}
    numbers = [_measured(arms, entry) for entry in entries]
    estimates = [number.estimate for number in numbers]
    reaches = [
        Reach.of_number(number) if one is not None and one.low is not None else None
        for number, one in zip(numbers, estimates, strict=True)
    ]
    p = [None if reach is None else reach.p for reach in reaches]
    margins = [None if entry.get("margin") is None else float(entry["margin"]) for entry in entries]
    same = [
        None if reach is None or margin is None else reach.within(margin)
        for reach, margin in zip(reaches, margins, strict=True)
    ]
    claimed = [own if other is None or own is None else min(own, other) for own, other in zip(p, same, strict=True)]
    adjusted = iter(holm([one for one in claimed if one is not None]))
    return tuple(
        ContrastMeasure(
            str(entry["name"]), str(entry["hash"]), float(entry["registered"]), int(entry["cells_done"]),
            entry.get("withdrawn"), one, own, None if own is None else next(adjusted), number.reason, margin, alike,
        )
        for entry, number, one, own, margin, alike in zip(entries, numbers, estimates, p, margins, same, strict=True)
    )  # fmt: skip


def _measured(arms: Mapping[str, ArmAxes], entry: Mapping[str, Any]) -> Sampled:
    arm = arms.get(str(entry["arm"]))
    if arm is None:
        return Sampled(reason=f"there is no {entry['arm']} arm any more")
    evaluates = tuple(entry["evaluate"] or arm.evaluates)
    return by_run(
        arm,
        lambda seed: _difference(arm, str(entry["generate"]), str(entry["of"]), str(entry["against"]), evaluates, seed),
    )


def _difference(
    arm: ArmAxes, generate: str, of: str, against: str, evaluates: tuple[str, ...], seed: int | None
) -> Sampled:
    """The mean over eval conditions of one row against another, over the prompts that both have under each."""
    parts = []
    for evaluate in evaluates:
        source = "" if against == BASE else generate
        column, other = arm.column(generate, of, evaluate, seed), arm.column(source, against, evaluate, seed)
        if column is None or other is None:
            lack, row = arm.lacking(generate, of, evaluate, seed), of
            if not lack:
                lack, row = arm.lacking(source, against, evaluate, seed), against
            return Sampled(reason=lack if row == BASE else f"{row}: {lack}")
        pair = arm.resampled.compared(column, other)
        if pair.prompts < 2:
            return Sampled(reason=f"fewer than two prompts have a score in both under {evaluate}")
        found = shown_effect(arm.resampled.scale, pair, trained=True)
        if not found.there:
            return Sampled(reason=f"the mean of {against} under {evaluate} is 0")
        parts.append(found)
    return parts[0] if len(parts) == 1 else average(parts, sum(part.n for part in parts))
