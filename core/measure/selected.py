"""Selected train conditions: how well the ranking on the base model foretold what training under them did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.effect import shown_effect
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import by_run
from windowshift.core.measure.sampled import Sampled
from windowshift.core.measure.selection import rank_correlation


@dataclass(frozen=True, slots=True)
class Selected:
    """One selection that a spec was frozen with.

    Attributes:
        hash: of it.
        by: the quantity that ranked.
        prompts: development prompts.
        candidates: how many there were.
        chosen: those that were kept, the best first.
        marked: those under which little is left to learn.
        registered: when a run first had it, in Unix seconds.
        cells_done: cells that were done by then.
        withdrawn: when the spec did not have it any more; None: it has.
        correlation: of the scores with what training prevented, under the eval condition without a push; over
            candidates that are trained. None where it is not there.
        reason: why it is not.
    """

    hash: str
    by: str
    prompts: int
    candidates: int
    chosen: tuple[str, ...]
    marked: tuple[str, ...]
    registered: float
    cells_done: int
    withdrawn: float | None
    correlation: Estimate | None
    reason: str


def selected(r: Resampled) -> tuple[Selected, ...]:
    """Every selection of a grid's experiment, with its correlation for the grid's behaviour."""
    found = []
    for entry in r.grid.experiment.conditions.get("selections", []):
        correlation, reason = _correlation(r, entry)
        found.append(
            Selected(
                str(entry["hash"]), str(entry["by"]), int(entry["prompts"]), len(entry["scores"]),
                tuple(entry["chosen"]), tuple(entry["marked"]), float(entry["registered"]), int(entry["cells_done"]),
                entry.get("withdrawn"), correlation, reason,
            )
        )  # fmt: skip
    return tuple(found)


def _correlation(r: Resampled, entry: Mapping[str, Any]) -> tuple[Estimate | None, str]:
    arms = [ArmAxes(r, name) for name in ("prefix", "steering") if name in r.arms]
    generate = str(entry["generate"])
    plain_evals = {arm.name: next((one for one in arm.evaluates if one in arm.plain), None) for arm in arms}
    if not any(plain_evals.values()):
        return None, "no eval condition without a push: add no_prefix under conditions.evaluate"
    scores = {name: float(value) for name, value in entry["scores"].items()}
    there: dict[str, Sampled] = {}
    base = Sampled()
    for arm in arms:
        evaluate = plain_evals[arm.name]
        if evaluate is None:
            continue
        learned = {name: _learned(arm, generate, name, evaluate) for name in scores if (generate, name) in arm.rows}
        there |= {name: one for name, one in learned.items() if one.there}
        plain = next((one for one in arm.trains if one in arm.plain and (generate, one) in arm.rows), None)
        if not base.there and plain is not None:
            base = _learned(arm, generate, plain, evaluate)
    if len(there) < 4:
        return None, f"{len(there)} of its candidates are trained, done and scored; four are needed"
    # What training teaches under no condition says which way D pulls; else the mean of all candidates does.
    way = base.value if base.there else float(np.mean([one.value for one in there.values()]))
    sign = -1.0 if way > 0 else 1.0
    prevented = {name: _times(one, sign) for name, one in there.items()}
    trained = {name: scores[name] for name in scores if name in there}
    return rank_correlation(trained, prevented, r.samples.shape[0]), ""


def _learned(arm: ArmAxes, generate: str, train: str, evaluate: str) -> Sampled:
    def of(seed: int | None) -> Sampled:
        column, base = arm.column(generate, train, evaluate, seed), arm.column("", BASE, evaluate, seed)
        if column is None or base is None:
            lack = arm.lacking(generate, train, evaluate, seed) or arm.lacking("", BASE, evaluate, seed)
            return Sampled(reason=lack)
        pair = arm.resampled.compared(column, base)
        return shown_effect(arm.resampled.scale, pair, trained=True) if pair.prompts > 1 else Sampled()

    return by_run(arm, of)


def _times(one: Sampled, sign: float) -> Sampled:
    return replace(one, value=sign * one.value, draws=None if one.draws is None else sign * one.draws)
