"""Scores that are missing unequally: who lacks how many, whether that is chance, and what the missing ones can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.core.test_measures import grid
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.comparison import compare
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.grid_measures import measure
from windowshift.core.report.missing_blocks import missing_blocks, missing_json, missing_notes

RATE = Scale.rate()
N = 100


def small(lacking: int, base_lacking: int = 0, *, scale: Scale = RATE) -> Grid:
    """A base of 20 of 100, a fine-tune of 60 of 100, of whose scores some are missing, from either end."""
    base = np.repeat([1.0, 0.0], [20, 80])
    own = np.repeat([1.0, 0.0], [60, 40])
    base[N - base_lacking :] = np.nan
    own[:lacking] = np.nan
    cells: dict[Any, Any] = {("", "base", "a"): base, ("g", "a", "a"): own, ("g", "b", "a"): np.repeat([1.0, 0.0], 50)}
    data: Any = {("g", "a"): [(1.0, "a", [1.0, 0.0] * 5)], ("g", "b"): [(1.0, "b", [1.0, 0.0] * 5)]}
    found = grid(cells, data, scale=scale)
    return replace(found, asked=np.ones_like(found.counts))


def cell_of(found: Grid, train: str = "a") -> Any:
    arm = measure(found, resamples=50).arms["prefix"]
    return next((one for key, one in arm.missing.items() if key.train == train), None)


def test_counts_shares_and_bounds_by_hand() -> None:
    one = cell_of(small(30, 10))
    assert (one.scored, one.asked) == ((70, 90), (100, 100))
    assert one.difference.value == pytest.approx(-0.20)
    assert one.differs
    # 30 of the fine-tune's 60 are known; 20 of the base's are, and 10 more may be.
    assert one.worst.least == pytest.approx(0.30 - 0.30)
    assert one.worst.greatest == pytest.approx(0.60 - 0.20)
    assert one.worst.interval[0] < one.worst.least
    assert one.worst.interval[1] > one.worst.greatest


def test_a_few_missing_ones_are_chance_and_bounded_all_the_same() -> None:
    one = cell_of(small(3, 2))
    assert not one.differs
    assert one.worst.greatest - one.worst.least == pytest.approx(0.05)
    assert cell_of(small(0)) is None


def test_the_truth_lies_within_the_bounds_whatever_is_missing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        whole = small(0)
        truth = float(whole.sums[1].mean() - whole.sums[0].mean())
        sums, counts = whole.sums.copy(), whole.counts.copy()
        gone = rng.random(sums.shape) < np.where(whole.sums == 1, rng.random(), rng.random())
        gone[2] = False
        sums[gone], counts[gone] = 0.0, 0.0
        if not (counts[:2].any(axis=1)).all():
            continue
        one = cell_of(replace(whole, sums=sums, counts=counts))
        assert one.worst.least - 1e-9 <= truth <= one.worst.greatest + 1e-9


def test_other_scales_have_counts_and_no_bounds() -> None:
    one = cell_of(small(30, scale=Scale.difference()))
    assert one.differs
    assert one.worst is None


def test_the_report_says_it_where_it_is_more_than_chance() -> None:
    found = measure(small(30), resamples=50)
    arm = found.arms["prefix"]
    text = " ".join(str(block) for block in missing_blocks(arm, "g"))
    assert "a evaluated under a" in text
    assert "70 of 100" in text
    assert "Manski" in text
    (note,) = missing_notes(found)
    assert "1 cell lacks another share" in note
    said = missing_json(next(iter(arm.missing.values())))
    assert said is not None
    assert said["differs"]
    assert said["effect_bounds"] == pytest.approx([0.10, 0.40])
    even = measure(small(2), resamples=50)
    assert not list(missing_blocks(even.arms["prefix"], "g"))
    assert not missing_notes(even)


def test_compared_rows() -> None:
    found = compare(small(30), [("prefix", "g", "a"), ("prefix", "g", "b")], resamples=50).missing
    assert found is not None
    assert (found.scored, found.asked) == ((100, 70), (100, 100))  # the second row against the first
    assert found.differs
    assert found.worst is not None
    assert (found.worst.least, found.worst.greatest) == pytest.approx((0.50 - 0.60, 0.50 - 0.30))
    assert compare(small(0), [("prefix", "g", "a"), ("prefix", "g", "b")], resamples=50).missing is None
