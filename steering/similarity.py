"""Cosine similarity between vectors, and across the layers of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.errors import SpecError
from windowshift.steering.vector import SteeringVector

CosineMatrix = NDArray[np.float64]


def across_layers(vector: SteeringVector) -> CosineMatrix:
    """Cosine between the directions of any two layers [layers, layers]; NaN where there is no direction."""
    units = _unit(vector)
    return np.asarray(units @ units.T)


def table(vectors: Sequence[SteeringVector], layer: int | None = None) -> CosineMatrix:
    """Cosine between any two vectors [n, n], at `layer` or each at its own.

    Raises:
        SpecError: widths differ, or a vector has no direction there.
    """
    if len({vector.width for vector in vectors}) > 1:
        raise SpecError("vectors of different widths cannot be compared: " + ", ".join(one.name for one in vectors))
    rows = np.stack([vector.direction(layer).astype(np.float64) for vector in vectors])
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(units @ units.T)


def _unit(vector: SteeringVector) -> CosineMatrix:
    rows = vector.directions.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.full_like(rows, np.nan), where=norms > 0))
