"""LoRA adapters at vLLM: loaded from their PEFT folders when they are asked for, unloaded when too many are known."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from windowshift.backends.shared.adapter_fields import CONFIG, plain_lora_fields
from windowshift.backends.vllm.engine import Engine, EngineError
from windowshift.core.contract.backend import ModelSize
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.home import at_home

WEIGHTS = "adapter_model.safetensors"
_LARGEST_HEADER = 16 * 1024 * 1024
_WEIGHT = re.compile(r"\.(\d+)\.(?:\w+\.)*?(\w+)\.lora_([AB])\.weight$")
# Modules that read the residual stream (their A), and those that write to it (their B).
_WIDE = {("A", name) for name in ("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj")}
_WIDE |= {("B", name) for name in ("o_proj", "down_proj")}
_RANK = re.compile(r"rank (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """A PEFT folder as it was when a request named it; `name` changes with what is in it."""

    name: str
    folder: str
    rank: int

    @classmethod
    def at(cls, folder: str, base: str, size: ModelSize) -> AdapterFolder:
        """Find the adapter in a folder, and compare it with the model: vLLM itself would take one that does not fit.

        Raises:
            BackendError: the folder does not hold a LoRA adapter that vLLM can use, or one of another model.
        """
        path = at_home(folder)
        for name in (CONFIG, WEIGHTS):
            if not (path / name).is_file():
                raise BackendError(f"adapter folder '{folder}' has no {name}")
        path = path.resolve()
        try:
            text = (path / CONFIG).read_bytes()
            config = plain_lora_fields(path)
            rank = int(config["r"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackendError(f"{CONFIG} of adapter folder '{folder}' cannot be read: {error!r}") from error
        for name in ("rank_pattern", "alpha_pattern"):
            if config.get(name):
                raise BackendError(f"adapter '{folder}' has a {name}, which vLLM reads over: take backend local")
        problem = _misfit(_shapes(path / WEIGHTS), size)
        if problem is not None:
            raise BackendError(f"adapter '{folder}' does not fit '{base}': {problem}")
        found = (path / WEIGHTS).stat()
        digest = hashlib.sha256(text + f"{path}:{found.st_size}:{found.st_mtime_ns}".encode()).hexdigest()
        return cls(f"windowshift-{digest[:20]}", str(path), rank)


class Shelf:
    """The adapters that an engine knows through this process, at most `most` where none more are in use.

    vLLM itself keeps `max_loras` of them in a batch and `max_cpu_loras` in memory, and reads one again from its
    folder when it needs it; what is bounded here is the list of names.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine, self._most = engine, most
        self._known: OrderedDict[AdapterFolder, int] = OrderedDict()  # how many requests use it now
        self._refused: dict[AdapterFolder, EngineError] = {}
        self._lock = asyncio.Lock()

    async def take(self, adapter: AdapterFolder) -> str:
        """The name to ask under; the adapter stays until `put_back`.

        Raises:
            EngineError: vLLM does not load it; the sentence names the remedy.
        """
        async with self._lock:
            if adapter in self._refused:
                raise self._refused[adapter]
            if adapter not in self._known:
                try:
                    await self._load(adapter)
                except EngineError as error:
                    if error.status is not None:  # an answer, which another try would get too
                        self._refused[adapter] = error
                    raise
            self._known[adapter] = self._known.get(adapter, 0) + 1
            self._known.move_to_end(adapter)
            await self._shrink()
        return adapter.name

    def put_back(self, adapter: AdapterFolder) -> None:
        """A request that used it has ended."""
        self._known[adapter] -= 1

    async def load_again(self, adapter: AdapterFolder) -> None:
        """Make an adapter in use known once more to an engine that has forgotten it, as one does that was restarted.

        Raises:
            EngineError: vLLM does not load it.
        """
        async with self._lock:
            await self._load(adapter)

    @property
    def known(self) -> int:
        """How many adapters the engine knows through this process."""
        return len(self._known)

    async def aclose(self) -> None:
        """Unload all."""
        async with self._lock:
            for adapter in list(self._known):
                with suppress(EngineError):  # the server may be gone already
                    await self._engine.unload_adapter(adapter.name)
            self._known.clear()

    async def _shrink(self) -> None:
        idle = [adapter for adapter, users in self._known.items() if not users]
        for adapter in idle[: max(0, len(self._known) - self._most)]:
            del self._known[adapter]
            with suppress(EngineError):  # another process may have unloaded it
                await self._engine.unload_adapter(adapter.name)

    async def _load(self, adapter: AdapterFolder) -> None:
        try:
            await self._engine.load_adapter(adapter.name, adapter.folder)
        except EngineError as error:
            said = str(error)
            if "max_lora_rank" in said or ("rank" in said.lower() and _RANK.search(said)):
                raise EngineError(
                    f"adapter '{adapter.folder}' has rank {adapter.rank}, which is more than vLLM was started for: "
                    f"start it with  --max-lora-rank {_next_rank(adapter.rank)}",
                    error.status,
                ) from None
            if "No adapter found" in said:
                raise EngineError(
                    f"vLLM does not find the adapter folder '{adapter.folder}': it must run where that folder is, "
                    "under the same path",
                    error.status,
                ) from None
            raise EngineError(f"adapter '{adapter.folder}' does not load: {said}", error.status) from None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file, from its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST_HEADER:
                raise ValueError("no header")
            head = json.loads(file.read(length))
        return {name: tuple(one["shape"]) for name, one in head.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise BackendError(f"adapter weights {path} cannot be read: {error}") from error


def _misfit(shapes: Mapping[str, tuple[int, ...]], size: ModelSize) -> str | None:
    """What shows that an adapter is of another model, or no plain LoRA; None where nothing does."""
    for name, shape in shapes.items():
        found = _WEIGHT.search(name)
        if found is None or len(shape) != 2:
            return f"it holds {name}, which is no plain LoRA weight of a decoder layer"
        layer, module, side = int(found[1]), found[2], found[3]
        if layer >= size.layers:
            return f"it has a layer {layer}, and the model has {size.layers}"
        if (side, module) in _WIDE and shape[1 if side == "A" else 0] != size.width:
            return f"{name} is {shape}, and the model's hidden size is {size.width}"
    return None if shapes else "it holds no weights"


def _next_rank(rank: int) -> int:
    """The smallest rank that vLLM can be started for and that holds this one."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
