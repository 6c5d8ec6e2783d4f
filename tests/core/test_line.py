"""The line through the points of a grid: what its intervals rest on."""

from __future__ import annotations

import numpy as np
import pytest

from windowshift.core.contract.confidence import student_t
from windowshift.core.measure.line import FittedLine
from windowshift.core.measure.sampled import Sampled

X = (0.0, 1.0, 2.0, 3.0)


def line(y: tuple[float, ...], noise: float) -> FittedLine:
    """A line through points whose y is known to `noise` (a standard deviation), all of them apart."""
    rng = np.random.default_rng(0)
    points = [
        (Sampled(a, np.full(400, a), 50), Sampled(b, b + noise * rng.standard_normal(400), 50))
        for a, b in zip(X, y, strict=True)
    ]
    return FittedLine.through(points, len(points))


def test_points_that_are_well_known_have_the_interval_of_their_scatter() -> None:
    found = line((0.0, 1.2, 1.8, 3.0), noise=0.001).fit
    assert found.slope is not None
    assert found.scatter is not None
    # By hand: slope 0.96, squares left 0.072, squares of x about their mean 5; two degrees of freedom.
    reach = student_t(2) * np.sqrt(0.072 / 2 / 5)
    assert (found.scatter.low, found.scatter.high) == pytest.approx((0.96 - reach, 0.96 + reach))
    assert found.slope.low is not None
    assert found.slope.low > 0.95


def test_points_that_lie_on_a_line_by_chance_are_no_better_known_than_by_sampling() -> None:
    found = line((0.0, 1.0, 2.0, 3.0), noise=0.5).fit
    assert found.slope is not None
    assert found.scatter is not None
    assert found.slope.low is not None
    assert found.slope.low < 0.8
    assert (found.scatter.low, found.scatter.high) == (found.slope.low, found.slope.high)
