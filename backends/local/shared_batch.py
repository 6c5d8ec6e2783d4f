"""One decode batch for all calls that sample from a model at a time: rows of any adapters and any doses."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.decode_row import Decoded, Row, Watcher
from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.local.row_adapters import RowAdapter
from windowshift.backends.local.row_limit import RowLimit, default_rows
from windowshift.backends.local.sampler import DecodeLoop
from windowshift.backends.local.static_steps import StepCounts
from windowshift.core.contract.errors import WindowshiftError

if TYPE_CHECKING:
    from windowshift.backends.local.fixed_forward import FixedForward
    from windowshift.steering.intervene import Intervention

WORTH_SHARING = 128
"""Tokens that a pass more for shared beginnings must save: about what a pass costs beside its tokens."""
log = logging.getLogger(__name__)


class SharedBatch:
    """The decode batch of a model, which the rows of several calls share.

    Calls `join` with their rows and then take turns to `Member.advance`: a pass serves the rows of all of them, so
    that a call's last rows do not decode in a thin batch while another call's wait. Rows get their places in the
    order of the calls; with `fair`, in turns between them.

    A pass that runs out of memory is made again with half as many rows, which begin anew: what a row comes to does
    not depend on it.

    Args:
        lm: the model.
        batch_rows: places; 0 leaves them to the memory.
        fair: whether a small call beside a large one gets places before that is done.

    Attributes:
        counts: how decode steps were taken so far.
    """

    def __init__(self, lm: CausalLM, batch_rows: int, *, fair: bool = False) -> None:
        self._lm, self._fair = lm, fair
        self._limit = RowLimit(lm, batch_rows)
        self._begun = False
        self._members: list[Member] = []
        self._tickets: dict[int, tuple[Member, Row]] = {}  # of the rows in the loop, by the index they have there
        self._number = 0
        self._joined = 0
        self._steer: Intervention | None = None
        self.counts = StepCounts()
        self._said = 0
        self._plain, self._steered = lm.sampling_forward(None), lm.sampling_forward(None)
        self._loop = DecodeLoop(
            self._forward,
            end_ids=lm.end_ids,
            cache_plan=lm.cache_plan,
            batch_rows=batch_rows or default_rows(lm.device.type, exact=lm.exact),
            device=lm.device,
            watch=_Watchers(self._tickets),
            mixes=lambda: lm.mixes,
            shares=lambda saved: saved >= WORTH_SHARING and lm.shares,
            fixed=self._fixed,
            counts=self.counts,
        )

    def join(self) -> Member:
        """A place at the batch for the rows of one call."""
        self._joined += 1
        member = Member(self._lm, self, self._joined)
        self._members.append(member)
        return member

    def intervention(self) -> Intervention:
        """What pushes the rows of all calls; each call has recipes of its own.

        Raises:
            BackendError: the architecture cannot be steered.
        """
        from windowshift.steering.intervene import Intervention

        if self._steer is None:
            self._steer = Intervention(self._lm.sampling_points, fingerprint=self._lm.fingerprint)
            self._steered = self._lm.sampling_forward(None, self._steer)
        return self._steer

    def advance(self) -> None:
        """One pass for the rows of all members; what came of it is in their `found` and `failed`."""
        self._feed()
        self._begin()
        steer = self._steer
        before = None if steer is None else steer.mark()
        try:
            ended = self._loop.advance()
        except Exception as error:  # a library may raise anything; the rows that were in the pass are told of it
            if steer is not None and before is not None:
                steer.rewind(before)  # what it began is not what was proven
            if out_of_memory(error) and self._halved():
                return
            for row in self._loop.empty():
                member, own = self._tickets.pop(row.index)
                member.failed.append((own, error))
            return
        for each in ended:
            member, own = self._tickets.pop(each.row.index)
            member.found.append(replace(each, row=own))

    def leave(self, member: Member) -> None:
        """A call has ended, or is given up: its rows leave unfinished."""
        self._members.remove(member)
        own = {ticket for ticket, (whose, _) in self._tickets.items() if whose is member}
        if own:
            self._loop.drop(lambda row: row.index in own)
            for ticket in own:
                del self._tickets[ticket]
        if not self._members:
            # Training may want the memory.
            self._end()
            self._loop.empty()
            self._lm.row_adapters.forget()
            self._say_steps()
        if not any(each.steers for each in self._members):
            self._steer, self._steered = None, self._plain

    def _begin(self) -> None:
        """Choose the places of a batch that begins, by the lengths of the rows that wait."""
        loop = self._loop
        if self._begun or not loop.waiting:
            return
        self._begun = True
        prompt = max(len(row.prompt) for row in loop.waiting)
        loop.batch_rows = self._limit.begin(prompt, max(row.max_tokens for row in loop.waiting), len(loop.waiting))

    def _end(self) -> None:
        if self._begun:
            self._limit.ended(self._loop.batch_rows)
            self._loop.batch_rows = self._limit.most  # so many rows are looked at when the next one begins
        self._begun = False

    def _fixed(self, slots: int) -> FixedForward | None:
        """The model for steps in tensors of fixed places, on CUDA; None where it knows none, which is said once."""
        lm = self._lm
        if lm.device.type != "cuda":
            return None
        fault = lm.static_fault
        if fault is not None:
            if self.counts.fault != fault:
                log.warning("'%s' decodes without CUDA graphs: %s", lm.label, fault)
            self.counts.fault = fault
            return None
        from windowshift.backends.local.fixed_forward import FixedForward

        return FixedForward(lm, slots, lambda: self._steer)

    def _say_steps(self) -> None:
        counts = self.counts
        if self._lm.device.type != "cuda" or counts.steps == self._said:
            return
        self._said = counts.steps
        log.info(
            "'%s' decoded %d steps so far: %d played from %d CUDA graphs, %d launched one by one%s",
            self._lm.label, counts.steps, counts.played, counts.recorded, counts.launched,
            "" if counts.fault is None else f" ({counts.fault})",
        )  # fmt: skip

    def _forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        cache: Any,
        rows: Sequence[Row],
        keep: int,
    ) -> Tensor:
        forward = self._steered if any(row.recipe is not None for row in rows) else self._plain
        return forward(input_ids, attention_mask, position_ids, cache, rows, keep)

    def _feed(self) -> None:
        """Let rows of the members wait for places, about a batch of them: adapters are read when they are needed."""
        loop = self._loop
        while len(loop.waiting) < loop.batch_rows:
            member = next((each for each in self._members if each.rows), None)
            if member is None:
                return
            if self._fair:
                self._members.remove(member)
                self._members.append(member)
            row = member.rows.popleft()
            try:
                adapter = member.adapter(row)
            except WindowshiftError as error:
                member.failed.append((row, error))
                continue
            self._number += 1
            self._tickets[self._number] = (member, row)
            loop.waiting.append(replace(row, index=self._number, adapter=adapter))

    def _halved(self) -> bool:
        """Begin the rows of the batch anew, in half as many places; False where there is only one."""
        loop = self._loop
        many = min(loop.batch_rows, max(1, len(loop.in_work)))
        if many == 1:
            return False
        rows = sorted(loop.empty(), key=lambda row: row.index)
        if self._lm.device.type == "cuda":
            torch.cuda.empty_cache()
        loop.batch_rows = self._limit.halve(many)
        loop.waiting.extendleft(reversed(rows))
        log.warning(
            "'%s' ran out of memory with %d completions at once: going on with %d (option batch_rows)",
            self._lm.label,
            many,
            loop.batch_rows,
        )
        return True


def out_of_memory(error: BaseException) -> bool:
    """Whether a pass failed for want of memory, on whatever device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


