"""Matching on curves whose answers are known, and whether its intervals hold what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.vector_file import Provenance, VectorHeader
from windowshift.core.measure import matching
from windowshift.core.measure.grid import PromptScores
from windowshift.core.measure.matching import Match, match
from windowshift.core.measure.trials import refined_trials

ALPHAS = tuple(float(alpha) for alpha in np.linspace(-3, 3, 13))
PROMPTS = 40


def rows(
    mean: float, prompts: int = PROMPTS, noise: float = 0.0, rng: np.random.Generator | None = None
) -> PromptScores:
    """Scores of one completion a prompt: log-normal around `mean` where there is noise."""
    factor = np.ones(prompts)
    if rng is not None and noise:
        factor = np.exp(rng.normal(-0.5 * noise**2, noise, prompts))
    return np.arange(prompts), mean * factor


def solved(curve: Callable[[float], float], target: float, *, relative: bool = True) -> Match:
    scale = Scale.ratio() if relative else Scale.difference()
    return match(ALPHAS, [rows(curve(alpha)) for alpha in ALPHAS], rows(target), scale=scale)


@settings(max_examples=20)
@given(rate=st.sampled_from([-0.7, -0.2, 0.3, 1.0]), aim=st.floats(-2.95, 2.95))
def test_an_exponential_curve_is_solved_exactly(rate: float, aim: float) -> None:
    """It is a line where means compare by ratio."""
    found = solved(lambda alpha: 40 * math.exp(rate * alpha), 40 * math.exp(rate * aim))
    assert found.alpha == pytest.approx(aim, abs=1e-6)
    assert found.target.value == pytest.approx(40 * math.exp(rate * aim))
    assert (found.curve_low, found.curve_high) == pytest.approx(
        (40 * math.exp(-3 * abs(rate)), 40 * math.exp(3 * abs(rate)))
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("aim", [-1.8, -0.4, 0.0, 0.7, 2.1])
def test_a_bent_curve_is_solved_within_a_percent_of_the_mean(sign: int, aim: float) -> None:
    def curve(alpha: float) -> float:
        return 20 + 200 / (1 + math.exp(-1.2 * sign * alpha))

    found = solved(curve, curve(aim))
    assert found.alpha is not None
    assert curve(found.alpha) == pytest.approx(curve(aim), rel=0.01)


@pytest.mark.parametrize("slope", [0.3, -0.3])
def test_differences_are_solved_on_their_own_scale(slope: float) -> None:
    found = solved(lambda alpha: slope * alpha, slope * 1.3, relative=False)
    assert found.alpha == pytest.approx(1.3, abs=1e-6)
    assert (found.curve_low, found.curve_high) == pytest.approx((-0.9, 0.9))


@pytest.mark.parametrize(("target", "nearest"), [(1e4, 3.0), (1e-3, -3.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_out_of_reach_is_an_answer(target: float, nearest: float, sign: int) -> None:
    found = solved(lambda alpha: 40 * math.exp(sign * 0.5 * alpha), target)
    assert found.alpha is None
    assert (found.alpha_low, found.alpha_high) == (None, None)
    assert found.nearest == sign * nearest
    assert found.curve_low == pytest.approx(40 * math.exp(-1.5))
    assert found.curve_high == pytest.approx(40 * math.exp(1.5))


def test_an_end_of_the_interval_beyond_the_curve_is_open() -> None:
    rng = np.random.default_rng(0)
    points = [rows(40 * math.exp(0.5 * alpha), noise=0.5, rng=rng) for alpha in ALPHAS]
    high = match(ALPHAS, points, rows(40 * math.exp(1.45), noise=0.5, rng=rng), scale=Scale.ratio())
    assert high.alpha_high is None
    assert high.alpha is None or high.alpha_low is not None
    middle = match(ALPHAS, points, rows(40.0, noise=0.5, rng=rng), scale=Scale.ratio())
    assert middle.alpha is not None
    assert middle.alpha_low is not None
    assert middle.alpha_high is not None
    assert middle.alpha_low < middle.alpha < middle.alpha_high


def test_a_point_that_breaks_the_order_is_pooled_with_its_neighbours() -> None:
    """A point that lies off its neighbours' line moves the answer by less than it lies off."""

    def curve(alpha: float) -> float:
        return 40 * math.exp(0.5 * alpha) * (1.3 if alpha == 1 else 1.0)

    found = solved(curve, 40 * math.exp(0.5))
    assert found.alpha is not None
    shift = abs(found.alpha - 1.0)
    assert 0 < shift < 0.6 * math.log(1.3) / 0.5


