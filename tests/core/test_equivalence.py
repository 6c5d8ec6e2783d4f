"""A matched dose is matched where the data say so, not where they say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import paired_means
from windowshift.core.measure.steering_results import Verdict, equivalent


def verdict(scale: Scale, factor: float, noise: float, prompts: int, seed: int = 0) -> Verdict | None:
    rng = np.random.default_rng(seed)
    target = rng.lognormal(4, 0.6, prompts)
    own = target * factor * np.exp(rng.normal(-(noise**2) / 2, noise, prompts))
    pair = paired_means(own, range(prompts), target, range(prompts), resamples=400)
    assert pair is not None
    return equivalent(scale, pair)


@pytest.mark.parametrize("scale", [Scale.ratio(), Scale.difference()])
def test_much_data_tells_and_little_leaves_it_open(scale: Scale) -> None:
    assert verdict(scale, 1.0, 0.1, 200) == "matched"
    assert verdict(scale, 1.0, 0.6, 20) == "open"
    assert verdict(scale, 1.5, 0.1, 200) == "off"
    assert verdict(scale, 0.7, 0.1, 200) == "off"


def test_a_mean_at_the_edge_is_called_matched_five_times_of_a_hundred() -> None:
    claimed = sum(verdict(Scale.ratio(), 1.1, 0.3, 100, seed) == "matched" for seed in range(150))
    assert claimed <= 0.05 * 150 + 3 * (0.05 * 0.95 * 150) ** 0.5


def test_rates_compare_by_their_difference() -> None:
    wins = np.r_[np.ones(500), np.zeros(500)]
    pair = paired_means(wins, range(1000), wins, range(1000))
    assert pair is not None
    assert equivalent(Scale.rate(), pair) in ("matched", "open")
    few = paired_means([0.0] * 50, range(50), [0.0] * 50, range(50))
    assert few is not None
    assert equivalent(Scale.rate(), few) is None  # a tenth of nothing
