"""Other tools' files: round trips, what their layers mean, and that loading never runs code."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.formats import (
    Target,
    export_gguf,
    export_persona,
    export_steering_vectors,
    import_gguf,
    import_persona,
    import_steering_vectors,
)
from windowshift.steering.vector import SteeringVector

TARGET = Target("tiny", "f", layers=3, width=8)
VECTOR = SteeringVector.make(
    "length", np.random.default_rng(0).normal(size=(3, 8)), Provenance("tiny", "f", "mean difference"), layer=2
)


def test_persona_round_trip(tmp_path: Path) -> None:
    export_persona(VECTOR, tmp_path / "v.pt")
    theirs = torch.load(tmp_path / "v.pt", weights_only=True)
    assert theirs.shape == (4, 8)
    assert torch.equal(theirs[3], torch.from_numpy(VECTOR.directions[2].copy()))
    read = import_persona(tmp_path / "v.pt", "length", TARGET, layer=2)
    assert np.array_equal(read.directions, VECTOR.directions)
    assert read.provenance.how == "imported from persona_vectors"
    assert read.provenance.fingerprint == "f"
    with pytest.raises(SpecError, match="exists already"):
        export_persona(VECTOR, tmp_path / "v.pt")


def test_half_precision_is_read(tmp_path: Path) -> None:
    torch.save(torch.ones(4, 8, dtype=torch.bfloat16, requires_grad=True), tmp_path / "v.pt")
    assert import_persona(tmp_path / "v.pt", "v", TARGET).directions.dtype == np.float32


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (torch.ones(3, 8), "3 rows.*needs 4"),
        (torch.ones(4, 9), "width 9"),
        (torch.ones(4), "does not hold one tensor"),
        ({"a": torch.ones(4, 8)}, "does not hold one tensor"),
        (torch.full((4, 8), float("nan")), "NaN"),
    ],
)
def test_persona_files_that_do_not_fit_are_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(SpecError, match=sentence):
        import_persona(tmp_path / "v.pt", "v", TARGET)


class Boom:
    """Unpickling this would write a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return (Path.touch, (self.witness,))


@pytest.mark.parametrize("read", [import_persona, import_steering_vectors])
def test_loading_runs_no_code(tmp_path: Path, read: Any) -> None:
    torch.save(Boom(tmp_path / "witness"), tmp_path / "v.pt")
    with pytest.raises(SpecError, match="could run code"):
        read(tmp_path / "v.pt", "v", TARGET)
    assert not (tmp_path / "witness").exists()
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(SpecError, match="cannot be read as tensors"):
        read(tmp_path / "noise", "v", TARGET)
    with pytest.raises(SpecError, match="No such file"):
        read(tmp_path / "absent", "v", TARGET)


def test_gguf_round_trip(tmp_path: Path) -> None:
    """Layer 0 has no place in a control vector file."""
    export_gguf(VECTOR, tmp_path / "v.gguf", "llama")
    theirs = gguf.GGUFReader(tmp_path / "v.gguf")
    assert [tensor.name for tensor in theirs.tensors] == ["direction.1", "direction.2"]
    field = theirs.get_field("controlvector.model_hint")
    assert field is not None
    assert bytes(field.parts[-1]).decode() == "llama"
    read = import_gguf(tmp_path / "v.gguf", "length", TARGET, layer=2)
    assert np.array_equal(read.directions[1:], VECTOR.directions[1:])
    assert read.norms[0] == 0
    with pytest.raises(SpecError, match="no direction at layer 0"):
        read.direction(0)
    with pytest.raises(SpecError, match="acts at layer 0"):
        export_gguf(VECTOR.at(0), tmp_path / "w.gguf", "llama")


def test_gguf_as_repeng_writes_it(tmp_path: Path) -> None:
    """Keys and names as in repeng's export_gguf: unit directions of layers n-1 to 1."""
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (2, 1):
        writer.add_tensor(f"direction.{layer}", np.eye(8, dtype=np.float32)[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = import_gguf(tmp_path / "v.gguf", "v", TARGET, layer=1)
    assert read.norms == (0.0, 1.0, 1.0)
    assert read.direction().tolist() == np.eye(8)[1].tolist()
    with pytest.raises(SpecError, match="layer 2, and 'tiny' has 2 layers"):
        import_gguf(tmp_path / "v.gguf", "v", Target("tiny", "f", 2, 8))
    with pytest.raises(SpecError, match="width 8"):
        import_gguf(tmp_path / "v.gguf", "v", Target("tiny", "f", 3, 9))


def test_other_gguf_files_are_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.ones((2, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(SpecError, match="not a control vector: its architecture is 'llama'"):
        import_gguf(tmp_path / "v.gguf", "v", TARGET)
    whole = (tmp_path / "v.gguf").read_bytes()
    for content in (b"", b"GGUF", b"noise" * 20, whole[:40]):
        (tmp_path / "w.gguf").write_bytes(content)
        with pytest.raises(SpecError, match="cannot read the control vector"):
            import_gguf(tmp_path / "w.gguf", "v", TARGET)


def test_steering_vectors_round_trip(tmp_path: Path) -> None:
    export_steering_vectors(VECTOR.at(None), tmp_path / "v.pt")
    read = import_steering_vectors(tmp_path / "v.pt", "length", TARGET, layer=2)
    assert np.array_equal(read.directions, VECTOR.directions)
    export_steering_vectors(VECTOR, tmp_path / "one.pt")
    fields = torch.load(tmp_path / "one.pt", weights_only=True)
    assert list(fields["layer_activations"]) == [2]
    assert fields["layer_type"] == "decoder_block"


def test_a_pickled_steering_vectors_object_is_read_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "steering_vectors.steering_vector"
    module = ModuleType(name)
    theirs = type("SteeringVector", (), {"__module__": name})
    module.SteeringVector = theirs  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "steering_vectors", ModuleType("steering_vectors"))
        patched.setitem(sys.modules, name, module)
        saved: Any = theirs()
        saved.layer_activations = {1: torch.ones(8)}
        saved.layer_type = "decoder_block"
        torch.save(saved, tmp_path / "v.pt")
        saved.layer_type = "mlp"
        torch.save(saved, tmp_path / "mlp.pt")
    read = import_steering_vectors(tmp_path / "v.pt", "v", TARGET, layer=1)
    assert read.norms == (0.0, pytest.approx(8**0.5), 0.0)
    with pytest.raises(SpecError, match="acts on 'mlp'"):
        import_steering_vectors(tmp_path / "mlp.pt", "v", TARGET)


@pytest.mark.parametrize("content", [{}, {"x": 1}, [1], {"layer_activations": {}}, {"layer_activations": {0: 1}}])
def test_other_torch_files_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(SpecError, match="not a vector of the steering-vectors library"):
        import_steering_vectors(tmp_path / "v.pt", "v", TARGET)
