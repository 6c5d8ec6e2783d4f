"""The batched decode loop.

transformers' own `generate` keeps finished rows in the batch until the longest one ends, and draws
all rows from one random stream. Here a finished row leaves the cache at once and a waiting one takes
its place, and every row draws from its own stream, so that a request's completion does not depend
on what shares its batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from windowshift.backends.local.decode_batch import DecodeBatch, beginning
from windowshift.backends.local.decode_row import Decoded, Forward, Row, Watcher
from windowshift.backends.local.kv_cache import CachePlan
from windowshift.backends.local.static_steps import StepCounts

if TYPE_CHECKING:
    from windowshift.backends.local.fixed_forward import FixedForward

PREFILL_TOKENS = 8192


def decode(
    forward: Forward,
    rows: Iterator[Row],
    *,
    end_ids: frozenset[int],
    cache_plan: CachePlan,
    batch_rows: int,
    device: Any = "cpu",
    watch: Watcher | None = None,
    shares: Callable[[int], bool] = lambda _saved: False,
    fixed: Callable[[int], FixedForward | None] = lambda _slots: None,
    counts: StepCounts | None = None,
) -> Iterator[list[Decoded]]:
    """Draw a completion for every row; each step of the iterator is one forward pass.

    Yields what was found to have finished behind that pass, often nothing. Rows are taken in order, as places get
    free. A row that nobody waits for is not begun, and one that `watch` ends is a ``stop``.
    """
    loop = DecodeLoop(
        forward,
        end_ids=end_ids,
        cache_plan=cache_plan,
        batch_rows=batch_rows,
        device=device,
        watch=watch,
        shares=shares,
        fixed=fixed,
        counts=counts,
    )
    more = True
    while True:
        while more and len(loop.waiting) < loop.batch_rows:
            row = next(rows, None)
            if row is None:
                more = False
            else:
                loop.waiting.append(row)
        if not loop.waiting and not loop.rows:
            return
        yield loop.advance()


class DecodeLoop:
    """A decode batch that rows join and leave while it runs.

    Attributes:
        waiting: rows that have no place yet, in the order in which they get one; add to it at any time.
        batch_rows: places.

    `mixes` says whether rows of several adapters may share a pass, and `shares` whether the beginnings that prompts
    share are run once, where that saves so many tokens. `fixed` gives the model for steps in tensors of fixed places,
    for so many places; `counts` is told of the steps.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        end_ids: frozenset[int],
        cache_plan: CachePlan,
        batch_rows: int,
        device: Any = "cpu",
        watch: Watcher | None = None,
        mixes: Callable[[], bool] = lambda: True,
        shares: Callable[[int], bool] = lambda _saved: False,
        fixed: Callable[[int], FixedForward | None] = lambda _slots: None,
        counts: StepCounts | None = None,
    ) -> None:
        self._forward, self._end_ids, self._plan = forward, end_ids, cache_plan
        self._fixed, self._counts = fixed, StepCounts() if counts is None else counts
        self._device, self._watch, self._mixes, self._shares = torch.device(device), watch, mixes, shares
        self.waiting: deque[Row] = deque()
        self.batch_rows = batch_rows
        self._batch: DecodeBatch | None = None
        self._joining: list[Row] = []  # in the last prefill: a pass that fails has not let them in

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that have a place."""
        return () if self._batch is None else self._batch.rows

    def advance(self) -> list[Decoded]:
        """One forward pass, of prompts or of the tokens drawn last; what was found to have finished behind it."""
        if self._watch is not None and not self._watch.wants_none:
            unwanted = [row for row in self.waiting if self._watch.unwanted(row)]
            if unwanted:
                self.waiting = deque(row for row in self.waiting if not self._watch.unwanted(row))
                return [Decoded(row, [], "stop") for row in unwanted]
        if self._batch is None:
            self._batch = DecodeBatch(
                self._forward, self._end_ids, self._plan, self.batch_rows, self._device, self._watch, self._shares,
                self._fixed(self.batch_rows), self._counts,
            )  # fmt: skip
        batch, self._joining = self._batch, []
        free = self.batch_rows - batch.size
        # A prefill costs a pass of its own, so it waits until a few places are free.
        worth = min(max(1, self.batch_rows // 8), len(self.waiting))
        if self.waiting and (batch.size == 0 or free >= worth):
            group = self._next_group(free)
            if group:
                self._joining = group
                if self._watch is not None:
                    self._watch.begin(group)
                return batch.admit(group)
        return batch.step() if batch.size else []

    def drop(self, leaving: Callable[[Row], bool]) -> None:
        """Let rows leave unfinished, from the batch and from those that wait."""
        self.waiting = deque(row for row in self.waiting if not leaving(row))
        if self._batch is not None:
            self._batch.drop(leaving)

    @property
    def in_work(self) -> list[Row]:
        """The rows that have a place, or would have got one in a prefill that failed."""
        return list({id(row): row for row in (*self.rows, *self._joining)}.values())

    def empty(self) -> list[Row]:
        """Take all rows in work out, unfinished, and let go of the batch's memory."""
        rows = self.in_work
        self._batch, self._joining = None, []
        return rows

    def _next_group(self, free: int) -> list[Row]:
        """Rows to prefill together: as many as fit the places and the token budget.

        None at all where rows of another adapter are being decoded, and the model cannot mix them.
        """
        waiting, group, longest, common = self.waiting, list[Row](), 0, 0
        beside = self.rows[0] if self.rows else waiting[0]
        while waiting and len(group) < free:
            if waiting[0].adapter is not beside.adapter and not self._mixes():
                break
            longest = max(longest, len(waiting[0].prompt))
            common = min(common, beginning(group[0], waiting[0])) if group else len(waiting[0].prompt) - 1
            alone = longest - common if self._shares(common * len(group)) else longest
            if group and alone * (len(group) + 1) > PREFILL_TOKENS:
                break
            group.append(waiting.popleft())
        return group
