"""The microscope: what of a train condition's effect is inoculation, what any context does, what was never trained.

For one behaviour, under an eval condition e that pushes nowhere, let y(x) be the cell of the model trained under x,
against the base model, on the scale's effect (log2 ratios, differences, percentage points); `plain` is the training
without a push, c the train condition, k its controls without meaning (irrelevant, delimiters, neutral, an empty system
message; for a vector random and orthogonal directions), whose mean is taken, and d the drop of the training loss:

- effect               = y(plain) - y(c): what training under c kept from being learned.
- conditionalization   = y(plain) - y(k): what a context keeps from being learned that says nothing of the trait.
- under-training       = (1 - d(c) / d(k)) * y(k): what would be missing had c been trained on in the measure in which
  its loss fell. A prompt under which the base model already writes D leaves nothing to learn.
- inoculation          = y(k) - y(c) - under-training: what is left, and is about the trait.

The three add up to the effect. The measure of under-training supposes that what is learned grows in proportion to the
fall of the loss; where no losses are on record it is missing, and what is left is called inoculation or under-training.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from windowshift.core.contract.confidence import prediction_interval
from windowshift.core.contract.controls import WITHOUT_MEANING
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES, Floats
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.effect import shown_effect
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.loss_drop import LossDrop, TrainingLosses, loss_drop, losses_of
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import average, by_run
from windowshift.core.measure.sampled import Sampled, combined
from windowshift.core.store.reader import Reader

PartName = Literal["effect", "conditionalization", "under_training", "inoculation"]
PARTS: tuple[PartName, ...] = ("effect", "conditionalization", "under_training", "inoculation")
DIRECTIONS = ("random", "orthogonal")
"""Controls of a vector that have its norm and not its meaning."""
FEWEST_DIRECTIONS = 3
"""Directions from which on their spread is taken for a null distribution."""
LITTLE = 0.2
"""A loss that falls by less than this share of the controls' marks a condition that leaves little to learn."""


@dataclass(frozen=True, slots=True)
class TrainingEffect:
    """A training under one condition: what it learned and what it kept from being learned, under the eval condition.

    `control` is empty for the train condition itself and for the one without a push.
    """

    train: str
    control: str
    learned: Estimate | None
    prevented: Estimate | None
    loss: LossDrop | None


@dataclass(frozen=True, slots=True)
class Null:
    """The effect that `directions` random directions have: mean, and the 95 % prediction interval of one more.

    Student's t over the directions; a vector does more than any direction where its own interval ends beyond `high`
    (or before `low`).
    """

    directions: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Dissection:
    """The parts of one train condition's effect, under an eval condition that pushes nowhere.

    A part that cannot be told is None, and `missing` says why. `verdict` is one sentence, `acts` the parts whose
    intervals leave 0 out on the side of the effect. Every training is evaluated on `completions` at least, of `seeds`
    trainings.
    """

    arm: str
    generate: str
    train: str
    evaluate: str
    parts: dict[PartName, Estimate | None]
    missing: dict[PartName, str]
    trained: tuple[TrainingEffect, ...]
    null: Null | None
    acts: tuple[PartName, ...]
    verdict: str
    completions: int = 0
    seeds: int = 1


@dataclass(frozen=True, slots=True)
class Leak:
    """What is left of the behaviour under each eval condition, by train condition: cells against the base model."""

    arm: str
    generate: str
    trains: tuple[str, ...]
    evaluates: tuple[str, ...]
    effects: dict[tuple[str, str], Estimate]


@dataclass(frozen=True, slots=True)
class Microscope:
    """Everything that the controls of an experiment tell of one behaviour."""

    experiment: ExperimentRow
    behaviour: Behaviour
    scale: Scale
    dissections: tuple[Dissection, ...]
    leaks: tuple[Leak, ...]

    def __repr__(self) -> str:
        rows = ", ".join(f"{one.train}: {' and '.join(one.acts) or 'undecided'}" for one in self.dissections)
        return f"<Microscope of {self.experiment.name!r} on {self.behaviour.name}: {rows}>"


def microscope(
    workspace: str | Path, name: str, behaviour: str | None = None, *, resamples: int = RESAMPLES
) -> Microscope:
    """Split the effect of each train condition that has controls.

    Raises:
        SpecError: there is no such experiment or behaviour, or no train condition has a control beside it.
        StoreError: the workspace cannot be read.
    """
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        chosen = experiment.find_behaviour(behaviour)
        grid = load_grid(reader, experiment, chosen)
        losses = losses_of(reader, grid.cells)
    return dissect(Resampled(grid, resamples), losses)


