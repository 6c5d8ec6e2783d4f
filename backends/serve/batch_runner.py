"""Works through the queue of batches."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.batches import INPUT, Batches, BatchLine, BatchProblem, ServedBatch
from windowshift.backends.serve.body import check
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.restarts import Restarts
from windowshift.backends.serve.rota import Rota
from windowshift.backends.serve.sampling_kinds import KINDS
from windowshift.backends.serve.sampling_request import SamplingRequest
from windowshift.backends.serve.state import ServerState, new_id
from windowshift.backends.serve.training_file import lines

PORTION = 256
MOST_LINES = 50_000
MOST_PROBLEMS = 100
BUSY_SECONDS = 1.0
OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"

Answer = Callable[[SamplingRequest], Awaitable[dict[str, Any]]]


class BatchRunner:
    """Answers batches, a portion of requests at a time; several take turns, a portion each.

    So a small one is not held up by all of a large one that was there before. Answers are written down as each portion
    is done; a batch that a kill cut short goes on with the requests that have no answer yet.

    Args:
        answer: what answers a request for text.
        state: the data folder, with its `batches`, and `files` where results go.
        limits: the server's.
    """

    def __init__(
        self, answer: Answer, state: ServerState, batches: Batches, files: Files, limits: ServerLimits
    ) -> None:
        self._answer, self._state, self._batches, self._files = answer, state, batches, files
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self._at: str | None = None  # the batch in work
        self._asking: list[asyncio.Task[dict[str, Any]]] = []  # its requests under way
        self._restarts = Restarts("batch", self.wake, state.folder)
        self._rota = Rota()
        self._left: dict[str, Iterator[list[BatchLine]]] = {}  # what batches that have begun still have to ask
        self._closed = False

    def asked(self) -> None:
        """Go on as somebody asked for a batch: also with those that were left alone."""
        self._restarts.asked()
        self.wake()

    def wake(self) -> None:
        """Start the batch whose turn it is, where none is in work."""
        if self._task is not None or self._closed:
            return
        there = {batch.id: batch for batch in self._batches.unfinished()}
        order = self._rota.in_turn(there)
        waiting = next((there[key] for key in order if self._restarts.due(key)), None)
        if waiting is not None:
            self._at = waiting.id
            self._rota.had(waiting.id)
            self._task = asyncio.create_task(self._run(waiting))
            self._task.add_done_callback(self._ended)

    def cancel(self, batch: ServedBatch) -> ServedBatch:
        """Ask for a batch to end; what is answered already comes with it, and nothing else is worked on."""
        batch = self._batches.enter(batch, "cancelling")
        if batch.id == self._at:
            for task in self._asking:
                task.cancel()
        self.asked()
        return batch

    async def aclose(self) -> None:
        """Stop where things are; a batch in work goes on at the next start."""
        self._closed = True
        self._restarts.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        key, self._task, self._at = self._at or "", None, None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._restarts.ended(key)
        else:
            self._left.pop(key, None)  # what is answered is looked up anew
            self._restarts.failed(key, error)
        self._restarts.look()

    async def _run(self, batch: ServedBatch) -> None:
        try:
            if batch.status == "validating":
                problems, total = await asyncio.to_thread(self._examine, batch)
                if problems:
                    shown = json.dumps([problem.to_api() for problem in problems])
                    self._batches.enter(batch, "failed", problems=shown, total=total)
                    return
                if self._batches.get(batch.id).status == "validating":
                    batch = self._batches.enter(batch, "in_progress", total=total)
            if await self._turn(batch):
                self._left.pop(batch.id, None)
                self._finish(self._batches.get(batch.id))
        except Exception as error:
            if not self._restarts.full_disk(error):  # which is not the batch's fault: it goes on later
                problem = BatchProblem(None, f"the server failed on this batch: {type(error).__name__}")
                self._batches.enter(batch, "failed", problems=json.dumps([problem.to_api()]))
            raise

    def _examine(self, batch: ServedBatch) -> tuple[list[BatchProblem], int]:
        """What is wrong with the input, and how many requests it has."""
        problems: list[BatchProblem] = []
        seen: set[str] = set()
        total = 0
        for number, value in self._lines(batch):
            total += 1
            try:
                line = check(value, BatchLine)
            except ApiError as error:
                problems.append(BatchProblem(number, f"line {number}: {error.message}"))
            else:
                if line.custom_id in seen:
                    problems.append(BatchProblem(number, f"line {number}: its custom_id was there before"))
                seen.add(line.custom_id)
                if line.url != batch.endpoint:
                    problems.append(BatchProblem(number, f"line {number}: url is not '{batch.endpoint}', the batch's"))
            if len(problems) == MOST_PROBLEMS:
                break
        if not total:
            problems.append(BatchProblem(None, "the input file has no requests"))
        if total > MOST_LINES:
            problems.append(BatchProblem(None, f"the input file has more than {MOST_LINES} requests: split it"))
        return problems, total

    async def _turn(self, batch: ServedBatch) -> bool:
        """Answer a portion; whether nothing is left to be asked."""
        folder = self._batches.folder(batch)
        if batch.id not in self._left:
            done = [_whole_lines(folder / name) for name in (OUTPUT, ERRORS)]
            answered = {line["custom_id"] for found in done for line in found}
            self._batches.change(batch, completed=len(done[0]), failed=len(done[1]))
            self._left[batch.id] = _portions(self._lines(batch), answered)
        if self._batches.get(batch.id).status == "cancelling":
            return True
        portion = next(self._left[batch.id], None)
        if portion is None:
            return True
        results = await self._answered(portion)
        good = [result for result in results if result["response"]["status_code"] == 200]
        bad = [result for result in results if result["response"]["status_code"] != 200]
        _append(folder / OUTPUT, good)
        _append(folder / ERRORS, bad)
        batch = self._batches.get(batch.id)
        batch = self._batches.change(batch, completed=batch.completed + len(good), failed=batch.failed + len(bad))
        # Known without another turn: whoever waits for the last answer is not held up by a turn of the others.
        return batch.completed + batch.failed >= batch.total or batch.status == "cancelling"

    async def _answered(self, portion: Sequence[BatchLine]) -> list[dict[str, Any]]:
        """The results of a portion; of what was answered before the batch was cancelled."""
        self._asking = [asyncio.create_task(self._one(line)) for line in portion]
        try:
            await asyncio.wait(self._asking)
            return [task.result() for task in self._asking if not task.cancelled()]
        finally:
            for task in self._asking:
                task.cancel()
            self._asking = []

    async def _one(self, line: BatchLine) -> dict[str, Any]:
        status, body = 200, {}
        try:
            wanted = check(line.body, KINDS[line.url])
            if wanted.stream:
                raise ApiError(400, "a request of a batch cannot be a stream", param="stream")
            body = await self._patiently(wanted)
        except ApiError as error:
            status, body = error.status, error.body()
        response = {"status_code": status, "request_id": new_id("req_", 32), "body": body}
        return {"id": new_id("batch_req_"), "custom_id": line.custom_id, "response": response, "error": None}

    async def _patiently(self, wanted: SamplingRequest) -> dict[str, Any]:
        """The answer; when too much waits, a batch waits its turn."""
        while True:
            try:
                return await self._answer(wanted)
            except ApiError as error:
                if error.status != 429:
                    raise
            await asyncio.sleep(BUSY_SECONDS)

    def _finish(self, batch: ServedBatch) -> None:
        """List the results as files, and end the batch: all of it, or nothing."""
        folder = self._batches.folder(batch)
        if batch.status != "cancelling":
            batch = self._batches.enter(batch, "finalizing")
        held: dict[str, tuple[str, int]] = {}
        for column, name in (("output_file", OUTPUT), ("error_file", ERRORS)):
            if (folder / name).is_file() and (folder / name).stat().st_size:
                with (folder / name).open("rb") as content:
                    held[column] = self._files.hold(content)
        with self._state.transaction():
            added = {
                column: self._files.add(each, f"{batch.id}_{column.removesuffix('_file')}.jsonl", "batch_output").id
                for column, each in held.items()
            }
            self._batches.enter(batch, "cancelled" if batch.status == "cancelling" else "completed", **added)
        shutil.rmtree(folder, ignore_errors=True)

    def _lines(self, batch: ServedBatch) -> Iterator[tuple[int, Any]]:
        with (self._batches.folder(batch) / INPUT).open("rb") as file:
            yield from lines(file, self._limits.line_bytes)


def _portions(found: Iterator[tuple[int, Any]], answered: set[str]) -> Iterator[list[BatchLine]]:
    """Requests without an answer, so many together that their completions make a portion."""
    portion: list[BatchLine] = []
    size = 0
    for _, value in found:
        line = BatchLine.model_validate(value)
        if line.custom_id in answered:
            continue
        n = line.body.get("n")
        prompts = line.body.get("prompt")
        count = (n if isinstance(n, int) else 1) * (len(prompts) if isinstance(prompts, list) else 1)
        if portion and size + count > PORTION:
            yield portion
            portion, size = [], 0
        portion.append(line)
        size += count
    if portion:
        yield portion


def _append(path: Path, results: Sequence[dict[str, Any]]) -> None:
    with path.open("ab") as file:
        # In ASCII: clients split the file by lines, and text may hold line separators of other kinds.
        file.write(b"".join(json.dumps(result).encode("ascii") + b"\n" for result in results))
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The results in a file; one that a kill cut short is cut off."""
    if not path.is_file():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
