"""A cache whose rows come and go while the others are decoded: keys and values, and recurrent states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from windowshift.core.contract.errors import BackendError

CHUNK = 16


@dataclass(frozen=True, slots=True)
class FixedPlace:
    """What a step of fixed shapes reads and writes: the first `rows` and `columns`; `at` [1] is the column written."""

    rows: int
    columns: int
    at: Tensor


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """Keys and values of one layer in preallocated buffers [slots, heads, columns, width].

    All rows end at the same column; `first` is the earliest column that a live row needs. The layer
    is always a full one: windows of sliding attention are cut by the mask, which sees columns, and
    a row's tokens are contiguous.
    """

    is_sliding = False
    device: Any
    dtype: Any

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__()
        self.slots, self.columns = slots, columns
        self.rows, self.first, self.end = 0, 0, 0
        self.fixed: FixedPlace | None = None

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
        if self.fixed is not None:
            rows, columns, at = self.fixed.rows, self.fixed.columns, self.fixed.at
            self.keys[:rows].index_copy_(2, at, key_states)
            self.values[:rows].index_copy_(2, at, value_states)
            return self.keys[:rows, :, :columns], self.values[:rows, :, :columns]
        end = self.end + key_states.shape[2]
        self.keys[: self.rows, :, self.end : end] = key_states
        self.values[: self.rows, :, self.end : end] = value_states
        self.end = end
        return self.keys[: self.rows, :, self.first : end], self.values[: self.rows, :, self.first : end]

    def get_seq_length(self) -> Any:
        """Live columns so far; in a step of fixed shapes a tensor [], as in a static cache of transformers."""
        return self.end - self.first if self.fixed is None else self.fixed.at.view(())

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention sees, and the first of them."""
        if self.fixed is not None:
            return self.fixed.columns, 0
        sizes: tuple[int, int] = super().get_mask_sizes(query_length)
        return sizes

    @property
    def is_compileable(self) -> bool:
        """Whether masks are made without a look at their values, which would wait for the device."""
        return self.fixed is not None

    def move_rows(self, sources: Tensor, targets: Tensor) -> None:
        """Copy the live columns of rows `sources` over rows `targets`."""
        if self.is_initialized:
            for buffer in (self.keys, self.values):
                live = buffer[:, :, self.first : self.end]
                live[targets] = live[sources]

    def admit(self, new: SlotLayer, lengths: Tensor, at: int, end: int) -> None:
        """Copy all rows of `new`, padded on the right to its columns, to rows `at`..., so that they end at `end`."""
        if not new.is_initialized:  # a layer that shares the cache of another one
            return
        if not self.is_initialized:
            self.lazy_initialization(new.keys, new.values)
        rows, width = new.rows, new.end
        columns = torch.arange(width, device=new.device)
        order = (columns[None, :] - (width - lengths[:, None])) % width
        into = slice(end - width, end)
        for target, source in ((self.keys, new.keys), (self.values, new.values)):
            target[at : at + rows, :, into] = source.take_along_dim(order[:, None, :, None], dim=2)

    def begin(self, common: SlotLayer, which: Tensor, lengths: Tensor, end: int) -> None:
        """Give row i the first ``lengths[i]`` columns of row ``which[i]`` of `common`, so that they end at `end`."""
        if not common.is_initialized:  # a layer that shares the cache of another one
            return
        self.lazy_initialization(common.keys, common.values)
        columns = torch.arange(common.end, device=common.device)
        order = (columns[None, :] - (common.end - lengths[:, None])) % common.end
        for target, source in ((self.keys, common.keys), (self.values, common.values)):
            target[:, :, end - common.end : end] = source[which].take_along_dim(order[:, None, :, None], dim=2)

    def relocate(self, first: int, columns: int) -> None:
        """Move the live columns so that they begin at `first`, in buffers of `columns` columns."""
        width = self.end - self.first
        if self.is_initialized:
            for name in ("keys", "values"):
                buffer = getattr(self, name)
                live = buffer[:, :, self.first : self.end].clone()
                if columns != self.columns:
                    buffer = buffer.new_zeros(buffer.shape[0], buffer.shape[1], columns, buffer.shape[3])
                    setattr(self, name, buffer)
                buffer[:, :, first : first + width] = live
        self.first, self.end, self.columns = first, first + width, columns


