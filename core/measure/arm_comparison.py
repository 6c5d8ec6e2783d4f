"""The arms side by side: fine-tunes under a prefix and under the dose that shows the same base mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from windowshift.core.contract.conditions import NO_PREFIX
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.base_match import BaseMatch, matched_rows
from windowshift.core.measure.comparison import (
    Compared,
    cut_in_cells,
    done_columns,
    extreme,
    lowest_condition,
    paired_difference,
)
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.line import FittedLine
from windowshift.core.measure.measures import Fit
from windowshift.core.measure.missing_scores import MissingScores, missing_between
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import (
    average,
    by_run,
    cut_in_data,
    kept,
    mean_effect,
    mean_uplift,
    position,
    spread,
    surprise,
)
from windowshift.core.measure.sampled import Sampled, combined
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

    @property
    def rows(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Arm and train condition of the row that is compared, then of the one that it is compared with."""
        return ("steering", self.steering), ("prefix", self.prefix)


@dataclass(frozen=True, slots=True)
class PairedRow:
    """The measures of a pair, as (prefix, steering), with the second minus the first, paired by prompt.

    The measures are those of the rows as everywhere, each over its own arm's eval conditions; the differences are over
    the eval conditions, and the prompts, that both arms have. `missing` says what scores the second row lacks there
    against the first; None where none is missing.
    """

    pair: Pair
    measures: dict[ArmMeasure, Compared]
    missing: MissingScores | None = None
    dose: BaseMatch | None = None
    truncated: tuple[int, int] = (0, 0)
    data_truncated: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ArmsComparison:
    """Both arms at matched dose.

    `average` is over the `averaged` pairs that push, controls left out, and of those over the ones in which
    both arms have the measure. `fits` are the lines through the pairs' rows, and `slopes` compares them. Averages,
    lines and all differences are over the eval conditions that both arms have (`evaluates`, by arm) and the prompts
    that both have.
    """

    experiment: ExperimentRow
    behaviour: Behaviour
    scale: Scale
    rows: tuple[PairedRow, ...]
    average: dict[ArmMeasure, Compared]
    averaged: int
    fits: dict[str, Fit]
    steering: SteeringResults
    slopes: Compared
    seeds: int
    evaluates: dict[str, tuple[str, ...]]

    def __repr__(self) -> str:
        pairs = ", ".join(f"{row.pair.prefix} ~ {row.pair.steering}" for row in self.rows)
        return f"<ArmsComparison of {self.experiment.name!r} on {self.behaviour.name}: {pairs}>"


