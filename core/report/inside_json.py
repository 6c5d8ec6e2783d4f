"""What was read inside the model as JSON."""

from __future__ import annotations

from typing import Any

from windowshift.core.contract.estimate import Estimate
from windowshift.core.measure.alignment import Alignment
from windowshift.core.measure.drift import Drift
from windowshift.core.measure.inside_results import InsideResults
from windowshift.core.measure.watched import WatchedCourse


def inside_json(found: InsideResults) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "drifts": [_drift(one) for one in found.drifts],
        "alignments": [_alignment(one) for one in found.alignments],
        "watched": [_course(one) for one in found.courses],
    }


def _alignment(one: Alignment) -> dict[str, Any]:
    return {
        "arm": one.arm,
        "generate": one.generate,
        "train": one.train,
        "vector": one.vector,
        "layer": one.layer,
        **_number("cosine", one.cosine),
        "null_95": None if one.null is None else list(one.null),
        "random_directions": one.directions,
        "p": one.p,
        "unread": one.unread,
        "reason": one.reason or None,
    }


def _course(one: WatchedCourse) -> dict[str, Any]:
    return {
        "arm": one.arm,
        "generate": one.generate,
        "train": one.train,
        "group": one.group,
        "texts": one.texts,
        "unread": one.unread,
        "seeds": one.seeds,
        "reason": one.reason or None,
        "points": [
            {
                "examples": point.examples,
                **_number("logprob_a_token", point.mean),
                **_number("change", point.change),
            }
            for point in one.points
        ],
    }


def _drift(one: Drift) -> dict[str, Any]:
    return {
        "arm": one.arm,
        "generate": one.generate,
        "train": one.train,
        "evaluate": one.evaluate,
        "vector": one.vector,
        "tokens": one.tokens,
        "layer_in_use": one.layer,
        "prompts": one.prompts,
        "prompts_of": "inside" if one.apart else "evaluation",
        "unread": one.unread,
        "seeds": one.seeds,
        "reason": one.reason or None,
        "layers": [
            {
                "layer": at.layer,
                **_number("base", at.base),
                **_number("tuned", at.tuned),
                **_number("shift", at.shift),
                **_number("shift_over_rms", at.relative),
                "base_rms": at.rms,
            }
            for at in one.layers
        ],
    }


def _number(name: str, one: Estimate | None) -> dict[str, Any]:
    return {
        name: None if one is None else one.value,
        f"{name}_ci95": None if one is None or one.interval is None else list(one.interval),
        f"{name}_n": None if one is None else one.n,
    }
