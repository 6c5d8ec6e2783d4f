"""A steering vector's file: a safetensors file whose metadata says where the vector comes from.

The format is written and read here with numpy alone, so that the plan can check a vector and a screen can
show its provenance without torch. Any safetensors reader opens the file: one tensor `directions`, float32
[layers, width], whose row l is added at the output of decoder layer l.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.home import at_home
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.contract.whole_text import require_whole

FORMAT = "windowshift.vector/1"
TENSOR = "directions"
_LARGEST_HEADER = 16 * 1024 * 1024

Directions = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a vector comes from.

    `fingerprint` is that of the model's weights (`ModelIdentity.fingerprint`), which a vector is bound to.
    `how` is a few words: ``mean difference``, ``random``, ``imported from repeng``. `prompts` is a digest of
    every row that was read, `tokens` the tokens averaged over, the counts are rows. `parents` are vectors
    that this one was made of, as ``name@digest``.
    """

    model: str
    fingerprint: str
    how: str
    positive: str = ""
    negative: str = ""
    prompts: str = ""
    tokens: str = ""
    positive_count: int = 0
    negative_count: int = 0
    parents: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorHeader:
    """All that is known of a vector but its numbers.

    `norms` are the L2 norms of its rows. `rms` is, for each layer, the root mean square over tokens of the
    L2 norm of the residual stream; None where it was not measured. `layer` is the layer chosen for use.
    """

    name: str
    layers: int
    width: int
    norms: tuple[float, ...]
    provenance: Provenance
    layer: int | None = None
    rms: tuple[float, ...] | None = None

    def layer_in_use(self, layer: int | None = None) -> int:
        """The layer asked for, or the one that the vector names.

        Raises:
            SpecError: there is neither, or the vector has no such layer, or no direction there.
        """
        found = self.layer if layer is None else layer
        if found is None:
            raise SpecError(f"vector '{self.name}' names no layer: state one with  layer:")
        if not 0 <= found < self.layers:
            raise SpecError(f"vector '{self.name}' has no layer {found}: its layers are 0 to {self.layers - 1}")
        if self.norms[found] == 0:
            raise SpecError(f"vector '{self.name}' has no direction at layer {found}: choose another layer")
        return found

    def dose_of(self, alpha: float, layer: int | None = None) -> float:
        """Return alpha * norm / residual RMS at the layer (docs/architecture.md, Words).

        Raises:
            SpecError: the residual RMS was not measured, or the layer does not exist.
        """
        at = self.layer_in_use(layer)
        return alpha * self.norms[at] / self._rms_at(at)

    def alpha_of(self, dose: float, layer: int | None = None) -> float:
        """The alpha of a dose: the inverse of `dose_of`.

        Raises:
            SpecError: the residual RMS was not measured, or the layer does not exist.
        """
        at = self.layer_in_use(layer)
        return dose * self._rms_at(at) / self.norms[at]

    def check(
        self,
        *,
        fingerprint: str | None = None,
        width: int | None = None,
        layers: int | None = None,
        layer: int | None = None,
    ) -> int:
        """Compare the vector with the model that it is to steer, and return the layer in use.

        What is None is not compared.

        Raises:
            SpecError: the vector is of another model, another width or number of layers, or has no such layer.
        """
        own = self.provenance
        if width is not None and self.width != width:
            raise SpecError(f"vector '{self.name}' has width {self.width}, but the model's hidden size is {width}")
        if layers is not None and self.layers != layers:
            raise SpecError(f"vector '{self.name}' has {self.layers} layers, but the model has {layers}")
        if fingerprint is not None and own.fingerprint != fingerprint:
            raise SpecError(
                f"vector '{self.name}' was made on '{own.model}' with other weights "
                f"({own.fingerprint[:12] or 'unknown'}) than this model's ({fingerprint[:12]}): extract it anew"
            )
        return self.layer_in_use(layer)

    def _rms_at(self, layer: int) -> float:
        if self.rms is None:
            raise SpecError(
                f"vector '{self.name}' carries no residual norms, so alpha cannot be given as a dose: "
                "measure them on its model first"
            )
        return self.rms[layer]


def read_header(path: str | Path) -> VectorHeader:
    """Read a vector's provenance and norms; the numbers stay on disk.

    Raises:
        SpecError: the file cannot be read or is not a windowshift vector.
    """
    with _opened(path) as file:
        return _header(file, Path(path))[0]


