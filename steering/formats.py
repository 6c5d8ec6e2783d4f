"""Vectors made elsewhere, and vectors for use elsewhere.

What other files lack is asked for: which model the vector belongs to. Nothing that is read here can run
code: torch files are loaded with ``weights_only``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.vector_file import Provenance
from windowshift.core.contract.whole_file import whole_file
from windowshift.steering.vector import SteeringVector

_GGUF_ARCHITECTURE = "controlvector"
_THEIR_CLASS = "steering_vectors.steering_vector.SteeringVector"


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a vector is imported for; its file does not say."""

    model: str
    fingerprint: str
    layers: int
    width: int


class _TheirVector:
    """Takes the place of the steering-vectors library's class when a pickled one is loaded."""

    layer_activations: Any
    layer_type: Any


def holds_tensor(path: str | Path) -> bool:
    """Whether a .pt file is one tensor, as persona_vectors writes it; the steering-vectors library writes fields.

    Raises:
        SpecError: the file cannot be read.
    """
    return isinstance(_torch_file(path), torch.Tensor)


def import_persona(
    path: str | Path, name: str, target: Target, layer: int | None = None, rms: list[float] | None = None
) -> SteeringVector:
    """Read a persona_vectors file: a tensor [layers + 1, width] of mean differences of hidden states.

    Row 0 is the output of the embeddings and row l + 1 that of decoder layer l. transformers gives the last
    hidden state after the final norm, so the last row is not in the residual stream's units.

    Raises:
        SpecError: the file cannot be read, holds something else, or does not fit the model.
    """
    loaded = _torch_file(path)
    if not isinstance(loaded, torch.Tensor) or loaded.ndim != 2:
        raise SpecError(f"{path} is not a persona_vectors file: it does not hold one tensor [layers + 1, width]")
    rows = _numbers(loaded)
    if len(rows) != target.layers + 1:
        raise SpecError(
            f"{path} has {len(rows)} rows, and '{target.model}' with {target.layers} layers needs {target.layers + 1}: "
            "it is of another model"
        )
    note = {"last_layer": "after the final norm"}
    return _imported(path, name, "persona_vectors", rows[1:], target, layer, rms, note)


def export_persona(vector: SteeringVector, path: str | Path, force: bool = False) -> None:
    """Write a persona_vectors file; row 0, the embeddings' output, is zero.

    Raises:
        SpecError: the file is there already (without `force`), or cannot be written.
    """
    rows = torch.zeros(vector.layers + 1, vector.width)
    rows[1:] = torch.from_numpy(vector.directions.copy())
    _write(path, force, lambda partial: torch.save(rows, partial))


def import_gguf(
    path: str | Path, name: str, target: Target, layer: int | None = None, rms: list[float] | None = None
) -> SteeringVector:
    """Read a control vector as repeng and llama.cpp write them: tensors ``direction.N``.

    N is the decoder layer whose output is pushed, counted from 0. repeng leaves out layer 0 and gives every
    direction length 1. Layers that the file lacks have no direction here.

    Raises:
        SpecError: the file cannot be read, is no control vector, or does not fit the model.
        MissingExtraError: the library 'gguf' is not installed.
    """
    gguf = _gguf()
    directions: dict[int, Any] = {}
    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = "" if field is None else bytes(field.parts[-1]).decode()
        for tensor in reader.tensors:
            kind, _, number = tensor.name.partition(".")
            if kind == "direction" and number.isdecimal():
                directions[int(number)] = np.array(tensor.data, dtype=np.float32).reshape(-1)
    except Exception as error:  # the reader raises whatever a damaged file leads to
        raise SpecError(f"cannot read the control vector {path}: {_first_line(error)}") from error
    if architecture != _GGUF_ARCHITECTURE or not directions:
        raise SpecError(f"{path} is not a control vector: its architecture is '{architecture}'")
    return _imported(path, name, "repeng GGUF", _stacked(path, directions, target), target, layer, rms)


def export_gguf(vector: SteeringVector, path: str | Path, model_type: str, force: bool = False) -> None:
    """Write a control vector for repeng and llama.cpp; layer 0, which llama.cpp refuses, is left out.

    `model_type` is the architecture in the model's configuration, such as ``llama``.

    Raises:
        SpecError: the vector acts at layer 0, or the file cannot be written.
        MissingExtraError: the library 'gguf' is not installed.
    """
    gguf = _gguf()
    if vector.layer == 0 or not any(vector.norms[1:]):
        raise SpecError(f"vector '{vector.name}' acts at layer 0, which a control vector file cannot hold")
    rows = {layer: row for layer, row in enumerate(vector.directions) if layer and vector.norms[layer] > 0}

    def write(partial: Path) -> None:
        writer = gguf.GGUFWriter(partial, _GGUF_ARCHITECTURE)
        writer.add_string(f"{_GGUF_ARCHITECTURE}.model_hint", model_type)
        writer.add_uint32(f"{_GGUF_ARCHITECTURE}.layer_count", len(rows))
        writer.add_string("windowshift.vector", json.dumps(asdict(vector.header), sort_keys=True))
        for layer, row in rows.items():
            writer.add_tensor(f"direction.{layer}", np.array(row))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    _write(path, force, write)


