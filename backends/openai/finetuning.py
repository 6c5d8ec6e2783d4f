"""Fine-tuning: training jobs as jobs of a server, followed to their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windowshift.backends.openai.connection import OWNER, OpenAIConnection
from windowshift.backends.openai.creation import ENDED_WITHOUT, Creation
from windowshift.backends.openai.fine_tuning_journal import FineTuningJournal
from windowshift.backends.openai.job_events import JobEvents
from windowshift.backends.openai.repeat import repeat
from windowshift.backends.openai.said import Checkpoint, FineTuningJob, Listed, ModelEntry, job_path
from windowshift.backends.openai.work import FineTuningWork, work_of
from windowshift.backends.shared.faults import Fault, ServiceError
from windowshift.backends.shared.said import read
from windowshift.backends.shared.side_by_side import Put, side_by_side
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.prices import Price
from windowshift.core.contract.training import Checkpointed, Trained, TrainEvent, TrainJob, TrainMessage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FIRST_POLL = 0.2


class FineTuning:
    """Trains the jobs of one call of `train`.

    Args:
        connection: the server.
        budget: what may be spent.
        price: what a model costs; None: it is not known.
        places: of the jobs that may be at the server at the same time; None: as many as it takes.
    """

    def __init__(
        self,
        connection: OpenAIConnection,
        budget: Budget,
        price: Callable[[str], Price | None],
        places: asyncio.Semaphore | None = None,
    ) -> None:
        self._connection, self._budget, self._price = connection, budget, price
        self._creation = Creation(connection)
        self._asking = asyncio.Lock()
        self._owners: dict[str, object] | None = None
        self._places = places

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train all jobs; those that are at the server already have the first places."""
        # What is at the server goes on there when the reader leaves; the next call takes it up.
        events = side_by_side(sorted(jobs, key=_not_begun), self._one, self._places)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()
            await self._creation.aclose()

    async def cancel(self, output: Path) -> None:
        """Cancel the server's job behind a training job that nothing follows any more.

        Raises:
            BackendError: the server stayed away, or the journal cannot be read.
        """
        journal = FineTuningJournal.read(output)
        if journal is None or journal.adapter is not None or (journal.job is None and journal.creating is None):
            return
        if journal.job is None:
            await self._creation.stop_all(journal.token, journal.creating)
            replace(journal, creating=None).write(output)
        else:
            await self._creation.stop(journal.job)
            journal.given_up(journal.job).write(output)

    async def _one(self, job: TrainJob, put: Put) -> None:
        work = await self._work(job)
        journal = await self._journal(work)
        if journal.adapter is None:
            most = self._most(work)
            await self._budget.reserve(most)
            paid = 0.0
            try:
                journal = await self._at_the_server(work, journal, put)
                paid = journal.usd or 0.0
            finally:
                await asyncio.shield(self._budget.settle(most, paid))
        for examples, model in journal.checkpoints:
            put(Checkpointed(job.key, examples, model))
        put(Trained(job.key, journal.adapter or "", work.total, journal.usd))

    async def _work(self, job: TrainJob) -> FineTuningWork:
        """Put a job into the API's terms.

        Raises:
            BackendError: it cannot be.
        """
        if not job.examples:
            raise BackendError("there are no examples to train on")
        if any(example.weighted for example in job.examples):
            raise BackendError("backend 'openai' cannot weigh examples or tokens: train with backend local or tinker")
        if any(example.reasoning for example in job.examples):
            raise BackendError(
                "backend 'openai' cannot teach reasoning, for which its files have no place: leave it out, or train "
                "with backend local or tinker"
            )
        if any(example.steering for example in job.examples):
            raise BackendError("backend 'openai' cannot train under a steering dose")
        between = [at for at in job.checkpoints if at % len(job.examples)]
        if between:
            raise BackendError(
                f"backend 'openai' has checkpoints after whole epochs only ({len(job.examples)} examples), "
                f"not after {between[0]}"
            )
        options = self._connection.options
        begun = FineTuningJournal.read(job.output)
        own = options.server_learning_rate is None and (
            begun.own if begun is not None else await self._is_own(job.model.base)
        )
        return work_of(job, options.hyperparameters, options.server_learning_rate, own=own)

    async def _is_own(self, model: str) -> bool:
        """Whether `windowshift serve` is to train a model; the server is asked once, as patiently as for all else."""

        async def ask(client: AsyncOpenAI) -> dict[str, object]:
            page = await self._connection.said(Listed, client, "/models")
            return {one.id: one.owned_by for one in (read(ModelEntry, each) for each in page.data)}

        async with self._asking:
            if self._owners is None:
                try:
                    self._owners = await repeat(self._connection, "listing models", ask)
                except ServiceError as error:
                    if error.fault.status != 404:
                        raise
                    self._owners = {}
        return self._owners.get(model) == OWNER

    async def _journal(self, work: FineTuningWork) -> FineTuningJournal:
        """The journal of this work. One of other work, e.g. of data that was written anew, is left behind."""
        server = self._connection.options.base_url
        found = FineTuningJournal.read(work.job.output)
        if found is None or found.token != work.token:
            if found is not None and found.job is not None and found.adapter is None and found.server == server:
                await self._creation.stop(found.job)
            found = FineTuningJournal(work.token, server, own=bool(work.own))
        elif found.server != server and found.adapter is None:
            # The same server may have another address now; its list will tell.
            found = replace(found, server=server)
        return found

    def _most(self, work: FineTuningWork) -> float:
        price = self._price(work.job.model.base)
        return (price.trained(work.most_tokens) or 0.0) if price is not None else 0.0

    async def _at_the_server(self, work: FineTuningWork, journal: FineTuningJournal, put: Put) -> FineTuningJournal:
        """Begin the work or take it up, follow it to its end, and return the journal of the finished job."""
        output = work.job.output
        try:
            remote, journal = await self._creation.begin(work, journal)
        except ServiceError as error:
            if journal.job is not None and error.fault.status == 404:
                journal.given_up(journal.job).write(output)
                raise ServiceError(f"{error}; retry it to train it anew", error.fault) from None
            raise
        put(TrainMessage(work.job.key, f"fine-tuning job {remote.id} at {self._connection.options.host}"))
        remote, journal = await self._follow(work, journal, remote, put)
        if remote.status in ENDED_WITHOUT:
            journal.given_up(remote.id).write(output)
            said = remote.error.message if remote.error is not None and remote.error.message else remote.status
            sentence = self._connection.redactor.said(said)
            raise ServiceError(
                f"fine-tuning job {remote.id} of '{remote.model}' {remote.status}: {sentence}",
                Fault("refused", sentence),
            )
        if not remote.fine_tuned_model:
            raise BackendError(f"fine-tuning job {remote.id} succeeded, but names no model")
        checkpoints = await self._checkpoints(work, remote)
        usd, guessed = self._cost(work, remote)
        if guessed:
            put(TrainMessage(work.job.key, f"{remote.id} does not say how many tokens it trained on: counted at most"))
        return replace(journal, adapter=remote.fine_tuned_model, checkpoints=tuple(checkpoints.items()), usd=usd).write(
            output
        )

    def _cost(self, work: FineTuningWork, remote: FineTuningJob) -> tuple[float | None, bool]:
        """What a job cost (None: no price is known), and whether that is the most that it can have cost."""
        price = self._price(work.job.model.base)
        if price is None or price.training is None:
            return None, False
        if remote.trained_tokens is not None:
            return price.trained(remote.trained_tokens), False
        return self._most(work), price.training > 0

    async def _follow(
        self, work: FineTuningWork, journal: FineTuningJournal, remote: FineTuningJob, put: Put
    ) -> tuple[FineTuningJob, FineTuningJournal]:
        """Pass on what happens to a job until it ends."""
        events = JobEvents(self._connection, work, remote.id, journal.last_event)
        status, wait = "", min(FIRST_POLL, self._connection.options.poll)
        while True:
            for event in await events.new(remote):
                put(event)
            if events.last != journal.last_event:
                journal = replace(journal, last_event=events.last).write(work.job.output)
            if remote.status in ("succeeded", *ENDED_WITHOUT):
                return remote, journal
            said = _status(remote)
            if said != status:
                status = said
                put(TrainMessage(work.job.key, said))
            await asyncio.sleep(wait)
            wait = min(self._connection.options.poll, wait * 1.5)
            remote = await self._creation.look(remote.id)

    async def _checkpoints(self, work: FineTuningWork, remote: FineTuningJob) -> dict[int, str]:
        """The models after the numbers of examples that were asked for.

        Raises:
            BackendError: the server kept none after one of them.
        """
        if not work.job.checkpoints:
            return {}

        async def ask(client: AsyncOpenAI) -> dict[int, str]:
            listed = self._connection.listed(Checkpoint, client, job_path(remote.id, "checkpoints"), limit=100)
            return {one.step_number: one.fine_tuned_model_checkpoint async for one in listed}

        kept = await repeat(self._connection, f"checkpoints of fine-tuning job {remote.id}", ask)
        size = len(work.job.examples)
        steps = -(-size // work.job.sft.batch_size)  # of an epoch
        found = {}
        for examples in work.job.checkpoints:
            model = kept.get(examples // size * steps) or kept.get(examples // work.job.sft.batch_size)
            if model is None:
                raise BackendError(
                    f"fine-tuning job {remote.id} kept no checkpoint after {examples} examples "
                    f"(it has steps {', '.join(map(str, sorted(kept))) or 'none'})"
                )
            found[examples] = model
        return found


def _status(remote: FineTuningJob) -> str:
    words = f"{remote.id}: {remote.status.replace('_', ' ')}"
    if remote.estimated_finish is not None:
        minutes = max(0.0, remote.estimated_finish - time.time()) / 60
        words += f", done in about {max(1, round(minutes, -1 if minutes > 60 else 0)):.0f} min"
    return words


def _not_begun(job: TrainJob) -> bool:
    try:
        journal = FineTuningJournal.read(job.output)
    except BackendError:
        return True
    return journal is None or (journal.job is None and journal.creating is None)
