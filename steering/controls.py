"""Controls: vectors that should not do what the real one does, and combinations of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.vector import SteeringVector


def random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A random direction at every layer, uniform on the sphere of the vector's own norm there."""
    return _made(vector, f"{vector.name}-random-{seed}", f"random, seed {seed}", _normal(vector, seed))


def orthogonal_to(vector: SteeringVector, seed: int) -> SteeringVector:
    """A random direction at every layer, orthogonal to the vector and of its norm.

    Raises:
        SpecError: the hidden size is 1.
    """
    if vector.width < 2:
        raise SpecError(f"vector '{vector.name}' has width 1: nothing is orthogonal to it")
    drawn = _normal(vector, seed)
    own = vector.directions.astype(np.float64)
    square = np.square(own).sum(1, keepdims=True)
    along = (drawn * own).sum(1, keepdims=True) / np.where(square == 0, 1.0, square)
    return _made(vector, f"{vector.name}-orthogonal-{seed}", f"orthogonal, seed {seed}", drawn - along * own)


def flipped(vector: SteeringVector) -> SteeringVector:
    """The vector with its sign turned."""
    return _made(vector, f"{vector.name}-flipped", "sign-flipped", -vector.directions.astype(np.float64))


def from_layer(vector: SteeringVector, source: int) -> SteeringVector:
    """The direction of one layer at every layer, with each layer's own norm.

    Raises:
        SpecError: there is no such layer, or no direction there.
    """
    row = vector.direction(source).astype(np.float64)
    rows = np.repeat(row[None, :], vector.layers, axis=0)
    return _made(vector, f"{vector.name}-layer-{source}", f"the direction of layer {source}", rows)


def combined(name: str, parts: Sequence[tuple[SteeringVector, float]]) -> SteeringVector:
    """A weighted sum of vectors of one model. Norms are not matched; layer and residual norms are the first's.

    Raises:
        SpecError: there are none, they are of different models or shapes, or they cancel.
    """
    if not parts:
        raise SpecError(f"vector '{name}' is combined of nothing")
    first = parts[0][0]
    for vector, weight in parts:
        vector.header.check(
            fingerprint=first.provenance.fingerprint, width=first.width, layers=first.layers, layer=_some_layer(vector)
        )
        if not np.isfinite(weight):
            raise SpecError(f"the weight of vector '{vector.name}' is not a finite number")
    total = sum(weight * vector.directions.astype(np.float64) for vector, weight in parts)
    how = "combined: " + ", ".join(f"{weight:g} * {vector.name}" for vector, weight in parts)
    parents = tuple(f"{vector.name}@{vector.digest}" for vector, _ in parts)
    provenance = Provenance(
        model=first.provenance.model, fingerprint=first.provenance.fingerprint, how=how, parents=parents
    )
    return SteeringVector.make(name, total, provenance, layer=first.layer, rms=first.rms)


def _normal(vector: SteeringVector, seed: int) -> NDArray[np.float64]:
    # Philox gives the same numbers on every machine and in every version of numpy.
    drawn = np.random.Generator(np.random.Philox(key=seed % (1 << 128))).standard_normal(vector.directions.shape)
    return np.asarray(drawn, dtype=np.float64)


def _made(vector: SteeringVector, name: str, how: str, rows: NDArray[np.float64]) -> SteeringVector:
    """A control of `vector`, with the parent's norm at every layer."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    matched = rows / np.where(norms == 0, 1.0, norms) * np.asarray(vector.norms)[:, None]
    parent = f"{vector.name}@{vector.digest}"
    provenance = replace(vector.provenance, how=f"{how}, norm-matched", parents=(parent,))
    return SteeringVector.make(name, matched, provenance, layer=vector.layer, rms=vector.rms)


def _some_layer(vector: SteeringVector) -> int:
    """A layer that has a direction, so that a check can be about model and shape alone."""
    return int(np.flatnonzero(np.asarray(vector.norms))[0])
