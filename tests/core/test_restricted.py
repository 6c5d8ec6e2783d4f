"""Restricted means: what a token limit cuts off is censored, and no lower bound counts as a length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.generated_store import generate_store
from tests.report_text import report_text
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import mean_summary
from windowshift.core.measure.grid import Lengths
from windowshift.core.measure.restricted import common_limit, pseudo_observations, survival
from windowshift.core.report import frames
from windowshift.core.report.report import report


def lengths(values: list[float] | np.ndarray, cut: list[bool] | np.ndarray) -> Lengths:
    return Lengths(np.arange(len(values)), np.asarray(values, float), np.asarray(cut, bool))


def drawn(seed: int, n: int = 60, *, cut_at: float = 250.0) -> tuple[np.ndarray, Lengths]:
    """True lengths, and what is left of them under limits that differ, as those of tokens do in characters."""
    rng = np.random.default_rng(seed)
    true = np.round(rng.lognormal(5.0, 0.6, n), 0)
    limits = np.round(rng.lognormal(math.log(cut_at), 0.25, n), 0)
    return true, lengths(np.minimum(true, limits), true > limits)


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_is_that_of_scipy(seed: int) -> None:
    from scipy.stats import CensoredData, ecdf

    _, own = drawn(seed)
    known = ecdf(CensoredData.right_censored(own.values, own.cut)).sf
    found = survival(own)
    assert found.times == pytest.approx(known.quantiles)
    assert found.share == pytest.approx(known.probabilities, abs=1e-12)
    limit = common_limit([own])
    steps = np.concatenate([[0.0], np.minimum(known.quantiles, limit)])
    area = float(np.diff(steps) @ np.concatenate([[1.0], known.probabilities[:-1]]))
    assert pseudo_observations(own, limit).mean() == pytest.approx(area)


def test_without_truncation_they_are_the_scores() -> None:
    own = lengths([5.0, 2.0, 9.0, 2.0, 7.0], [False] * 5)
    assert common_limit([own]) == math.inf
    assert pseudo_observations(own, math.inf) == pytest.approx(own.values)
    assert pseudo_observations(own, 6.0) == pytest.approx(np.minimum(own.values, 6.0))


def test_under_one_limit_it_is_the_plain_mean() -> None:
    own = lengths([5.0, 2.0, 8.0, 8.0, 3.0], [False, False, True, True, False])
    assert common_limit([own, lengths([1.0, 20.0], [False, False])]) == 8.0
    assert pseudo_observations(own, 8.0) == pytest.approx(own.values)


def test_a_pseudo_observation_is_the_infinitesimal_jackknife() -> None:
    _, own = drawn(1, n=12)
    limit = common_limit([own])
    found = pseudo_observations(own, limit)
    many = 20_000
    for place in range(own.n):  # one of the completions once more, among very many of each
        counts = np.full(own.n, many)
        counts[place] += 1
        more = lengths(np.repeat(own.values, counts), np.repeat(own.cut, counts))
        moved = (pseudo_observations(more, limit).mean() - found.mean()) * (own.n * many + 1)
        assert moved == pytest.approx(found[place] - found.mean(), rel=2e-3, abs=0.02)


def test_the_plain_mean_is_too_low_and_the_restricted_one_holds_the_truth() -> None:
    limit, inside, below, grids = 240.0, 0, 0, 120
    rng = np.random.default_rng(0)
    truth = float(np.minimum(rng.lognormal(5.0, 0.6, 400_000), limit).mean())
    for seed in range(grids):
        _, own = drawn(seed + 10, n=100, cut_at=200.0)
        assert common_limit([own]) > limit
        values = pseudo_observations(own, limit)
        found = mean_summary(values, own.places, own.cut, scale=Scale.ratio(), resamples=200)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
        below += float(np.minimum(own.values, limit).mean()) < truth
    assert inside >= 0.92 * grids  # 96 % of 400
    assert below > 0.9 * grids  # as 60 would be, were it not bent


def test_the_report_has_it_beside_the_plain_mean(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=20, data_size=20)
    with writer.batch() as connection:
        connection.execute("UPDATE completions SET finish = 'stop'")
    whole = report(tmp_path, "med-short", resamples=50)
    assert not whole.restricted
    assert all(cell["restricted_mean"] is None for cell in whole.to_json()["cells"])
    assert "Kaplan-Meier" not in report_text(whole, 200)
    with writer.batch() as connection:  # the three shortest of one cell (by the first behaviour, which is its length)
        job = connection.execute("SELECT n FROM jobs WHERE label = 'med_short: long → short'").fetchone()[0]
        rows = connection.execute(
            "SELECT row FROM scores WHERE job = ? AND behaviour = 1 ORDER BY value LIMIT 3", (job,)
        ).fetchall()
        connection.executemany("UPDATE completions SET finish = 'length' WHERE job = ? AND row = ?",
                               [(job, row[0]) for row in rows])  # fmt: skip
    writer.close()
    cut = report(tmp_path, "med-short", resamples=50)
    cells = {(cell["train"], cell["evaluate"]): cell for cell in cut.to_json()["cells"]}
    own = cells["long", "short"]
    assert own["restricted_mean"] > own["mean"]
    low, high = own["restricted_mean_ci95"]
    assert low < own["restricted_mean"] < high
    for place, cell in cells.items():  # where nothing is cut off it is the plain mean, with its interval
        if place != ("long", "short"):
            assert cell["restricted_mean"] == pytest.approx(cell["mean"])
            assert cell["restricted_mean_ci95"] == pytest.approx(cell["ci95"])
    text = " ".join(report_text(cut, 200).split())
    assert "Kaplan-Meier mean chars, prefix arm" in text
    frame: Any = frames.cells(cut)
    assert frame["restricted_mean"].notna().all()