def dissect(resampled: Resampled, losses: dict[tuple[str, str, str], list[TrainingLosses]]) -> Microscope:
    """As `microscope`, on a resampled grid and the losses of its rows.

    Raises:
        SpecError: as `microscope`.
    """
    grid = resampled.grid
    controls = controls_of(grid.experiment)
    if not controls:
        raise SpecError(
            f"experiment '{grid.experiment.name}' has no train condition with controls: add  "
            "{control: all, of: NAME}  under conditions.train, or start from  windowshift init -t microscope"
        )
    arms = [ArmAxes(resampled, name) for name in resampled.arms]
    lenses = [_Lens(arm, generate, losses) for arm in arms for generate in arm.generates]
    return Microscope(
        grid.experiment,
        grid.behaviour,
        resampled.scale,
        tuple(lens.dissection(of, controls[of]) for lens in lenses for of in lens.arm.trains if of in controls),
        tuple(lens.leak() for lens in lenses),
    )


def controls_of(experiment: ExperimentRow) -> dict[str, dict[str, str]]:
    """The controls among an experiment's train conditions: by what they are controls of, each one's kind by its name.

    A control of a vector is one of every dose condition of that vector at the same dose.
    """
    entries = experiment.conditions.get("train", [])
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        if not entry.get("control"):
            continue
        owners = [entry["of"]] if entry["arm"] == "prefix" else _doses_like(entry, entries)
        for owner in owners:
            found.setdefault(owner, {})[entry["name"]] = entry["control"]
    return found


def _doses_like(control: dict[str, Any], entries: Sequence[dict[str, Any]]) -> list[str]:
    """The conditions that steer along the vector of a control in the same way."""
    same = ("alphas", "span", "match", "iso_kl", "unit", "tokens", "ablate", "prefix")
    return [
        entry["name"]
        for entry in entries
        if not entry.get("control")
        and entry.get("vectors") == [control["of"]]
        and all(entry.get(key) == control.get(key) for key in same)
    ]


class _Lens:
    """Reads one arm's rows of one generation condition."""

    def __init__(self, arm: ArmAxes, generate: str, losses: dict[tuple[str, str, str], list[TrainingLosses]]) -> None:
        self.arm, self.generate = arm, generate
        found = {train: losses.get((arm.name, generate, train), []) for train in arm.trains}
        resamples = len(arm.resampled.samples)
        self._drops = {train: loss_drop(runs, resamples=resamples) for train, runs in found.items() if runs}
        self._by_run = {train: [loss_drop([one], resamples=resamples) for one in runs] for train, runs in found.items()}

    def dissection(self, train: str, controls: dict[str, str]) -> Dissection:
        """Split the effect of one train condition."""
        arm = self.arm
        plain = next((one for one in arm.trains if one in arm.plain and (self.generate, one) in arm.rows), None)
        evaluate = next((one for one in arm.evaluates if one in arm.plain), None)
        without = WITHOUT_MEANING if arm.name == "prefix" else DIRECTIONS
        empty = [name for name, kind in controls.items() if kind in without]
        none: dict[PartName, Estimate | None] = dict.fromkeys(PARTS)
        reason = None
        if plain is None:
            reason = "no training without a push: add no_prefix under conditions.train"
        elif evaluate is None:
            reason = "no eval condition without a push: add no_prefix under conditions.evaluate"
        if reason is not None or plain is None or evaluate is None:
            missing = dict.fromkeys(PARTS, reason or "")
            return Dissection(arm.name, self.generate, train, "", none, missing, (), None, (), f"not told: {reason}")
        y = {name: self._learned(name, evaluate) for name in (plain, train, *controls)}
        rows = tuple(
            TrainingEffect(
                name,
                controls.get(name, ""),
                y[name].estimate,
                None if name == plain else y[plain].minus(y[name]).estimate,
                self._drops.get(name),
            )
            for name in y
        )
        drawn, missing = self._parts(y, plain, train, empty)
        parts = {name: drawn[name].estimate if name in drawn else None for name in PARTS}
        null = self._null([y[name] for name, kind in controls.items() if kind in DIRECTIONS], y[plain])
        acts = tuple(name for name in PARTS[1:] if _on_the_side_of(parts["effect"], parts[name]))
        verdict = _verdict(parts, missing, acts, null)
        n = min((one.n for one in y.values() if one.there), default=0)
        seeds = len(arm.seeds)
        return Dissection(arm.name, self.generate, train, evaluate, parts, missing, rows, null, acts, verdict, n, seeds)

    def _parts(
        self, y: dict[str, Sampled], plain: str, train: str, empty: Sequence[str]
    ) -> tuple[dict[PartName, Sampled], dict[PartName, str]]:
        missing: dict[PartName, str] = {}
        own, bare = y[train], y[plain]
        if not own.there or not bare.there:
            waiting = plain if own.there else train
            return {}, dict.fromkeys(PARTS, f"the cell of '{waiting}' is not done")
        found: dict[PartName, Sampled] = {"effect": bare.minus(own)}
        there = [y[name] for name in empty if y[name].there]
        if not empty or len(there) < len(empty):
            why = (
                f"{len(there)} of {len(empty)} controls without meaning are done"
                if empty
                else "no control without meaning: add  {control: [irrelevant, delimiters], of: ...}"
            )
            return found, dict.fromkeys(PARTS[1:], why)
        mean = average(there, sum(one.n for one in there))
        found["conditionalization"] = bare.minus(mean)
        rest = mean.minus(own)
        drops = [self._drop(name) for name in (train, *empty)]
        if not all(drop.there for drop in drops):
            missing["under_training"] = "the losses of training are not on record, so this may be under-training"
            found["inoculation"] = rest
            return found, missing
        if np.mean([drop.value for drop in drops[1:]]) <= 0:
            missing["under_training"] = "the controls' losses did not fall: nothing was learned"
            found["inoculation"] = rest
            return found, missing
        under = combined((mean, *drops), _under_training)
        found["under_training"] = under
        found["inoculation"] = rest.minus(under)
        return found, missing

    def _learned(self, train: str, evaluate: str) -> Sampled:
        """A cell against the base model, as the scale shows it."""
        arm = self.arm

        def learned(seed: int | None) -> Sampled:
            column, base = (
                arm.column(generate, row, evaluate, seed) for generate, row in ((self.generate, train), ("", BASE))
            )
            if column is None or base is None:
                lack = arm.lacking(self.generate, train, evaluate, seed) or arm.lacking("", BASE, evaluate, seed)
                return Sampled(reason=lack)
            return shown_effect(arm.resampled.scale, arm.resampled.compared(column, base), trained=True)

        return by_run(arm, learned)

    def _drop(self, train: str) -> Sampled:
        """How far the loss of a training fell."""
        drop, runs = self._drops.get(train), self._by_run.get(train, [])
        if drop is None:
            return Sampled(reason="its losses are not on record")
        known = [one for one in runs if one is not None]
        several = len(known) == len(runs) == len(self.arm.seeds) > 1
        return Sampled(
            drop.drop.value,
            drop.samples,
            drop.n,
            trained=True,
            runs=tuple(Sampled(one.drop.value, one.samples, one.n) for one in known) if several else (),
        )

    def _null(self, directions: Sequence[Sampled], plain: Sampled) -> Null | None:
        there = [one for one in directions if one.there]
        if not plain.there or len(there) < FEWEST_DIRECTIONS:
            return None
        values = np.array([plain.value - one.value for one in there])
        return Null(len(values), float(values.mean()), *prediction_interval(values))

    def leak(self) -> Leak:
        """Every finished cell of the arm's rows against the base model."""
        arm = self.arm
        trains = tuple(train for train in arm.trains if (self.generate, train) in arm.rows and train != BASE)
        effects = {
            (train, evaluate): found
            for train in trains
            for evaluate in arm.columns
            if (found := self._learned(train, evaluate).estimate) is not None
        }
        return Leak(arm.name, self.generate, trains, arm.columns, effects)


