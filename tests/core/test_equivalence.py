"""A matched dose is matched where the data say so, not where they say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.generated_store import generate_store
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import paired_means
from windowshift.core.measure.arm_comparison import compare_arms
from windowshift.core.measure.base_match import Verdict, equivalent
from windowshift.core.report.arm_comparison_page import arms_blocks, arms_json
from windowshift.core.report.text import draw as page_text


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


def test_arms_say_of_every_pair_whether_its_dose_is_matched(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=20, data_size=20, steering=True).close()
    arms = compare_arms(tmp_path, "med-short", resamples=200)
    known = {match.group: match for match in arms.steering.matches}
    pushing = [row for row in arms.rows if row.pair.prefix in known]
    assert pushing
    for row in pushing:
        match = known[row.pair.prefix]
        assert row.dose is not None
        if row.pair.steering == f"length={match.group}":
            assert (row.dose.against, row.dose.verdict) == (match.ratio, match.verdict)
    plain = [row for row in arms.rows if row.pair.prefix == "no_prefix"]
    assert all(row.dose is None for row in plain)
    text = page_text(arms_blocks(arms), 200)
    assert text.count("Base model, dose / prefix: ") == len(pushing)
    told = {pair["steering"]: pair["dose"] for pair in arms_json(arms)["pairs"]}
    assert all(told[row.pair.steering]["verdict"] == row.dose.verdict for row in pushing if row.dose)
