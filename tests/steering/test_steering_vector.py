"""Vector files: round trips, what is refused, doses, and that reading one needs no torch."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import Provenance, read_header, read_vector
from windowshift.steering.vector import SteeringVector, check

MADE = Provenance("tiny", "f" * 16, "mean difference", positive="long", negative="short", tokens="response")


def vector(**changes: Any) -> SteeringVector:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    return SteeringVector.make("length", rows, MADE, **{"layer": 1, "rms": [2.0, 4.0, 8.0]} | changes)


NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
ROWS = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 7)),
    elements=st.floats(-1e6, 1e6, width=32),
).filter(lambda rows: bool(np.abs(rows).max() > 1e-6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, rows=ROWS, text=NAMES, count=st.integers(0, 10**9), measured=st.booleans())
def test_a_file_gives_back_what_was_saved(
    tmp_path: Path, name: str, rows: np.ndarray, text: str, count: int, measured: bool
) -> None:
    provenance = Provenance(
        text, "f", "x", positive=text, positive_count=count, parents=(text, name), details={"a": text}
    )
    rms = [1.5] * len(rows) if measured else None
    made = SteeringVector.make(name, rows, provenance, rms=rms)
    file = tmp_path / "v.safetensors"
    made.save(file, force=True)
    read = SteeringVector.load(file)
    assert read.header == made.header == read_header(file)
    assert read.directions.tobytes() == made.directions.tobytes()
    assert read.digest == made.digest
    assert np.array_equal(load_file(file)["directions"], rows)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    vector().save(tmp_path / "v.safetensors")
    code = (
        "import sys; from windowshift.core.contract.vector_file import read_header, read_vector\n"
        "read_header(sys.argv[1]); read_vector(sys.argv[1])\n"
        "assert not {'torch', 'safetensors', 'nnsight'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "v.safetensors")], check=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    rows = np.ones((3, 4))
    rows[2, 1] = bad
    with pytest.raises(SpecError, match="NaN or infinity at layer 2"):
        SteeringVector.make("v", rows, MADE)


def test_nan_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "v.safetensors"
    vector().save(file)
    file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", np.nan))
    with pytest.raises(SpecError, match="NaN"):
        read_vector(file)


@pytest.mark.parametrize(
    ("rows", "sentence"), [(np.zeros((2, 3)), "zero at every layer"), (np.ones(3), "layers, width"), ([[]], "shape")]
)
def test_numbers_of_no_use_are_refused(rows: Any, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        SteeringVector.make("v", rows, MADE)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"width": 5}, "width 4, but the model's hidden size is 5"),
        ({"layers": 4}, "3 layers, but the model has 4"),
        ({"fingerprint": "0" * 16}, "other weights"),
        ({"layer": 3}, "no layer 3: its layers are 0 to 2"),
        ({"layer": -1}, "no layer -1"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(asked: dict[str, Any], sentence: str) -> None:
    fits = {"fingerprint": MADE.fingerprint, "width": 4, "layers": 3}
    assert vector().header.check(**fits) == 1
    with pytest.raises(SpecError, match=sentence):
        vector().header.check(**(fits | asked))
    both = {**fits, "layer": None, **asked}
    with pytest.raises(SpecError, match=sentence):
        check(vector(), both["fingerprint"], both["width"], both["layers"], both["layer"])


def test_a_layer_must_be_known_and_have_a_direction() -> None:
    with pytest.raises(SpecError, match="names no layer"):
        vector(layer=None).direction()
    with pytest.raises(SpecError, match="no direction at layer 0"):
        SteeringVector.make("v", [[0, 0], [1, 1]], MADE).direction(0)


def test_doses_and_alphas_convert_both_ways() -> None:
    made = vector()
    norm = float(np.linalg.norm([5, 6, 7, 8]))
    assert made.dose_of(2.0) == pytest.approx(2 * norm / 4)
    assert made.alpha_of(made.dose_of(-3.0, 2), 2) == pytest.approx(-3.0)
    with pytest.raises(SpecError, match="no residual norms"):
        vector(rms=None).dose_of(1.0)


def test_a_vector_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    vector().save(tmp_path / "v.safetensors")
    with pytest.raises(SpecError, match="exists already"):
        vector().save(tmp_path / "v.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"x" * 100, struct.pack("<Q", 2) + b"{}", b"\xff" * 64])
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(SpecError, match="not a steering vector"):
        read_header(tmp_path / "v")
    with pytest.raises(SpecError, match="cannot read vector"):
        read_header(tmp_path / "absent")


def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "v.safetensors"
    vector().save(file)
    whole = file.read_bytes()
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        with pytest.raises(SpecError):
            read_vector(file)
    length = struct.unpack("<Q", whole[:8])[0]
    head = json.loads(whole[8 : 8 + length])
    head["directions"]["data_offsets"] = [8, 56]
    text = json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
    with pytest.raises(SpecError, match="damaged"):
        read_vector(file)