def read_vector(path: str | Path) -> tuple[VectorHeader, Directions]:
    """Read a vector whole, and check that its numbers are finite and fit its header.

    Raises:
        SpecError: the file cannot be read, is not a windowshift vector, or is damaged.
    """
    with _opened(path) as file:
        header, start = _header(file, Path(path))
        file.seek(start)
        raw = file.read(header.layers * header.width * 4 + 1)
    if len(raw) != header.layers * header.width * 4:
        raise SpecError(f"{path} is damaged: it does not hold the numbers that its header announces")
    directions = np.frombuffer(raw, dtype="<f4").reshape(header.layers, header.width).astype(np.float32)
    check_finite(header.name, directions)
    if not np.allclose(header.norms, norms_of(directions), rtol=1e-4, atol=1e-30):
        raise SpecError(f"{path} is damaged: its numbers do not have the norms that its header announces")
    return header, directions


def write_vector(path: str | Path, header: VectorHeader, directions: Directions, force: bool = False) -> None:
    """Write a vector whole or not at all.

    Raises:
        SpecError: its numbers do not fit, or the file is there already (without `force`) or cannot be written.
    """
    if directions.shape != (header.layers, header.width):
        raise SpecError(f"vector '{header.name}' has the shape {directions.shape}, not that of its header")
    check_finite(header.name, directions)
    data = np.ascontiguousarray(directions, dtype="<f4").tobytes()
    head = {
        "__metadata__": {"format": FORMAT, "vector": json.dumps(asdict(header), sort_keys=True, allow_nan=False)},
        TENSOR: {"dtype": "F32", "shape": [header.layers, header.width], "data_offsets": [0, len(data)]},
    }
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)  # safetensors aligns the numbers to eight bytes
    with whole_file(Path(path), force) as partial:
        partial.write_bytes(struct.pack("<Q", len(text)) + text + data)


def digest_of(header: VectorHeader, directions: Directions) -> str:
    """What determines a vector's effect, as 16 hex digits: its numbers, its layer and its model."""
    content = hashlib.sha256(repr((directions.shape, header.layer, header.provenance.fingerprint)).encode())
    content.update(np.ascontiguousarray(directions, dtype="<f4").tobytes())
    return content.hexdigest()[:16]


def norms_of(directions: Directions) -> tuple[float, ...]:
    """The L2 norm of each layer's direction."""
    return tuple(float(norm) for norm in np.linalg.norm(directions.astype(np.float64), axis=1))


def check_finite(name: str, directions: Directions) -> None:
    """Refuse NaN and infinity.

    Raises:
        SpecError: a number is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(directions).all(axis=1))
    if bad.size:
        raise SpecError(f"vector '{name}' holds NaN or infinity at layer {bad[0]}: it cannot be used")


def _opened(path: str | Path) -> BinaryIO:
    try:
        return at_home(path).open("rb")
    except OSError as error:
        raise SpecError(f"cannot read vector {path}: {error.strerror or error}") from error


def _header(file: BinaryIO, path: Path) -> tuple[VectorHeader, int]:
    """The header, and where the numbers begin."""
    refusal = f"{path} is not a steering vector made by windowshift"
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= _LARGEST_HEADER:
        raise SpecError(refusal)
    try:
        head = json.loads(file.read(length))
        metadata, tensor = head["__metadata__"], head[TENSOR]
        if metadata["format"] != FORMAT or tensor["dtype"] != "F32":
            raise SpecError(f"{refusal}, or of another version")
        header = _parsed(json.loads(metadata["vector"]))
        begin, end = tensor["data_offsets"]
        sound = tensor["shape"] == [header.layers, header.width] and end - begin == header.layers * header.width * 4
        require_whole(asdict(header), str(path))
    except SpecError:
        raise
    except Exception as error:  # a damaged file breaks anywhere
        raise SpecError(refusal) from error
    if not sound or begin < 0:
        raise SpecError(f"{path} is damaged: its header contradicts itself")
    return header, 8 + length + begin


def _parsed(record: Any) -> VectorHeader:
    known = {one.name for one in fields(Provenance)}
    own = {key: value for key, value in record["provenance"].items() if key in known}
    own["parents"] = tuple(own.get("parents", ()))
    rms = record["rms"]
    header = VectorHeader(
        name=str(record["name"]),
        layers=int(record["layers"]),
        width=int(record["width"]),
        norms=tuple(map(float, record["norms"])),
        provenance=Provenance(**own),
        layer=None if record["layer"] is None else int(record["layer"]),
        rms=None if rms is None else tuple(map(float, rms)),
    )
    numbers = (*header.norms, *(header.rms or ()))
    if header.layers < 1 or header.width < 1 or len(header.norms) != header.layers:
        raise ValueError("no numbers")
    if header.rms is not None and len(header.rms) != header.layers:
        raise ValueError("one residual norm a layer")
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError("norms are finite and not negative")
    return header
