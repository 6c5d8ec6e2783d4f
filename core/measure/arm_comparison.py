"""The arms side by side: fine-tunes under a prefix and under the dose that shows the same base mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from windowshift.core.contract.conditions import NO_PREFIX
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES
from windowshift.core.measure.arm import Arm
from windowshift.core.measure.comparison import (
    Compared,
    Measured,
    cv_and_kept,
    extreme,
    lowest_condition,
    mean_effect,
    mean_uplift,
    paired_difference,
    surprise,
)
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.measurement import measure_resampled
from windowshift.core.measure.measures import Fit
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.steering_results import SteeringResults, steering_results
from windowshift.core.settings.soundness import COHERENCE
from windowshift.core.store.reader import Reader

ArmMeasure = Literal[
    "train_mean_ratio", "uplift", "link", "cv", "cv_kept", "cross_cv_kept", "extreme", "coherence", "leak", "leak_share"
]
ARM_MEASURES: tuple[ArmMeasure, ...] = (
    "train_mean_ratio",
    "uplift",
    "link",
    "cv",
    "cv_kept",
    "cross_cv_kept",
    "extreme",
    "coherence",
    "leak",
    "leak_share",
)
AVERAGED: tuple[ArmMeasure, ...] = ("uplift", "link", "cv_kept", "cross_cv_kept", "extreme", "coherence", "leak")


@dataclass(frozen=True, slots=True)
class Pair:
    """One generation condition, and the two train conditions that are compared: prefix first, then dose."""

    generate: str
    prefix: str
    steering: str


@dataclass(frozen=True, slots=True)
class PairedRow:
    """The measures of a pair, as (prefix, steering), with the second minus the first, paired by prompt."""

    pair: Pair
    measures: dict[ArmMeasure, Compared]


@dataclass(frozen=True, slots=True)
class ArmsComparison:
    """Both arms at matched dose.

    `average` is over the `averaged` pairs that push, controls left out, and of those over the ones in which
    both arms have the measure. `fits` are the arms' grouped fits.
    """

    experiment: ExperimentRow
    behaviour: Behaviour
    scale: Scale
    rows: tuple[PairedRow, ...]
    average: dict[ArmMeasure, Compared]
    averaged: int
    fits: dict[str, Fit]
    steering: SteeringResults

    def __repr__(self) -> str:
        pairs = ", ".join(f"{row.pair.prefix} ~ {row.pair.steering}" for row in self.rows)
        return f"<ArmsComparison of {self.experiment.name!r} on {self.behaviour.name}: {pairs}>"


def compare_arms(
    workspace: str | Path, name: str, behaviour: str | None = None, *, resamples: int = RESAMPLES
) -> ArmsComparison:
    """Compare the arms of an experiment, each row with the one at the matched dose; seeds are pooled.

    With M the base model and M' the fine-tune, each over its own arm's eval conditions:

    - `train_mean_ratio`, `uplift`, `link`, `cv`, `cv_kept`, `extreme`: as in `windowshift.core.measure.comparison`.
    - `cross_cv_kept`: `cv_kept` across the other arm's eval conditions.
    - `coherence`: mean log-probability a token under M of what M' writes, minus that of what M writes, in nats.
    - `leak`: the effect without any eval push; `leak_share`: its share of the mean effect over the conditions
      that push.

    Raises:
        SpecError: there is no such experiment or behaviour, or it lacks an arm.
        StoreError: the workspace cannot be read.
    """
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        chosen = experiment.find_behaviour(behaviour)
        r = Resampled(load_grid(reader, experiment, chosen), resamples)
        sound = None
        if any(one.name == COHERENCE.name for one in experiment.behaviours):
            sound = Resampled(load_grid(reader, experiment, COHERENCE), resamples)
        steering = steering_results(reader, experiment, r)
    arms = {arm: Arm(r, arm) for arm in ("prefix", "steering")}
    lacking = [arm for arm, found in arms.items() if not found.rows]
    if lacking:
        raise SpecError(f"experiment '{name}' has no {lacking[0]} arm to compare: add train conditions of that arm")
    sounds = {arm: Arm(sound, arm) for arm in arms} if sound else {}
    pairs = list(_pairs(arms, experiment))
    if not pairs:
        raise SpecError(
            f"experiment '{name}' has no train conditions at matched dose: add  {{steer: VECTOR, match: [...]}}"
        )
    found = {pair: _measured(pair, arms, sounds) for pair in pairs}
    controls = {one.name for one in steering.vectors if one.of is not None}
    vectors = {entry["name"]: set(entry.get("vectors", ())) for entry in experiment.conditions["train"]}
    pushing = [
        pair for pair in pairs if pair.prefix not in arms["prefix"].plain and not vectors[pair.steering] & controls
    ]
    average = {measure: _averaged([found[pair][measure] for pair in pushing]) for measure in AVERAGED}
    measures = measure_resampled(r)
    return ArmsComparison(
        experiment,
        chosen,
        r.scale,
        tuple(
            PairedRow(pair, {name: _compared(name, both) for name, both in measured.items()})
            for pair, measured in found.items()
        ),
        {name: _compared(name, both) for name, both in average.items()},
        len(pushing),
        {arm: measures.arms[arm].whole.grouped for arm in arms},
        steering,
    )


_Both = tuple[Measured, Measured]


def _pairs(arms: dict[str, Arm], experiment: ExperimentRow) -> Iterator[Pair]:
    """Prefix rows with the steering rows that match them; what pushes nowhere goes together too."""
    entries = {entry["name"]: entry for entry in experiment.conditions["train"] if entry["arm"] == "steering"}
    steered = arms["steering"]
    for generate, train in sorted(arms["prefix"].rows, key=lambda row: arms["prefix"].trains.index(row[1])):
        for other in steered.trains:
            if (generate, other) not in steered.rows or other not in entries:
                continue
            both_plain = train in arms["prefix"].plain and other in steered.plain
            if both_plain or entries[other].get("match") == train:
                yield Pair(generate, train, other)


def _measured(pair: Pair, arms: dict[str, Arm], sounds: dict[str, Arm]) -> dict[ArmMeasure, _Both]:
    rows = (("prefix", pair.prefix), ("steering", pair.steering))
    found: dict[ArmMeasure, list[Measured]] = {measure: [] for measure in ARM_MEASURES}
    for name, train in rows:
        arm, generate = arms[name], pair.generate
        cv, kept = cv_and_kept(arm, generate, train)
        found["train_mean_ratio"].append(surprise(arm, generate, train))
        found["uplift"].append(mean_effect(arm, generate, train))
        found["link"].append(mean_uplift(arm, generate, train))
        found["cv"].append(cv)
        found["cv_kept"].append(kept)
        crossed = cv_and_kept(arm, generate, train, arm.crossed)[1] if arm.crossed else None
        found["cross_cv_kept"].append(crossed or Measured(reason="not evaluated under the other arm's conditions"))
        found["extreme"].append(extreme(arm, generate, train, lowest_condition(arm)))
        found["coherence"].append(_coherence(sounds.get(name), generate, train))
        leak, share = _leak(arm, generate, train)
        found["leak"].append(leak)
        found["leak_share"].append(share)
    return {measure: (both[0], both[1]) for measure, both in found.items()}


def _coherence(arm: Arm | None, generate: str, train: str) -> Measured:
    """Coherence of a row minus the base model's, over the arm's eval conditions."""
    if arm is None:
        return Measured(reason="coherence was not measured")
    r = arm.resampled
    pairs = [(arm.column(generate, train, e, None), arm.column("", BASE, e, None)) for e in arm.evaluates]
    done = [(own, base) for own, base in pairs if own is not None and base is not None]
    if len(done) < len(pairs) or not done:
        return Measured(reason=f"{len(done)} of {len(pairs)} eval cells have a coherence")
    own, base = (np.array(columns) for columns in zip(*done, strict=True))
    value = float((r.means[own] - r.means[base]).mean())
    return Measured(value, (r.samples[:, own] - r.samples[:, base]).mean(axis=1), int(r.n[own].sum()))


def _leak(arm: Arm, generate: str, train: str) -> _Both:
    """The effect under the eval condition that pushes nowhere, and its share of that under the others."""
    plain = [e for e in arm.evaluates if e in arm.plain]
    pushing = [e for e in arm.evaluates if e not in arm.plain]
    columns = {e: arm.column(generate, train, e, None) for e in arm.evaluates}
    values, samples = arm.resampled.effects
    if not plain or columns[plain[0]] is None:
        missing = Measured(reason=f"no finished cell without a push: evaluate under {NO_PREFIX}")
        return missing, missing
    bare = columns[plain[0]]
    leak = Measured(float(values[bare]), samples[:, bare], int(arm.resampled.n[bare]))
    done = [column for e in pushing if (column := columns[e]) is not None]
    if len(done) < len(pushing) or not done:
        return leak, Measured(reason=f"{len(done)} of {len(pushing)} eval cells with a push done")
    with np.errstate(divide="ignore", invalid="ignore"):
        share = Measured(
            float(values[bare] / values[done].mean()), samples[:, bare] / samples[:, done].mean(axis=1), leak.n
        )
    return leak, share


def _averaged(pairs: list[_Both]) -> _Both:
    """Each arm's mean over the pairs in which both have the measure."""
    whole = [both for both in pairs if all(one.samples is not None for one in both)]
    if not whole:
        missing = Measured(reason="no matched pair has it in both arms")
        return missing, missing
    found = []
    for side in (0, 1):
        members = [both[side] for both in whole]
        drawn = np.mean([one.samples for one in members if one.samples is not None], axis=0)
        found.append(Measured(float(np.mean([one.value for one in members])), drawn, len(members)))
    return found[0], found[1]


def _compared(name: ArmMeasure, both: _Both) -> Compared:
    return Compared(
        name, tuple(one.estimate for one in both), tuple(one.reason for one in both), paired_difference(*both)
    )