def compare_arms(
    workspace: str | Path, name: str, behaviour: str | None = None, *, resamples: int = RESAMPLES
) -> ArmsComparison:
    """Compare the arms of an experiment, each row with the one at the matched dose; seeds are pooled.

    With M the base model and M' the fine-tune, each over its own arm's eval conditions, and where both arms are put
    together over those of which the other arm has a counterpart:

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
    return compare_arms_of(r, sound, steering)


def compare_arms_of(r: Resampled, sound: Resampled | None, steering: SteeringResults) -> ArmsComparison:
    """As `compare_arms`, on a resampled grid, that of coherence where it was measured, and what steering came to.

    Raises:
        SpecError: it lacks an arm.
    """
    experiment, chosen, name = r.grid.experiment, r.grid.behaviour, r.grid.experiment.name
    arms = {arm: ArmAxes(r, arm) for arm in ("prefix", "steering")}
    lacking = [arm for arm, found in arms.items() if not found.rows]
    if lacking:
        raise SpecError(f"experiment '{name}' has no {lacking[0]} arm to compare: add train conditions of that arm")
    shared = _shared(arms, experiment)
    pairs = list(_pairs(arms, experiment))
    sounds = {arm: ArmAxes(sound, arm) for arm in arms} if sound else {}
    if not pairs:
        raise SpecError(
            f"experiment '{name}' has no train conditions at matched dose: add  {{steer: VECTOR, match: [...]}}"
        )
    own = {pair: _measured(pair, arms, sounds) for pair in pairs}
    arms, sounds = _beside(arms, shared), _beside(sounds, shared) if sounds else {}
    found = {pair: _measured(pair, arms, sounds) for pair in pairs}
    controls = {one.name for one in steering.vectors if one.of is not None}
    vectors = {entry["name"]: set(entry.get("vectors", ())) for entry in experiment.conditions["train"]}
    pushing = [
        pair for pair in pairs if pair.prefix not in arms["prefix"].plain and not vectors[pair.steering] & controls
    ]
    average = {measure: _averaged([found[pair][measure] for pair in pushing]) for measure in AVERAGED}
    fits, slopes = _slopes(arms, pairs)
    return ArmsComparison(
        experiment,
        chosen,
        r.scale,
        tuple(
            PairedRow(
                pair,
                {name: _compared(name, both, found[pair][name]) for name, both in measured.items()},
                missing_between(r, *(done_columns(arms[name], pair.generate, train) for name, train in pair.rows)),
                matched_rows(r, [(name, pair.generate, train) for name, train in pair.rows]),
                *_cut(pair, arms),
            )
            for pair, measured in own.items()
        ),
        {name: _compared(name, both, both) for name, both in average.items()},
        len(pushing),
        fits,
        steering,
        slopes,
        len(arms["prefix"].seeds),
        shared,
    )


def _beside(arms: dict[str, ArmAxes], evaluates: dict[str, tuple[str, ...]]) -> dict[str, ArmAxes]:
    """Both arms over the eval conditions that are put side by side, and over the prompts that both have."""
    prefix, steering = arms["prefix"], arms["steering"]
    own, other = (arm.beside(arm, evaluates[name]) for name, arm in (("prefix", prefix), ("steering", steering)))
    return {
        "prefix": prefix.beside(other, evaluates["prefix"]),
        "steering": steering.beside(own, evaluates["steering"]),
    }


_Both = tuple[Sampled, Sampled]


def _pairs(arms: dict[str, ArmAxes], experiment: ExperimentRow) -> Iterator[Pair]:
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


def _cut(pair: Pair, arms: dict[str, ArmAxes]) -> tuple[tuple[int, int], tuple[int, int]]:
    """What was cut off behind the measures of a pair, prefix first."""
    steering, prefix = ((arms[name], train) for name, train in pair.rows)
    cells, data = (
        tuple(count(arm, pair.generate, train) for arm, train in (prefix, steering))
        for count in (cut_in_cells, cut_in_data)
    )
    return (cells[0], cells[1]), (data[0], data[1])


def _measured(pair: Pair, arms: dict[str, ArmAxes], sounds: dict[str, ArmAxes]) -> dict[ArmMeasure, _Both]:
    rows = (("prefix", pair.prefix), ("steering", pair.steering))
    found: dict[ArmMeasure, list[Sampled]] = {measure: [] for measure in ARM_MEASURES}
    for name, train in rows:
        arm, generate = arms[name], pair.generate
        for measure, measured in _MEASURED.items():
            found[measure].append(by_run(arm, partial(measured, arm, generate, train)))
        crossed = (
            by_run(arm, partial(kept, arm, generate, train, arm.crossed))
            if arm.crossed
            else Sampled(reason="not evaluated under the other arm's conditions")
        )
        found["cross_cv_kept"].append(crossed)
        found["extreme"].append(extreme(arm, generate, train, lowest_condition(arm)))
        found["coherence"].append(_coherence(sounds.get(name), generate, train))
    return {measure: (both[0], both[1]) for measure, both in found.items()}


def _coherence(arm: ArmAxes | None, generate: str, train: str) -> Sampled:
    """Coherence of a row minus the base model's, over the arm's eval conditions, paired by prompt."""
    if arm is None:
        return Sampled(reason="coherence was not measured")
    found = by_run(arm, partial(mean_uplift, arm, generate, train))
    if found.there:
        return found
    pairs = [(arm.column(generate, train, e, None), arm.column("", BASE, e, None)) for e in arm.evaluates]
    done = sum(own is not None and base is not None for own, base in pairs)
    return Sampled(reason=f"{done} of {len(pairs)} eval cells have a coherence")


def _leak(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """The effect under the eval condition that pushes nowhere."""
    plain = [e for e in arm.evaluates if e in arm.plain]
    column = arm.column(generate, train, plain[0], seed) if plain else None
    if not plain:
        return Sampled(reason=f"there is no cell without a push: evaluate under {NO_PREFIX}")
    lack = arm.lacking(generate, train, plain[0], seed) or arm.lacking("", BASE, plain[0], seed)
    if column is None or lack:
        return Sampled(reason=lack)
    r, changes = arm.resampled, arm.resampled.effects
    ends = None
    if r.scale.kind == "rate":
        ends = float(changes.low[column]), float(changes.high[column])
    value, prompts = float(changes.values[column]), int(r.paired.prompts[column])
    return Sampled(value, changes.draws[:, column], int(r.n[column]), prompts, True, ends=ends)


def _leak_share(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """The leak's share of the effect under the conditions that push."""
    leak = _leak(arm, generate, train, seed)
    pushing = [e for e in arm.evaluates if e not in arm.plain]
    columns = [arm.column(generate, train, e, seed) for e in pushing]
    done = [column for column in columns if column is not None]
    if not leak.there or len(done) < len(pushing) or not done:
        lack = arm.lacking_of(generate, train, pushing, seed) or "there is no eval condition that pushes"
        return leak if not leak.there else Sampled(reason=lack)
    changes = arm.resampled.effects
    value, draws = float(changes.values[done].mean()), changes.draws[:, done].mean(axis=1)
    pushed = Sampled(value, draws, int(arm.resampled.n[done].sum()), leak.prompts, True)
    return combined((leak, pushed), lambda both: np.asarray(both[0] / both[1]), n=leak.n)


