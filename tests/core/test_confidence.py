"""Intervals of means and rates, against tables and papers, and whether what is made of them holds the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from bench.coverage import WORLDS, Share, together
from bench.grid_intervals import covered
from bench.number_intervals import SINGLES

from windowshift.core.contract.confidence import Z, student_t, wilson
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import mean_summary, paired_means, sampled_means
from windowshift.core.measure.effect import effect_of
from windowshift.core.measure.sampled import Sampled, combined, over_runs


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.70620), (2, 4.30265), (3, 3.18245), (4, 2.77645), (5, 2.57058), (9, 2.26216), (30, 2.04227), (99, 1.98422)],
)
def test_students_t_is_that_of_the_tables(degrees: int, expected: float) -> None:
    assert student_t(degrees) == pytest.approx(expected, rel=3e-4)
    assert student_t(degrees + 1) < student_t(degrees + 0.5) < student_t(degrees)
    assert student_t(math.inf) == pytest.approx(Z)


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [(0, 100, 0.0, 0.03699), (1, 100, 0.00177, 0.05449), (50, 100, 0.40383, 0.59617), (100, 100, 0.96301, 1.0)],
)
def test_a_rate_has_wilsons_interval(wins: int, n: int, low: float, high: float) -> None:
    found = mean_summary([1.0] * wins + [0.0] * (n - wins), range(n), [False] * n, scale=Scale.rate())
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-5)
    ends = wilson(np.array([wins / n]), np.array([float(n)]))
    assert (found.low, found.high) == pytest.approx((ends[0][0], ends[1][0]))


def test_completions_of_one_prompt_are_no_prompts_of_their_own() -> None:
    """Four completions that agree tell no more than one; four that have nothing in common nearly as much as four."""
    wins = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    one = mean_summary(wins, range(50), [False] * 50, scale=Scale.rate())
    alike = mean_summary(np.repeat(wins, 4), np.repeat(range(50), 4), [False] * 200, scale=Scale.rate())
    apart = np.random.default_rng(1).integers(0, 2, 200).astype(float)
    free = mean_summary(apart, np.repeat(range(50), 4), [False] * 200, scale=Scale.rate())
    widths = [
        found.high - found.low for found in (one, alike, free) if found.high is not None and found.low is not None
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.04)
    assert widths[2] == pytest.approx(widths[0] / 2, rel=0.25)
    none = mean_summary([0.0] * 200, np.repeat(range(50), 4), [False] * 200, scale=Scale.rate())
    assert none.high == pytest.approx(student_t(49) ** 2 / (50 + student_t(49) ** 2))


def test_a_difference_of_rates_is_newcombes() -> None:
    """His example (1998): 36 prompts positive twice, 12 and 2 once, none never."""
    first = [1.0] * 36 + [1.0] * 12 + [0.0] * 2
    second = [1.0] * 36 + [0.0] * 12 + [1.0] * 2
    pair = paired_means(first, range(50), second, range(50))
    assert pair is not None
    found = effect_of(Scale.rate(), pair).effect
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)


def test_no_difference_of_two_rates_of_none_is_no_certainty() -> None:
    pair = paired_means([0.0] * 100, range(100), [0.0] * 100, range(100))
    assert pair is not None
    found = effect_of(Scale.rate(), pair)
    assert found.effect is not None
    assert found.effect.interval == pytest.approx((-0.03699, 0.03699), abs=2e-5)
    assert found.link is not None
    assert found.link.low is not None
    assert found.link.low < -2


def test_log_odds_of_a_rate_near_an_end_cover_it() -> None:
    """From ½ to 1 %: the resamples of 0 of 100 are all 0 of 100, and covered 64 % of the time."""
    rng, held, runs = np.random.default_rng(0), 0, 300
    truth = math.log(0.01 / 0.99)
    for _ in range(runs):
        wins = [(rng.random(100) < rate).astype(float) for rate in (0.01, 0.5)]
        pair = paired_means(wins[0], range(100), wins[1], range(100))
        assert pair is not None
        found = effect_of(Scale.rate(), pair).link
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.91 <= held / runs <= 1.0


def test_draws_have_the_ends_of_their_intervals_as_percentiles_and_keep_what_cancels() -> None:
    rng = np.random.default_rng(3)
    scores = np.stack([rng.lognormal(4, 1, 60), rng.lognormal(5, 0.5, 60)])
    scores = np.vstack([scores, 3 * scores[:1]])
    for scale in (Scale.ratio(), Scale.difference()):
        found = sampled_means(scale, scores, np.ones_like(scores))
        low, high = np.percentile(found.draws, [2.5, 97.5], axis=0)
        assert low == pytest.approx(found.low, rel=1e-4)
        assert high == pytest.approx(found.high, rel=1e-4)
        assert found.draws[:, 2] / found.draws[:, 0] == pytest.approx(3.0)
    rates = np.array([[1.0] * 5 + [0.0] * 55, [0.0] * 60])
    found = sampled_means(Scale.rate(), rates, np.ones_like(rates))
    low, high = np.percentile(found.draws, [2.5, 97.5], axis=0)
    assert high == pytest.approx(found.high, rel=0.02)
    assert low[0] == pytest.approx(found.low[0], rel=0.02)
    assert 0 < low[1] < 1e-4


def test_runs_widen_by_students_t_and_leave_what_they_share() -> None:
    """Two runs that differ by much say little; runs that are alike leave the interval over prompts."""
    low, high = over_runs(0.0, -0.1, 0.1, [0.9, -0.9], 0.0)
    assert high == pytest.approx(student_t(1) * 0.9)
    assert over_runs(0.0, -0.1, 0.1, [0.0, 0.0], 1.0) == pytest.approx((-0.1, 0.1))
    low, high = over_runs(0.0, -0.1, 0.3, [0.2, 0.1, 0.0], 1.0)
    assert -low < high


@pytest.mark.parametrize(("apart", "binds"), [(0.0, True), (0.002, True), (0.2, False)])
def test_runs_that_happen_to_be_alike_are_no_narrower_than_sampling_makes_them(apart: float, binds: bool) -> None:
    """Three runs of 90 answers each, all with 88 hits: their rate has the interval of 270 answers, not of width 0."""
    rng = np.random.default_rng(0)
    answers = np.array([1.0] * 88 + [0.0] * 2)
    runs = [
        Sampled(88 / 90 + move, rng.choice(answers, (4000, 90)).mean(1) + move, 90, 90, True)
        for move in (-apart, 0.0, apart)
    ]
    pooled = np.mean([run.draws for run in runs], axis=0)
    whole = Sampled(88 / 90, pooled, 270, 90, True, runs=tuple(runs))
    low, high = np.percentile(pooled, [2.5, 97.5])
    assert whole.in_common < 0.3
    found = whole.estimate
    assert found is not None
    assert found.interval is not None
    if binds:
        assert found.interval == pytest.approx((low, high))
        assert high - low > 0.02
    else:
        assert found.interval[0] < low < high < found.interval[1]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_an_interval_over_runs_is_never_narrowed(level: float) -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        runs = rng.normal(0, rng.choice([0, 0.01, 1.0]), int(rng.integers(2, 6)))
        low, high = over_runs(0.0, -0.1, 0.3, list(runs), rng.random(), level)
        assert low <= -0.1
        assert high >= 0.3


def test_a_difference_is_paired_by_run() -> None:
    """Two rows that every run moves alike differ by what they differ by in each of the runs."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.01, 2000)

    def row(value: float, *runs: float) -> Sampled:
        own = tuple(Sampled(run, run + draws, 10, 10, True) for run in runs)
        return Sampled(value, value + draws, 10, 10, True, runs=own)

    first, second = row(1.0, 0.5, 1.5), row(2.0, 1.5, 2.5)
    found = second.minus(first).estimate
    assert found is not None
    assert found.interval == pytest.approx((1.0, 1.0), abs=1e-9)
    assert found.seeds == 2
    alone = first.estimate
    assert alone is not None
    assert alone.high is not None
    assert alone.high > 7  # 12.7 times half a unit
    assert combined((first, Sampled(reason="gone")), lambda both: both[0]).reason == "gone"


