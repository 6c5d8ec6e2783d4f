"""The training lane: adapters that can be trained now, in one call to a backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Model, TemplateInputs
from windowshift.core.contract.proof import Fired, fired_to_json, total
from windowshift.core.contract.training import (
    Checkpointed,
    Example,
    Sft,
    TextLogprob,
    Trained,
    TrainEvent,
    TrainJob,
    TrainMessage,
    TrainProgress,
    Validated,
    Watched,
)
from windowshift.core.plan.jobs import Job
from windowshift.core.run.call import call
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.requests import RequestMaker
from windowshift.core.run.training_set import training_set, write_chat_jsonl

LOSS_EVENT_SECONDS = 0.5


class TrainingLane:
    """Has adapters trained, and records how it goes."""

    def __init__(self, ledger: Ledger, backends: Mapping[str, Backend], maker: RequestMaker) -> None:
        self._ledger, self._backends, self._maker = ledger, backends, maker
        self._shown: dict[str, float] = {}
        self._recorded: dict[str, int] = {}

    async def run(self, name: str, jobs: Sequence[Job]) -> None:
        """Hand one backend some train jobs that are ready, in one call."""
        by_key = {job.id: job for job in jobs}
        # A job that goes on takes steps again that are on record: the curve has each of them once.
        self._recorded |= {job.id: self._ledger.reader.last_loss_step(self._ledger.number(job)) for job in jobs}
        with call(self._ledger, name, jobs, "training every job"):
            batch: list[TrainJob] = []
            for job in jobs:
                with self._ledger.remaking(job):
                    try:
                        batch.append(self._order(job))
                    except SpecError as error:
                        self._ledger.fail(job, str(error))
            async with aclosing(self._backends[name].train(batch)) as stream:
                async for event in stream:
                    await self._take(by_key[event.key], event)

    async def _take(self, job: Job, event: TrainEvent) -> None:
        if isinstance(event, TrainProgress):
            self._ledger.start(job)
            self._take_loss(job, event)
        elif isinstance(event, TrainMessage):
            self._ledger.start(job)
            self._ledger.said(job, event.text)
        elif isinstance(event, Validated):
            self._ledger.said(job, f"validation loss {event.loss:.4f} after {event.examples} examples")
        elif isinstance(event, Watched):
            self._ledger.start(job)
            self._ledger.writer.put_watched(self._ledger.number(job), event.examples, event.texts)
        elif isinstance(event, Checkpointed):
            self._ledger.checkpointed(job, event.examples, await self._keep(job, event.adapter))
        elif isinstance(event, Trained):
            result: dict[str, Any] = {"adapter": await self._keep(job, event.adapter)}
            if event.proofs:
                result["fired"] = fired_to_json(total(map(Fired.of, event.proofs)))
            if event.left_out:
                result["left_out"] = event.left_out
            if event.losses:
                result["losses"] = [list(one) for one in event.losses]
            if "watched" in job.inputs:
                self._finish_watched(job)
            self._ledger.finish(job, result, usd=event.usd)
        else:
            self._ledger.fail(job, event.error)

    def _finish_watched(self, job: Job) -> None:
        """Take the checksum of what a training watched; a moment that its backend told nothing of says so."""
        ledger, wanted = self._ledger, job.inputs["watched"]
        number, texts = ledger.number(job), ledger.plan.prompts[wanted["set"]]
        why = f"backend '{job.inputs['backend']}' told nothing of it"
        for at in sorted({*wanted["at"]} - {*ledger.reader.watched(number)}):
            ledger.writer.put_watched(number, at, [TextLogprob(None, problem=why) for _ in texts])
        ledger.writer.seal_watched(number)

    def _take_loss(self, job: Job, event: TrainProgress) -> None:
        """Record losses: every step of a backend that tells each one, and a few a second of one that sums them up."""
        now, recorded = time.monotonic(), self._recorded[job.id]
        fresh = event.step > recorded
        if (
            (fresh and event.step == recorded + 1)
            or event.examples >= job.total
            or now - self._shown.get(job.id, 0.0) >= LOSS_EVENT_SECONDS
        ):
            self._shown[job.id] = now
            self._ledger.trained_step(job, event, fresh=fresh)
            self._recorded[job.id] = max(recorded, event.step)

    def _order(self, job: Job) -> TrainJob:
        folder = self._ledger.artifacts.folder(job.id)
        data = {parent: self._ledger.job(parent) for parent in job.parents}
        examples, unanswered = training_set(job, data, self._ledger.numbers, self._ledger.reader, self._maker)
        if not examples:
            raise SpecError(
                "there is no answer to train on: the model thought until its tokens were spent; raise max_tokens"
            )
        if unanswered:
            self._ledger.said(job, f"{unanswered} examples of D are left out: the model thought and gave no answer")
        write_chat_jsonl(examples, folder / "dataset.jsonl")
        named = job.inputs["model"]
        start = job.inputs.get("start")
        sft = dict(job.inputs["sft"])
        sft["betas"] = tuple(sft["betas"])
        return TrainJob(
            job.id,
            Model(
                named["base"],
                named["revision"],
                None if start is None else self._maker.adapter(job, start),
                merged=named.get("adapter"),
                template=TemplateInputs.of(named.get("template")),
            ),
            examples,
            Sft(**sft),
            int(job.inputs["seed"]),
            folder,
            tuple(job.inputs["checkpoints"]),
            **self._watching(job),
        )

    def _watching(self, job: Job) -> dict[str, Any]:
        """The texts that a job watches, and when."""
        if "watched" not in job.inputs:
            return {}
        texts = self._ledger.plan.prompts[job.inputs["watched"]["set"]]
        examples = tuple(Example(one.messages, str(one.payload["completion"])) for one in texts)
        return {"watched": examples, "watched_at": tuple(job.inputs["watched"]["at"])}

    async def _keep(self, job: Job, adapter: str) -> str:
        # A large adapter is read while its digest is made.
        return await asyncio.to_thread(self._ledger.artifacts.put, job.id, adapter)
