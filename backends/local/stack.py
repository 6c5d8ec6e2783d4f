"""Jobs in training on one backend: those of one base take their steps in common passes, and others join as some end."""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch

from windowshift.backends.local.batch_loss import Batch, losses
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.sft import Course, Learner, course
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.generation import Model
from windowshift.core.contract.training import TrainEvent, TrainFailed, TrainJob

log = logging.getLogger("windowshift.local")

AT_ONCE = 16
"""Jobs under way at once: each holds its weights, gradients and moments. The others wait for a place."""
CPU_TOKENS = 2048
"""Tokens of a pass on a CPU: it has long been busy with computing alone, and more only take memory."""
FREE_SHARE = 0.8
"""The share of a device's free memory that a pass may take by what earlier passes took."""


@dataclass(eq=False)
class _Member:
    """A job under way; `waiting` is its learner while it waits for a step."""

    job: TrainJob
    course: Course
    events: list[TrainEvent] = field(default_factory=list)
    waiting: Learner | None = None
    ended: bool = False


class Stack:
    """All jobs in training.

    Every call that trains comes with its own jobs and takes away their events; whichever of them has its turn takes
    a step for all. All of it happens in the thread that computes.

    Args:
        model: gives the loaded model.
        state_seconds, progress_seconds: as in the options of backend `local`.
    """

    def __init__(
        self, model: Callable[[Model], CausalLM], state_seconds: float, progress_seconds: float | None
    ) -> None:
        self._model, self._state_seconds, self._progress_seconds = model, state_seconds, progress_seconds
        self._under_way: list[_Member] = []
        self._queue: deque[_Member] = deque()
        self._round: list[_Member] = []
        self._limits: WeakKeyDictionary[CausalLM, _Limit] = WeakKeyDictionary()

    def train(self, jobs: Sequence[TrainJob]) -> Iterator[list[TrainEvent]]:
        """Train jobs beside those that are under way; each of the iterator's steps is one pass, or less."""
        mine = [_Member(job, self._course(job)) for job in jobs]
        self._queue.extend(mine)
        try:
            while mine:
                self._advance()
                yield [event for member in mine for event in _taken(member)]
                mine = [member for member in mine if not member.ended or member.events]
        finally:
            for member in mine:
                self._leave(member)

    def _course(self, job: TrainJob) -> Course:
        lm = self._model(job.model)
        yield []
        yield from course(lm, job, self._state_seconds, self._progress_seconds)

    def _advance(self) -> None:
        """Let the jobs that prepare, measure or save go one step on, or take a pass for those that wait for one."""
        while self._queue and len(self._under_way) < AT_ONCE:
            self._under_way.append(self._queue.popleft())
        busy = [member for member in self._under_way if member.waiting is None]
        for member in busy:
            self._go_on(member)
        if busy and not self._round:
            return  # what joins the round of the others is worth the moment
        if not self._round:
            self._round = list(self._under_way)
        self._pass()

    def _go_on(self, member: _Member, error: BaseException | None = None) -> None:
        member.waiting = None
        try:
            found = next(member.course) if error is None else member.course.throw(error)
            if isinstance(found, Learner):
                member.waiting = found
            else:
                member.events.extend(found)
            return
        except StopIteration:
            pass
        except WindowshiftError as raised:
            member.events.append(TrainFailed(member.job.key, str(raised)))
        except Exception as raised:  # a library may raise anything, and the other jobs go on
            text = f"training of '{member.job.model.base}' failed: {library_reason(raised)}"
            member.events.append(TrainFailed(member.job.key, text))
        member.ended = True
        self._leave(member)

    def _leave(self, member: _Member) -> None:
        for place in (self._under_way, self._queue, self._round):
            if member in place:
                place.remove(member)
        member.course.close()

    def _pass(self) -> None:
        """One step of the jobs of this round that stand next, as many as go together."""
        waiting = [(member, member.waiting) for member in self._round if member.waiting is not None]
        if not waiting:
            self._round = []
            return
        lm = waiting[0][1].lm
        limit = self._limits.setdefault(lm, _Limit(lm.device))
        sized = [(member, learner, learner.batch()) for member, learner in waiting if learner.lm is lm]
        # Those of like length go together: what is shorter than the longest is padded.
        sized.sort(key=lambda each: each[2].width)
        chosen: list[tuple[_Member, Learner, Batch]] = []
        for each in sized:
            if not chosen or limit.allows(lm, [batch for _, _, batch in chosen] + [each[2]]):
                chosen.append(each)
        self._round = [member for member in self._round if all(member is not each[0] for each in chosen)]
        self._step(chosen, limit)

    def _step(self, chosen: Sequence[tuple[_Member, Learner, Batch]], limit: _Limit) -> None:
        marks = [(batch.steer, batch.steer.mark()) for _, _, batch in chosen if batch.steer is not None]
        batches = [batch for _, _, batch in chosen]
        try:
            with torch.enable_grad(), limit.measuring(batches):
                for _, learner, _ in chosen:
                    learner.weights.forget_gradients()
                found = losses(chosen[0][1].lm, batches)
                torch.stack(found).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        except Exception as error:
            for steer, mark in marks:
                steer.rewind(mark)
            if len(chosen) == 1:
                self._go_on(chosen[0][0], error)
                return
            short = isinstance(error, torch.OutOfMemoryError | MemoryError)
            if short:
                limit.halve(batches)
        else:
            for (member, learner, _), loss in zip(chosen, found, strict=True):
                try:
                    learner.take(loss)
                except Exception as error:
                    self._go_on(member, error)
                else:
                    self._go_on(member)
            return
        # Outside of the handler, whose traceback holds the tensors of the pass.
        if short:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            half = len(chosen) // 2
            self._step(chosen[:half], limit)
            self._step(chosen[half:], limit)
            return
        for each in chosen:  # the error is that of one of them
            self._step([each], limit)