@settings(max_examples=60)
@given(values=st.lists(st.floats(-50, 50), min_size=1, max_size=12), rising=st.booleans())
def test_monotone_values_are_the_nearest_ones(values: list[float], rising: bool) -> None:
    given_values = np.array(values)
    found = matching.monotone(given_values, rising)
    steps = np.diff(found)
    assert (steps >= -1e-9).all() if rising else (steps <= 1e-9).all()
    assert found.sum() == pytest.approx(given_values.sum(), abs=1e-6)
    again = matching.monotone(found, rising)
    assert np.allclose(again, found, atol=1e-9)
    # No monotone sequence is nearer: neither a line of the overall mean nor the sorted values.
    error = float(((found - given_values) ** 2).sum())
    for other in (np.full(len(values), given_values.mean()), np.sort(given_values)[:: 1 if rising else -1]):
        assert error <= float(((other - given_values) ** 2).sum()) + 1e-6


def test_a_curve_that_turns_is_still_solved_where_it_is_steep() -> None:
    found = solved(lambda alpha: 40 * math.exp(0.5 * min(alpha, 2.0) - 0.1 * max(alpha - 2.0, 0.0)), 40 * math.exp(0.3))
    assert found.alpha == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("low", [-3.0, -0.5])
def test_the_interval_covers_the_truth(low: float) -> None:
    """In about 95 % of simulated experiments, also where the curve is measured unevenly on both sides."""
    rng = np.random.default_rng(7)
    alphas = [low * (6 - k) / 6 for k in range(6)] + [3.0 * k / 6 for k in range(7)]
    truth, rate, runs = 0.8, 0.4, 120
    inside = 0
    for _ in range(runs):
        # Prompts differ among themselves, in the same way under every alpha: pairing matters.
        own = np.exp(rng.normal(0, 0.4, 48))

        def drawn(alpha: float, own: np.ndarray = own) -> PromptScores:  # type: ignore[type-arg]
            mean = 40 * math.exp(rate * alpha) * own
            return np.arange(48), mean * np.exp(rng.normal(-0.045, 0.3, 48))

        found = match(alphas, [drawn(alpha) for alpha in alphas], drawn(truth), scale=Scale.ratio())
        assert found.alpha_low is not None
        assert found.alpha_high is not None
        inside += found.alpha_low <= truth <= found.alpha_high
    # Three standard errors of a share of 95 % among these runs, and some for a percentile interval's optimism.
    assert 0.87 <= inside / runs <= 1.0


@pytest.mark.parametrize("prompts", [50, 200])
def test_more_prompts_bring_the_matched_mean_nearer_and_the_interval_holds(prompts: int) -> None:
    """A curve that bends, measured at few doses: a smoother was off by the same 7 to 17 % however many prompts."""
    rng = np.random.default_rng(3)
    alphas = [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0]

    def curve(alpha: float) -> float:
        return 30 + 400 / (1 + math.exp(-2.0 * (alpha - 0.5)))

    runs, reached, held = 40, [], 0
    for run in range(runs):
        aim = (-1.5, 0.25, 0.75, 1.2)[run % 4]
        own = np.exp(rng.normal(-0.08, 0.4, prompts))

        def drawn(alpha: float, own: np.ndarray = own) -> PromptScores:  # type: ignore[type-arg]
            return np.arange(prompts), curve(alpha) * own * np.exp(rng.normal(-0.045, 0.3, prompts))

        found = match(alphas, [drawn(alpha) for alpha in alphas], drawn(aim), scale=Scale.ratio())
        assert found.alpha is not None
        reached.append(math.log(curve(found.alpha) / curve(aim)))
        held += (
            found.alpha_low is not None and found.alpha_high is not None and found.alpha_low <= aim <= found.alpha_high
        )
    assert abs(np.mean(reached)) < 0.04
    assert np.std(reached) < 0.55 / math.sqrt(prompts) + 0.02
    assert held / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0.01, 3), st.floats(0.01, 3)), min_size=1, max_size=8), st.floats(0, 1))
def test_the_cubic_is_that_of_scipy(steps: list[tuple[float, float]], share: float) -> None:
    from scipy.interpolate import PchipInterpolator

    x, y = (np.concatenate([[0.0], np.cumsum(part)]) for part in zip(*steps, strict=True))
    place = float(share * x[-1])
    expected = PchipInterpolator(x, y)(place)
    assert matching._pchip(x.tolist(), y.tolist(), place) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


def test_prompts_that_lack_a_score_are_left_out() -> None:
    numbers, scores = rows(40.0)
    scores[::5] = np.nan
    points = [rows(40 * math.exp(0.5 * alpha)) for alpha in ALPHAS]
    assert match(ALPHAS, points, (numbers, scores), scale=Scale.ratio()).alpha == pytest.approx(0, abs=1e-6)


