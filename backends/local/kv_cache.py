"""A key-value cache whose rows come and go while the others are decoded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

CHUNK = 16


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """Keys and values of one layer in preallocated buffers [slots, heads, columns, width].

    All rows end at the same column; `first` is the earliest column that a live row needs. The layer
    is always a full one: windows of sliding attention are cut by the mask, which sees columns, and
    a row's tokens are contiguous.
    """

    is_sliding = False

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__()
        self.slots, self.columns = slots, columns
        self.rows, self.first, self.end = 0, 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate buffers shaped like the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros(self.slots, key_states.shape[1], self.columns, key_states.shape[3])
        self.values = value_states.new_zeros(self.slots, value_states.shape[1], self.columns, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new columns [rows, heads, new, width] and return all live columns as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.end + key_states.shape[2]
        self.keys[: self.rows, :, self.end : end] = key_states
        self.values[: self.rows, :, self.end : end] = value_states
        self.end = end
        return self.keys[: self.rows, :, self.first : end], self.values[: self.rows, :, self.first : end]

    def get_seq_length(self) -> int:
        """Live columns so far."""
        return self.end - self.first


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """A cache of `slots` rows by `columns`, of which the first `rows` rows are live.

    Rows leave by `keep` (the last rows move into the holes) and enter by `admit`; `relocate` moves
    the live columns when they run out of room.
    """

    def __init__(self, layers: int, slots: int, columns: int) -> None:
        self._slot_layers = [SlotLayer(slots, columns) for _ in range(layers)]
        super().__init__(layers=self._slot_layers)
        self.columns = columns
        # For every `CHUNK` live rows, the first column (from `first`) that one of them needs.
        self.chunk_firsts: list[int] = []

    @property
    def end(self) -> int:
        """The column after the last one written."""
        return self._slot_layers[0].end

    @property
    def first(self) -> int:
        """The first column that attention sees."""
        return self._slot_layers[0].first

    def span(self, rows: int, first: int) -> None:
        """Declare the live rows and the first column that one of them needs."""
        for layer in self._slot_layers:
            layer.rows, layer.first = rows, first

    def place(self, end: int) -> None:
        """Declare where the next column goes, in a cache without live rows."""
        for layer in self._slot_layers:
            layer.end = end

    def move_rows(self, sources: Tensor, targets: Tensor) -> None:
        """Copy the live columns of rows `sources` over rows `targets`."""
        for layer in self._slot_layers:
            if layer.is_initialized:
                for buffer in (layer.keys, layer.values):
                    live = buffer[:, :, layer.first : layer.end]
                    live[targets] = live[sources]

    def admit(self, other: SlotCache, lengths: Tensor, at: int, end: int) -> None:
        """Copy all rows of `other`, padded on the right, to rows `at`..., so that they end at `end`.

        `lengths` [rows] counts each row's real columns. Padding lands before a row's first column.
        """
        for layer, new in zip(self._slot_layers, other._slot_layers, strict=True):
            if not new.is_initialized:  # a layer that shares the cache of another one
                continue
            if not layer.is_initialized:
                layer.lazy_initialization(new.keys, new.values)
            rows, width = new.rows, new.end
            columns = torch.arange(width, device=new.device)
            order = (columns[None, :] - (width - lengths[:, None])) % width
            into = slice(end - width, end)
            for target, source in ((layer.keys, new.keys), (layer.values, new.values)):
                target[at : at + rows, :, into] = source.take_along_dim(order[:, None, :, None], dim=2)
            layer.end = end

    def relocate(self, first: int, columns: int) -> None:
        """Move the live columns so that they begin at `first`, in buffers of `columns` columns."""
        for layer in self._slot_layers:
            width = layer.end - layer.first
            if layer.is_initialized:
                for name in ("keys", "values"):
                    buffer = getattr(layer, name)
                    live = buffer[:, :, layer.first : layer.end].clone()
                    if columns != layer.columns:
                        buffer = buffer.new_zeros(buffer.shape[0], buffer.shape[1], columns, buffer.shape[3])
                        setattr(layer, name, buffer)
                    buffer[:, :, first : first + width] = live
            layer.first, layer.end, layer.columns = first, first + width, columns
        self.columns = columns

    def room(self, new: int) -> bool:
        """Whether `new` more columns fit behind the last one."""
        return self.end + new <= self.columns


def cache_layers(config: Any) -> int:
    """How many cache layers a model of this configuration indexes."""
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return int(text.num_hidden_layers)