class _Limit:
    """How much of one model goes into a pass.

    On a device with memory of its own, what a token takes is measured in each pass, beginning with the first, of one
    job; after a pass that found no memory, half of it is the most.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tokens = CPU_TOKENS if device.type == "cpu" else 0
        self._most: int | None = None

    def allows(self, lm: CausalLM, batches: Sequence[Batch]) -> bool:
        """Whether these batches, more than one, can share a pass."""
        if lm.stacking_fault is not None:
            return False
        width = max(batch.width for batch in batches)
        if lm.window is not None and width > lm.window:
            return False  # it masks what lies outside of the window, in shorter rows too
        tokens = _tokens(batches)
        return tokens <= self._tokens and (self._most is None or tokens <= self._most)

    def measuring(self, batches: Sequence[Batch]) -> _Measuring:
        """A block in which the pass of these batches is taken."""
        return _Measuring(self, self._device, _tokens(batches))

    def measured(self, tokens: int, peak: int, free: int) -> None:
        """Take what a pass of so many tokens took at its peak, and what is free behind it, in bytes."""
        self._tokens = int(FREE_SHARE * free / max(peak / tokens, 1.0))

    def halve(self, batches: Sequence[Batch]) -> None:
        """A pass of these batches found no memory."""
        self._most = _tokens(batches) // 2
        log.warning("a training pass of %d jobs found no memory: from now on half of it", len(batches))


class _Measuring:
    def __init__(self, limit: _Limit, device: torch.device, tokens: int) -> None:
        self._limit, self._device, self._tokens = limit, device, tokens
        self._before = 0

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._device.type == "cuda" and kind is None:
            # What the allocator keeps is free for a pass as well.
            peak = torch.cuda.max_memory_allocated(self._device) - self._before
            kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            free = torch.cuda.mem_get_info(self._device)[0] + kept
            self._limit.measured(self._tokens, peak, free)


def _tokens(batches: Sequence[Batch]) -> int:
    return sum(len(batch.tokens) for batch in batches) * max(batch.width for batch in batches)


def _taken(member: _Member) -> list[TrainEvent]:
    found, member.events = member.events, []
    return found
