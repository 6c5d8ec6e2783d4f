"""Controls of a steering vector: what they do beside the real one, and the real one among random directions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE, Behaviour, CellRow, ExperimentRow
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.grid import Grid, Tally
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.steering_results import SteeringResults
from windowshift.core.measure.vector_controls import ControlEffect, control_effects, random_directions
from windowshift.core.report.steering_blocks import control_blocks
from windowshift.core.report.steering_json import steering_json
from windowshift.core.report.text import draw

PROMPTS = 200
CHARACTERS = Behaviour("score", "characters", Scale.ratio())
CONTROLS = {"noise": ("random", "v"), "back": ("flipped", "v"), "side": ("orthogonal", "v")}


def condition(name: str, vector: str, alpha: float = 1.0) -> dict[str, Any]:
    return {
        "name": name, "arm": "steering", "kind": "steering", "vectors": [vector], "alphas": [alpha], "span": None,
        "match": None, "unit": "alpha", "tokens": "all", "ablate": False, "prefix": None,
    }  # fmt: skip


ENTRIES = [
    condition("v+1", "v"),
    condition("noise+1", "noise"),
    condition("back+1", "back"),
    condition("side+1", "side"),
]


def grid(factors: dict[tuple[str, str], float], noise: float = 0.05, cut: int = 0) -> Grid:
    """Cells (train, evaluate) of the steering arm whose means are these factors of the base model's without a push."""
    rng = np.random.default_rng(0)
    ease = np.exp(rng.normal(0, 0.5, PROMPTS))
    cells, sums = [], []
    for number, ((train, evaluate), factor) in enumerate(factors.items()):
        base = train == BASE
        generate = "" if base else "d"
        cells.append(
            CellRow(
                number, "steering", generate, train, evaluate, 0, 0 if base else 9, True, number, "done", 9, 9, None
            )
        )
        sums.append(100 * factor * ease * np.exp(rng.normal(-(noise**2) / 2, noise, PROMPTS)))
    plain = {"name": "no_prefix", "kind": "none", "arm": "steering"}
    trained = [{**entry, "generate": "d"} for entry in ENTRIES]
    experiment = ExperimentRow(
        1, "hand-made", "done", "length", "none", False, "none", (Behaviour("score", "", Scale.ratio()),),
        {"generate": [{"name": "d", "arm": "prefix"}], "train": trained, "evaluate": [plain, *ENTRIES], "base": []},
        {"train": "user", "evaluate": "user"}, 9, 0.0, None, None, None,
    )  # fmt: skip
    values = np.array(sums)
    return Grid(
        experiment, experiment.behaviours[0], tuple(cells), tuple(Tally(PROMPTS, cut, 0, 0) for _ in cells),
        values.std(axis=1, ddof=1), values, np.ones_like(values), (), np.zeros((0, 1)), np.zeros((0, 1)),
    )  # fmt: skip


def effects(factors: dict[tuple[str, str], float], cut: int = 0) -> dict[tuple[str, str | None], ControlEffect]:
    found = control_effects(CONTROLS, Resampled(grid(factors, cut=cut), 300))
    return {(one.condition, one.generate): one for one in found}


BASE_MODEL = {
    (BASE, "no_prefix"): 1.0, (BASE, "v+1"): 2.0, (BASE, "noise+1"): 1.02, (BASE, "back+1"): 0.6, (BASE, "side+1"): 1.5,
}  # fmt: skip
TUNED = {("v+1", "no_prefix"): 1.1, ("noise+1", "no_prefix"): 1.6, ("back+1", "no_prefix"): 1.9}


def test_the_verdict_of_a_control_goes_by_the_ends_of_its_interval() -> None:
    found = effects(BASE_MODEL)
    noise, back, side = (found[name, None] for name in ("noise+1", "back+1", "side+1"))
    assert noise.real == back.real == side.real == "v+1"
    assert noise.effect is not None
    assert noise.effect.value == pytest.approx(math.log2(1.02), abs=0.02)
    assert noise.real_effect is not None
    assert noise.real_effect.value == pytest.approx(1.0, abs=0.02)
    assert noise.share is not None
    assert noise.share.high is not None
    assert noise.share.value == pytest.approx(abs(noise.effect.value / noise.real_effect.value))
    assert noise.share.high < 0.25
    assert (noise.verdict, back.verdict, side.verdict) == ("inert", "opposite", "acts")
    # What is uncertain is open, however small it looks: its interval reaches over a quarter.
    few = grid(
        {key: value for key, value in BASE_MODEL.items() if key[1] in ("no_prefix", "v+1", "noise+1")}, noise=2.0
    )
    wide = {one.condition: one for one in control_effects(CONTROLS, Resampled(few, 300))}
    assert wide["noise+1"].verdict == "open"
    assert wide["side+1"].effect is wide["side+1"].verdict is None  # not there


