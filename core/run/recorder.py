"""The recorder: completions into the store as they arrive, scored, counted and summarised."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.proof import Fired, fired_from_json, fired_to_json, total
from windowshift.core.contract.redaction import sentence
from windowshift.core.contract.setting import ModelScorer, RowScorer, Sample, Score
from windowshift.core.measure.summarise import put_summaries
from windowshift.core.plan.jobs import Job
from windowshift.core.run.requests import PromptRow
from windowshift.core.run.scoring import read_answer, score_row
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

FLUSH_ROWS = 256
FLUSH_SECONDS = 0.25
OPENED_AT_ONCE = 500
"""Rows of a job that are made ready, a few milliseconds, before others on the event loop have their turn."""
LIVE_SUMMARY_SECONDS = 1.0
LIVE_SUMMARY_ROWS = 500
"""A larger cell's summary takes long enough to hold the event loop up; it has one when it is done."""
SLOW_SECONDS = 0.05
SLOW_SECONDS_A_ROW = 0.001
"""A row scorer that takes longer than both, over one flush and on average, goes on in the scoring lane."""


class Advance(Protocol):
    """Records that a job has `done` rows, and how many it does a second; as `Ledger.advance`."""

    def __call__(self, job: Job, done: int, *, rate: float | None = None) -> None:
        """Record it."""
        ...


@dataclass
class _Open:
    """A sampling job that rows arrive for."""

    job: Job
    number: int
    done: int
    scorers: Sequence[RowScorer | ModelScorer]
    by_row: Sequence[RowScorer]
    by_model: Sequence[ModelScorer]
    result: dict[str, Any]
    condition: str
    rows: dict[int, PromptRow] = field(default_factory=dict)
    prompt_numbers: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    arrived: int = 0
    expected: int = 0
    fresh: int = 0
    summarised: float = 0.0


