"""Cosines between vectors as they lie in their files, with numpy alone: for screens, which load no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.vector_file import Directions

Cosines = NDArray[np.float64]


def cosines_at(vectors: Sequence[Directions], layer: int) -> Cosines:
    """Cosine between any two vectors at one layer, [n, n].

    NaN where one of the two has no such layer or no direction there, or where their widths differ.
    """
    found = np.full((len(vectors), len(vectors)), np.nan)
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            if layer < min(len(one), len(other)) and one.shape[1] == other.shape[1]:
                found[i, j] = float(_units(one[layer : layer + 1])[0] @ _units(other[layer : layer + 1])[0])
    return found


def cosines_across(directions: Directions) -> Cosines:
    """Cosine between the directions of any two layers of a vector, [layers, layers]; NaN where there is none."""
    units = _units(directions)
    return np.asarray(units @ units.T)


def _units(rows: Directions) -> Cosines:
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(np.divide(exact, norms, out=np.full_like(exact, np.nan), where=norms > 0))
