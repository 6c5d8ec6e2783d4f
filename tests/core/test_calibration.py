"""Calibration on curves whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.calibration import DosePoint, pick_layer
from windowshift.core.settings.soundness import repetition

ALPHAS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


def curve(mean: Callable[[float], float], spread: float = 0.05, **sound: Callable[[float], float]) -> list[DosePoint]:
    return [
        DosePoint(
            alpha,
            mean(alpha),
            mean(alpha) * (1 - spread),
            mean(alpha) * (1 + spread),
            sound.get("coherence", lambda _: -1.0)(alpha),
            sound.get("repetition", lambda _: 0.0)(alpha),
        )
        for alpha in ALPHAS
    ]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("one two three four five", 0.0),
        ("a a a a a a a a", 0.8),
        ("the sea is wide the sea is wide the sea is wide", pytest.approx(5 / 9)),
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert repetition(text) == share


def test_the_layer_with_the_largest_sound_range_wins() -> None:
    curves = {0: curve(lambda a: math.exp(0.1 * a)), 1: curve(lambda a: math.exp(0.3 * a))}
    choice = pick_layer(curves, scale=Scale.ratio())
    assert choice.layer == 1
    assert choice.ranges[1].range == pytest.approx(2.4)
    assert (choice.ranges[1].alpha_low, choice.ranges[1].alpha_high) == (-4, 4)
    assert "coherence within 0.5" in choice.rule


def test_a_range_ends_where_text_falls_apart() -> None:
    steep = curve(lambda a: math.exp(a), coherence=lambda a: -1.0 if abs(a) < 2 else -3.0)
    loops = curve(lambda a: math.exp(0.6 * a), repetition=lambda a: 0.0 if abs(a) < 4 else 0.9)
    choice = pick_layer({0: steep, 1: loops}, scale=Scale.ratio())
    assert choice.layer == 1
    assert [(one.alpha_low, one.alpha_high) for one in choice.ranges] == [(-1, 1), (-2, 2)]
    assert "falls apart at alpha -2" in choice.ranges[0].why


def test_a_range_ends_where_the_mean_turns_back() -> None:
    turning = curve(lambda a: math.exp(a if a < 4 else 0))
    (found,) = pick_layer({3: turning}, scale=Scale.ratio()).ranges
    assert (found.alpha_low, found.alpha_high) == (-4, 2)
    assert found.rising
    # a dip within the intervals is no turn
    noisy = curve(lambda a: math.exp(0.5 * a) * (0.97 if a == 1 else 1), spread=0.5)
    assert pick_layer({3: noisy}, scale=Scale.ratio()).ranges[0].alpha_high == 4


def test_falling_curves_and_differences_count_too() -> None:
    (found,) = pick_layer({0: curve(lambda a: 0.5 - 0.1 * a)}, scale=Scale.difference()).ranges
    assert not found.rising
    assert found.range == pytest.approx(0.8)


def test_curves_of_no_use_are_refused() -> None:
    with pytest.raises(SpecError, match="no dose curves"):
        pick_layer({}, scale=Scale.ratio())
    with pytest.raises(SpecError, match="lacks alpha 0"):
        pick_layer({2: curve(lambda _: 1.0)[:3]}, scale=Scale.ratio())
    with pytest.raises(SpecError, match="no layer moves"):
        pick_layer({2: curve(lambda _: 1.0)}, scale=Scale.ratio())
    with pytest.raises(SpecError, match="scale 'difference'"):
        pick_layer({2: curve(lambda a: a)}, scale=Scale.ratio())