class Recorder:
    """Buffers completions and writes them in batches, one transaction each.

    Args:
        writer: the store.
        reader: a reader on the writer's connection.
        experiment: the experiment's id, for events.
        advance: records how far a job is.
    """

    def __init__(self, writer: Writer, reader: Reader, experiment: int, advance: Advance) -> None:
        self._advance = advance
        self._writer, self._reader, self._experiment = writer, reader, experiment
        self._open: dict[int, _Open] = {}
        self._buffer: list[tuple[_Open, PromptRow, Completion]] = []
        self._flushed = time.monotonic()
        self._slow: set[int] = set()

    async def open(
        self,
        job: Job,
        number: int,
        done: int,
        rows: Sequence[PromptRow],
        scorers: Sequence[RowScorer | ModelScorer],
        result: dict[str, Any],
        condition: str,
    ) -> None:
        """Expect rows of a job, written under a condition; `done` of them are in the store already.

        What steering did to the rows is added to ``result["fired"]``, and stored with them.
        """
        # Told apart once: to ask a protocol of each row costs more than most scorers take.
        by_row = [scorer for scorer in scorers if isinstance(scorer, RowScorer)]
        by_model = [scorer for scorer in scorers if not isinstance(scorer, RowScorer)]
        numbered = {row.number: row for row in rows}
        opened = _Open(job, number, done, scorers, by_row, by_model, result, condition, numbered, arrived=done)
        opened.expected = done + len(rows)
        digests = list({row.prompt.digest: row.prompt for row in rows}.values())
        for start in range(0, len(digests), OPENED_AT_ONCE):
            some = digests[start : start + OPENED_AT_ONCE]
            numbers = self._writer.number_prompts(some)
            opened.prompt_numbers |= zip((prompt.digest for prompt in some), numbers, strict=True)
            await asyncio.sleep(0)
        self._open[number] = opened

    def add(self, number: int, row: int, completion: Completion) -> None:
        """Take one completion; it is in the store after the next flush."""
        opened = self._open[number]
        opened.arrived += 1
        self._buffer.append((opened, opened.rows[row], completion))
        if len(self._buffer) >= FLUSH_ROWS:
            self.flush()

    def tick(self) -> None:
        """Flush if the last flush is long ago."""
        if self._buffer and time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write everything buffered in one transaction: rows, scores, progress, live summaries."""
        self._flushed = time.monotonic()
        if not self._buffer:
            return
        buffer, self._buffer = self._buffer, []
        touched: dict[int, _Open] = {}
        rows: list[tuple[Any, ...]] = []
        scores = self._score(buffer)  # outside the transaction, which others wait for
        fired: dict[int, list[Fired]] = {}
        paid: dict[int, float] = {}
        with self._writer.batch():
            for opened, row, completion in buffer:
                touched[opened.number] = opened
                rows.append(
                    (
                        opened.number,
                        row.number,
                        opened.prompt_numbers[row.prompt.digest],
                        self._writer.phrase(row.phrase),
                        completion.finish,
                        completion.tokens,
                        completion.prompt_tokens,
                        completion.logprob,
                        None if completion.error is None else sentence(completion.error),
                        completion.text,
                        completion.reasoning,
                        completion.reasoning_tokens,
                    )
                )
                if completion.usd is not None:  # a failed one may have cost something, too
                    paid[opened.number] = paid.get(opened.number, 0.0) + completion.usd
                if completion.proofs:
                    fired.setdefault(opened.number, []).extend(map(Fired.of, completion.proofs))
                opened.fresh += 1
                opened.done += 1
            self._writer.add_completions(rows)
            for number, parts in fired.items():
                result = touched[number].result
                result["fired"] = fired_to_json(total([*fired_from_json(result.get("fired", ())), *parts]))
                self._writer.set_result(number, result)
            for number, found_scores in scores.items():
                self._writer.put_scores(number, found_scores)
            for number, usd in paid.items():
                self._writer.add_cost(number, usd, experiment=self._experiment)
            for opened in touched.values():
                seconds = max(1e-6, time.monotonic() - opened.started)
                self._advance(opened.job, opened.done, rate=opened.fresh / seconds)
                self._live_summary(opened)

    def _score(
        self, buffer: list[tuple[_Open, PromptRow, Completion]]
    ) -> dict[int, list[tuple[int, dict[str, Score]]]]:
        """Scores of what arrived, by job, as (row, score by behaviour)."""
        found: dict[int, list[tuple[int, dict[str, Score]]]] = {}
        spent: dict[int, tuple[float, int]] = {}
        for opened, row, completion in buffer:
            if completion.finish == "failed":
                continue
            scores: dict[str, Score] = {}
            for judge in opened.by_model:
                assert row.judged is not None  # rows of a model scorer's job are questions
                scores |= read_answer(judge, row.judged, completion)
            for scorer in opened.by_row:
                if id(scorer) in self._slow:
                    continue
                start = time.perf_counter()
                scores |= score_row(scorer, Sample(row.prompt, completion, opened.condition, row.phrase))
                seconds, count = spent.get(id(scorer), (0.0, 0))
                seconds, count = spent[id(scorer)] = seconds + time.perf_counter() - start, count + 1
                if seconds > SLOW_SECONDS and seconds / count > SLOW_SECONDS_A_ROW:
                    self._slow.add(id(scorer))
            if scores:
                found.setdefault(opened.number, []).append((row.number, scores))
        return found

    def drop_half_scored(self, number: int) -> None:
        """Forget the scores of a scorer that proved slow half-way through a job: all of them come at once, later."""
        for scorer in self._open[number].scorers:
            behaviours = [behaviour.name for behaviour in scorer.behaviours]
            if id(scorer) in self._slow and self._reader.samples(number, (behaviours[0], number), limit=1):
                self._writer.drop_scores(number, behaviours, "")

    def _live_summary(self, opened: _Open) -> None:
        now = time.monotonic()
        if opened.done <= LIVE_SUMMARY_ROWS and now - opened.summarised >= LIVE_SUMMARY_SECONDS:
            opened.summarised = now
            behaviours = [
                each for scorer in opened.scorers if id(scorer) not in self._slow for each in scorer.behaviours
            ]
            put_summaries(self._reader, self._writer, opened.number, behaviours)

    def complete(self, number: int) -> bool:
        """Whether every row that an open job expects has arrived, in the store or still in the buffer."""
        opened = self._open[number]
        return opened.arrived >= opened.expected

    def close(self, number: int) -> None:
        """Expect no more rows of a job."""
        self._open.pop(number, None)
