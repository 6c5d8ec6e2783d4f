"""The creation of a fine-tuning job: exactly once, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.fine_tuning_journal import FineTuningJournal
from windowshift.backends.openai.repeat import pause, repeat
from windowshift.backends.openai.said import FineTuningJob, Identified, job_path
from windowshift.backends.openai.work import METADATA, FineTuningWork
from windowshift.backends.shared.faults import ServiceError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import FilePurpose

log = logging.getLogger("windowshift.openai")

ENDED_WITHOUT = ("failed", "cancelled")
_LOOK_AGAIN = 0.5


class Creation:
    """Creates jobs at a server, or finds those that were created and never confirmed.

    The journal says that a job is asked for before it is. Where no answer came back, or the process
    was killed, the server's own list decides: a job with the work's token in its metadata, or in its
    suffix, is taken; only after `settle` seconds without one is it asked for again.
    """

    def __init__(self, connection: OpenAIConnection) -> None:
        self._connection = connection
        self._listed: asyncio.Task[list[FineTuningJob]] | None = None

    async def begin(self, work: FineTuningWork, journal: FineTuningJournal) -> tuple[FineTuningJob, FineTuningJournal]:
        """Return the server's job for a piece of work, and the journal that knows it.

        Raises:
            ServiceError: the server refused it, or stayed away.
            OSError: the journal cannot be written.
        """
        if journal.job is not None:
            number = journal.job
            return await self.look(number), journal
        found = await self._find(work, journal)
        if found is None:
            file = await self._upload(work)
            found = await self._create(work, journal, file)
        else:
            log.info("adopted the fine-tuning job %s", found.id)
        return found, replace(journal, creating=None, job=found.id).write(work.job.output)

    async def look(self, number: str) -> FineTuningJob:
        """Ask for a job.

        Raises:
            ServiceError: the server does not have it, or stayed away.
        """

        async def ask(client: AsyncOpenAI) -> FineTuningJob:
            return await self._connection.said(FineTuningJob, client, job_path(number))

        return await repeat(self._connection, f"fine-tuning job {number}", ask)

    async def _create(self, work: FineTuningWork, journal: FineTuningJournal, file: str) -> FineTuningJob:
        # Any: what `hyperparameters` may hold is the server's to say.
        method: Any = {"type": "supervised", "supervised": {"hyperparameters": dict(work.hyperparameters)}}

        async def ask(client: AsyncOpenAI) -> FineTuningJob:
            body = {
                "model": work.job.model.base,
                "training_file": file,
                "method": method,
                "seed": work.seed,
                "suffix": work.suffix,
                "metadata": {METADATA: work.token, "attempt": str(journal.attempt), "job": work.job.key[:64]},
                **({METADATA: dict(work.own)} if work.own else {}),
            }
            headers = {"Idempotency-Key": f"{work.token}-{journal.attempt}"}
            made = await self._connection.send(client, "POST", "/fine_tuning/jobs", body, headers=headers)
            return self._connection.read(FineTuningJob, made)

        begun, tries = time.monotonic(), 0
        options = self._connection.options
        while True:
            noted = replace(journal, creating=time.time()).write(work.job.output)
            try:
                return await self._connection.call(f"fine-tuning '{work.job.model.base}'", ask)
            except ServiceError as error:
                fault = error.fault
                if fault.maybe_done:
                    found = await self._find(work, noted)
                    if found is not None:
                        return found
                journal.write(work.job.output)  # it is known not to be there
                if fault.remedy in ("refused", "stop"):
                    raise
                waited = time.monotonic() - begun
                # A server that says "too many jobs" is waited for: one of them will end.
                if waited > options.patience and fault.status != 429:
                    raise ServiceError(f"{error}; given up after {waited:.0f} s", fault) from None
                await pause(options, tries, fault.seconds)
                tries += 1

    async def _upload(self, work: FineTuningWork) -> str:
        async def ask(client: AsyncOpenAI) -> str:
            return await upload(self._connection, client, f"{work.suffix}.jsonl", work.file, "fine-tune")

        return await repeat(self._connection, "uploading the training file", ask)

    async def _find(self, work: FineTuningWork, journal: FineTuningJournal) -> FineTuningJob | None:
        """The job of this work at the server; None: there is none, and none is on its way."""
        while True:
            jobs = await self._list(fresh=journal.creating is not None)
            mine = sorted((job for job in jobs if _is(work, job, journal)), key=lambda job: (job.created_at, job.id))
            if mine:
                for surplus in mine[1:]:
                    await self.stop(surplus.id)
                return mine[0]
            if journal.creating is None or time.time() - journal.creating >= self._connection.options.settle:
                return None
            await asyncio.sleep(min(_LOOK_AGAIN, self._connection.options.settle))

    async def _list(self, *, fresh: bool) -> list[FineTuningJob]:
        """All jobs of the server; one list serves all the work that was never begun."""
        if fresh:
            return await self._ask_list()
        if self._listed is None:
            self._listed = asyncio.create_task(self._ask_list())
        return await asyncio.shield(self._listed)

    async def _ask_list(self) -> list[FineTuningJob]:
        async def ask(client: AsyncOpenAI) -> list[FineTuningJob]:
            jobs = self._connection.listed(FineTuningJob, client, "/fine_tuning/jobs", limit=100)
            return [job async for job in jobs]

        return await repeat(self._connection, "listing fine-tuning jobs", ask)

    async def stop_all(self, token: str, creating: float | None) -> None:
        """Cancel every job with a token, also one whose creation nobody saw confirmed.

        Raises:
            ServiceError: the server stayed away.
        """
        while True:
            jobs = [job for job in await self._ask_list() if (job.metadata or {}).get(METADATA) == token]
            for job in jobs:
                if job.status not in ("succeeded", *ENDED_WITHOUT):
                    await self.stop(job.id)
            if jobs or creating is None or time.time() - creating >= self._connection.options.settle:
                return
            await asyncio.sleep(_LOOK_AGAIN)

    async def stop(self, number: str) -> None:
        """Cancel a job; one that has ended already stays as it is.

        Raises:
            ServiceError: the server stayed away.
        """

        async def ask(client: AsyncOpenAI) -> None:
            await self._connection.send(client, "POST", job_path(number, "cancel"))

        try:
            await repeat(self._connection, f"cancelling fine-tuning job {number}", ask)
        except ServiceError as error:
            if error.fault.remedy != "refused":
                raise
            log.info("%s", error)

    async def aclose(self) -> None:
        """Leave no task behind."""
        if self._listed is not None:
            self._listed.cancel()
            await asyncio.gather(self._listed, return_exceptions=True)


async def upload(
    connection: OpenAIConnection, client: AsyncOpenAI, name: str, content: bytes, purpose: FilePurpose
) -> str:
    """Upload a file; its id."""
    made = await client.files.with_raw_response.create(file=(name, content), purpose=purpose)
    return connection.read(Identified, made.http_response).id


def _is(work: FineTuningWork, job: FineTuningJob, journal: FineTuningJournal) -> bool:
    """Whether a job does this work, and is worth taking: one that failed counts for the try that it was."""
    if job.id in journal.failed:
        return False
    metadata = job.metadata or {}
    if METADATA in metadata:
        same = metadata[METADATA] == work.token
    else:  # a server that keeps no metadata
        same = job.model == work.job.model.base and work.suffix in (
            job.user_provided_suffix,
            *str(job.fine_tuned_model or "").split(":"),
        )
    if not same:
        return False
    return job.status not in ENDED_WITHOUT or (
        journal.creating is not None and metadata.get("attempt") == str(journal.attempt)
    )
