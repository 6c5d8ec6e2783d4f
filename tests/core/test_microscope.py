"""The microscope recovers what simulated worlds were built of, and says what it cannot tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench.simulated_microscope import ONLY, draw_trainings

from tests.core.test_measures import grid
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.loss_drop import TrainingLosses, loss_drop
from windowshift.core.measure.microscope import Dissection, Microscope, PartName, controls_of, dissect
from windowshift.core.measure.resampled import Resampled

RATE = Scale.rate()
BASE, PLAIN = 0.2, 0.6
CONTROLS = {"hack~irrelevant": "irrelevant", "hack~delimiters": "delimiters", "hack~negated": "negated"}
Rates = dict[str, float]

WORLDS: dict[str, Rates] = {
    "conditionalization": {"hack": 0.35, "hack~irrelevant": 0.35, "hack~delimiters": 0.35, "hack~negated": 0.35},
    "inoculation": {"hack": 0.3, "hack~irrelevant": 0.6, "hack~delimiters": 0.6, "hack~negated": 0.6},
}


def world(rates: Rates, seed: int, n: int = 200, scale: Scale = RATE) -> Grid:
    """Cells under no push, of answers whose odds differ by prompt, as those of a behaviour do."""
    rng = np.random.default_rng(seed)
    prompts = rng.normal(0, 1.0, n)

    def drawn(rate: float) -> list[float]:
        # The mean over prompts is the rate: the intercept is found on a fine grid of the same prompts' distribution.
        levels = np.linspace(-6, 6, 241)
        spread = np.linspace(-3, 3, 61)
        weights = np.exp(-(spread**2) / 2)
        means = (1 / (1 + np.exp(-(levels[:, None] + spread))) * weights).sum(1) / weights.sum()
        level = np.interp(rate, means, levels)
        return list((rng.random(n) < 1 / (1 + np.exp(-(level + prompts)))).astype(float))

    cells: dict[Any, Any] = {("", "base", "no_prefix"): drawn(BASE), ("d", "no_prefix", "no_prefix"): drawn(PLAIN)}
    cells |= {("d", train, "no_prefix"): drawn(rate) for train, rate in rates.items()}
    made = grid(cells, {("d", "no_prefix"): [(1.0, "no_prefix", [1.0] * 5)]}, scale=scale)
    train = [
        {**entry, **({"control": CONTROLS[entry["name"]], "of": "hack"} if entry["name"] in CONTROLS else {})}
        for entry in made.experiment.conditions["train"]
    ]
    conditions = {**made.experiment.conditions, "train": train}
    return replace(made, experiment=replace(made.experiment, conditions=conditions))


def losses(seed: int, drops: Rates) -> dict[tuple[str, str, str], list[TrainingLosses]]:
    """Losses of 100 steps that fall from 2 by the drop of their training, the examples' own noise shared by all."""
    rng = np.random.default_rng([seed, 1])
    noise = rng.normal(0, 0.3, 100)
    falls = 1 - np.exp(-np.arange(100) / 10)
    return {
        ("prefix", "d", train): [
            TrainingLosses(tuple(range(2, 202, 2)), tuple(float(one) for one in 2 - drop * falls + noise))
        ]
        for train, drop in drops.items()
    }


EQUAL = {"no_prefix": 1.0, "hack": 1.0, "hack~irrelevant": 1.0, "hack~delimiters": 1.0, "hack~negated": 1.0}


def seen(found: Grid, drops: Rates, seed: int = 0, resamples: int = 400) -> Dissection:
    (one,) = dissect(Resampled(found, resamples), losses(seed, drops)).dissections
    return one


def told(name: PartName, runs: int, **chance: float) -> Counter[tuple[PartName, ...]]:
    """What acts, in so many simulated experiments of 200 prompts in which one thing alone does."""
    world = replace(ONLY[name], **chance)  # type: ignore[arg-type] # its own fields
    drawn = (draw_trainings(world, seed) for seed in range(runs))
    return Counter(dissect(Resampled(one.grid, 400), one.losses).dissections[0].acts for one in drawn)