def test_a_flipped_vector_that_pushes_the_same_way_is_not_opposite() -> None:
    found = effects({**BASE_MODEL, (BASE, "back+1"): 1.4})
    assert found["back+1", None].verdict == "open"


def test_fine_tunes_under_controls_stand_beside_those_under_the_real_vector() -> None:
    found = effects({**BASE_MODEL, **TUNED})
    noise = found["noise+1", "d"]
    assert noise.effect is not None
    assert noise.real_effect is not None
    assert noise.difference is not None
    assert noise.effect.value == pytest.approx(math.log2(1.6), abs=0.02)
    assert noise.difference.value == pytest.approx(math.log2(1.6 / 1.1), abs=0.02)
    assert noise.difference.low is not None
    assert noise.difference.low > 0
    assert noise.verdict == "acts"
    assert ("side+1", "d") not in found  # nothing is trained under it
    assert not any(one.generate for one in effects(BASE_MODEL).values())


def made(values: list[float], real: tuple[float, float, float]) -> list[ControlEffect]:
    effect = Estimate(real[0], real[1], real[2], 50)
    return [
        ControlEffect(f"n{n}", "random", "v+1", Estimate(one, one - 1, one + 1, 50), effect, None)
        for n, one in enumerate(values)
    ]


def test_the_range_of_random_directions_is_that_of_one_more() -> None:
    values = [float(n) for n in range(1, 11)]
    (found,) = random_directions(made(values, (14.0, 13.0, 15.0)))
    # By hand: mean 5.5, s² = 82.5 / 9, t(9) = 2.262157.
    width = 2.262157 * math.sqrt(82.5 / 9) * math.sqrt(1.1)
    assert (found.directions, found.mean) == (10, 5.5)
    assert (found.low, found.high) == pytest.approx((5.5 - width, 5.5 + width), abs=1e-5)
    assert found.p == 1 / 11
    assert found.verdict == "beyond"


@pytest.mark.parametrize(
    ("real", "verdict", "rank"),
    [
        ((14.0, 12.0, 16.0), "open", 1),  # the nearer end lies in the range, which ends at 12.68
        ((9.6, 9.0, 10.2), "within", 3),
        ((-3.0, -4.0, -1.9), "beyond", 1),
        ((5.5, 5.0, 6.0), "within", 11),
    ],
)
def test_the_verdict_goes_by_the_end_that_is_nearer(real: tuple[float, float, float], verdict: str, rank: int) -> None:
    (found,) = random_directions(made([float(n) for n in range(1, 11)], real))
    assert found.verdict == verdict
    assert found.p == pytest.approx(rank / 11)


def test_fewer_than_ten_directions_decide_nothing_and_one_is_no_distribution() -> None:
    (few,) = random_directions(made([0.0, 0.1, -0.1], (9.0, 8.0, 10.0)))
    assert few.verdict == "few"
    assert not list(random_directions(made([0.0], (9.0, 8.0, 10.0))))
    flipped = [replace(one, control="flipped") for one in made([float(n) for n in range(12)], (9.0, 8.0, 10.0))]
    assert not list(random_directions(flipped))


def test_tables_say_n_interval_verdict_and_what_was_cut_off() -> None:
    found = tuple(effects({**BASE_MODEL, **TUNED}, cut=3).values())
    nulls = tuple(random_directions(made([float(n) for n in range(1, 11)], (14.0, 13.0, 15.0))))
    results = SteeringResults(controls=found, random=nulls)
    text = draw(list(control_blocks(results, Behaviour("score", "characters", Scale.ratio()))), 220)
    row = next(line for line in text.splitlines() if line.startswith("noise+1"))
    assert "inert" in row
    assert row.count("†") == 3  # the effect, the real one's, and the share
    tuned = [replace(one, share=None) for one in found if one.generate is not None and one.difference is not None]
    alone = draw(list(control_blocks(replace(results, controls=tuple(tuned)), CHARACTERS)), 220).splitlines()
    assert next(line for line in alone if line.startswith("noise+1")).count("†") == 3  # a difference, without a share
    lacking = draw(list(control_blocks(replace(results, controls=(replace(found[0], effect=None),)), CHARACTERS)), 220)
    assert "—†" not in lacking
    assert row.rstrip().endswith(str(PROMPTS))
    assert "Fine-tunes under controls, without a push" in text
    assert "beyond them" in text
    assert "completions that were truncated at the token limit" in text
    told = steering_json(results)
    assert [one["verdict"] for one in told["random"]] == ["beyond"]
    assert {one["verdict"] for one in told["controls"]} >= {"inert", "acts", "opposite"}
    plain = draw(list(control_blocks(replace(results, controls=tuple(effects(BASE_MODEL).values())), CHARACTERS)), 220)
    assert "†" not in plain
