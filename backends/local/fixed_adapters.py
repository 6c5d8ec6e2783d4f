"""Rows of different adapters in steps whose tensors keep their places, so that a recorded step stays right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from windowshift.backends.local.row_adapters import RowAdapter, replaced, through_own
from windowshift.steering.sending import sent

_RANKS = 64
"""Ranks of all adapters together come in multiples of it."""


class FixedAdapters:
    """All adapters in force side by side, in tables that are written in place.

    As in `RowAdapters` a layer has two products more for all adapters together, and what another one's ranks give a
    row is set to 0 between them. Adapters get ranks of the tables as rows come, and lose them once others need
    them; where they do not fit, larger tables are made.

    Args:
        sites: the linear layers of the model that samples, by path.
        slots: rows at most.
    """

    def __init__(self, sites: Mapping[str, nn.Module], slots: int) -> None:
        self._sites, self._slots = sites, slots
        self._places: dict[RowAdapter, tuple[int, int]] = {}  # first rank, and how many
        self._tables: dict[str, tuple[Tensor, Tensor]] = {}  # down [in, ranks], up [ranks, out]
        self._ranks = 0
        self._made = 0
        self._others = torch.ones(0, dtype=torch.bool)  # [slots, 1, ranks]: True where a rank is another adapter's
        self._last: tuple[list[RowAdapter | None], int] = ([], 0)

    @torch.no_grad()
    def put(self, rows: Sequence[RowAdapter | None], bucket: int) -> int:
        """Let row i go through ``rows[i]``, and those behind them, up to `bucket`, through none.

        Returns:
            The number of the tables in use; 0 where no row has an adapter. A recorded step is right as long as it
            is the same.
        """
        if not any(each is not None for each in rows):
            return 0
        if self._last != (list(rows), bucket):
            wanted = dict.fromkeys(each for each in rows if each is not None)
            self._find_room(wanted)
            own = torch.zeros(bucket, self._ranks, dtype=torch.bool)
            for place, each in enumerate(rows):
                if each is not None:
                    first, count = self._places[each]
                    own[place, first : first + count] = True
            self._others[:bucket].copy_(sent((~own)[:, None, :], self._others.device))
            self._last = (list(rows), bucket)
        return self._made

    @contextmanager
    def serving(self, bucket: int) -> Iterator[None]:
        """Within this block passes of `bucket` rows go through what was put."""
        others = self._others[:bucket]
        sites: Mapping[str, Any] = self._sites
        tables = self._tables.items()
        calls = [
            (sites[path], partial(through_own, sites[path].forward, down, up, others, path))
            for path, (down, up) in tables
        ]
        with replaced(calls):
            yield

    def _find_room(self, wanted: Mapping[RowAdapter, None]) -> None:
        """Give those ranks that have none."""
        fresh = [each for each in wanted if each not in self._places]
        if not fresh:
            return
        if any(path not in self._tables for each in fresh for path in each.layers):
            self._make(list(wanted))
            return
        for each in fresh:
            at = self._gap(_rank(each))
            if at is None:
                self._places = {known: place for known, place in self._places.items() if known in wanted}
                at = self._gap(_rank(each))
            if at is None:
                self._make(list(wanted))
                return
            self._write(each, at)

    def _gap(self, count: int) -> int | None:
        """The first of so many ranks in a row that are nobody's."""
        at = 0
        for first, taken in sorted(self._places.values()):
            if first - at >= count:
                return at
            at = first + taken
        return at if self._ranks - at >= count else None

    def _make(self, wanted: Sequence[RowAdapter]) -> None:
        """Tables for these adapters alone; larger ones where those there are do not hold them."""
        known = {path: (down[:, :1], up[:1]) for path, (down, up) in self._tables.items()}
        layers = known | {path: matrices for each in wanted for path, matrices in each.layers.items()}
        needed = -(-sum(map(_rank, wanted)) // _RANKS) * _RANKS
        if needed > self._ranks or len(layers) > len(self._tables):
            self._ranks, self._made = max(needed, self._ranks), self._made + 1
            self._tables = {}
            # No tensors of inference mode: what is made here serves passes in it and without.
            with torch.inference_mode(False):
                for path, (down, up) in layers.items():
                    tables = (down.new_zeros(down.shape[0], self._ranks), up.new_zeros(self._ranks, up.shape[1]))
                    self._tables[path] = tables
                self._others = torch.ones(self._slots, 1, self._ranks, dtype=torch.bool, device=down.device)
        self._places, at = {}, 0
        for each in wanted:
            self._write(each, at)
            at += _rank(each)

    def _write(self, adapter: RowAdapter, at: int) -> None:
        count = _rank(adapter)
        self._places[adapter] = (at, count)
        for path, (down, up) in self._tables.items():
            # What another adapter left there is not to be multiplied with, even by 0.
            down[:, at : at + count] = 0.0
            up[at : at + count] = 0.0
            if path in adapter.layers:
                own_down, own_up = adapter.layers[path]
                rank = own_down.shape[1]
                down[:, at : at + rank] = own_down
                up[at : at + rank] = own_up


def _rank(adapter: RowAdapter) -> int:
    return max(down.shape[1] for down, _ in adapter.layers.values())
