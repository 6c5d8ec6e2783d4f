"""Jobs in training on one backend: those of one base take their steps in common passes, and others join as some end."""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch

from windowshift.backends.local.batch_loss import TrainingBatch, losses
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.sft import Course, Learner, course
from windowshift.backends.local.throughput import Throughput
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.generation import Model
from windowshift.core.contract.training import TrainEvent, TrainFailed, TrainJob, TrainMessage, TrainProgress

log = logging.getLogger("windowshift.local")

AT_ONCE = 16
"""Jobs under way at once: each holds its weights, gradients and moments. The others wait for a place."""
CPU_TOKENS = 2048
"""Tokens of a pass on a CPU: it has long been busy with computing alone, and more only take memory."""
WRITING_SECONDS = 0.05
"""How long the thread that computes waits for a file where there is nothing to compute, before it looks again."""
FREE_SHARE = 0.8
"""The share of a device's free memory that a pass may take by what earlier passes took."""


@dataclass(eq=False)
class _Member:
    """A job under way.

    Attributes:
        job: the job.
        course: its course.
        events: what it said, and nobody has taken yet.
        learner: what it trains, once there is one.
        waiting: the same while it waits for a step.
        writing: what it waits for that is being written.
        ended: whether it has.
    """

    job: TrainJob
    course: Course
    events: list[TrainEvent] = field(default_factory=list)
    learner: Learner | None = None
    waiting: Learner | None = None
    writing: Future[None] | None = None
    ended: bool = False

    @property
    def busy(self) -> bool:
        """Whether it has something to do before its next step."""
        return self.waiting is None and (self.writing is None or self.writing.done())


