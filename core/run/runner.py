"""The runner: takes a plan through its backends and writes the store. Headless; screens only read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import StoreError, WindowshiftError
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import SAMPLING, ExperimentState, JobKind
from windowshift.core.contract.service import Service
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.run.answer_cache import AnswerCache
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.recorder import Recorder
from windowshift.core.run.requests import RequestMaker
from windowshift.core.run.sampling_lane import SamplingLane, asks_judge, lane_of
from windowshift.core.run.training_lane import TrainingLane
from windowshift.core.run.vector_lane import VectorLane
from windowshift.core.run.vector_work import VectorOrders
from windowshift.core.settings.judge import is_judged

log = logging.getLogger("windowshift.runner")

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 1.0


class Runner:
    """Runs one plan to its end, as far as failures allow.

    Lanes work side by side: everything that can be sampled now goes to the generating backend in one
    call, everything that can be trained now to the training backend in another, and vectors that can be
    made in a third. What becomes ready meanwhile goes into a lane's next call.

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
        self._recorder = Recorder(ledger.writer, ledger.reader, ledger.experiment)
        maker = RequestMaker(plan, ledger.results, ledger.workspace)
        orders = VectorOrders(ledger, ledger.reader, maker)
        self._cache = AnswerCache(ledger.workspace / "artifacts") if any(map(asks_judge, plan.jobs)) else None
        self._sampling = SamplingLane(ledger, backends, self._recorder, maker, orders, self._cache)
        self._training = TrainingLane(ledger, backends, maker)
        self._vectors = VectorLane(ledger, backends, orders)
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._paused = False
        self._cancelled = False

    async def run(self) -> ExperimentState:
        """Run until nothing more can be done.

        Raises:
            StoreError: the store cannot be written; what was committed is kept.
            asyncio.CancelledError: interrupted; rows that arrived are committed.
        """
        beat = 0.0
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
                    self._start_lanes()
                if self._cancelled or (not self._lanes and not self._paused and not self._ledger.held()):
                    break
                if self._lanes:
                    await asyncio.wait(self._lanes.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._stop_lanes()
            if self._cache is not None:
                self._cache.close()
        self._observe(self._ledger.progress())
        if self._cancelled:
            await self._cancel_elsewhere([job for job in self._plan.jobs if self._ledger.state(job) != "done"])
            self._ledger.cancel_unfinished()
            return "cancelled"
        if self._ledger.all_done():
            return "done"
        return "planned" if self._only is not None and self._ledger.all_done(self._only) else "failed"

    # -- lanes ----------------------------------------------------------------------------------

    def _start_lanes(self) -> None:
        while matches := [job for job in self._ready() if job.kind == "match"]:
            for job in matches:  # at once, as they make others ready
                self._vectors.match(job)
        waiting: dict[str, list[Job]] = {}
        for job in self._ready():
            lane = _lane(job)
            if lane is None:
                self._finish_scores(job)
            else:
                waiting.setdefault(lane, []).append(job)
        for lane, jobs in waiting.items():
            if lane not in self._lanes:
                self._lanes[lane] = asyncio.create_task(self._work(jobs[0].kind).run(jobs[0].inputs["backend"], jobs))

    def _work(self, kind: JobKind) -> SamplingLane | TrainingLane | VectorLane:
        if kind == "train":
            return self._training
        return self._vectors if kind == "extract" else self._sampling

    def _ready(self) -> list[Job]:
        return [job for job in self._ledger.ready() if self._only is None or job.id in self._only]

    def _reap(self) -> None:
        """Take ended lanes out; an error of the store ends the run."""
        for name, task in list(self._lanes.items()):
            if task.done():
                del self._lanes[name]
                if not task.cancelled():
                    task.result()

    async def _stop_lanes(self) -> None:
        tasks = list(self._lanes.values())
        self._lanes.clear()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, StoreError):
                raise result
        self._recorder.flush()

    def _finish_scores(self, job: Job) -> None:
        """A rule-based scorer has scored every row as it arrived; score what an older run left unscored."""
        self._ledger.score_missing(job)
        self._ledger.finish(job)

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
                self._lanes[f"cancel {number}"] = asyncio.create_task(self._cancel_elsewhere(jobs))
            elif action == "retry":
                self._ledger.retry(number)
            elif number is not None:
                self._take_job_control(action, number)

    def _take_job_control(self, action: str, number: int) -> None:
        if action == "pause":
            changed = self._ledger.pause(number)
        elif action == "resume":
            changed = self._ledger.resume(number)
        else:
            changed = self._ledger.move(number, first=action == "first")
        self._interrupt(changed)  # a lane keeps the jobs, and their order, that it began with

    async def _cancel_elsewhere(self, jobs: Sequence[Job]) -> None:
        """End what goes on at a service for these jobs: a cancelled job must not go on costing."""
        for job in jobs:
            backend = self._backends[job.inputs["backend"]] if job.kind == "train" else None
            if isinstance(backend, Service):
                try:
                    await backend.cancel(job.id, self._ledger.workspace / "artifacts" / job.id)
                except WindowshiftError as error:
                    self._ledger.said(job, f"could not be cancelled: {error}")

    def _pause(self) -> None:
        self._paused = True
        self._ledger.set_experiment("paused")
        self._interrupt(self._plan.jobs)

    def _interrupt(self, jobs: Sequence[Job]) -> None:
        # The rows that arrived stay; what is missing is asked for when the lanes start again.
        touched = {_lane(job) for job in jobs}
        for name, task in self._lanes.items():
            if name in touched:
                task.cancel()


def _lane(job: Job) -> str | None:
    """The lane that a job goes through; None for what is done at once."""
    if job.kind in SAMPLING or is_judged(job.inputs):
        return lane_of(job)
    if job.kind in ("train", "extract"):
        return f"{job.kind} {job.inputs['backend']}"
    return None
