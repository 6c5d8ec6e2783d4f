"""Forward passes over rows of different adapters: one base product for all rows, and each row's own LoRA."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from windowshift.backends.local.adapters import ATTACHED, AdapterFile, Adapters
from windowshift.core.contract.errors import BackendError

_KEPT = 8  # stacks of adapters: a decode batch, and those of the prefills beside it


@dataclass(frozen=True, slots=True, eq=False)
class RowAdapter:
    """An adapter as passes need it: by the path of a layer, `down` [in, rank] and `up` [rank, out] with its factor."""

    layers: Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Of one layer: all adapters side by side, `down` [in, ranks] and `up` [ranks, out], and whose each rank is."""

    down: Tensor
    up: Tensor
    owners: tuple[int, ...]


class RowAdapters:
    """The adapters that a model samples from, any of them in one pass.

    The matrices of all adapters of a pass stand side by side, so that a layer needs two products more and not two
    for each adapter; what another one's ranks give a row is set to 0 between them. Nothing is merged: which rows
    share a pass changes from step to step.

    Args:
        sites: the linear layers of the model that samples, by path.
        adapters: reads and checks them.
        dtype: of the model that samples: what layers compute in whose weights are quantised.

    Attributes:
        sites: as given.
    """

    def __init__(self, sites: Mapping[str, nn.Module], adapters: Adapters, dtype: torch.dtype) -> None:
        self.sites, self._adapters, self._dtype = sites, adapters, dtype
        self._known: OrderedDict[AdapterFile, RowAdapter] = OrderedDict()
        self._stacks: OrderedDict[tuple[RowAdapter, ...], dict[str, _Stack]] = OrderedDict()
        self._last: tuple[list[RowAdapter | None], list[tuple[nn.Module, Any]]] = ([], [])

    @torch.no_grad()
    def load(self, file: AdapterFile) -> RowAdapter:
        """The adapter as it was saved; the `ATTACHED` used last are kept.

        Raises:
            BackendError: it is not a plain LoRA adapter of this model, or its numbers are not finite in the model's.
        """
        if file not in self._known:
            made = self.made(self._adapters.matrices(self._adapters.load(file)))
            # What one adapter makes of another's row is set to 0, and 0 times what is not finite is no number.
            if not all(bool(part.isfinite().all()) for layer in made.layers.values() for part in layer):
                raise BackendError(f"adapter '{file.folder}' has numbers that are too large for those of the model")
            self._known[file] = made
        self._known.move_to_end(file)
        while len(self._known) > ATTACHED:
            self._known.popitem(last=False)
        return self._known[file]

    @torch.no_grad()
    def made(self, matrices: Iterator[tuple[str, Any, Any, float]]) -> RowAdapter:
        """An adapter of matrices: of every layer its path, `A` [rank, in], `B` [out, rank] and the product's factor."""
        layers = {}
        for path, down, up, scale in matrices:
            numbers = self._numbers(path)
            # Copies: what is attached may go. The factor is applied before rounding to the model's own numbers.
            wide = torch.promote_types(up.dtype, numbers)
            layers[path] = (
                down.detach().to(numbers, copy=True).t().contiguous(),
                (up.detach().to(wide) * scale).to(numbers).t().contiguous(),
            )
        return RowAdapter(layers)

    def _numbers(self, path: str) -> torch.dtype:
        """The type of numbers that a layer computes in: its weight's, unless that is packed into 8 or 4 bits."""
        weight: Any = self.sites[path].weight
        found: torch.dtype = weight.dtype
        return found if found.is_floating_point and found.itemsize > 1 else self._dtype

    @contextmanager
    def serving(self, rows: Sequence[RowAdapter | None]) -> Iterator[None]:
        """Within this block, row i of a pass goes through the adapter ``rows[i]``, or the base model alone."""
        if rows != self._last[0]:  # decoding comes with the same rows again and again
            self._last = (list(rows), self._calls(rows))
        with replaced(self._last[1]):
            yield

    def drop(self, file: AdapterFile) -> None:
        """Forget an adapter whose file is to go."""
        self._known.pop(file, None)
        self.forget()

    def forget(self) -> None:
        """Let go of what was put together for passes: no rows are under way."""
        self._stacks.clear()
        self._last = ([], [])

    def _calls(self, rows: Sequence[RowAdapter | None]) -> list[tuple[nn.Module, Any]]:
        # No parameter of autograd's: what is made here serves passes in inference mode and without.
        with torch.inference_mode(False), torch.no_grad():
            distinct = tuple(each for each in dict.fromkeys(rows) if each is not None)
            if not distinct:
                return []
            alone = len(distinct) == 1 and None not in rows
            if distinct not in self._stacks:
                self._stacks[distinct] = self._stacked(distinct)
                while len(self._stacks) > _KEPT:
                    self._stacks.popitem(last=False)
            self._stacks.move_to_end(distinct)
            number = {each: index for index, each in enumerate(distinct)}
            places = [-1 if each is None else number[each] for each in rows]
            masks: dict[tuple[int, ...], Tensor] = {}  # True where a rank is another adapter's
            calls = []
            for path, stack in self._stacks[distinct].items():
                module: Any = self.sites[path]
                plain = module.forward
                if alone:
                    calls.append((module, partial(_through_one, plain, stack.down, stack.up)))
                    continue
                if stack.owners not in masks:
                    own = torch.tensor(places)[:, None] == torch.tensor(stack.owners)[None, :]
                    masks[stack.owners] = (~own)[:, None, :].to(stack.down.device)
                call = partial(through_own, plain, stack.down, stack.up, masks[stack.owners], path)
                calls.append((module, call))
            return calls

    def _stacked(self, adapters: Sequence[RowAdapter]) -> dict[str, _Stack]:
        found = {}
        for path in dict.fromkeys(path for each in adapters for path in each.layers):
            parts = [(index, each.layers[path]) for index, each in enumerate(adapters) if path in each.layers]
            found[path] = _Stack(
                torch.cat([down for _, (down, _) in parts], dim=1),
                torch.cat([up for _, (_, up) in parts]),
                tuple(index for index, (down, _) in parts for _ in range(down.shape[1])),
            )
        return found


@contextmanager
def replaced(calls: Iterable[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Within this block each module's `forward` is another one.

    What a module had of its own there, such as accelerate's hooks, comes back.
    """
    before: list[tuple[nn.Module, Any]] = []
    try:
        for module, call in calls:
            # An attribute of the instance comes before the class's method.
            before.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = call
        yield
    finally:
        for module, forward in before:
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward


def _through_one(plain: Callable[[Tensor], Tensor], down: Tensor, up: Tensor, x: Tensor) -> Tensor:
    """All rows go through one adapter, in whatever shape they come."""
    result = plain(x)
    low = x.reshape(-1, x.shape[-1]) @ down
    result.view(-1, result.shape[-1]).addmm_(low, up)
    return result


def through_own(
    plain: Callable[[Tensor], Tensor], down: Tensor, up: Tensor, others: Tensor, path: str, x: Tensor
) -> Tensor:
    """Each row goes through its own adapter."""
    rows = others.shape[0]
    if x.shape[0] != rows and (x.dim() != 2 or x.shape[0] % rows):
        raise BackendError(f"{path} gets {tuple(x.shape)} where {rows} rows of tokens are needed")
    result = plain(x)
    # Not a product with 0: what another adapter makes of a row may not be finite.
    low = (x @ down).view(rows, -1, down.shape[1]).masked_fill(others, 0.0)
    result.view(-1, result.shape[-1]).addmm_(low.view(-1, down.shape[1]), up)
    return result
