"""The runner: takes a plan through its backends and writes the store. Headless; screens only read."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import StoreError, WindowshiftError
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import INSIDE_KINDS, SAMPLING, ExperimentState
from windowshift.core.contract.service import Service
from windowshift.core.measure.summarise import prepare
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.run.answer_cache import AnswerCache
from windowshift.core.run.given_lane import GivenLane
from windowshift.core.run.inside_lane import InsideLane
from windowshift.core.run.iso_kl_lane import IsoKlLane
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.recorder import Recorder
from windowshift.core.run.requests import RequestMaker
from windowshift.core.run.sampling_lane import SamplingLane
from windowshift.core.run.scoring_lane import ScoringLane
from windowshift.core.run.training_lane import TrainingLane
from windowshift.core.run.vector_lane import VectorLane
from windowshift.core.run.vector_work import VectorJobMaker

log = logging.getLogger("windowshift.runner")

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to a lane that is under way, and the jobs that it took."""

    lane: str
    jobs: tuple[Job, ...]


class Runner:
    """Runs one plan to its end, as far as failures allow.

    Lanes work side by side: everything that can be sampled now goes to the generating backend in one call,
    everything that can be trained now to the training backend in another, vectors that can be made in a third, and
    slow scorers have lanes of their own. What becomes ready meanwhile goes into a further call at once, beside those
    under way, where the backend says that calls may overlap; so a slow job idles nobody.

    Args:
        plan: what to do.
        ledger: the store's view of the plan's jobs.
        backends: the backends that the plan names, by name.
        observe: called a few times a second with the progress.
        only: the jobs to do, by id; None: all of the plan's.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        backends: Mapping[str, Backend],
        observe: Callable[[Progress], None] = lambda _: None,
        only: frozenset[str] | None = None,
    ) -> None:
        self._only = only
        self._plan, self._ledger, self._backends, self._observe = plan, ledger, backends, observe
        self._writer, self._reader = ledger.writer, ledger.reader
        self._recorder = Recorder(ledger.writer, ledger.reader, ledger.experiment, ledger.advance)
        maker = RequestMaker(plan, ledger.results, ledger.artifacts)
        vector_maker = VectorJobMaker(ledger, ledger.reader, maker)
        self._cache = AnswerCache(ledger.artifacts.cache()) if any(map(plan.asks, plan.jobs)) else None
        self._sampling = SamplingLane(ledger, backends, self._recorder, maker, vector_maker, self._cache)
        self._given = GivenLane(ledger, self._recorder, self._sampling.finish)
        self._training = TrainingLane(ledger, backends, maker)
        self._vectors = VectorLane(ledger, backends, vector_maker)
        self._iso_kl = IsoKlLane(ledger, backends, maker)
        self._inside = InsideLane(ledger, backends, maker)
        self._scoring = ScoringLane(ledger)
        self._calls: dict[asyncio.Task[None], _Call] = {}
        self._paused = False
        self._cancelled = False

    async def run(self) -> ExperimentState:
        """Run until nothing more can be done.

        Raises:
            StoreError: the store cannot be written; what was committed is kept.
            asyncio.CancelledError: interrupted; rows that arrived are committed.
        """
        beat = 0.0
        await asyncio.to_thread(prepare)
        gc.freeze()  # a plan of many rows stays: to look through it again and again would hold the event loop up
        try:
            while True:
                self._take_controls()
                self._recorder.tick()
                if time.monotonic() - beat >= HEARTBEAT_SECONDS:
                    beat = time.monotonic()
                    self._ledger.heartbeat()
                self._observe(self._ledger.progress())
                self._reap()
                if not self._paused:
                    self._start_calls()
                if self._cancelled or (not self._calls and not self._paused and not self._ledger.held()):
                    break
                if self._calls:
                    await asyncio.wait(self._calls, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._stop_calls()
            self._scoring.close()
            if self._cache is not None:
                self._cache.close()
            gc.unfreeze()
        self._observe(self._ledger.progress())
        if self._cancelled:
            await self._cancel_elsewhere([job for job in self._plan.jobs if self._ledger.state(job) != "done"])
            self._ledger.cancel_unfinished()
            return "cancelled"
        if self._ledger.all_done():
            return "done"
        return "planned" if self._only is not None and self._ledger.all_done(self._only) else "failed"

    # -- calls to lanes -------------------------------------------------------------------------

    def _start_calls(self) -> None:
        while self._do_at_once():  # as it makes others ready
            pass
        waiting: dict[str, list[Job]] = {}
        for job in self._ready():
            waiting.setdefault(self._lane(job), []).append(job)
        for lane, jobs in waiting.items():
            if self._asks_nobody(jobs[0]):
                self._call(lane, jobs, self._given.run(jobs))
            elif jobs[0].kind == "score" and not self._plan.asks(jobs[0]):
                for job in jobs:
                    self._call(lane, [job], self._scoring.run(job))
            elif self._joins(jobs[0]) or not any(call.lane == lane for call in self._calls.values()):
                self._call(lane, jobs, self._work(jobs[0]).run(jobs[0].inputs["backend"], jobs))

    def _asks_nobody(self, job: Job) -> bool:
        return job.kind == "generate" and "backend" not in job.inputs

    def _call(self, lane: str, jobs: Sequence[Job], work: Coroutine[Any, Any, None]) -> None:
        self._calls[asyncio.create_task(work)] = _Call(lane, tuple(jobs))

    def _do_at_once(self) -> bool:
        """Do what takes no time and may make other jobs ready; whether there was any."""
        found = False
        for job in self._ledger.scored_through():
            with self._ledger.remaking(job):
                self._sampling.calibrate(job)
            found = True
        for job in self._ready():
            if job.kind == "match":
                with self._ledger.remaking(job):
                    self._vectors.match(job)
                found = True
            elif job.kind == "score" and not self._plan.asks(job) and self._scoring.nothing_left(job):
                self._ledger.finish(job)  # all was scored as it arrived
                found = True
        return found

    def _work(self, job: Job) -> SamplingLane | TrainingLane | VectorLane | IsoKlLane | InsideLane:
        if job.kind == "train":
            return self._training
        if job.kind == "iso_kl":
            return self._iso_kl
        if job.kind in INSIDE_KINDS:
            return self._inside
        return self._vectors if job.kind == "extract" else self._sampling

    def _joins(self, job: Job) -> bool:
        return self._backends[job.inputs["backend"]].capabilities.joins

    def _ready(self) -> list[Job]:
        taken = {job.id for call in self._calls.values() for job in call.jobs}
        return [
            job for job in self._ledger.ready() if job.id not in taken and (self._only is None or job.id in self._only)
        ]

    def _reap(self) -> None:
        """Take ended calls out; an error of the store ends the run."""
        for task in [task for task in self._calls if task.done()]:
            del self._calls[task]
            if not task.cancelled():
                task.result()

    async def _stop_calls(self) -> None:
        tasks = list(self._calls)
        self._calls.clear()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, StoreError):
                raise result
        self._recorder.flush()

    def _lane(self, job: Job) -> str:
        """The lane that a job goes through. Those who are asked have one of their own: their answers are cached."""
        if self._plan.asks(job):
            return f"ask {job.inputs['backend']}"
        if job.kind == "score":
            return f"score {self._ledger.scorer(job).name}"
        return f"{'sample' if job.kind in SAMPLING else job.kind} {job.inputs.get('backend', '')}"

    # -- control --------------------------------------------------------------------------------

    def _take_controls(self) -> None:
        for action, number in self._writer.take_controls(self._ledger.experiment):
            log.info("control: %s %s", action, number)
            if action == "pause" and number is None:
                self._pause()
            elif action == "resume" and number is None:
                self._paused = False
                self._ledger.set_experiment("running")
            elif action == "cancel" and number is None:
                self._cancelled = True
            elif action == "cancel" and number is not None:
                self._ledger.cancel(number)
                jobs = [job for job in self._plan.jobs if self._ledger.number(job) == number]
                self._interrupt(jobs)
                self._call(f"cancel {number}", (), self._cancel_elsewhere(jobs))
            elif action == "retry":
                self._ledger.retry(number)
            elif number is not None:
                self._take_job_control(action, number)

    def _take_job_control(self, action: str, number: int) -> None:
        if action == "pause":
            self._interrupt(self._ledger.pause(number))
        elif action == "resume":
            self._ledger.resume(number)
        else:
            # A call keeps the jobs, and their order, that it began with.
            self._interrupt(self._ledger.move(number, first=action == "first"), whole_lanes=True)

    async def _cancel_elsewhere(self, jobs: Sequence[Job]) -> None:
        """End what goes on at a service for these jobs: a cancelled job must not go on costing."""
        for job in jobs:
            backend = self._backends[job.inputs["backend"]] if job.kind == "train" else None
            if isinstance(backend, Service):
                try:
                    await backend.cancel(job.id, self._ledger.artifacts.folder(job.id))
                except WindowshiftError as error:
                    self._ledger.said(job, f"could not be cancelled: {error}")

    def _pause(self) -> None:
        self._paused = True
        self._ledger.set_experiment("paused")
        self._interrupt(self._plan.jobs)

    def _interrupt(self, jobs: Sequence[Job], *, whole_lanes: bool = False) -> None:
        """End the calls that took some jobs, or all calls of their lanes; what is not finished is called for again."""
        # The rows that arrived stay; what is missing is asked for in the next call.
        touched, lanes = {job.id for job in jobs}, {self._lane(job) for job in jobs}
        for task, call in self._calls.items():
            if any(job.id in touched for job in call.jobs) or (whole_lanes and call.lane in lanes):
                task.cancel()
