"""Decode steps in tensors of fixed places and shapes: on CUDA each is recorded once and played again as one launch.

What a step of a small model takes is hundreds of launches from Python, and not the arithmetic. A CUDA graph has them
all in one. It is recorded by hand and not by torch.compile: layers are patched here with the adapters of the rows, and
steered through nnsight, neither of which a compiler sees through; transformers' own continuous batching records its
steps the same way.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from windowshift.backends.local.decode_row import Row
from windowshift.backends.local.kv_cache import SlotCache
from windowshift.backends.shared.refusal import library_reason

if TYPE_CHECKING:
    from windowshift.backends.local.fixed_forward import FixedForward

log = logging.getLogger("windowshift.local")

_RECORDED = 48
"""Graphs kept: each has its launches in memory, about a thousand for thirty layers."""
_LEAST_COLUMNS = 64
_SLACK = 64
"""Columns that are to be free where the live ones are moved to the beginning: it is done every so many steps."""


@dataclass(slots=True)
class StepCounts:
    """Steps of a decode batch: played from a record, recorded, and run launch by launch; and why the last, if always.

    Attributes:
        played: steps that were one launch.
        recorded: graphs that were recorded.
        launched: steps of which every operation was launched from Python.
        fault: why none is recorded.
    """

    played: int = 0
    recorded: int = 0
    launched: int = 0
    fault: str | None = None

    @property
    def steps(self) -> int:
        """All steps."""
        return self.played + self.launched


def bucket_of(rows: int, slots: int) -> int:
    """Rows of the step that serves so many: few sizes, as each is recorded by itself."""
    size = 1 << max(rows - 1, 0).bit_length()
    return min(size if size <= 32 else -(-rows // 32) * 32, slots)


def columns_of(columns: int) -> int:
    """Columns of the cache that a step with so many live ones looks at: powers of two, and half-way between them."""
    size = _LEAST_COLUMNS
    while size < columns:
        if size > _LEAST_COLUMNS and size + size // 2 >= columns:
            return size + size // 2
        size *= 2
    return size


def columns_for(longest: int) -> int:
    """Columns of a cache for rows of at most so many tokens, prompt and completion: with room to move them seldom."""
    return columns_of(longest + _SLACK)


class StaticSteps:
    """Steps of the rows of one decode batch.

    The first step of a kind (so many rows, so many columns, adapters and pushes or not) runs operation by operation,
    which loads what it needs; the second is recorded, and played from then on. Where there is no CUDA, or a step cannot
    be recorded, all run operation by operation, through the same tensors.

    Args:
        forward: the model with what is in force in its rows.
        cache: of the batch, written in place.
        slots: rows at most.
        device: where all of it is.
        tokens: [slots], the token that each row drew last.
        start: [slots], its first column.
        alive: [slots], bool: rows that have not ended.
        counts: is told what was done.
    """

    def __init__(
        self,
        forward: FixedForward,
        cache: SlotCache,
        slots: int,
        device: torch.device,
        tokens: Tensor,
        start: Tensor,
        alive: Tensor,
        counts: StepCounts,
    ) -> None:
        self._forward, self._cache, self._slots, self._device = forward, cache, slots, device
        self._tokens, self._start, self._alive = tokens, start, alive
        self.counts = counts
        self._at = torch.zeros(1, dtype=torch.long, device=device)  # the column that is written
        self._every = torch.arange(0, device=device)
        self._logits: Tensor | None = None
        self._recorder = recorder_for(device)
        self._played: OrderedDict[Hashable, Callable[[], None] | None] = OrderedDict()  # None: was taken once

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Feed each row the token that it drew last, and write it to the column `cache.end`; logits [rows, vocabulary].

        They are overwritten by the next step.
        """
        cache, size = self._cache, len(rows)
        bucket, columns = bucket_of(size, self._slots), min(columns_of(cache.end + 1), cache.columns)
        if self._every.shape[0] < cache.columns:
            self._every = torch.arange(cache.columns, device=self._device)
            self.forget()
        self._at.fill_(cache.end)
        key = (bucket, columns, self._forward.put(rows, bucket))
        self._run(key, partial(self._step, bucket, columns))
        self._forward.asked()
        assert self._logits is not None
        return self._logits[:size]

    def moves(self) -> bool:
        """Whether the live columns are to be moved to the beginning, so that steps look at fewer."""
        cache = self._cache
        width = cache.end - cache.first
        return cache.first > 0 and columns_of(width + _SLACK) < min(columns_of(cache.end + 1), cache.columns + 1)

    def forget(self) -> None:
        """Buffers were made anew: what was recorded writes to the old ones."""
        self._played.clear()

    def _step(self, bucket: int, columns: int) -> None:
        """All of a step that is recorded: nothing here may wait for the device, or depend on what is in a tensor."""
        every, start, alive = self._every[:columns], self._start[:bucket], self._alive[:bucket]
        # Places behind the last row are nobody's: what is left there looks at its own column at least.
        mask = ((every >= start[:, None]) & (every <= self._at)) | (every == self._at)
        positions = (self._at - start).clamp_min(0)[:, None]
        with self._cache.fixed(bucket, columns, self._at):
            logits = self._forward(self._tokens[:bucket, None], mask.long(), positions, alive, self._cache)
        if self._logits is None:
            self._logits = logits.new_empty(self._slots, logits.shape[1])
        self._logits[:bucket].copy_(logits)

    def _run(self, key: Hashable, step: Callable[[], None]) -> None:
        counts = self.counts
        play = self._played.get(key)
        if self._recorder is not None and counts.fault is None and play is None and key in self._played:
            play = self._played[key] = self._recorded(self._recorder, step)
        if play is None:
            step()
            counts.launched += 1
        else:
            play()
            counts.played += 1
        if self._recorder is not None:
            self._played[key] = play
            self._played.move_to_end(key)
            while len(self._played) > _RECORDED:
                self._played.popitem(last=False)

    def _recorded(self, recorder: Recorder, step: Callable[[], None]) -> Callable[[], None] | None:
        """What plays a step again; None where it cannot be recorded, which is said once and not tried again."""
        try:
            play = recorder(step)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an architecture may do anything in a step
            self.counts.fault = library_reason(error)
            log.warning(
                "decode steps cannot be recorded as CUDA graphs, and are launched one by one: %s", self.counts.fault
            )
            return None
        self.counts.recorded += 1
        return play


Recorder: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""Given a step, what takes it again without Python: the same operations on the same tensors."""


class CudaGraphs:
    """Records steps as CUDA graphs, which share one pool of memory: no two are played at a time."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record a step without taking it."""
        graph = torch.cuda.CUDAGraph()
        # Other threads write adapters meanwhile, which copies from the device: only this one is watched.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """What records steps on a device; None where they are launched one by one."""
    return CudaGraphs() if device.type == "cuda" else None