def import_steering_vectors(
    path: str | Path, name: str, target: Target, layer: int | None = None, rms: list[float] | None = None
) -> SteeringVector:
    """Read a vector of the steering-vectors library, saved with ``torch.save``: the object or its fields.

    Its ``layer_activations`` map decoder layers, counted from 0, to directions at their outputs.

    Raises:
        SpecError: the file cannot be read, holds other objects or another layer type, or does not fit the model.
    """
    loaded = _torch_file(path)
    record = vars(loaded) if isinstance(loaded, _TheirVector) else loaded
    if isinstance(record, Mapping) and record and all(isinstance(key, int) for key in record):
        record = {"layer_activations": record}
    if not isinstance(record, Mapping) or not isinstance(record.get("layer_activations"), Mapping):
        raise SpecError(f"{path} is not a vector of the steering-vectors library: it has no layer_activations")
    kind = record.get("layer_type", "decoder_block")
    if kind != "decoder_block":
        raise SpecError(f"{path} acts on '{kind}', and only outputs of decoder blocks can be pushed here")
    found = record["layer_activations"]
    if not found or not all(isinstance(key, int) and isinstance(row, torch.Tensor) for key, row in found.items()):
        raise SpecError(f"{path} is not a vector of the steering-vectors library: its layers are not tensors")
    directions = {key: _numbers(row).reshape(-1) for key, row in found.items()}
    return _imported(path, name, "steering-vectors", _stacked(path, directions, target), target, layer, rms)


def export_steering_vectors(vector: SteeringVector, path: str | Path, force: bool = False) -> None:
    """Write the fields of a steering-vectors object: ``SteeringVector(**torch.load(path))`` makes it there.

    The fields and not the object, so that the file loads with ``weights_only``. A vector with a chosen layer
    is written with that layer alone, because the library pushes at every layer that it is given.

    Raises:
        SpecError: the file is there already (without `force`), or cannot be written.
    """
    layers = range(vector.layers) if vector.layer is None else [vector.layer]
    rows = {layer: torch.from_numpy(vector.directions[layer].copy()) for layer in layers if vector.norms[layer] > 0}
    record = {"layer_activations": rows, "layer_type": "decoder_block"}
    _write(path, force, lambda partial: torch.save(record, partial))


def _imported(
    path: str | Path,
    name: str,
    source: str,
    rows: Any,
    target: Target,
    layer: int | None,
    rms: list[float] | None,
    note: Mapping[str, str] | None = None,
) -> SteeringVector:
    details = {"file": Path(path).name, **(note or {})}
    provenance = Provenance(target.model, target.fingerprint, f"imported from {source}", details=details)
    vector = SteeringVector.make(name, rows, provenance, layer=layer, rms=rms)
    if vector.width != target.width:
        raise SpecError(f"{path} has width {vector.width}, but the hidden size of '{target.model}' is {target.width}")
    return vector


def _stacked(path: str | Path, directions: Mapping[int, Any], target: Target) -> Any:
    rows = np.zeros((target.layers, target.width), dtype=np.float32)
    for layer, row in directions.items():
        if not 0 <= layer < target.layers:
            raise SpecError(
                f"{path} has a direction for layer {layer}, and '{target.model}' has {target.layers} layers"
            )
        if len(row) != target.width:
            raise SpecError(f"{path} has width {len(row)}, but the hidden size of '{target.model}' is {target.width}")
        rows[layer] = row
    return rows


def _torch_file(path: str | Path) -> Any:
    try:
        with torch.serialization.safe_globals([(_TheirVector, _THEIR_CLASS)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises many kinds, and unpickling whatever the file leads to
        raise SpecError(
            f"{path} cannot be read as tensors: it is damaged, or holds objects whose loading could run code, "
            "which is refused; save its tensors alone with torch.save"
        ) from error


def _numbers(tensor: torch.Tensor) -> Any:
    return tensor.detach().to(torch.float32).numpy()


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("a GGUF control vector", "local", "gguf") from error
    return gguf


def _write(path: str | Path, force: bool, write: Callable[[Path], None]) -> None:
    with whole_file(Path(path), force) as partial:
        write(partial)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
