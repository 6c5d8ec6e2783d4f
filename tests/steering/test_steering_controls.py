"""Controls and combinations: their norms, their angles and what they say of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.controls import combined, flipped, from_layer, orthogonal_to, random_like
from windowshift.steering.similarity import across_layers, table
from windowshift.steering.vector import SteeringVector

MADE = Provenance("tiny", "f", "mean difference", positive="long", negative="short")
REAL = SteeringVector.make(
    "length", np.random.default_rng(0).normal(size=(3, 64)) * [[1], [5], [0.1]], MADE, layer=1, rms=[1, 2, 3]
)


@pytest.mark.parametrize(
    "control",
    [random_like(REAL, 1), orthogonal_to(REAL, 1), flipped(REAL), from_layer(REAL, 2)],
    ids=lambda one: one.name,
)
def test_a_control_has_the_norms_and_the_layer_of_its_parent(control: SteeringVector) -> None:
    assert np.allclose(control.norms, REAL.norms, rtol=1e-5)
    assert (control.layer, control.rms) == (REAL.layer, REAL.rms)
    assert control.provenance.parents == (f"length@{REAL.digest}",)
    assert control.provenance.fingerprint == "f"
    assert control.digest != REAL.digest
    assert control.dose_of(1.0) == pytest.approx(REAL.dose_of(1.0), rel=1e-5)


def cosine(one: SteeringVector, other: SteeringVector) -> np.ndarray[Any, np.dtype[np.float64]]:
    """At each layer."""
    return np.array([table([one, other], layer)[0, 1] for layer in range(one.layers)])


def test_controls_point_where_they_should() -> None:
    assert np.abs(cosine(REAL, random_like(REAL, 1))).max() < 0.5
    assert np.abs(cosine(REAL, orthogonal_to(REAL, 1))).max() < 1e-6
    assert np.allclose(cosine(REAL, flipped(REAL)), -1)
    assert np.allclose(across_layers(from_layer(REAL, 2)), 1)
    assert cosine(REAL, from_layer(REAL, 2))[2] == pytest.approx(1)


def test_a_seed_gives_the_same_control_again() -> None:
    assert random_like(REAL, 7).digest == random_like(REAL, 7).digest
    assert random_like(REAL, 7).digest != random_like(REAL, 8).digest


def test_vectors_combine_by_weighted_sum() -> None:
    both = combined("both", [(REAL, 2.0), (random_like(REAL, 1), -0.5)])
    assert np.allclose(both.directions, 2 * REAL.directions - 0.5 * random_like(REAL, 1).directions, atol=1e-6)
    assert len(both.provenance.parents) == 2
    assert both.provenance.how == "combined: 2 * length, -0.5 * length-random-1"
    with pytest.raises(SpecError, match="zero at every layer"):
        combined("none", [(REAL, 1.0), (flipped(REAL), 1.0)])
    with pytest.raises(SpecError, match="combined of nothing"):
        combined("none", [])
    with pytest.raises(SpecError, match="not a finite number"):
        combined("none", [(REAL, float("nan"))])
    other = SteeringVector.make("other", np.ones((3, 64)), Provenance("tiny", "g", "x"))
    with pytest.raises(SpecError, match="other weights"):
        combined("none", [(REAL, 1.0), (other, 1.0)])


def test_similarity_tables() -> None:
    found = table([REAL, flipped(REAL), orthogonal_to(REAL, 3)])
    assert np.allclose(found, [[1, -1, 0], [-1, 1, 0], [0, 0, 1]], atol=1e-6)
    assert np.allclose(np.diag(across_layers(REAL)), 1)
    holed = SteeringVector.make("holed", [[0.0] * 64, [1.0] * 64, [1.0] * 64], MADE)
    assert np.isnan(across_layers(holed)[0]).all()
    with pytest.raises(SpecError, match="different widths"):
        table([REAL, SteeringVector.make("v", np.ones((3, 4)), MADE)])


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(SpecError, match="no layer 9"):
        from_layer(REAL, 9)
    with pytest.raises(SpecError, match="width 1"):
        orthogonal_to(SteeringVector.make("v", np.ones((3, 1)), MADE), 0)