def test_points_at_which_the_model_says_nothing_are_left_out() -> None:
    silent = solved(lambda alpha: 0.0 if alpha < -2 else 40 * math.exp(0.5 * alpha), 40.0)
    assert silent.alpha == pytest.approx(0, abs=1e-6)
    assert silent.curve_low == pytest.approx(40 * math.exp(-1.0))


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(SpecError, match="no dose curve to match on"):
        solved(lambda alpha: 40.0 if alpha > 2.4 else 0.0, 40.0)
    with pytest.raises(SpecError, match="what is to be matched has no score above 0"):
        solved(lambda alpha: 40 * math.exp(alpha), 0.0)
    points = [rows(40 * math.exp(0.5 * alpha)) for alpha in ALPHAS]
    with pytest.raises(SpecError, match="what is to be matched has no score"):
        match(ALPHAS, points, (np.arange(3), np.full(3, np.nan)), scale=Scale.difference())


def test_the_same_rows_give_the_same_match() -> None:
    rng = np.random.default_rng(1)
    points = [rows(40 * math.exp(0.5 * alpha), noise=0.4, rng=rng) for alpha in ALPHAS]
    target = rows(50.0, noise=0.4, rng=rng)
    assert match(ALPHAS, points, target, scale=Scale.ratio()) == match(ALPHAS, points, target, scale=Scale.ratio())


def test_a_refinement_goes_round_the_first_solution_as_far_as_its_interval() -> None:
    header = VectorHeader("v", 1, 4, (2.0,), Provenance("m", "f", "test"), rms=(10.0,))
    first = {"layer": 0, "alpha": -2.0, "alpha_low": -2.1, "alpha_high": -1.8}
    trials = refined_trials({"points": 7}, header, first)
    assert [one.alpha for one in trials] == pytest.approx(
        [-3.0, -2.666667, -2.333333, -2.0, -1.666667, -1.333333, -1.0]
    )
    assert trials[0].dose == pytest.approx(-3.0 * 2 / 10)
    wide = refined_trials({"points": 5}, header, {**first, "alpha_high": 0.0})
    assert [one.alpha for one in wide] == pytest.approx([-6.0, -4.0, -2.0, 0.0, 2.0])
    open_ended = refined_trials({"points": 3}, header, {**first, "alpha_low": None, "alpha_high": None})
    assert [one.alpha for one in open_ended] == pytest.approx([-3.0, -2.0, -1.0])


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "aim"), [(50, -1.2), (200, 0.9)])
def test_a_refined_match_holds_the_truth_and_hardly_leans(
    monkeypatch: pytest.MonkeyPatch, prompts: int, aim: float
) -> None:
    """On prompts of its own, at alphas that the first solution chose: neither biases the second."""
    monkeypatch.setattr(matching, "RESAMPLES", 400)
    header = VectorHeader("v", 1, 4, (1.0,), Provenance("m", "f", "test"), rms=(1.0,))

    def curve(alpha: float) -> float:
        return math.exp(4.5 + 1.1 * math.tanh(0.7 * alpha + 0.2))

    held, reached, missed, runs = 0, [], 0, 100
    for seed in range(runs):
        rng = np.random.default_rng(seed)

        def drawn(alphas: Sequence[float], rng: np.random.Generator = rng) -> Match:
            ease = rng.normal(0, 0.56, prompts)  # another set of prompts each time, the same under every alpha

            def scores(mean: float) -> PromptScores:
                noise = rng.normal(0, 0.6, prompts)
                return np.arange(prompts), mean * np.exp(ease + noise - (0.56**2 + 0.6**2) / 2)

            return match(alphas, [scores(curve(alpha)) for alpha in alphas], scores(curve(aim)), scale=Scale.ratio())

        first = drawn(ALPHAS)
        if first.alpha is None:
            missed += 1
            continue
        solution = {"layer": 0, "alpha": first.alpha, "alpha_low": first.alpha_low, "alpha_high": first.alpha_high}
        found = drawn([one.alpha for one in refined_trials({"points": 7}, header, solution)])
        if found.alpha is None:
            missed += 1
            continue
        low, high = found.alpha_low, found.alpha_high
        held += (low is None or low <= aim) and (high is None or aim <= high)
        reached.append(curve(found.alpha) / curve(aim))
    assert missed <= 0.06 * runs
    assert 0.90 <= held / (runs - missed) <= 1.0
    assert np.mean(reached) == pytest.approx(1, abs=0.04)
