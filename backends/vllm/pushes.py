"""Pushes on their way to a worker: JSON with the direction as base64, so that no file has to be shared."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from windowshift.steering.recipe import Push


def to_json(push: Push) -> dict[str, Any]:
    """A push as JSON can carry it."""
    raw = np.ascontiguousarray(push.direction, dtype="<f8").tobytes()
    path, again = push.place
    return {
        "vector": push.vector,
        "layer": push.layer,
        "alpha": push.alpha,
        "tokens": push.tokens,
        "ablate": push.ablate,
        # Directions are shared by place: one file with another content must be another place.
        "place": [f"{path}#{hashlib.sha256(raw).hexdigest()[:16]}", again],
        "direction": base64.b64encode(raw).decode(),
    }


def from_json(record: Mapping[str, Any], slot: int) -> Push:
    """The inverse, with its line in the worker's tally."""
    direction = np.frombuffer(base64.b64decode(record["direction"]), dtype="<f8").astype(np.float64)
    path, again = record["place"]
    return Push(
        str(record["vector"]),
        int(record["layer"]),
        float(record["alpha"]),
        record["tokens"],
        bool(record["ablate"]),
        direction,
        (str(path), int(again)),
        slot,
    )
