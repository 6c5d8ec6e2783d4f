"""Works through the queue of fine-tuning jobs."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import os
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

from windowshift.backends.serve.files import Files
from windowshift.backends.serve.jobs import TRAINING, VALIDATION, Jobs, ServedJob
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.restarts import Restarts
from windowshift.backends.serve.rota import Rota
from windowshift.backends.serve.state import ServerState, now
from windowshift.backends.serve.training_file import examples
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.full_disk import FULL_DISK
from windowshift.core.contract.generation import Model, TemplateInputs
from windowshift.core.contract.training import (
    Checkpointed,
    Example,
    Sft,
    Trained,
    TrainEvent,
    TrainFailed,
    TrainJob,
    TrainMessage,
    TrainProgress,
    Validated,
)

TURN_SECONDS = 300.0
"""How long a job trains while others wait: many times what it may lose, `state_seconds` of backend `local`."""


class _FullDiskError(Exception):
    """A job that stopped as the disk is full: not its fault, so it goes on later."""


class Trainer:
    """Trains queued jobs, a few at a time; while others wait, they take turns.

    A turn ends with the first step after `TURN_SECONDS`: the job goes on later, from the state that the backend saved
    last, so that a small job is not held up by all of a large one that was there before. A job that was running when
    the server ended is taken up again at the next start, from the state that the backend left in the job's folder; one
    that a full disk stopped, a while later.

    Args:
        backend: what trains.
        state: the data folder, with its `jobs`, and `files` where results go.
        sft: LoRA hyperparameters that the API does not set; its learning rate is multiplied.
        at_once: how many jobs train at the same time.
        limits: the server's.
        clock: seconds.
    """

    def __init__(
        self,
        backend: Backend,
        state: ServerState,
        jobs: Jobs,
        files: Files,
        sft: Sft,
        *,
        at_once: int,
        limits: ServerLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend, self._state, self._jobs, self._files = backend, state, jobs, files
        self._sft, self._at_once, self._limits = sft, at_once, limits
        self._running: dict[str, asyncio.Task[None]] = {}
        self._pace: dict[str, tuple[float, int]] = {}  # when, and at which step, a job was first seen to move
        self._step: dict[str, int] = {}
        self._clock = clock
        self._rota = Rota()
        self._before: dict[str, int] = {}  # the step at which a job's turn before this one began
        self._restarts = Restarts("job", self.wake, state.folder)
        self._closed = False

    def asked(self) -> None:
        """Start queued jobs as somebody asked for one: also those that were left alone."""
        self._restarts.asked()
        self.wake()

    def wake(self) -> None:
        """Start queued jobs where there is room for them."""
        if self._closed:
            return
        there = {job.id: job for job in self._jobs.unfinished()}
        for job in [there[key] for key in self._rota.in_turn(there)]:
            if len(self._running) >= self._at_once:
                return
            if job.id not in self._running and self._restarts.due(job.id):
                self._rota.had(job.id)
                task = asyncio.create_task(self._run(job))
                self._running[job.id] = task
                task.add_done_callback(partial(self._ended, job.id))

    async def cancel(self, job: ServedJob) -> ServedJob:
        """End a job that is queued or running; what it has saved stays."""
        job = self._jobs.change(job, status="cancelled", finished_at=now())
        self._jobs.log(job, "The job was cancelled")
        task = self._running.get(job.id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return job

    def estimated_finish(self, job: ServedJob) -> int | None:
        """When a running job will end, in Unix seconds; None while that is not known."""
        first, step = self._pace.get(job.id), self._step.get(job.id, 0)
        if job.status != "running" or first is None or step <= first[1]:
            return None
        left = job.steps_an_epoch * job.hyperparameters.n_epochs - step
        return now() + round(left * (self._clock() - first[0]) / (step - first[1]))

    async def aclose(self) -> None:
        """Stop where things are; running jobs go on at the next start."""
        self._closed = True
        self._restarts.close()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        del self._running[key]
        self._pace.pop(key, None)
        self._step.pop(key, None)
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._restarts.ended(key)
        else:
            self._restarts.failed(key, error)
        self._restarts.look()

    async def _run(self, job: ServedJob) -> None:
        if job.status == "queued":
            job = self._jobs.change(job, status="running")
            began = f"Fine-tuning job started: {job.examples} examples"
            self._jobs.log(job, "The job has its turn again" if self._jobs.steps(job) else began)
        else:
            self._jobs.log(job, "The job goes on from the state it saved last", level="warn")
        try:
            train = await asyncio.to_thread(self._train_job, job)
            try:
                await self._train(job, train)
            except BackendError as error:  # not the job's fault: a worker process died, perhaps
                self._jobs.log(job, f"{error}; the job goes on from the state it saved last", level="warn")
                await self._train(job, train)
        except WindowshiftError as error:
            self._fail(job, str(error))
        except Exception as error:
            if not self._restarts.full_disk(error):
                self._fail(job, f"unexpected error: {type(error).__name__}: {error}")
            raise

    async def _train(self, job: ServedJob, train: TrainJob) -> None:
        async with aclosing(self._backend.train([train])) as events:
            async for event in events:
                self._take(job, event)
                if isinstance(event, TrainProgress) and not event.again and self._over(job, event.step):
                    self._before[job.id] = self._pace[job.id][1]
                    self._jobs.change(job, status="queued")
                    self._jobs.log(job, f"Step {event.step}: others wait, and have their turn")
                    return

    def _over(self, job: ServedJob, step: int) -> bool:
        """Whether a job's turn is over: it was long, others wait, and the job goes on from further than before."""
        began, first = self._pace[job.id]
        if self._clock() - began < TURN_SECONDS or step >= job.steps_an_epoch * job.hyperparameters.n_epochs:
            return False
        if first <= self._before.get(job.id, -1):
            return False  # its last turn left no state behind: it would never end
        return any(one.id not in self._running and self._restarts.due(one.id) for one in self._jobs.unfinished())

    def _train_job(self, job: ServedJob) -> TrainJob:
        folder = self._jobs.folder(job)
        data, unlearned = self._examples(folder / TRAINING), []
        if job.validation_file is not None:
            unlearned = self._examples(folder / VALIDATION)
        if job.sft.shuffle:
            random.Random(f"order:{job.seed}").shuffle(data)  # backends train in the order given
        own = job.sft.over(self._sft)
        numbers = job.hyperparameters
        return TrainJob(
            key=job.id,
            model=Model(job.model, template=TemplateInputs(self._state.day)),
            examples=data,
            sft=dataclasses.replace(
                own,
                learning_rate=own.learning_rate * numbers.multiplier,
                batch_size=numbers.batch_size,
                epochs=numbers.n_epochs,
            ),
            seed=job.seed,
            output=folder,
            checkpoints=tuple(job.examples * epoch for epoch in range(1, numbers.n_epochs)),
            validation=unlearned,
        )

    def _examples(self, path: Path) -> list[Example]:
        with path.open("rb") as file:
            return list(examples(file, self._limits.line_bytes))

    def _take(self, job: ServedJob, event: TrainEvent) -> None:
        steps = job.steps_an_epoch * job.hyperparameters.n_epochs
        if isinstance(event, TrainProgress):
            if not event.again:
                self._pace.setdefault(job.id, (self._clock(), event.step))
                self._step[job.id] = event.step
            if event.step <= self._jobs.last_step(job):
                return
            text = f"Step {event.step}/{steps}: training loss={event.loss:.4f}"
            self._jobs.log(job, text, step=event.step, loss=event.loss, tokens=event.tokens)
        elif isinstance(event, Validated):
            self._jobs.validated(job, event.examples // job.examples * job.steps_an_epoch, event.loss)
        elif isinstance(event, TrainMessage):
            self._jobs.log(job, event.text, level="warn")
        elif isinstance(event, Checkpointed):
            self._save(job, event.examples // job.examples * job.steps_an_epoch, event.adapter)
        elif isinstance(event, Trained):
            self._save(job, steps, event.adapter)
            held = self._files.hold(self._metrics(job))
            with self._state.transaction():  # a job that a kill cuts short here ends anew, and only once
                result = self._files.add(held, "step_metrics.csv", "fine-tune-results")
                self._jobs.log(job, f"New fine-tuned model created: {job.name}")
                self._jobs.log(job, "The job has successfully completed")
                self._jobs.change(
                    job,
                    status="succeeded",
                    finished_at=now(),
                    fine_tuned_model=job.name,
                    result_file=result.id,
                    trained_tokens=self._tokens(job),
                )
        elif isinstance(event, TrainFailed):
            if FULL_DISK in event.error:
                raise _FullDiskError(event.error)
            self._fail(job, event.error)

    def _save(self, job: ServedJob, step: int, adapter: str) -> None:
        new = self._jobs.checkpoint(job, step, os.path.relpath(adapter, self._state.folder))
        if new and job.checkpoint_name(step) != job.name:
            self._jobs.log(job, f"Checkpoint created at step {step}")

    def _fail(self, job: ServedJob, error: str) -> None:
        # What names an example is about the data; the rest is about the training.
        code, param = "failed", None
        for begins, name in (("no example ", "training_file"), ("no validation example ", "validation_file")):
            if error.startswith(begins):
                code, param = f"invalid_{name}", name
        self._jobs.log(job, error, level="error")
        self._jobs.change(
            job, status="failed", finished_at=now(), error_code=code, error_message=error, error_param=param
        )

    def _tokens(self, job: ServedJob) -> int | None:
        """Tokens trained on; None where the backend did not say it."""
        steps = self._jobs.steps(job)
        whole = bool(steps) and steps[-1]["step"] == job.steps_an_epoch * job.hyperparameters.n_epochs
        return steps[-1]["tokens"] if whole else None

    def _metrics(self, job: ServedJob) -> io.BytesIO:
        """The steps' losses as CSV, under the hosted API's column names."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        if job.validation_file is None:
            table.writerow(["step", "train_loss"])
            table.writerows([row["step"], repr(row["loss"])] for row in self._jobs.steps(job))
        else:
            table.writerow(["step", "train_loss", "full_valid_loss"])
            for row in self._jobs.steps(job):
                unlearned = "" if row["valid_loss"] is None else repr(row["valid_loss"])
                table.writerow([row["step"], repr(row["loss"]), unlearned])
        return io.BytesIO(text.getvalue().encode())