class Stack:
    """All jobs in training.

    Every call that trains comes with its own jobs and takes away their events; whichever of them has its turn takes
    a step for all. All of it happens in the thread that computes.

    Args:
        model: gives the loaded model.
        state_seconds, progress_seconds: as in the options of backend `local`.
        writer: writes adapters and resume states; None: a thread of its own.
    """

    def __init__(
        self,
        model: Callable[[Model], CausalLM],
        state_seconds: float,
        progress_seconds: float | None,
        writer: Executor | None = None,
    ) -> None:
        self._model, self._state_seconds, self._progress_seconds = model, state_seconds, progress_seconds
        # One thread, so that a job's files are written in the order in which they were to be.
        self._writer = ThreadPoolExecutor(1, "windowshift-writer") if writer is None else writer
        self._at_once = AT_ONCE
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
        yield from course(lm, job, self._writer, self._state_seconds, self._progress_seconds)

    def _advance(self) -> None:
        """Let the jobs that prepare, measure or save go one step on, or take a pass for those that wait for one."""
        while self._queue and self._has_place():
            self._under_way.append(self._queue.popleft())
        busy = [member for member in self._under_way if member.busy]
        for member in busy:
            self._go_on(member)
        if busy and not self._round:
            return  # what joins the round of the others is worth the moment
        if not self._round:
            self._round = list(self._under_way)
        if not self._pass() and not any(member.busy or member.waiting for member in self._under_way):
            writing = [member.writing for member in self._under_way if member.writing is not None]
            wait(writing, timeout=WRITING_SECONDS, return_when=FIRST_COMPLETED)

    def _has_place(self) -> bool:
        """Whether one job more can be under way: by number, and by the memory of the device.

        What a job takes on a device with memory of its own is measured before the next one begins.
        """
        if not self._under_way:
            return True
        if len(self._under_way) >= self._at_once:
            return False
        learners = [member.learner for member in self._under_way if member.learner is not None]
        if len(learners) < len(self._under_way):
            return not torch.cuda.is_available()
        # The moments of those that took no step yet are not there to be measured.
        held = max(learner.weights.bytes_in_training for learner in learners)
        held += sum(learner.weights.bytes_in_training // 2 for learner in learners if not learner.step)
        return all(self._limit(learner.lm).has_room(held) for learner in learners)

    def _limit(self, lm: CausalLM) -> _Limit:
        return self._limits.setdefault(lm, _Limit(lm))

    def _go_on(self, member: _Member, error: BaseException | None = None) -> None:
        member.waiting = member.writing = None
        try:
            found = next(member.course) if error is None else member.course.throw(error)
            if isinstance(found, Learner):
                member.waiting = member.learner = found
            elif isinstance(found, Future):
                member.writing = found
            else:
                member.events.extend(self._measured(member, event) for event in found)
            return
        except StopIteration:
            pass
        except (torch.OutOfMemoryError, MemoryError):
            if len(self._under_way) > 1:
                self._put_back(member)
                return
            text = (
                f"training of '{member.job.model.base}' found no memory, with no other job beside it: take a smaller  "
                "sft.batch_size, or the options  gradient_checkpointing: true  and  quantise: 4bit  of backend 'local'"
            )
            member.events.append(TrainFailed(member.job.key, text))
        except WindowshiftError as raised:
            member.events.append(TrainFailed(member.job.key, str(raised)))
        except Exception as raised:  # a library may raise anything, and the other jobs go on
            text = f"training of '{member.job.model.base}' failed: {library_reason(raised)}"
            member.events.append(TrainFailed(member.job.key, text))
        member.ended = True
        self._leave(member)

    def _put_back(self, member: _Member) -> None:
        """Let a job that found no memory beside the others begin again once one of them has ended."""
        self._leave(member)
        self._at_once = len(self._under_way)
        text = f"no memory beside {self._at_once} other jobs: it goes on once one of them has ended"
        log.warning("training of '%s' found %s", member.job.key, text)
        member.events.append(TrainMessage(member.job.key, text))
        member.course, member.learner = self._course(member.job), None
        self._queue.appendleft(member)
        _give_back_memory()

    def _leave(self, member: _Member) -> None:
        for place in (self._under_way, self._queue, self._round):
            if member in place:
                place.remove(member)
        member.course.close()

    def _measured(self, member: _Member, event: TrainEvent) -> TrainEvent:
        """A report of progress with what the device does, where it can be measured."""
        if not isinstance(event, TrainProgress) or member.learner is None:
            return event
        return self._limit(member.learner.lm).meter.said(event)

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown()

    def _pass(self) -> bool:
        """One step of the jobs of this round that stand next, as many as go together; whether there was one."""
        waiting = [(member, member.waiting) for member in self._round if member.waiting is not None]
        if not waiting:
            self._round = []
            return False
        lm = waiting[0][1].lm
        limit = self._limit(lm)
        sized = [(member, learner, learner.batch()) for member, learner in waiting if learner.lm is lm]
        # Those of like length go together: what is shorter than the longest is padded.
        sized.sort(key=lambda each: each[2].width)
        chosen: list[tuple[_Member, Learner, TrainingBatch]] = []
        for each in sized:
            if not chosen or limit.allows(lm, [batch for _, _, batch in chosen] + [each[2]]):
                chosen.append(each)
        self._round = [member for member in self._round if all(member is not each[0] for each in chosen)]
        self._step(chosen, limit)
        return True

    def _step(self, chosen: Sequence[tuple[_Member, Learner, TrainingBatch]], limit: _Limit) -> None:
        marks = [(batch.steer, batch.steer.mark()) for _, _, batch in chosen if batch.steer is not None]
        batches = [batch for _, _, batch in chosen]
        try:
            with torch.enable_grad(), limit.measuring(batches):
                for _, learner, _ in chosen:
                    learner.weights.forget_gradients()
                found = losses(chosen[0][1].lm, batches)
                # Not `Tensor.backward`: nnsight puts its own in place of it, which reads source files at each call.
                torch.autograd.backward(torch.stack(found).sum())
        except Exception as error:
            for steer, mark in marks:
                steer.rewind(mark)
            if len(chosen) == 1:
                self._go_on(chosen[0][0], error)
                return
            short = isinstance(error, torch.OutOfMemoryError | MemoryError)
            if short:
                limit.halve(batches)
                text = f"a pass of {len(chosen)} jobs found no memory: from now on half as much goes into one"
                for member, *_ in chosen:
                    member.events.append(TrainMessage(member.job.key, text))
        else:
            limit.meter.passed(
                sum(len(each.prompt) + len(each.completion) for batch in batches for each in batch.tokens)
            )
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
            _give_back_memory()
            half = len(chosen) // 2
            self._step(chosen[:half], limit)
            self._step(chosen[half:], limit)
            return
        for each in chosen:  # the error is that of one of them
            self._step([each], limit)


class _Limit:
    """How much of one model goes into a pass, and how many jobs can be under way.

    On a device with memory of its own, what a token takes is measured in each pass that is larger than those before,
    beginning with the first, of one job; after a pass that found no memory, half of it is the most.
    """

    def __init__(self, lm: CausalLM) -> None:
        self._device = lm.device
        self._tokens = CPU_TOKENS if self._device.type == "cpu" else 0
        self._most: int | None = None
        self._largest = 0  # tokens of a pass that was measured
        self._least: int | None = None  # bytes that the smallest measured pass took
        self.meter = Throughput(lm)

    def allows(self, lm: CausalLM, batches: Sequence[TrainingBatch]) -> bool:
        """Whether these batches, more than one, can share a pass."""
        if lm.stacking_fault is not None:
            return False
        width = max(batch.width for batch in batches)
        if lm.window is not None and width > lm.window:
            return False  # it masks what lies outside of the window, in shorter rows too
        tokens = _tokens(batches)
        return tokens <= self._tokens and (self._most is None or tokens <= self._most)

    def has_room(self, held: int) -> bool:
        """Whether one job more, which holds so many bytes, finds room beside a pass."""
        if self._device.type != "cuda":
            return True
        return self._least is not None and held + self._least <= FREE_SHARE * free_bytes(self._device)

    def measuring(self, batches: Sequence[TrainingBatch]) -> _Measuring:
        """A block in which the pass of these batches is taken."""
        return _Measuring(self, self._device, _tokens(batches))

    def measures(self, tokens: int) -> bool:
        """Whether a pass of so many tokens is to be measured: reading the device's memory takes time."""
        return self._device.type == "cuda" and tokens > self._largest

    def measured(self, tokens: int, peak: int, free: int) -> None:
        """Take what a pass of so many tokens took at its peak, and what is free behind it, in bytes."""
        self._largest = max(self._largest, tokens)
        self._least = peak if self._least is None else min(self._least, peak)
        self._tokens = int(FREE_SHARE * free / max(peak / tokens, 1.0))
        log.info(
            "a training pass of %d tokens took %.2f GiB, and %.2f GiB are free: up to %d tokens go into one",
            tokens, peak / 2**30, free / 2**30, self._tokens,
        )  # fmt: skip

    def halve(self, batches: Sequence[TrainingBatch]) -> None:
        """A pass of these batches found no memory."""
        self._most = _tokens(batches) // 2
        log.warning("a training pass of %d jobs found no memory: from now on half of it", len(batches))


class _Measuring:
    def __init__(self, limit: _Limit, device: torch.device, tokens: int) -> None:
        self._limit, self._device, self._tokens = limit, device, tokens
        self._before = 0
        self._measures = limit.measures(tokens)

    def __enter__(self) -> None:
        if self._measures:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._measures and kind is None:
            peak = torch.cuda.max_memory_allocated(self._device) - self._before
            self._limit.measured(self._tokens, peak, free_bytes(self._device))


def free_bytes(device: torch.device) -> int:
    """Bytes that a pass could have: what the allocator keeps is free for it as well."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def _give_back_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tokens(batches: Sequence[TrainingBatch]) -> int:
    return sum(len(batch.tokens) for batch in batches) * max(batch.width for batch in batches)


def _taken(member: _Member) -> list[TrainEvent]:
    found, member.events = member.events, []
    return found
