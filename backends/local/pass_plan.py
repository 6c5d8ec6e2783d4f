"""How the rows of one pass through a model are dealt out to the jobs that share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowshift.backends.local.adapter_weights import AdapterWeights, Matrices
from windowshift.core.contract.errors import BackendError
from windowshift.steering.sending import sent


@dataclass(frozen=True, slots=True)
class Span:
    """The place of one job in a pass: its rows, and the columns that it would have alone.

    Attributes:
        first: its first row.
        rows: how many it has.
        width: the columns of its rows; what is right of them is padding for the sake of other jobs.
        learned_from: the first column with a loss.
        adapter: None trains nothing: the base model's rows.
    """

    first: int
    rows: int
    width: int
    learned_from: int
    adapter: AdapterWeights | None

    def take(self, every: Tensor, shift: int) -> Tensor:
        """Its part of a tensor [rows, columns, features] that lacks the first `shift` columns: a view."""
        return every[self.first : self.first + self.rows, self._start(shift) : self.width - shift]

    def matrices(self, path: str) -> Matrices | None:
        """Its adapter's matrices of a layer, where it has any."""
        return None if self.adapter is None else self.adapter.layers.get(path)

    def _start(self, shift: int) -> int:
        """Where the columns were cut, a job alone would have been cut at its own first loss."""
        return self.learned_from - shift if shift else 0


@dataclass(frozen=True, slots=True)
class Site:
    """A linear layer: its path, and its frozen weight as [in, out] and as [out, in]."""

    path: str
    right: Tensor
    left: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class PackedSite:
    """A linear layer whose weight is quantised, so that only itself can multiply with it."""

    path: str
    features: int
    base: Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Room:
    """A place for what each job gives out, and where it goes in the tensor of all: None where it is there already."""

    every: Tensor
    parts: Sequence[Tensor]
    places: Sequence[Tensor] | None

    def whole(self) -> Tensor:
        """The tensor of all: never a view of another one, which the model might not change in place."""
        if self.places is not None:
            for place, part in zip(self.places, self.parts, strict=True):
                place.copy_(part.view(place.shape))
        return self.every


class PassPlan:
    """How the rows of one pass are dealt out to its jobs."""

    def __init__(self, spans: Sequence[Span], width: int) -> None:
        self.spans, self.width = tuple(spans), width
        self._even = all(span.width == width for span in spans)
        self._last: tuple[Tensor, int, Sequence[Tensor]] | None = None
        self._jobs: dict[torch.device, Tensor] = {}
        self._scales: dict[tuple[tuple[float, ...], torch.dtype, torch.device], Tensor] = {}
        self._stacks: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        adapters = [span.adapter for span in self.spans]
        self._alike = len({None if each is None else each.layout for each in adapters}) == 1 and None not in adapters

    def check(self, path: str, x: Tensor) -> None:
        """See that a layer gets rows of tokens.

        Raises:
            BackendError: it does not, and several jobs share the pass.
        """
        last = self.spans[-1]
        if len(self.spans) > 1 and (x.dim() != 3 or x.shape[0] != last.first + last.rows or x.shape[1] > self.width):
            raise BackendError(f"{path} gets {tuple(x.shape)} where rows of tokens are needed")

    @property
    def even(self) -> bool:
        """Whether every job has as many rows."""
        return len({span.rows for span in self.spans}) == 1

    def jobs(self, device: torch.device) -> Tensor:
        """The number of each row's job [rows]."""
        if device not in self._jobs:
            numbers = [number for number, span in enumerate(self.spans) for _ in range(span.rows)]
            self._jobs[device] = sent(torch.tensor(numbers), device)
        return self._jobs[device]

    def stacks(self, path: str, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """All jobs' matrices of a layer, `A` [jobs, rank, in] and `B` [jobs, out, rank]; None where no job has any.

        Adapters of one rank are stacked once a pass, all layers together; others are padded with zeros.
        """
        found = [span.matrices(path) for span in self.spans]
        known = [each for each in found if each is not None]
        if not known:
            return None
        first = known[0]
        if self._alike:
            key = (x.dtype, x.device)
            if key not in self._stacks:
                every = torch.stack([span.adapter.flat.detach() for span in self.spans if span.adapter is not None])
                self._stacks[key] = every.to(device=x.device, dtype=x.dtype)
            every = self._stacks[key]
            parts = [
                every[:, start : start + part.numel()].view(len(self.spans), *part.shape)
                for start, part in ((first.down_at, first.down), (first.up_at, first.up))
            ]
            return parts[0], parts[1]
        rank = -(-max(each.down.shape[0] for each in known) // 8) * 8
        downs = x.new_zeros(len(self.spans), rank, first.down.shape[1])
        ups = x.new_zeros(len(self.spans), first.up.shape[0], rank)
        for place, each in enumerate(found):
            if each is not None:
                downs[place, : each.down.shape[0]] = each.down
                ups[place, :, : each.up.shape[1]] = each.up
        return downs, ups

    def scales(self, path: str, x: Tensor) -> Tensor | float:
        """The factor of each job's product: one number where they are equal, else [jobs, 1, 1]."""
        found = [0.0 if each is None else each.scale for each in (span.matrices(path) for span in self.spans)]
        if len(set(found)) == 1:
            return found[0]
        key = (tuple(found), x.dtype, x.device)
        if key not in self._scales:
            self._scales[key] = sent(torch.tensor(found, dtype=x.dtype), x.device)[:, None, None]
        return self._scales[key]

    def shift(self, x: Tensor) -> int:
        """How many columns at the beginning a tensor [rows, columns, features] lacks."""
        return 0 if len(self.spans) == 1 else self.width - x.shape[1]

    def parts(self, x: Tensor, shift: int, *, keep: bool = True) -> Sequence[Tensor]:
        """Each job's numbers [tokens, features]; several layers in a row ask for those of the same tensor."""
        if self._last is not None and self._last[0] is x and self._last[1] == x._version:
            return self._last[2]
        if self._whole(shift):
            found: Sequence[Tensor] = torch.split(x.reshape(-1, x.shape[-1]), self._sizes(x))
        else:
            found = [span.take(x, shift).reshape(-1, x.shape[-1]) for span in self.spans]
        if keep and not x.is_inference():  # such a tensor does not know whether it was changed in place since
            self._last = (x, x._version, found)
        return found

    def room(self, x: Tensor, features: int, shift: int) -> Room:
        """A place for `features` numbers a token of `x`; those of padding are 0."""
        if self._whole(shift):
            every = x.new_empty(*x.shape[:-1], features)
            return Room(every, torch.split(every.view(-1, features), self._sizes(x)), None)
        every = x.new_zeros(*x.shape[:-1], features)
        places = [span.take(every, shift) for span in self.spans]
        return Room(every, [x.new_empty(place.shape[0] * place.shape[1], features) for place in places], places)

    def _whole(self, shift: int) -> bool:
        """Whether no job has padding, nor a column that it would lack alone."""
        return len(self.spans) == 1 or (
            self._even and (not shift or all(span.learned_from == shift for span in self.spans))
        )

    def _sizes(self, x: Tensor) -> list[int]:
        rows = x.numel() // x.shape[-1]
        return [rows] if len(self.spans) == 1 else [span.rows * x.shape[1] for span in self.spans]