class Member:
    """One call at a `SharedBatch`.

    Attributes:
        batch: the one that it is at.
        rows: those that were not let into the loop yet.
        adapters: the folder of a row's adapter, by the row's index; rows without one are the base model's.
        found: rows that ended; the reader takes them out.
        failed: rows that came to nothing, and why.
        watch: follows the rows.
        steers: whether some have a recipe.
        number: tells its recipes from those of other calls.
    """

    def __init__(self, lm: CausalLM, batch: SharedBatch, number: int) -> None:
        self._lm, self.batch, self.number = lm, batch, number
        self.rows: deque[Row] = deque()
        self.adapters: Mapping[int, str] = {}
        self.found: list[Decoded] = []
        self.failed: list[tuple[Row, BaseException]] = []
        self.watch: Watcher | None = None
        self.steers = False
        self._files: dict[str, AdapterFile | WindowshiftError] = {}

    def adapter(self, row: Row) -> RowAdapter | None:
        """The adapter of a row as it was when this call first needed it.

        Raises:
            BackendError: it is not one, or does not fit the model.
        """
        folder = self.adapters.get(row.index)
        if folder is None:
            return None
        if folder not in self._files:
            try:
                file = AdapterFile.at(folder)
                self._lm.row_adapters.load(file)
                self._files[folder] = file
            except WindowshiftError as error:
                self._files[folder] = error
        known = self._files[folder]
        if isinstance(known, WindowshiftError):
            raise known
        return self._lm.row_adapters.load(known)

    def advance(self) -> tuple[list[Decoded], list[tuple[Row, BaseException]]]:
        """What came of own rows, after one more pass for everybody's where that is nothing yet."""
        if not self.found and not self.failed:
            self.batch.advance()
        found, failed, self.found, self.failed = self.found, self.failed, [], []
        return found, failed


class _Watchers(Watcher):
    """The watchers of all members, as one."""

    def __init__(self, tickets: Mapping[int, tuple[Member, Row]]) -> None:
        self._tickets = tickets

    @property
    def wants_none(self) -> bool:
        watches = {id(each.watch): each.watch for each, _ in self._tickets.values() if each.watch is not None}
        return all(watch.wants_none for watch in watches.values())

    @property
    def follows(self) -> bool:
        """Whether any row is to be told of at every token."""
        return any(each.watch is not None and each.watch.follows for each, _ in self._tickets.values())

    def unwanted(self, row: Row) -> bool:
        member, own = self._tickets[row.index]
        return member.watch is not None and member.watch.unwanted(own)

    def begin(self, rows: Sequence[Row]) -> None:
        for row in rows:
            member, own = self._tickets[row.index]
            if member.watch is not None:
                member.watch.begin([own])

    def take(self, rows: Sequence[Row], tokens: Tensor, drawn: Mapping[int, Sequence[DrawnToken]]) -> list[int]:
        places: dict[Member, list[int]] = {}
        for place, row in enumerate(rows):
            member = self._tickets[row.index][0]
            if member.watch is not None:
                places.setdefault(member, []).append(place)
        ending: list[int] = []
        for member, own in places.items():
            assert member.watch is not None
            originals = [self._tickets[rows[place].index][1] for place in own]
            thought = {
                original.index: drawn[rows[place].index]
                for place, original in zip(own, originals, strict=True)
                if rows[place].index in drawn
            }
            which = torch.tensor(own, device=tokens.device)
            ending += [own[index] for index in member.watch.take(originals, tokens[which], thought)]
        return ending