NOISE = {"run": 0.2, "loss_run": 0.05}
"""What trainings of the embedded model of facts differ by, or somewhat more: log-odds, and a share of the loss."""


@pytest.mark.parametrize("name", ["conditionalization", "inoculation"])
def test_conditionalization_and_inoculation_are_told_apart(name: PartName) -> None:
    assert told(name, 30)[name,] >= 28  # one training, of which no two differ
    assert told(name, 12, seeds=5, **NOISE)[name,] >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conditionalization", "inoculation"])
def test_they_are_told_apart_in_95_of_100_experiments_whose_trainings_differ(name: PartName) -> None:
    assert told(name, 100, seeds=5, **NOISE)[name,] >= 95


@pytest.mark.slow
def test_three_trainings_that_differ_leave_more_open_and_claim_as_little_that_is_false() -> None:
    for name in ONLY:
        found = told(name, 60, seeds=3, **NOISE)
        assert found[name,] >= 0.8 * 60
        assert 60 - found[name,] - found[()] <= 4


@pytest.mark.slow
def test_one_training_cannot_tell_where_trainings_differ() -> None:
    """Where trainings differ, one of each takes that for a part: the numbers behind the sentence on every page."""
    assert told("inoculation", 60, **NOISE)["inoculation",] < 0.7 * 60


def test_a_prompt_that_leaves_nothing_to_learn_is_no_inoculation() -> None:
    rates = {"hack": BASE, "hack~irrelevant": PLAIN, "hack~delimiters": PLAIN, "hack~negated": PLAIN}
    told = [seen(world(rates, seed), {**EQUAL, "hack": 0.02}, seed).acts for seed in range(40)]
    assert sum(acts == ("under_training",) for acts in told) >= 37
    # Without the losses the same numbers look like inoculation, and are not called that alone.
    (blind,) = dissect(Resampled(world(rates, 0), 400), {}).dissections
    assert blind.verdict == "inoculation or under-training"
    assert "not on record" in blind.missing["under_training"]


def test_where_nothing_acts_little_is_claimed() -> None:
    rates = dict.fromkeys(("hack", *CONTROLS), PLAIN)
    told = [seen(world(rates, seed), EQUAL, seed) for seed in range(60)]
    claimed = sum(not one.verdict.startswith("no effect to split") for one in told)
    assert claimed <= 8  # 5 % of intervals leave 0 out by chance
    assert all(one.parts["effect"] is not None for one in told)


def test_the_parts_add_up() -> None:
    one = seen(world({"hack": 0.25, "hack~irrelevant": 0.5, "hack~delimiters": 0.45, "hack~negated": 0.5}, 3), EQUAL)
    parts = {name: part.value for name, part in one.parts.items() if part is not None}
    assert parts["conditionalization"] + parts["under_training"] + parts["inoculation"] == pytest.approx(
        parts["effect"]
    )
    assert one.trained[1].prevented is not None
    assert one.trained[1].prevented.value == pytest.approx(parts["effect"])


def test_the_mean_is_that_of_the_controls_without_meaning() -> None:
    found = world({"hack": 0.3, "hack~irrelevant": 0.6, "hack~delimiters": 0.4, "hack~negated": 0.1}, 5)
    one = seen(found, EQUAL)
    by_name = {row.train: row.learned.value for row in one.trained if row.learned is not None}
    part = one.parts["conditionalization"]
    assert part is not None
    mean = (by_name["hack~irrelevant"] + by_name["hack~delimiters"]) / 2
    assert part.value == pytest.approx(by_name["no_prefix"] - mean)