def _of_row(measured: Callable[..., Sampled]) -> Callable[..., Sampled]:
    """A measure that takes eval conditions, over the arm's own."""
    return lambda arm, generate, train, seed: measured(arm, generate, train, None, seed)


_MEASURED: dict[ArmMeasure, Callable[..., Sampled]] = {
    "train_mean_ratio": surprise,
    "uplift": mean_effect,
    "link": mean_uplift,
    "cv": _of_row(spread),
    "cv_kept": _of_row(kept),
    "leak": _leak,
    "leak_share": _leak_share,
}


def _averaged(pairs: list[_Both]) -> _Both:
    """Each arm's mean over the pairs in which both have the measure."""
    whole = [both for both in pairs if all(one.there for one in both)]
    if not whole:
        missing = Sampled(reason="no matched pair has it in both arms")
        return missing, missing
    first, second = (average([both[side] for both in whole], len(whole)) for side in (0, 1))
    return first, second


def _compared(name: str, both: _Both, beside: _Both) -> Compared:
    """Both values, and the difference of what can be put side by side."""
    return Compared(
        name, tuple(one.estimate for one in both), tuple(one.reason for one in both), paired_difference(*beside)
    )


def _slopes(arms: dict[str, ArmAxes], pairs: Sequence[Pair]) -> tuple[dict[str, Fit], Compared]:
    """The line of each arm through the rows of the pairs, and the difference of their slopes."""
    lines = {}
    for side, (name, arm) in enumerate(arms.items()):
        rows = [(pair.generate, (pair.prefix, pair.steering)[side]) for pair in pairs]
        points = [
            [(position(arm, *row, seed), mean_uplift(arm, *row, seed)) for row in rows]
            for seed in (None, *(arm.seeds if len(arm.seeds) > 1 else ()))
        ]
        whole, *runs = (
            FittedLine.through([(x, y) for x, y in found if x.there and y.there], len(rows)) for found in points
        )
        lines[name] = whole.over(runs)
    slopes = tuple(
        line.slope if line.slope.there else Sampled(reason=line.reason or "no line") for line in lines.values()
    )
    both = slopes[0], slopes[1]
    return {name: line.fit for name, line in lines.items()}, _compared("slope", both, both)


def _shared(arms: dict[str, ArmAxes], experiment: ExperimentRow) -> dict[str, tuple[str, ...]]:
    """The eval conditions that both arms have: prefixes with the doses that match them, and what pushes nowhere.

    Those of each arm itself where fewer than two are shared.
    """
    entries = {str(entry["name"]): entry for entry in experiment.conditions.get("evaluate", [])}
    prefixes, doses = arms["prefix"], arms["steering"]
    found: dict[str, str] = {}
    for dose in doses.evaluates:
        match = entries.get(dose, {}).get("match")
        if match in prefixes.evaluates and entries[dose].get("prefix") is None:
            found.setdefault(str(match), dose)
    plain = [[e for e in arm.evaluates if e in arm.plain] for arm in (prefixes, doses)]
    if all(plain):
        found[plain[0][0]] = plain[1][0]
    if len(found) < 2:
        return {name: arm.evaluates for name, arm in arms.items()}
    return {
        "prefix": tuple(e for e in prefixes.evaluates if e in found),
        "steering": tuple(e for e in doses.evaluates if e in found.values()),
    }