class StateLayer(LinearAttentionLayer):  # type: ignore[misc]  # transformers is untyped here
    """What one layer of a recurrent model (Mamba, gated delta net, short convolutions) keeps of the live rows.

    transformers' own class, in which rows come and go. A state has no columns, so rows must come into it
    without padding.
    """

    device: Any
    dtype: Any

    def move_rows(self, sources: Tensor, targets: Tensor) -> None:
        """Copy the states of rows `sources` over rows `targets`."""
        for states in (self.conv_states, self.recurrent_states):
            for state in states.values():
                if state is not None:
                    state[targets] = state[sources]

    def cut(self, rows: int) -> None:
        """Forget all but the first `rows` rows."""
        for states in (self.conv_states, self.recurrent_states):
            for index, state in states.items():
                if state is not None and state.shape[0] > rows:
                    states[index] = state[:rows]

    def admit_states(self, new: StateLayer, at: int) -> None:
        """Put the states of all rows of `new` behind the first `at` rows."""
        self.cut(at)
        for own, fresh in ((self.conv_states, new.conv_states), (self.recurrent_states, new.recurrent_states)):
            for index, state in fresh.items():
                if state is not None:
                    before = own.get(index)
                    own[index] = state if before is None else torch.cat([before, state])
        for name in (
            "is_conv_states_initialized",
            "is_recurrent_states_initialized",
            "has_previous_state",
            "conv_kernel_size",
        ):
            getattr(self, name).update(getattr(new, name))
        self.device, self.dtype = new.device, new.dtype


class SlotStateLayer(StateLayer, SlotLayer):
    """A layer that has both: attention and a recurrence beside it."""

    def __init__(self, slots: int, columns: int, number_of_states: int) -> None:
        SlotLayer.__init__(self, slots, columns)
        LinearAttentionLayer.__init__(self, number_of_states=number_of_states)

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Allocate keys and values (given in order) or states (given by name), as transformers' hybrid layer does."""
        if args:
            SlotLayer.lazy_initialization(self, *args)
        else:
            LinearAttentionLayer.lazy_initialization(self, **kwargs)

    def move_rows(self, sources: Tensor, targets: Tensor) -> None:
        """Copy what is kept of rows `sources` over rows `targets`."""
        StateLayer.move_rows(self, sources, targets)
        SlotLayer.move_rows(self, sources, targets)