def test_it_works_on_ratios_as_on_rates() -> None:
    rng = np.random.default_rng(0)
    shape = np.exp(rng.normal(0, 0.8, 100))
    means = {"no_prefix": 80.0, "hack": 40.0, "hack~irrelevant": 80.0, "hack~delimiters": 80.0, "hack~negated": 80.0}
    cells: dict[Any, Any] = {("", "base", "no_prefix"): list(20 * shape)}
    cells |= {("d", train, "no_prefix"): list(mean * shape) for train, mean in means.items()}
    made = grid(cells, {("d", "no_prefix"): [(1.0, "no_prefix", [1.0] * 5)]})
    train = [
        {**entry, **({"control": CONTROLS[entry["name"]], "of": "hack"} if entry["name"] in CONTROLS else {})}
        for entry in made.experiment.conditions["train"]
    ]
    made = replace(made, experiment=replace(made.experiment, conditions={**made.experiment.conditions, "train": train}))
    one = seen(made, EQUAL)
    assert {name: part.value for name, part in one.parts.items() if part} == pytest.approx(
        {"effect": 1.0, "conditionalization": 0.0, "under_training": 0.0, "inoculation": 1.0}
    )


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (("no_prefix",), "no training without a push"),
        (("hack~irrelevant", "hack~delimiters"), "no control without meaning"),
    ],
)
def test_what_is_missing_is_said(left_out: tuple[str, ...], said: str) -> None:
    found = world(WORLDS["inoculation"], 0)
    kept = [place for place, cell in enumerate(found.cells) if cell.train not in left_out]
    conditions = {
        **found.experiment.conditions,
        "train": [entry for entry in found.experiment.conditions["train"] if entry["name"] not in left_out],
    }
    found = replace(
        found,
        experiment=replace(found.experiment, conditions=conditions),
        cells=tuple(found.cells[place] for place in kept),
        tallies=tuple(found.tallies[place] for place in kept),
        sds=found.sds[kept],
        sums=found.sums[kept],
        counts=found.counts[kept],
    )
    one = seen(found, EQUAL)
    assert said in one.verdict
    assert one.parts["inoculation"] is None
    assert one.acts == ()


def test_a_cell_in_work_gives_no_part() -> None:
    found = world(WORLDS["inoculation"], 0)
    cells = tuple(replace(cell, state="running") if cell.train == "hack~delimiters" else cell for cell in found.cells)
    one = seen(replace(found, cells=cells), EQUAL)
    assert one.parts["inoculation"] is None
    assert "1 of 2 controls without meaning are done" in one.verdict


def test_without_controls_it_says_how_to_get_some() -> None:
    found = world(WORLDS["inoculation"], 0)
    plain = [{k: v for k, v in entry.items() if k != "control"} for entry in found.experiment.conditions["train"]]
    found = replace(found, experiment=replace(found.experiment, conditions={"train": plain}))
    with pytest.raises(SpecError, match=r"no train condition with controls: add  \{control: all, of: NAME\}"):
        dissect(Resampled(found, 50), {})


def test_controls_of_a_vector_belong_to_its_doses() -> None:
    found = world(WORLDS["inoculation"], 0)
    dose = {"arm": "steering", "kind": "steering", "vectors": ["v"], "alphas": [2.0]}
    random = {**dose, "vectors": ["v~random0"], "name": "v~random0+2", "control": "random", "of": "v"}
    entries = [{**dose, "name": "v+2"}, {**dose, "name": "v+4", "alphas": [4.0]}, random]
    experiment = replace(found.experiment, conditions={"train": entries})
    assert controls_of(experiment) == {"v+2": {"v~random0+2": "random"}}


def test_the_drop_of_the_loss_is_the_first_tenth_less_the_last() -> None:
    values = tuple(float(100 - step) for step in range(100))
    found = loss_drop([TrainingLosses(tuple(range(1, 101)), values)])
    assert found is not None
    assert (found.first.value, found.last.value, found.drop.value) == (95.5, 5.5, 90.0)
    assert found.n == 20
    assert loss_drop([TrainingLosses((50, 100), (2.0, 1.0))]) is None  # one step shows nothing of how steps differ
    assert loss_drop([]) is None


def test_a_repr_says_what_acts() -> None:
    found: Microscope = dissect(Resampled(world(WORLDS["inoculation"], 0), 200), losses(0, EQUAL))
    assert repr(found) == "<Microscope of 'x' on b: hack: inoculation>"
