from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import (
    Estimate,
    intervals,
    mean_summary,
    ols,
    paired_means,
    plain_means,
    resampled_means,
    sampled_means,
    weight_blocks,
)
from windowshift.core.measure.effect import effect_of


def test_summary_by_hand() -> None:
    found = mean_summary([1.0, 2.0, None, 6.0], [10, 11, 12, 13], [False, True, True, False])
    assert (found.n, found.missing, found.truncated) == (3, 1, 1)
    assert found.mean == pytest.approx(3.0)
    assert found.sd == pytest.approx(math.sqrt(7))
    assert found.low is not None
    assert found.high is not None
    reach = 4.302653 * math.sqrt(7 / 3)  # Student's t of 2 degrees of freedom: three prompts say little
    assert (found.low, found.high) == pytest.approx((3 - reach, 3 + reach))


@pytest.mark.parametrize(
    ("values", "clusters"), [([], []), ([5.0], [1]), ([None, float("nan")], [1, 2]), ([4.0, 6.0], [1, 1])]
)
def test_too_little_for_an_interval(values: list[float | None], clusters: list[int]) -> None:
    found = mean_summary(values, clusters, [False] * len(values))
    assert found.low is None
    assert found.high is None
    assert found.n == sum(value is not None and not math.isnan(value) for value in values)
    assert (found.mean is None) == (found.n == 0)


def test_constant_scores_have_no_width() -> None:
    found = mean_summary([3.0] * 50, range(50), [False] * 50)
    assert (found.low, found.high, found.sd) == (3.0, 3.0, 0.0)


def test_the_same_call_gives_the_same_numbers_and_rows_may_come_in_any_order() -> None:
    rng = np.random.default_rng(0)
    values, order = rng.lognormal(4, 0.5, 200), rng.permutation(200)
    first = mean_summary(values, np.arange(200), np.zeros(200))
    assert mean_summary(values, np.arange(200), np.zeros(200)) == first
    again = mean_summary(values[order], np.arange(200)[order], np.zeros(200))
    assert again.low == pytest.approx(first.low)
    assert mean_summary(values, np.arange(200), np.zeros(200), seed=1) != first


def test_clusters_widen_the_interval() -> None:
    prompts = np.random.default_rng(1).normal(100, 20, 50)
    values = np.repeat(prompts, 4)  # four seeds that answer alike tell no more than one
    clustered = mean_summary(values, np.repeat(np.arange(50), 4), np.zeros(200))
    single = mean_summary(prompts, np.arange(50), np.zeros(50))
    assert clustered.low == pytest.approx(single.low)
    assert clustered.high == pytest.approx(single.high)


def test_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(50, 10, 400)
    found = mean_summary(values, np.arange(400), np.zeros(400))
    assert found.high is not None
    assert found.low is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / 20, rel=0.08)


def test_coverage_is_near_95_percent() -> None:
    rng, covered, trials, mean = np.random.default_rng(3), 0, 400, math.exp(4 + 0.5 * 0.4**2)
    for _ in range(trials):
        found = mean_summary(rng.lognormal(4, 0.4, 100), np.arange(100), np.zeros(100), resamples=500)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= mean <= found.high
    assert 0.91 <= covered / trials <= 0.98


def effect(scale: Scale, own: Any, other: Any) -> Estimate | None:
    pair = paired_means(*own, *other)
    return effect_of(scale, pair).effect if pair else None


def test_a_comparison_is_paired_by_prompt() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.lognormal(5, 1, 150)
    mine, base = difficulty * rng.lognormal(-0.5, 0.05, 150), difficulty
    found = effect(Scale.ratio(), (mine, range(150)), (base[::-1], range(149, -1, -1)))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(math.log2(mine.mean() / base.mean()))
    assert found.high - found.low < 0.1  # unpaired it would be about 0.6
    swapped = effect(Scale.ratio(), (base, range(150)), (mine, range(150)))
    assert swapped is not None
    assert swapped.value == pytest.approx(-found.value)
    assert swapped.low == pytest.approx(-found.high)


def test_comparisons_by_hand() -> None:
    a, b = ([2.0, 4.0, 100.0], [1, 2, 3]), ([1.0, 2.0, 100.0], [1, 2, 4])
    pair = paired_means(*a, *b)
    assert pair is not None
    assert (pair.mean, pair.other, pair.n, pair.other_n, pair.prompts) == (3.0, 1.5, 2, 2, 2)
    for scale, expected in ((Scale.difference(), 1.5), (Scale.ratio(), 1.0)):
        found = effect(scale, a, b)
        assert found is not None
        assert found.value == pytest.approx(expected)
        assert found.n == 2
    change = effect_of(Scale.ratio(), pair).change
    assert change is not None
    assert change.value == pytest.approx(100)
    assert paired_means([1.0], [1], [1.0], [1]) is None
    assert effect(Scale.ratio(), ([1.0, 1.0], [1, 2]), ([0.0, 0.0], [1, 2])) is None


