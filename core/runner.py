"""The runner: takes a plan through its backends and writes the store. Headless; screens only read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from windowshift.core.answer_cache import AnswerCache
from windowshift.core.backend import (
    Backend,
    Checkpointed,
    GenerateRequest,
    Model,
    Sft,
    SteeringBackend,
    Trained,
    TrainEvent,
    TrainJob,
    TrainMessage,
    TrainProgress,
)
from windowshift.core.errors import SpecError, StoreError, WindowshiftError
from windowshift.core.filtering import choose_by_judge, choose_by_variance
from windowshift.core.jobs import Job
from windowshift.core.judge import JudgeScorer, is_judged
from windowshift.core.judge_rows import judge_rows
from windowshift.core.ledger import Ledger
from windowshift.core.plan import Plan
from windowshift.core.progress import Progress
from windowshift.core.proof import Fired, fired_to_json, total
from windowshift.core.recorder import Recorder
from windowshift.core.records import SAMPLING, ExperimentState
from windowshift.core.requests import RequestMaker, Row, relative_artifact
from windowshift.core.service import Service
from windowshift.core.training_set import training_set, write_chat_jsonl
from windowshift.core.vector_job import VectorJob, VectorMade
from windowshift.core.vector_orders import VectorOrders

log = logging.getLogger("windowshift.runner")

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 1.0
LOSS_EVENT_SECONDS = 0.5


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
        self._maker = RequestMaker(plan, ledger.results, ledger.workspace)
        self._orders = VectorOrders(ledger, ledger.reader, self._maker)
        self._cache = AnswerCache(ledger.workspace / "artifacts") if any(map(_asks_judge, plan.jobs)) else None
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
                self._match(job)
        ready = self._ready()
        sampling: dict[str, list[Job]] = {}
        training: dict[str, list[Job]] = {}
        vectors: dict[str, list[Job]] = {}
        for job in ready:
            if job.kind in SAMPLING or is_judged(job.inputs):
                sampling.setdefault(_lane(job), []).append(job)
            elif job.kind == "train":
                training.setdefault(job.inputs["backend"], []).append(job)
            elif job.kind == "extract":
                vectors.setdefault(job.inputs["backend"], []).append(job)
            else:
                self._finish_scores(job)
        for lane, jobs in sampling.items():
            if lane not in self._lanes:
                self._lanes[lane] = asyncio.create_task(self._sample(jobs[0].inputs["backend"], jobs))
        for name, jobs in training.items():
            if f"train {name}" not in self._lanes:
                self._lanes[f"train {name}"] = asyncio.create_task(self._train(name, jobs))
        for name, jobs in vectors.items():
            if f"vectors {name}" not in self._lanes:
                self._lanes[f"vectors {name}"] = asyncio.create_task(self._make_vectors(name, jobs))

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

    async def _sample(self, name: str, jobs: Sequence[Job]) -> None:
        """Ask one backend for every missing row of these jobs in one call."""
        opened: dict[int, Job] = {}
        try:
            requests: list[GenerateRequest] = []
            judged = _asks_judge(jobs[0])
            # D first: training waits for it, while base cells have no children.
            order = jobs if judged else sorted(jobs, key=self._turn)
            for job in order:
                number = self._ledger.number(job)
                done = self._reader.rows_done(number)
                try:
                    rows = self._judge_rows(job, done) if is_judged(job.inputs) else list(self._maker.rows(job, done))
                except SpecError as error:  # its own: a dose that its vector cannot be given in
                    self._ledger.fail(job, str(error))
                    continue
                opened[number] = job
                self._ledger.start(job)
                # Of what a judge is asked, failed completions are left out: they count as there.
                there = job.total - len(rows) if is_judged(job.inputs) else len(done)
                result = self._ledger.results[job.id]
                self._recorder.open(job, number, there, rows, self._ledger.scorers(job), result)
                if not rows:
                    self._finish_sampling(number, job)
                # A group of its own, so that every job has its own proof of what steering did.
                requests.extend(replace(row.request, key=f"{number}:{row.number}", group=str(number)) for row in rows)
            backend = self._backends[name]
            cache = self._cache if judged else None
            asked = backend.generate(requests) if cache is None else cache.generate(backend, name, requests)
            async with aclosing(asked) as stream:
                async for completion in stream:
                    number, row_number = map(int, completion.key.split(":"))
                    self._recorder.add(number, row_number, completion)
                    self._recorder.tick()
                    if self._recorder.complete(number):
                        self._finish_sampling(number, opened[number])
            self._fail_unfinished(opened.values(), f"backend '{name}' ended without an answer to every request")
        except StoreError:
            raise
        except WindowshiftError as error:
            self._fail_unfinished(opened.values(), str(error))
        except Exception as error:
            log.exception("generation failed")
            self._fail_unfinished(opened.values(), f"unexpected error in backend '{name}', see the log: {error!r}")
        finally:
            self._recorder.flush()
            for number, job in opened.items():
                self._recorder.close(number)
                self._ledger.put_back(job)

    def _turn(self, job: Job) -> tuple[int, int]:
        return -self._ledger.priority(job), SAMPLING.index(job.kind)

    def _finish_sampling(self, number: int, job: Job) -> None:
        self._recorder.flush()
        failed = self._reader.failures(number)
        scorers = self._ledger.scorers(job)
        with self._writer.batch():
            self._recorder.summarise(number, scorers)
            if is_judged(job.inputs):
                self._ledger.judged(job)
            if failed and job.kind != "filter":  # a prompt that cannot be asked is one that is not kept
                count, first = failed
                self._ledger.fail(job, f"{count} of {job.total} completions failed; the first: {first}")
                return
            try:
                if job.kind == "filter":
                    self._choose(number, job)
                else:
                    self._ledger.finish(job, self._orders.calibrated(job) if job.kind in ("sweep", "dose") else None)
            except SpecError as error:
                self._ledger.fail(job, str(error))

    def _choose(self, number: int, job: Job) -> None:
        keep, count = int(job.inputs["keep"]), len(self._maker.prompts(job.inputs["prompts"]))
        texts = {row.row: row.text for row in self._reader.completions(number, "") if row.finish != "failed"}
        if job.inputs["how"] == "variance":
            lengths = {row: float(len(text)) for row, text in texts.items()}
            choice = choose_by_variance(lengths, count, len(job.inputs["conditions"]), keep)
        else:
            choice = choose_by_judge([texts.get(position) for position in range(count)], keep)
        self._ledger.finish(
            job, {"positions": list(choice.positions), "refused": choice.refused, "missing": choice.missing}
        )

    def _judge_rows(self, job: Job, done: set[int]) -> list[Row]:
        (judge,) = (scorer for scorer in self._ledger.scorers(job) if isinstance(scorer, JudgeScorer))
        judged = self._reader.completions(self._ledger.number(self._ledger.job(job.parents[0])), "")
        return list(judge_rows(judge, job, judged, done))

    def _finish_scores(self, job: Job) -> None:
        """A rule-based scorer has scored every row as it arrived; score what an older run left unscored."""
        self._ledger.score_missing(job)
        self._ledger.finish(job)

    def _match(self, job: Job) -> None:
        """Solve for a matched dose; one that is out of reach is a failure that says how far the vector goes."""
        try:
            result, problem = self._orders.match(job)
        except SpecError as error:
            self._ledger.fail(job, str(error))
            return
        if problem is None:
            self._ledger.finish(job, result)
        else:
            self._ledger.fail(job, problem, result)

    async def _make_vectors(self, name: str, jobs: Sequence[Job]) -> None:
        """Hand one backend every vector that can be made, in one call."""
        by_key = {job.id: job for job in jobs}
        try:
            orders: list[VectorJob] = []
            for job in jobs:
                self._ledger.start(job)
                try:
                    orders.append(self._orders.order(job))
                except (SpecError, StoreError) as error:
                    self._ledger.fail(job, str(error))
            backend = self._backends[name]
            assert isinstance(backend, SteeringBackend)  # the plan has seen to it
            async with aclosing(backend.make_vectors(orders)) as stream:
                async for event in stream:
                    job = by_key[event.key]
                    if isinstance(event, VectorMade):
                        self._ledger.finish(job, self._orders.made(job))
                    else:
                        self._ledger.fail(job, event.error)
            self._fail_unfinished(jobs, f"backend '{name}' ended without making every vector")
        except StoreError:
            raise
        except WindowshiftError as error:
            self._fail_unfinished(jobs, str(error))
        except Exception as error:
            log.exception("making vectors failed")
            self._fail_unfinished(jobs, f"unexpected error in backend '{name}', see the log: {error!r}")
        finally:
            for job in jobs:
                self._ledger.put_back(job)

    async def _train(self, name: str, jobs: Sequence[Job]) -> None:
        """Hand one backend every train job that is ready, in one call."""
        by_key = {job.id: job for job in jobs}
        shown: dict[str, float] = {}
        try:
            batch: list[TrainJob] = []
            for job in jobs:
                try:
                    batch.append(self._train_job(job))
                except SpecError as error:
                    self._ledger.fail(job, str(error))
            async with aclosing(self._backends[name].train(batch)) as stream:
                async for event in stream:
                    self._take_train_event(by_key[event.key], event, shown)
            self._fail_unfinished(jobs, f"backend '{name}' ended without training every job")
        except StoreError:
            raise
        except WindowshiftError as error:
            self._fail_unfinished(jobs, str(error))
        except OSError as error:
            place = self._ledger.workspace
            raise StoreError(f"cannot write to {place}: {error.strerror}; free space and run again") from error
        except Exception as error:
            log.exception("training failed")
            self._fail_unfinished(jobs, f"unexpected error in backend '{name}', see the log: {error!r}")
        finally:
            for job in jobs:
                self._ledger.put_back(job)

    def _take_train_event(self, job: Job, event: TrainEvent, shown: dict[str, float]) -> None:
        if isinstance(event, TrainProgress):
            self._ledger.start(job)
            now = time.monotonic()
            if event.examples >= job.total or now - shown.get(job.id, 0.0) >= LOSS_EVENT_SECONDS:
                shown[job.id] = now
                self._ledger.trained_step(job, event)
        elif isinstance(event, TrainMessage):
            self._ledger.start(job)
            self._ledger.said(job, event.text)
        elif isinstance(event, Checkpointed):
            self._ledger.checkpointed(job, event.examples, self._place(event.adapter))
        elif isinstance(event, Trained):
            result: dict[str, Any] = {"adapter": self._place(event.adapter)}
            if event.proofs:
                result["fired"] = fired_to_json(total(map(Fired.of, event.proofs)))
            self._ledger.finish(job, result, usd=event.usd)
        else:
            self._ledger.fail(job, event.error)

    def _train_job(self, job: Job) -> TrainJob:
        folder = self._ledger.workspace / "artifacts" / job.id
        data = {parent: self._ledger.job(parent) for parent in job.parents}
        examples = training_set(job, data, self._ledger.numbers, self._reader, self._maker)
        write_chat_jsonl(examples, folder / "dataset.jsonl")
        named = job.inputs["model"]
        sft = dict(job.inputs["sft"])
        sft["betas"] = tuple(sft["betas"])
        return TrainJob(
            job.id,
            Model(named["base"], named["revision"]),
            examples,
            Sft(**sft),
            int(job.inputs["seed"]),
            folder,
            tuple(job.inputs["checkpoints"]),
        )

    def _place(self, adapter: str) -> str:
        return relative_artifact(adapter, self._ledger.workspace)

    def _fail_unfinished(self, jobs: Iterable[Job], error: str) -> None:
        for job in jobs:
            if self._ledger.state(job) in ("pending", "running"):
                self._ledger.fail(job, error)

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
                self._interrupt_lanes()
                jobs = [job for job in self._plan.jobs if self._ledger.number(job) == number]
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
        if changed:
            self._interrupt_lanes()  # a lane keeps the jobs, and their order, that it began with

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
        self._interrupt_lanes()

    def _interrupt_lanes(self) -> None:
        # The rows that arrived stay; what is missing is asked for when the lanes start again.
        for task in self._lanes.values():
            task.cancel()


def _asks_judge(job: Job) -> bool:
    return is_judged(job.inputs) or (job.kind == "filter" and job.inputs.get("how") == "judge")


def _lane(job: Job) -> str:
    """Judges have a lane of their own: their answers are cached."""
    return f"{'judge' if _asks_judge(job) else 'sample'} {job.inputs['backend']}"
