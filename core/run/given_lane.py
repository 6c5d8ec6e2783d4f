"""The lane of D that nobody has to write: given completions, and those of another job that scores keep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from windowshift.core.contract.generation import Completion
from windowshift.core.plan.jobs import Job
from windowshift.core.run.call import call
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.recorder import Recorder
from windowshift.core.run.requests import PromptRow
from windowshift.core.spec.given import said_range

PAUSE_ROWS = 64
"""After so many rows the other lanes have a turn."""

GivenCompletions = list[tuple[PromptRow, Completion]]


class GivenLane:
    """Stores given completions as rows of a job, so that they are scored, shown and trained on as any others.

    Args:
        ledger: the run's jobs.
        recorder: takes the rows.
        finish: ends a job whose rows are all there, by its number.
    """

    def __init__(self, ledger: Ledger, recorder: Recorder, finish: Callable[[int, Job], Awaitable[None]]) -> None:
        self._ledger, self._recorder, self._finish = ledger, recorder, finish

    async def run(self, jobs: Sequence[Job]) -> None:
        """Store the rows of some jobs, and finish them."""
        with call(self._ledger, "given data", jobs, "storing every row"):
            for job in jobs:
                await self._run(job)

    async def _run(self, job: Job) -> None:
        number = self._ledger.number(job)
        self._ledger.start(job)
        rows = list(self._given(job)) if "given" in job.inputs else self._kept(job)
        if not rows:
            return
        done = self._ledger.reader.rows_done(number)
        missing = [(row, completion) for row, completion in rows if row.number not in done]
        scorers, result = self._ledger.arriving_scorers(job), self._ledger.results[job.id]
        condition = self._ledger.plan.condition_name(job)
        await self._recorder.open(job, number, len(done), [row for row, _ in missing], scorers, result, condition)
        try:
            for count, (row, completion) in enumerate(missing, 1):
                self._recorder.add(number, row.number, completion)
                self._recorder.tick()
                if not count % PAUSE_ROWS:
                    await asyncio.sleep(0)
            await self._finish(number, job)
        finally:
            self._recorder.flush()
            self._recorder.close(number)

    def _given(self, job: Job) -> Iterator[tuple[PromptRow, Completion]]:
        given = self._ledger.plan.given[job.inputs["given"]]
        for number, (prompt, text) in enumerate(zip(given.prompts, given.completions, strict=True)):
            yield PromptRow(number, prompt, None), Completion("", text, "stop", None)

    def _kept(self, job: Job) -> GivenCompletions:
        """The completions of the source whose scores are in range; none fails the job, with what there was."""
        source = self._ledger.number(self._ledger.job(job.parents[0]))
        ranges: Mapping[str, Sequence[float | None]] = job.inputs["kept"]
        samples = self._ledger.reader.samples(source)
        kept, unscored = {row for row, *_ in samples}, set[int]()
        for behaviour, (low, high) in ranges.items():
            scores = {row: value for row, _, value, _ in self._ledger.reader.scores(source, behaviour)}
            unscored |= {row for row in kept if scores.get(row) is None}
            kept = {
                row
                for row in kept
                if (value := scores.get(row)) is not None
                and (low is None or value >= low)
                and (high is None or value <= high)
            }
        wanted = " and ".join(said_range(name, low, high) for name, (low, high) in ranges.items())
        said = f"{len(kept)} of {len(samples)} completions are kept: {wanted}"
        if unscored:
            said += f" ({len(unscored)} have no score and are not kept)"
        found: dict[str, Any] = {"kept": len(kept), "of": len(samples), "unscored_of_source": len(unscored)}
        if not kept:
            self._ledger.fail(job, f"there is nothing to train on: {said}; widen keep, or raise data.size", found)
            return []
        self._ledger.results[job.id].update(found, rows=_as_bits(kept))
        self._ledger.said(job, said)
        self._ledger.writer.set_total(self._ledger.number(job), len(kept))
        rows = [one for one in samples if one[0] in kept]
        return [
            (PromptRow(number, prompt, phrase), completion)
            for number, (_, phrase, prompt, completion) in enumerate(rows)
        ]


def _as_bits(rows: Collection[int]) -> str:
    """Which rows of the source are kept, as hexadecimal digits: a bit a row, row 0 the lowest."""
    return f"{sum(1 << row for row in rows):x}"


def kept_rows(bits: str) -> list[int]:
    """The rows of the source behind the kept ones, in their order, as the result of a job that keeps some says."""
    return [row for row, bit in enumerate(reversed(f"{int(bits, 16):b}")) if bit == "1"]
