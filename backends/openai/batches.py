"""Batches: completions through the Batch API, at half the price and within a day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from windowshift.backends.openai.answer import most_prompt_tokens, read_answer
from windowshift.backends.openai.batch_file import ENDPOINT, Line, answers_of, lines_of, portions, token_of
from windowshift.backends.openai.batch_journal import BatchJournal, read_batch_journals
from windowshift.backends.openai.chat import Chat, problem_of
from windowshift.backends.openai.connection import Connection
from windowshift.backends.openai.creation import upload
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.openai.repeat import pause, repeat
from windowshift.backends.openai.said import Batch
from windowshift.backends.openai.work import METADATA
from windowshift.backends.shared.faults import BrokenAnswerError, ServiceError
from windowshift.backends.shared.refusal import failed
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.prices import Price

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_ENDED = ("completed", "failed", "expired", "cancelled")
_LOOK_AGAIN = 0.5


class Batches:
    """Answers the requests of one call of `generate` in batches.

    A batch is on record before it is asked for, with the digest of every request in it. A run that
    was killed finds the batches that hold its requests, and takes their answers.

    Args:
        connection: the server.
        budget: what may be spent.
        price: what a request's model costs; None: it is not known.
        folder: where batches are on record; None: the server's own list has to do.
    """

    def __init__(
        self,
        connection: Connection,
        budget: Budget,
        price: Callable[[GenerateRequest], Price | None],
        folder: Path | None,
    ) -> None:
        self._connection, self._budget, self._price = connection, budget, price
        self._folder = None if folder is None else folder / "batches"
        self._chat = Chat(connection, Pacer(1), budget, price)

    async def complete(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, those of a batch together."""
        bodies = []
        for request in requests:
            problem = problem_of(request)
            if problem is None:
                bodies.append((request, self._chat.body(request)))
            else:
                yield failed(request, problem)
        lines = lines_of(bodies)
        found: asyncio.Queue[list[Completion] | Exception] = asyncio.Queue()
        tasks = [asyncio.create_task(self._guarded(journal, wanted, found)) for journal, wanted in self._begun(lines)]
        try:
            for _ in tasks:
                ready = await found.get()
                if isinstance(ready, Exception):
                    raise ready
                for completion in ready:
                    yield completion
        finally:
            # A batch that was created goes on at the server; the next call finds it.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begun(self, lines: Mapping[str, Line]) -> list[tuple[BatchJournal, dict[str, Line]]]:
        """The batches that hold requests already, then new ones for the rest."""
        server, rest = self._connection.options.base_url, dict(lines)
        begun = []
        for journal in [] if self._folder is None else read_batch_journals(self._folder, server):
            wanted = {name: rest.pop(name) for name in journal.ids if name in rest}
            if wanted:
                begun.append((journal, wanted))
        for portion in portions(list(rest.values())):
            ids = tuple(line.id for line in portion)
            begun.append((BatchJournal(token_of(ids), server, ids, 0.0), {line.id: line for line in portion}))
        return begun

    async def _guarded(
        self, journal: BatchJournal, lines: dict[str, Line], found: asyncio.Queue[list[Completion] | Exception]
    ) -> None:
        try:
            found.put_nowait(await self._one(journal, lines))
        except BackendError as error:
            found.put_nowait([failed(request, str(error)) for line in lines.values() for request in line.requests])
        except Exception as error:  # a bug or a full disk: the reader must see it
            found.put_nowait(error)

    async def _one(self, journal: BatchJournal, lines: dict[str, Line]) -> list[Completion]:
        most = sum(self._most(line) for line in lines.values())
        await self._budget.reserve(most)
        paid = 0.0
        try:
            batch = await self._batch(journal, lines)
            while batch.status not in _ENDED:
                await asyncio.sleep(self._connection.options.poll)
                batch = await self._look(batch.id)
            completions = await self._answers(batch, lines)
            paid = sum(completion.usd or 0.0 for completion in completions)
        finally:
            await asyncio.shield(self._budget.settle(most, paid))
        if batch.status != "completed" and self._folder is not None:
            # What it left unanswered is asked for anew the next time, not looked for here.
            (self._folder / f"{journal.token}.json").unlink(missing_ok=True)
        return completions

    def _most(self, line: Line) -> float:
        request = line.requests[0]
        price = self._price(request)
        if price is None:
            return 0.0
        return price.completion(most_prompt_tokens(request), request.sampling.max_tokens, batch=True)

    async def _batch(self, journal: BatchJournal, lines: Mapping[str, Line]) -> Batch:
        """The server's batch: the one on record, one that was created and never confirmed, or a new one."""
        if journal.batch is not None:
            return await self._look(journal.batch)
        batch = await self._find(journal)
        if batch is None:
            batch = await self._create(journal, lines)
        self._note(replace(journal, batch=batch.id, creating=journal.creating or time.time()))
        return batch

    async def _create(self, journal: BatchJournal, lines: Mapping[str, Line]) -> Batch:
        text = b"".join(line.text for line in lines.values())

        async def send(client: AsyncOpenAI) -> str:
            return await upload(self._connection, client, f"ws-{journal.token}.jsonl", text, "batch")

        file = await repeat(self._connection, "uploading a batch", send)

        async def ask(client: AsyncOpenAI) -> Batch:
            body = {
                "input_file_id": file,
                "endpoint": ENDPOINT,
                "completion_window": "24h",
                "metadata": {METADATA: journal.token},
            }
            return self._connection.read(Batch, await self._connection.send(client, "POST", "/batches", body))

        begun, tries = time.monotonic(), 0
        while True:
            noted = self._note(replace(journal, creating=time.time()))
            try:
                return await self._connection.call("creating a batch", ask)
            except ServiceError as error:
                if error.fault.maybe_done and (batch := await self._find(noted)) is not None:
                    return batch
                waited = time.monotonic() - begun
                if error.fault.remedy in ("refused", "stop") or waited > self._connection.options.patience:
                    raise
                await pause(self._connection.options, tries, error.fault.seconds)
                tries += 1

    async def _find(self, journal: BatchJournal) -> Batch | None:
        """A batch of just these requests at the server that has or will have answers; None: there is none."""

        async def ask(client: AsyncOpenAI) -> list[Batch]:
            return [batch async for batch in self._connection.listed(Batch, client, "/batches", limit=100)]

        while True:
            for batch in await repeat(self._connection, "listing batches", ask):
                if (batch.metadata or {}).get(METADATA) == journal.token and batch.status not in (
                    "failed",
                    "expired",
                    "cancelled",
                ):
                    return batch
            if time.time() - journal.creating >= self._connection.options.settle:
                return None
            await asyncio.sleep(_LOOK_AGAIN)

    async def _look(self, number: str) -> Batch:
        async def ask(client: AsyncOpenAI) -> Batch:
            return await self._connection.said(Batch, client, f"/batches/{quote(number, safe='')}")

        return await repeat(self._connection, f"batch {number}", ask)

    async def _answers(self, batch: Batch, lines: Mapping[str, Line]) -> list[Completion]:
        """Every wanted request's completion: answered, refused, or left over when the batch ended."""
        found: list[Completion] = []
        left = dict(lines)
        for file in (batch.output_file_id, batch.error_file_id):
            if not file:
                continue
            for name, status, body, error in answers_of(await self._download(file)):
                line = left.pop(name, None)
                if line is not None:
                    found.extend(self._completion(request, status, body, error) for request in line.requests)
        said = f"batch {batch.id} {batch.status}"
        errors = batch.errors.data or () if batch.errors is not None else ()
        reasons = self._connection.redactor.said("; ".join(one.message for one in errors if one.message))
        problem = f"{said} without an answer to it{f' ({reasons})' if reasons else ''}"
        found.extend(failed(request, problem) for line in left.values() for request in line.requests)
        return found

    def _completion(self, request: GenerateRequest, status: int, body: object, error: str) -> Completion:
        if status != 200:
            said = self._connection.redactor.said(error) or f"status {status}"
            return failed(request, f"model '{request.model.adapter or request.model.base}': {said}")
        try:
            return read_answer(request, body, self._price(request), redactor=self._connection.redactor, batch=True)
        except BrokenAnswerError as broken:
            return failed(request, f"the server's answer in a batch was broken ({broken})")

    async def _download(self, file: str) -> str:
        async def ask(client: AsyncOpenAI) -> str:
            path = f"/files/{quote(file, safe='')}/content"
            return (await self._connection.send(client, "GET", path)).content.decode("utf-8")

        return await repeat(self._connection, "downloading a batch's answers", ask)

    def _note(self, journal: BatchJournal) -> BatchJournal:
        return journal if self._folder is None else journal.write(self._folder)