class CachePlan:
    """What kind of cache each layer of a model needs, by its configuration.

    Args:
        model: the model, or None where every layer is taken to have keys and values.

    Raises:
        BackendError: a layer keeps something that rows cannot come into and leave.
    """

    def __init__(self, model: Any) -> None:
        config, name = model.config, type(model).__name__
        supported = getattr(type(model), "_supports_default_dynamic_cache", None)
        if supported is not None and not supported():
            raise BackendError(f"'{name}' keeps a state of its own kind between tokens, which no cache here can hold")
        text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
        try:
            layers = list(DynamicCache(config=text).layers)
        except (KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"'{name}' has layers whose cache transformers does not know: {error}") from error
        self._kinds: list[tuple[bool, int]] = []  # of every layer: keys and values, and how many states
        for index, layer in enumerate(layers):
            states = layer.number_of_states if isinstance(layer, LinearAttentionCacheLayerMixin) else 0
            keys = isinstance(layer, DynamicLayer)
            known = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer) or states
            if not known:
                kind = type(layer).__name__
                raise BackendError(f"layer {index} of '{name}' needs a cache of its own kind ({kind})")
            self._kinds.append((keys or not states, states))
        # A configuration may name the layers that have a cache only.
        self._kinds += [(True, 0)] * (int(text.num_hidden_layers) - len(layers))

    @property
    def recurrent(self) -> bool:
        """Whether some layer keeps a state, so that padding must not run through the model."""
        return any(states for _, states in self._kinds)

    @property
    def attends(self) -> bool:
        """Whether some layer has keys and values, so that a step needs a mask."""
        return any(keys for keys, _ in self._kinds)

    def layer(self, index: int, slots: int, columns: int) -> SlotLayer | StateLayer:
        """An empty cache of one layer."""
        keys, states = self._kinds[index]
        if keys and states:
            return SlotStateLayer(slots, columns, states)
        return StateLayer(number_of_states=states) if states else SlotLayer(slots, columns)

    def __len__(self) -> int:
        return len(self._kinds)


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """A cache of `slots` rows by `columns`, of which the first `rows` rows are live.

    Rows leave by `move_rows` (the last rows move into the holes) and `span`, and enter by `admit`; `relocate`
    moves the live columns when they run out of room.
    """

    def __init__(self, plan: CachePlan, slots: int, columns: int) -> None:
        made = [plan.layer(index, slots, columns) for index in range(len(plan))]
        self._slot_layers = [layer for layer in made if isinstance(layer, SlotLayer)]
        self._state_layers = [layer for layer in made if isinstance(layer, StateLayer)]
        super().__init__(layers=made)
        self.columns, self.first, self.end = columns, 0, 0
        # For every `CHUNK` live rows, the first column (from `first`) that one of them needs.
        self.chunk_firsts: list[int] = []

    def span(self, rows: int, first: int) -> None:
        """Declare the live rows and the first column that one of them needs."""
        self.first = first
        for layer in self._slot_layers:
            layer.rows, layer.first = rows, first
        for state in self._state_layers:
            state.cut(rows)

    @contextmanager
    def fixed(self, rows: int, columns: int, at: Tensor) -> Iterator[None]:
        """Within this block layers write column `at` [1] of the first `rows` rows, and give out the first `columns`."""
        place = FixedPlace(rows, columns, at)
        for layer in self._slot_layers:
            layer.fixed = place
        try:
            yield
        finally:
            for layer in self._slot_layers:
                layer.fixed = None

    def place(self, end: int) -> None:
        """Declare where the next column goes: behind what a pass has written, or anywhere without live rows."""
        self.end = end
        for layer in self._slot_layers:
            layer.end = end

    def move_rows(self, sources: Tensor, targets: Tensor) -> None:
        """Copy what is kept of rows `sources` over rows `targets`."""
        for layer in self.layers:
            layer.move_rows(sources, targets)

    def admit(self, other: SlotCache, lengths: Tensor, at: int, end: int) -> None:
        """Copy all rows of `other`, padded on the right, to rows `at`..., so that they end at `end`.

        `lengths` [rows] counts each row's real columns. Padding lands before a row's first column; where there
        are recurrent layers, there must be none.
        """
        for layer, new in zip(self._slot_layers, other._slot_layers, strict=True):
            layer.admit(new, lengths, at, end)
        for state, fresh in zip(self._state_layers, other._state_layers, strict=True):
            state.admit_states(fresh, at)
        self.place(end)

    def begin(self, common: SlotCache, which: Tensor, lengths: Tensor, end: int) -> None:
        """Give row i the first ``lengths[i]`` columns of row ``which[i]`` of `common`, so that they end at `end`.

        There are no recurrent layers.
        """
        for layer, other in zip(self._slot_layers, common._slot_layers, strict=True):
            layer.begin(other, which, lengths, end)
        self.place(end)

    def relocate(self, first: int, columns: int) -> None:
        """Move the live columns so that they begin at `first`, in buffers of `columns` columns."""
        for layer in self._slot_layers:
            layer.relocate(first, columns)
        self.first, self.end, self.columns = first, first + self.end - self.first, columns

    @property
    def bytes(self) -> int:
        """What the buffers of keys and values take."""
        known = [buffer for layer in self._slot_layers if layer.is_initialized for buffer in (layer.keys, layer.values)]
        return sum(buffer.numel() * buffer.element_size() for buffer in known)

    def room(self, new: int) -> bool:
        """Whether `new` more columns fit behind the last one."""
        return self.end + new <= self.columns
