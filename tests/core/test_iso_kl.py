"""Iso-KL on curves whose answers are known: the percentile, the search, and whether its interval holds the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from windowshift.core.contract.reading import KL_TOLERANCE
from windowshift.core.contract.stats import Floats
from windowshift.core.measure.iso_kl import IsoKl, IsoKlSearch, KlPoint, kl_at, resampled_tails, tail

Curve = Callable[[float], Sequence[Floats]]


def searched(nats: float, curve: Curve, start: float = 0.1, most: float = 6.4) -> tuple[IsoKl, list[float]]:
    search, asked = IsoKlSearch(nats, start, most), []
    while (alpha := search.next()) is not None:
        asked.append(alpha)
        search.add(alpha, curve(alpha))
    return search.found(200), asked


def parabola(shares: Sequence[Floats]) -> Curve:
    """KL grows by the square of alpha, by another factor at every token."""
    return lambda alpha: [alpha * alpha * one for one in shares]


def test_the_percentile_is_the_smallest_that_95_of_100_do_not_exceed() -> None:
    hundred = np.arange(1.0, 101.0)
    assert tail([hundred]) == 95.0
    assert tail([hundred[:50], hundred[50:]]) == 95.0
    assert tail([np.array([3.0])]) == 3.0
    assert tail([np.arange(1.0, 21.0)]) == 19.0
    assert tail([np.arange(1.0, 22.0)]) == 20.0  # 19 of 21 are 90.5 %


def test_resampled_percentiles_are_those_of_prompts_as_often_as_drawn() -> None:
    random = np.random.default_rng(0)
    values = [random.exponential(size=n) for n in (7, 40, 1, 22)]
    from windowshift.core.contract.stats import weight_blocks

    (weights,) = weight_blocks(4, 50, 0, 12)
    found = resampled_tails(values, 50, 0)
    for own, one in zip(weights.astype(int), found, strict=True):
        drawn = [values[n] for n, often in enumerate(own) for _ in range(often)]
        assert (math.isnan(one) and not drawn) or one == tail(drawn)


@pytest.mark.parametrize("nats", [1.0, -1.0, 0.01, 25.0])
def test_the_search_ends_where_the_percentile_is_what_was_asked_for(nats: float) -> None:
    shares = [np.random.default_rng(n).exponential(size=30) for n in range(10)]
    found, asked = searched(nats, parabola(shares))
    assert found.alpha is not None
    assert found.alpha * nats > 0
    assert abs(found.alpha) == pytest.approx(math.sqrt(abs(nats) / tail(shares)), rel=KL_TOLERANCE)
    assert found.kl is not None
    assert found.kl.value == pytest.approx(abs(nats), rel=KL_TOLERANCE)
    assert (found.prompts, found.tokens, found.kl.n) == (10, 300, 300)
    assert len(asked) <= 14
    assert found.alpha_low is not None
    assert found.alpha_high is not None
    assert found.alpha_low < found.alpha < found.alpha_high
    assert [point.alpha for point in found.points] == sorted((point.alpha for point in found.points), key=abs)


def test_what_is_out_of_reach_says_how_far_the_push_goes() -> None:
    weak, _ = searched(1.0, lambda alpha: [np.array([min(abs(alpha), 0.5)] * 3)])
    assert weak.alpha is None
    assert weak.alpha_low is weak.alpha_high is weak.kl is None
    assert weak.problem == "out of reach: at alpha 6.4 the 95th percentile of KL is 0.5 nats, below 1"
    step, _ = searched(-1.0, lambda _: [np.array([2.0, 3.0])])
    assert step.problem is not None
    assert "is 3 nats already, above 1" in step.problem
    jump, asked = searched(1.0, lambda alpha: [np.array([0.1 if alpha < 1.234 else 9.0])])
    assert jump.problem is not None
    assert "jumps" in jump.problem
    assert len(asked) == 40


def test_an_end_beyond_what_was_measured_is_open() -> None:
    """One prompt of three has all of the KL: without it no alpha of those measured is enough."""
    shares = [np.full(50, 1e-6), np.full(50, 1e-6), np.full(50, 1.0)]
    found, _ = searched(1.0, parabola(shares))
    assert found.alpha is not None
    assert found.alpha_high is None


def test_infinite_kl_is_above_any_target() -> None:
    found, _ = searched(1.0, lambda alpha: [np.array([alpha**2 if alpha < 2 else math.inf] * 40)] * 5)
    assert found.alpha == pytest.approx(1.0, rel=0.02)


def test_kl_between_measured_alphas_lies_on_their_line_in_logarithms() -> None:
    points = (KlPoint(-1.0, 0.1), KlPoint(-4.0, 1.6))
    assert kl_at(points, -2.0) == pytest.approx(0.4)
    assert kl_at(points, -4.0) == pytest.approx(1.6)
    assert kl_at(points, 2.0) is None
    assert kl_at(points, -5.0) is None
    assert kl_at(points, -0.5) is None


@pytest.mark.slow
def test_the_interval_holds_the_truth() -> None:
    """Prompts differ in how far a push takes them: of other prompts the alpha would be another one."""
    random, held, runs = np.random.default_rng(5), 0, 120

    def prompts(count: int) -> list[Floats]:
        scale = np.exp(random.normal(0, 0.5, count))
        return [one * random.exponential(size=25) for one in scale]

    truth = math.sqrt(1 / tail(prompts(40_000)))
    for _ in range(runs):
        found, _ = searched(1.0, parabola(prompts(64)))
        assert found.alpha is not None
        held += (found.alpha_low or 0.0) <= truth <= (found.alpha_high or math.inf)
    assert 0.90 <= held / runs <= 0.99
