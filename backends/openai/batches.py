"""Batches: completions through the Batch API, at half the price and within a day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from windowshift.backends.openai.answer import most_prompt_tokens, read_answer
from windowshift.backends.openai.batch_file import ENDPOINT, RequestLine, answers_of, lines_of, portions, token_of
from windowshift.backends.openai.batch_journal import BatchJournal, read_batch_journals
from windowshift.backends.openai.chat import ChatSampler, problem_of
from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.creation import upload
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.openai.repeat import pause, repeat
from windowshift.backends.openai.said import Batch
from windowshift.backends.openai.work import METADATA
from windowshift.backends.shared.faults import BrokenAnswerError, ServiceError
from windowshift.backends.shared.refusal import failed
from windowshift.core.contract.budget import Budget, BudgetSpentError
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.prices import Price

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_ENDED = ("completed", "failed", "expired", "cancelled")
_LOOK_AGAIN = 0.5
_MOST_LOOKS = 6
"""So many times `poll` a request waits for others, as long as they go on coming."""


@dataclass(eq=False)
class _Asked:
    """A line that is to be in a batch, or is: who waits for what comes of it. Equal requests share one."""

    line: RequestLine
    wanted: list[tuple[GenerateRequest, asyncio.Queue[Completion | Exception]]] = field(default_factory=list)


class BatchSampler:
    """Answers requests in batches, those of calls that overlap together: a batch of many is one that ends once.

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
        connection: OpenAIConnection,
        budget: Budget,
        price: Callable[[GenerateRequest], Price | None],
        folder: Path | None,
    ) -> None:
        self._connection, self._budget, self._price = connection, budget, price
        self._folder = None if folder is None else folder / "batches"
        self._chat = ChatSampler(connection, Pacer(1), budget, price)
        self._waiting: dict[str, _Asked] = {}
        self._under_way: dict[str, _Asked] = {}
        self._tasks: dict[asyncio.Task[None], dict[str, _Asked]] = {}
        self._gathering: asyncio.Task[None] | None = None
        self._arrived = 0

    async def complete(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, those of a batch together."""
        found: asyncio.Queue[Completion | Exception] = asyncio.Queue()
        bodies = []
        for request in requests:
            problem = problem_of(request)
            if problem is None:
                bodies.append((request, self._chat.body(request)))
            else:
                yield failed(request, problem)
        self._put(bodies, found)
        try:
            for _ in bodies:
                ready = await found.get()
                if isinstance(ready, Exception):
                    raise ready
                yield ready
        finally:
            self._leave(found)

    async def aclose(self) -> None:
        """Wait for nothing any more. What was created goes on at the server; the next run finds it."""
        tasks = [*self._tasks, *([] if self._gathering is None else [self._gathering])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- gathering ------------------------------------------------------------------------------

    def _put(
        self,
        bodies: Sequence[tuple[GenerateRequest, Mapping[str, Any]]],
        found: asyncio.Queue[Completion | Exception],
    ) -> None:
        """Have requests answered: with what is under way already, or in the batches that are begun next."""
        for name, line in lines_of(bodies).items():
            asked = self._under_way.get(name) or self._waiting.setdefault(name, _Asked(line))
            asked.wanted += [(request, found) for request in line.requests]
        self._arrived += 1
        if self._waiting and self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())

    def _leave(self, found: asyncio.Queue[Completion | Exception]) -> None:
        """A reader has gone; what nobody else waits for is not waited for here."""
        for some in (self._waiting, self._under_way):
            for asked in some.values():
                asked.wanted = [each for each in asked.wanted if each[1] is not found]
        self._waiting = {name: asked for name, asked in self._waiting.items() if asked.wanted}
        for task, lines in self._tasks.items():
            if not any(asked.wanted for asked in lines.values()) and not task.done():
                task.cancel()  # a batch that was created goes on at the server; the next call finds it
                self._forget(lines)  # at once: who asks before the task has ended must not wait for it

    async def _gather(self) -> None:
        """Wait while calls go on coming, at most for some looks at a batch; then begin batches of all that waits."""
        poll, seen = self._connection.options.poll, -1
        for _ in range(_MOST_LOOKS):
            if seen == self._arrived:
                break
            seen = self._arrived
            await asyncio.sleep(poll)
        self._gathering = None
        lines, self._waiting = self._waiting, {}
        try:
            begun = self._begun(lines)
        except Exception as error:  # a record that cannot be read, or a full disk: whoever waits must see it
            self._tell(lines, error)
            return
        for journal, some in begun:
            self._begin(journal, some)

    def _begun(self, lines: Mapping[str, _Asked]) -> list[tuple[BatchJournal, dict[str, _Asked]]]:
        """The batches that hold requests already, then new ones for the rest."""
        server, rest = self._connection.options.base_url, dict(lines)
        begun = []
        for journal in [] if self._folder is None else read_batch_journals(self._folder, server):
            wanted = {name: rest.pop(name) for name in journal.ids if name in rest}
            if wanted:
                begun.append((journal, wanted))
        return [*begun, *self._new(rest)]

    def _new(self, lines: Mapping[str, _Asked]) -> list[tuple[BatchJournal, dict[str, _Asked]]]:
        found = []
        for portion in portions([asked.line for asked in lines.values()]):
            ids = tuple(line.id for line in portion)
            journal = BatchJournal(token_of(ids), self._connection.options.base_url, ids, 0.0)
            found.append((journal, {name: lines[name] for name in ids}))
        return found

    def _begin(self, journal: BatchJournal, lines: dict[str, _Asked]) -> None:
        self._under_way |= lines
        task = asyncio.create_task(self._guarded(journal, lines))
        self._tasks[task] = lines
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._forget(self._tasks.pop(task))

    def _forget(self, lines: Mapping[str, _Asked]) -> None:
        for name, asked in lines.items():
            if self._under_way.get(name) is asked:
                del self._under_way[name]

    # -- one batch ------------------------------------------------------------------------------

    async def _guarded(self, journal: BatchJournal, lines: dict[str, _Asked]) -> None:
        try:
            await self._one(journal, lines)
        except BudgetSpentError as error:
            parts = _by_reader(lines)
            if len(parts) < 2 or journal.batch is not None:
                self._fail(lines, error)
                return
            # What is too much together may be possible for some of it.
            smaller = [each for part in parts for each in self._new(part)]
            await asyncio.gather(*(self._guarded(*each) for each in smaller))
        except BackendError as error:
            self._fail(lines, error)
        except Exception as error:  # a bug or a full disk: whoever waits must see it
            self._tell(lines, error)

    def _fail(self, lines: Mapping[str, _Asked], error: BackendError) -> None:
        for name, asked in lines.items():
            self._settle(name, asked, lambda request: failed(request, str(error)))

    def _settle(self, name: str, asked: _Asked, answer: Callable[[GenerateRequest], Completion]) -> float:
        """Give everybody who waits for a line its answer; what that cost, which equal requests cost once."""
        self._forget({name: asked})  # who comes now asks anew
        paid = 0.0
        for number, (request, found) in enumerate(asked.wanted):
            completion = answer(request)
            if number:
                completion = replace(completion, usd=None if completion.usd is None else 0.0)
            paid += completion.usd or 0.0
            found.put_nowait(completion)
        asked.wanted = []
        return paid

    def _tell(self, lines: Mapping[str, _Asked], error: Exception) -> None:
        for name, asked in lines.items():
            self._forget({name: asked})
            for _, found in asked.wanted:
                found.put_nowait(error)
            asked.wanted = []

    async def _one(self, journal: BatchJournal, lines: dict[str, _Asked]) -> None:
        most = sum(self._most(asked.line) for asked in lines.values())
        await self._budget.reserve(most)
        paid = 0.0
        try:
            batch = await self._batch(journal, lines)
            while batch.status not in _ENDED:
                await asyncio.sleep(self._connection.options.poll)
                batch = await self._look(batch.id)
            paid = await self._answers(batch, lines)
        finally:
            await asyncio.shield(self._budget.settle(most, paid))
        if batch.status != "completed" and self._folder is not None:
            # What it left unanswered is asked for anew the next time, not looked for here.
            (self._folder / f"{journal.token}.json").unlink(missing_ok=True)

    def _most(self, line: RequestLine) -> float:
        request = line.requests[0]
        price = self._price(request)
        if price is None:
            return 0.0
        return price.completion(most_prompt_tokens(request), request.sampling.max_tokens, batch=True)

    async def _batch(self, journal: BatchJournal, lines: Mapping[str, _Asked]) -> Batch:
        """The server's batch: the one on record, one that was created and never confirmed, or a new one."""
        if journal.batch is not None:
            return await self._look(journal.batch)
        batch = await self._find(journal)
        if batch is None:
            batch = await self._create(journal, lines)
        self._note(replace(journal, batch=batch.id, creating=journal.creating or time.time()))
        return batch

    async def _create(self, journal: BatchJournal, lines: Mapping[str, _Asked]) -> Batch:
        text = b"".join(asked.line.text for asked in lines.values())

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

    async def _answers(self, batch: Batch, lines: Mapping[str, _Asked]) -> float:
        """Give out every wanted request's completion: answered, refused, or left over at the end; what they cost."""
        left, paid = dict(lines), 0.0
        for file in (batch.output_file_id, batch.error_file_id):
            if not file:
                continue
            for name, status, body, error in answers_of(await self._download(file)):
                asked = left.pop(name, None)
                if asked is not None:
                    paid += self._settle(name, asked, partial(self._completion, status=status, body=body, error=error))
        said = f"batch {batch.id} {batch.status}"
        errors = batch.errors.data or () if batch.errors is not None else ()
        reasons = self._connection.redactor.said("; ".join(one.message for one in errors if one.message))
        problem = f"{said} without an answer to it{f' ({reasons})' if reasons else ''}"
        for name, asked in left.items():
            self._settle(name, asked, lambda request: failed(request, problem))
        return paid

    def _completion(self, request: GenerateRequest, status: int, body: object, error: str) -> Completion:
        if status != 200:
            said = self._connection.redactor.said(error) or f"status {status}"
            return failed(request, f"model '{request.model.adapter or request.model.base}': {said}")
        try:
            return read_answer(request, body, self._price(request), redactor=self._connection.redactor, batch=True)
        except BrokenAnswerError as broken:
            return failed(request, f"the server's answer in a batch was broken ({broken})")

    async def _download(self, file: str) -> bytes:
        async def ask(client: AsyncOpenAI) -> bytes:
            path = f"/files/{quote(file, safe='')}/content"
            return (await self._connection.send(client, "GET", path)).content

        return await repeat(self._connection, "downloading a batch's answers", ask)

    def _note(self, journal: BatchJournal) -> BatchJournal:
        return journal if self._folder is None else journal.write(self._folder)


def _by_reader(lines: Mapping[str, _Asked]) -> list[dict[str, _Asked]]:
    """Lines by who waited for them first."""
    found: dict[int, dict[str, _Asked]] = {}
    for name, asked in lines.items():
        if asked.wanted:
            found.setdefault(id(asked.wanted[0][1]), {})[name] = asked
    return list(found.values())
