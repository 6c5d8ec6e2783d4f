"""An experiment's steering as JSON, in the report and on its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from windowshift.core.measure.steering_results import SteeringResults, VectorLine


def steering_json(found: SteeringResults) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "vectors": [_vector(one) for one in found.vectors],
        "sweeps": [
            {
                "vector": one.vector,
                "layer": one.layer,
                "tokens": one.tokens,
                "rule": one.rule,
                "ranges": [asdict(each) for each in one.ranges],
                "curves": {str(layer): [asdict(point) for point in curve] for layer, curve in one.curves.items()},
            }
            for one in found.sweeps
        ],
        "curves": [asdict(one) for one in found.curves],
        "matches": [asdict(one) for one in found.matches],
        "iso_kl": [asdict(one) for one in found.iso_kl],
        "controls": [asdict(one) for one in found.controls],
        "random": [asdict(one) for one in found.random],
        "fired": [{"job": label, **asdict(one)} for label, one in found.fired],
    }


def _vector(line: VectorLine) -> dict[str, Any]:
    return {
        "name": line.name,
        "file": line.file,
        "control": line.control,
        "of": line.of,
        "problem": line.problem,
        **({} if line.header is None else {"header": asdict(line.header)}),
    }