SURE = {"predicted R²", "missing scores, worst case"}
"""The one is bounded by 1, which its upper end often is; the other is a bound: they hold the truth more often."""


def _all_hold(found: dict[str, Share], lowest: float) -> None:
    """Whether every interval holds the truth as often as it should, but for what chance does to so many cases."""
    assert found
    for name, share in found.items():
        # Where all hold, or none, cases say nothing of how they differ.
        slack = 3.5 * max(share.error, math.sqrt(0.05 * 0.95 / share.cases) if share.asked < 3 * share.cases else 0.008)
        assert share.held / share.asked >= lowest - slack, (name, share)
        if name not in SURE and share.asked > 20 * share.cases:
            assert share.held / share.asked <= 0.99, (name, share)


@pytest.mark.parametrize("name", ["prompts alone", "phrases", "3 runs, high noise", "rates"])
def test_intervals_hold_the_truth(name: str) -> None:
    """A quick look at what `make coverage` counts in full: by chance alone a share may be off by a few."""
    world = replace(WORLDS[name], prompts=60, steered=name == "prompts alone")
    grids = 20 if world.seeds == 1 else 6
    _all_hold(together(covered(world, seed, resamples=300) for seed in range(grids)), 0.93)


@pytest.mark.parametrize("group", list(SINGLES))
def test_intervals_beside_the_grid_hold_the_truth(group: str) -> None:
    for case in SINGLES[group]:
        _all_hold(together(case(60, seed) for seed in range(12)), 0.93)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORLDS))
def test_coverage_at_length(name: str) -> None:
    """What `make coverage` counts over 400 grids, over 60: 93 to 97 %, and what chance leaves of so many.

    Over several runs it may be more, for an interval is never narrower than sampling alone makes it.
    """
    _all_hold(together(covered(WORLDS[name], seed) for seed in range(60)), 0.93)


@pytest.mark.slow
@pytest.mark.parametrize("group", list(SINGLES))
def test_coverage_beside_the_grid_at_length(group: str) -> None:
    for case in SINGLES[group]:
        _all_hold(together(case(100, seed) for seed in range(80)), 0.93)


def test_a_share_says_how_well_it_is_known() -> None:
    """Intervals of one case are alike: what counts is how cases differ."""
    found = together([{"x": (4, 4)}, {"x": (0, 4)}, {"x": (4, 4)}, {"x": (4, 4)}])["x"]
    assert (found.held, found.asked, found.cases, found.percent) == (12, 16, 4, 75.0)
    assert found.error == pytest.approx(math.sqrt(3 * 1 + 9) / 16)
    none = together([{"x": (3, 3)}] * 5)["x"]
    assert none.error == 0.0
