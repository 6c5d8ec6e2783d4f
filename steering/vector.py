"""A steering vector: one direction for each decoder layer, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import (
    Directions,
    Provenance,
    VectorHeader,
    check_finite,
    digest_of,
    norms_of,
    read_vector,
    write_vector,
)


@dataclass(frozen=True, slots=True, eq=False)
class SteeringVector:
    """Directions, float32 [layers, width]; row l belongs to the output of decoder layer l, counted from 0.

    Build one with `make`, which computes the norms and refuses what cannot be used; do not write to
    `directions`.
    """

    header: VectorHeader
    directions: Directions

    @classmethod
    def make(
        cls,
        name: str,
        directions: ArrayLike,
        provenance: Provenance,
        *,
        layer: int | None = None,
        rms: Sequence[float] | None = None,
    ) -> SteeringVector:
        """Make a vector of numbers.

        Raises:
            SpecError: they are not finite, not [layers, width], all zero, or do not fit `rms` or `layer`.
        """
        numbers = np.array(directions, dtype=np.float32)
        if numbers.ndim != 2 or 0 in numbers.shape:
            raise SpecError(f"vector '{name}' has the shape {list(numbers.shape)}, and needs [layers, width]")
        check_finite(name, numbers)
        if not numbers.any():
            raise SpecError(f"vector '{name}' is zero at every layer: both sides gave the same activations")
        if rms is not None and (len(rms) != len(numbers) or not np.isfinite(rms).all() or min(rms) <= 0):
            raise SpecError(f"vector '{name}' needs one residual norm above 0 for each of its {len(numbers)} layers")
        numbers.setflags(write=False)
        header = VectorHeader(
            name=name,
            layers=numbers.shape[0],
            width=numbers.shape[1],
            norms=norms_of(numbers),
            provenance=provenance,
            layer=layer,
            rms=None if rms is None else tuple(map(float, rms)),
        )
        if layer is not None:
            header.layer_in_use(layer)
        return cls(header, numbers)

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """Read a vector from its file.

        Raises:
            SpecError: the file cannot be read, is not a windowshift vector, or is damaged.
        """
        header, directions = read_vector(path)
        directions.setflags(write=False)
        return cls(header, directions)

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write the file whole or not at all.

        Raises:
            SpecError: it is there already (without `force`), or cannot be written.
        """
        write_vector(path, self.header, self.directions, force)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.header.name

    @property
    def layers(self) -> int:
        """The number of decoder layers."""
        return self.header.layers

    @property
    def width(self) -> int:
        """The hidden size."""
        return self.header.width

    @property
    def layer(self) -> int | None:
        """The layer chosen for use, counted from 0."""
        return self.header.layer

    @property
    def norms(self) -> tuple[float, ...]:
        """The L2 norm at each layer."""
        return self.header.norms

    @property
    def rms(self) -> tuple[float, ...] | None:
        """The residual RMS norm at each layer; None where it was not measured."""
        return self.header.rms

    @property
    def provenance(self) -> Provenance:
        """Where it comes from."""
        return self.header.provenance

    @property
    def digest(self) -> str:
        """What determines its effect, as 16 hex digits."""
        return digest_of(self.header, self.directions)

    def direction(self, layer: int | None = None) -> Directions:
        """The direction at a layer [width], by default at the chosen one.

        Raises:
            SpecError: there is no such layer, or no direction there.
        """
        found: Directions = self.directions[self.header.layer_in_use(layer)]
        return found

    def at(self, layer: int | None, name: str | None = None) -> SteeringVector:
        """The same vector with another layer chosen.

        Raises:
            SpecError: there is no such layer, or no direction there.
        """
        header = replace(self.header, layer=layer, name=name or self.name)
        if layer is not None:
            header.layer_in_use()
        return SteeringVector(header, self.directions)

    def dose_of(self, alpha: float, layer: int | None = None) -> float:
        """Return alpha * norm / residual RMS at the layer; see `VectorHeader.dose_of`."""
        return self.header.dose_of(alpha, layer)

    def alpha_of(self, dose: float, layer: int | None = None) -> float:
        """The alpha of a dose; see `VectorHeader.alpha_of`."""
        return self.header.alpha_of(dose, layer)


def check(
    vector: SteeringVector,
    model_fingerprint: str | None,
    width: int | None,
    layers: int | None,
    layer: int | None = None,
) -> int:
    """Compare a vector with the model that it is to steer; the layer in use. None is not compared.

    Raises:
        SpecError: NaN, another width or number of layers, another model, or no such layer.
    """
    check_finite(vector.name, vector.directions)
    return vector.header.check(fingerprint=model_fingerprint, width=width, layers=layers, layer=layer)
