"""The weight files of a model folder: which of them are loaded, what they hold, and what tells them apart. No torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import BackendError

MIB = 1 << 20
TINY_PARAMETERS = 6_000_000  # below it one core is all that a model can use, and a GPU is slower than that core
_SAMPLE = 4096
_HEADER = 100 * MIB
# In the order in which transformers looks for them.
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_NOT_THE_MODEL = ("adapter_model.safetensors", "adapter_model.bin")


def weight_files(base: str, folder: Path) -> list[Path]:
    """All weight files of a folder, by name.

    Raises:
        BackendError: there are none, or not all that the folder's index names, or shards without an index.
    """
    found = {*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")}
    files = sorted(path for path in found if path.name not in _NOT_THE_MODEL)
    if not files:
        raise BackendError(f"model folder '{base}' has no weights (*.safetensors or pytorch_model*.bin)")
    for single in _SINGLE:
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return files
        if index.is_file():
            lacking = sorted(name for name in _shards(base, index) if not (folder / name).is_file())
            if lacking:
                raise BackendError(
                    f"model folder '{base}' lacks {len(lacking)} of the weight files that {index.name} names, such as "
                    f"{lacking[0]}: fetch it again"
                )
            return files
    raise BackendError(
        f"model folder '{base}' has weight files ({files[0].name}, ...) but neither {_SINGLE[0]} nor its index "
        f"{_SINGLE[0]}.index.json, which says what is in which: fetch it again"
    )


def parameters(base: str, folder: Path) -> int:
    """How many numbers the weights are, from the heads of the files; no weights are read.

    Raises:
        BackendError: as `weight_files`, or a file that cannot be read.
    """
    count = 0
    for path in weight_files(base, folder):
        if path.suffix == ".safetensors":
            count += sum(math.prod(shape) for shape, _, _ in _tensors(base, path))
        else:
            count += path.stat().st_size // 4  # a pickle does not say: float32 is the most that it takes
    return count


def digest_samples(digest: Any, base: str, path: Path) -> None:
    """Add the middle, and both quarters, of every tensor of a file to a digest; of a pickle, a piece of every MiB.

    Training or merging changes a tensor all over, so that this tells files apart without reading all of them.
    """
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        places = [
            begin + (end - begin) * part // 4
            for _, begin, end in _tensors(base, path)
            for part in (1, 2, 3)
            if end > begin
        ]
    else:
        places = list(range(0, size, MIB))
    with path.open("rb") as file:
        for place in places:
            file.seek(min(place, max(0, size - _SAMPLE)))
            digest.update(file.read(_SAMPLE))


def digest_ends(digest: Any, path: Path) -> None:
    """Add name, size, first and last MiB of a file to a digest."""
    size = path.stat().st_size
    digest.update(f"{path.name}:{size}\n".encode())
    with path.open("rb") as file:
        digest.update(file.read(MIB))
        if size > MIB:
            file.seek(max(MIB, size - MIB))
            digest.update(file.read(MIB))


def _tensors(base: str, path: Path) -> Iterator[tuple[list[int], int, int]]:
    """Shape, first byte and last byte of every tensor, as the head of a safetensors file says."""
    where = f"{path.name} of model folder '{base}'"
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER:
                raise ValueError("its head is too long")
            head = json.loads(file.read(length))
        for name, tensor in head.items():
            if name == "__metadata__":
                continue
            begin, end = tensor["data_offsets"]
            yield [int(each) for each in tensor["shape"]], 8 + length + int(begin), 8 + length + int(end)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise BackendError(f"{where} is no whole safetensors file ({error}): fetch it again") from error


def _shards(base: str, index: Path) -> set[str]:
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        shards = {str(name) for name in named}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BackendError(f"{index.name} of model folder '{base}' cannot be read: {error}") from error
    if any(Path(name).name != name for name in shards):
        raise BackendError(f"{index.name} of model folder '{base}' names files outside of the folder")
    return shards
