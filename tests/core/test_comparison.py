"""Comparing rows: every number by hand, and differences paired by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.core.test_measures import grid
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.comparison import compare
from windowshift.core.measure.grid import Grid

LONG, SHORT = ("prefix", "short", "long"), ("prefix", "short", "short")
Cells = dict[Any, Sequence[float]]


def small(noise: np.ndarray[Any, np.dtype[np.float64]] | None = None, **options: Any) -> Grid:
    """Base 10 (short) and 40 (long); D of mean 10. Trained under short nothing changes; under long 5 and 30."""
    shape = np.ones(4) if noise is None else noise
    cells: Cells = {
        ("", "base", "short"): list(10 * shape),
        ("", "base", "long"): list(40 * shape),
        ("short", "short", "short"): list(10 * shape),
        ("short", "short", "long"): list(40 * shape),
        ("short", "long", "short"): list(5 * shape),
        ("short", "long", "long"): list(30 * shape),
    }
    data = {("short", train): [(1.0, train, [10.0] * 5)] for train in ("short", "long")}
    return grid(cells, data, **options)


def test_by_hand() -> None:
    found = compare(small(), [SHORT, LONG], resamples=50)
    assert found.scale.link == "log2"
    assert found.lowest == ("short", "short")
    assert [tally.n for tally in found.tallies] == [8, 8]
    base_cv, cv = 15 / 25, 12.5 / 17.5  # two means: half their distance over their middle
    uplift = (np.log2(5 / 10) + np.log2(30 / 40)) / 2
    for name, first, second in [
        ("train_mean_ratio", 1.0, 4.0),
        ("uplift", 0.0, uplift),
        ("cv", base_cv, cv),
        ("cv_kept", 1.0, cv / base_cv),
        ("extreme", 0.0, -50.0),
    ]:
        measure: Any = found.measure(name)  # type: ignore[arg-type]
        assert [one.value for one in measure.values] == pytest.approx([first, second]), name
        assert measure.difference.value == pytest.approx(second - first), name
        # Every prompt says the same: resampling changes nothing.
        assert measure.difference.interval == pytest.approx((second - first,) * 2, abs=1e-9), name
        assert measure.reasons == ("", "")


def test_the_difference_is_paired() -> None:
    """Where prompts differ much and alike in both rows, the difference is known far better than either row."""
    noise = np.random.default_rng(0).lognormal(0.0, 1.0, 80)
    found = compare(small(noise), [SHORT, LONG], resamples=400)
    cv = found.measure("cv")
    assert cv.difference is not None
    assert cv.difference.interval == pytest.approx((cv.difference.value,) * 2, abs=1e-9)
    uplift = found.measure("uplift")
    assert uplift.difference is not None
    assert uplift.difference.low is not None
    assert uplift.difference.low == pytest.approx(uplift.difference.value, abs=1e-9)
    ratio = found.measure("train_mean_ratio").values[1]
    assert ratio is not None
    assert ratio.low is not None
    assert ratio.low < ratio.value * 0.95  # the mean itself is not known well


def test_what_is_missing_says_why() -> None:
    states = {("short", "long", "short"): "running"}
    found = compare(small(states=states), [SHORT, LONG, ("steering", "short", "long")], resamples=20)
    assert found.measure("uplift").reasons == ("", "1 of 2 eval cells done", "no such row in this experiment")
    assert found.measure("extreme").reasons[1] == "the cell under short is not done"
    assert found.measure("cv").values[1:] == (None, None)
    assert found.measure("cv").difference is None
    assert found.measure("train_mean_ratio").values[1] is not None
    assert found.lowest == ("short", "short", None)


def test_one_row_and_no_base() -> None:
    assert compare(small(), [LONG], resamples=20).measure("cv").difference is None
    states = {("", "base", "short"): "pending"}
    found = compare(small(states=states), [SHORT, LONG], resamples=20)
    assert found.lowest == (None, None)
    assert found.measure("cv_kept").reasons == ("1 of 2 cells of the base model done",) * 2
    assert found.measure("cv").values[0] is not None


def test_rates_compare_by_difference() -> None:
    cells: Cells = {
        ("", "base", "a"): [0.0, 0.0, 0.0, 1.0],
        ("", "base", "b"): [0.0, 0.0, 1.0, 1.0],
        ("a", "a", "a"): [0.0, 0.0, 1.0, 1.0],
        ("a", "a", "b"): [1.0, 1.0, 1.0, 0.0],
        ("a", "b", "a"): [0.0, 0.0, 0.0, 1.0],
        ("a", "b", "b"): [0.0, 0.0, 1.0, 1.0],
    }
    data = {("a", train): [(1.0, train, [0.0, 1.0])] for train in ("a", "b")}
    found = compare(grid(cells, data, scale=Scale.rate()), [("prefix", "a", "a"), ("prefix", "a", "b")], resamples=50)
    assert found.scale.link == "log_odds"
    extreme = found.measure("extreme")
    assert [one.value for one in extreme.values if one] == pytest.approx([0.25, 0.0])
    cv = found.measure("cv")
    assert [one.value for one in cv.values if one] == pytest.approx([0.125, 0.125])  # the sd itself