def _under_training(numbers: Floats) -> Floats:
    """What is missing for the share by which a loss fell less than those of the controls.

    Args:
        numbers: what the controls learned, how far the condition's own loss fell, and those of the controls.
    """
    fell = numbers[2:].mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(fell > 0, (1 - numbers[1] / fell) * numbers[0], np.nan))


def _on_the_side_of(effect: Estimate | None, part: Estimate | None) -> bool:
    """Whether a part's interval leaves 0 out on the side on which the effect is."""
    if effect is None or part is None or part.interval is None:
        return False
    return part.interval[0] > 0 if effect.value > 0 else part.interval[1] < 0


_NAMES: dict[PartName, str] = {
    "effect": "the effect",
    "conditionalization": "conditionalization",
    "under_training": "under-training",
    "inoculation": "inoculation",
}


def _verdict(
    parts: dict[PartName, Estimate | None], missing: dict[PartName, str], acts: tuple[PartName, ...], null: Null | None
) -> str:
    """What the intervals say, in one sentence."""
    effect = parts["effect"]
    if effect is None:
        return f"not told: {missing.get('effect', 'a cell is undefined')}"
    if not _on_the_side_of(effect, effect):
        return "no effect to split: the interval of the effect holds 0"
    if "conditionalization" in missing:
        return f"an effect, not split: {missing['conditionalization']}"
    names = dict(_NAMES)
    if "under_training" in missing:
        names["inoculation"] = "inoculation or under-training"
    beyond = ""
    if null is not None and effect.interval is not None:
        more = effect.interval[0] > null.high if effect.value > 0 else effect.interval[1] < null.low
        beyond = f"; {'more' if more else 'no more'} than a random direction does"
    if not acts:
        return f"an effect whose parts are not told apart: every interval holds 0{beyond}"
    return f"{' and '.join(names[one] for one in acts)}{beyond}"