def test_a_prompt_keeps_its_weights_where_others_are_missing() -> None:
    """So that a cell's own page and the grid, which has every prompt, show one interval for one number."""
    rng = np.random.default_rng(6)
    own, base = rng.lognormal(4, 1, 60), rng.lognormal(4, 1, 60)
    own[:7], base[50:] = np.nan, np.nan
    pair = paired_means(own, range(60), base, range(60))
    assert pair is not None
    there = np.isfinite(own) & np.isfinite(base)
    sums = np.where(there, np.stack([own, base]), 0.0)
    drawn = sampled_means(Scale.ratio(), sums, np.stack([there, there]).astype(float))
    assert np.array_equal(pair.on(Scale.ratio()).draws, drawn.draws)


def test_spread_by_hand() -> None:
    means = np.array([[1.0, 3.0], [2.0, 2.0]])
    assert Scale.ratio().spread(means) == pytest.approx([0.5, 0.0])
    assert Scale.difference().spread(means) == pytest.approx([1.0, 0.0])
    assert np.isnan(Scale.ratio().spread(np.array([1.0, -1.0])))


SCORES = {
    "0 or 1": st.sampled_from([0.0, 1.0]),
    "share": st.floats(0, 1),
    "skewed": st.floats(-3, 6).map(lambda x: math.exp(2 * x)),
    "negative": st.floats(-1e6, -1e-6),
}
SCALES = {
    "0 or 1": Scale.rate(), "share": Scale.rate(), "skewed": Scale.ratio(), "negative": Scale.difference()
}  # fmt: skip


@pytest.mark.parametrize("kind", SCORES)
@given(data=st.data())
def test_a_shown_value_lies_inside_its_shown_interval(kind: str, data: st.DataObject) -> None:
    scale, n = SCALES[kind], data.draw(st.integers(2, 30))
    own, base = (data.draw(st.lists(SCORES[kind], min_size=n, max_size=n)) for _ in range(2))
    summary = mean_summary(own, range(n), [False] * n, resamples=100)
    pair = paired_means(own, range(n), base, range(n), resamples=100)
    assert pair is not None
    found, words = effect_of(scale, pair), scale.words
    shown = (
        (summary.estimate, words.value_format),
        (found.effect, words.effect_format),
        (found.link, words.link_format),
        (found.change, words.change_format),
    )
    for one, form in shown:
        if one is None or one.low is None or one.high is None:
            continue
        assert one.low <= one.value <= one.high
        for narrow in (False, True):
            value = read(form.text(one.value, narrow=narrow))
            low, high = map(read, form.interval(one, narrow=narrow)[1:-1].split(", "))
            assert low <= value <= high


def read(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").removeprefix("×"))


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_a_line_is_recovered(slope: float, intercept: float) -> None:
    x = np.array([-1.0, 0.0, 0.5, 2.0])
    found, at, r2 = ols(x, slope * x + intercept)
    assert found == pytest.approx(slope, abs=1e-9)
    assert at == pytest.approx(intercept, abs=1e-9)
    assert np.isnan(r2) or r2 == pytest.approx(1.0)


def test_line_by_hand_and_no_line() -> None:
    slope, intercept, r2 = ols(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]))
    assert [float(slope), float(intercept), float(r2)] == pytest.approx([0.0, 1 / 3, 0.0])
    assert np.isnan(ols(np.full(3, 0.1), np.arange(3.0))[0])
    assert np.isnan(ols(np.arange(3.0), np.full(3, 0.1))[2])


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(2, 256))
def test_weights_of_a_prompt_do_not_depend_on_the_others(resamples: int, n: int) -> None:
    whole = np.vstack(list(weight_blocks(n, resamples, 0)))
    assert whole.shape == (resamples, n)
    fewer = np.vstack(list(weight_blocks(n - 1, resamples, 0)))
    assert (whole[:, :-1] == fewer).all()


def test_many_prompts_go_in_blocks() -> None:
    blocks = list(weight_blocks(10_000, 600, 0))
    assert len(blocks) > 1
    assert sum(len(block) for block in blocks) == 600
    sums = np.random.default_rng(0).normal(5, 1, (2, 10_000))
    means = resampled_means(sums, np.ones_like(sums), 600)
    assert means.shape == (600, 2)
    assert means.mean(axis=0) == pytest.approx([5, 5], abs=0.05)


def test_missing_values_weigh_nothing() -> None:
    sums, counts = np.array([[2.0, 0.0, 4.0], [0.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert plain_means(sums, counts)[0] == 3.0
    assert np.isnan(plain_means(sums, counts)[1])
    drawn = resampled_means(sums, counts, 300)
    assert np.nanmin(drawn[:, 0]) == 2.0
    assert np.nanmax(drawn[:, 0]) == 4.0
    low, high = intervals(drawn)
    assert (low[0], high[0]) == (2.0, 4.0)
    assert np.isnan([low[1], high[1]]).all()
