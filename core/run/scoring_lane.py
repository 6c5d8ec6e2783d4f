"""The scoring lane: completions that lack scores, through scorers that may be slow, beside all else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from windowshift.core.contract.setting import BatchScorer, DerivedScorer, RowScorer, Sample, Score
from windowshift.core.measure.summarise import summarised
from windowshift.core.plan.jobs import Job
from windowshift.core.run.given_lane import kept_rows
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.scoring import FAILED, derived
from windowshift.core.run.scoring_workers import ScoringWorkers

PAGE_ROWS = 500
"""So many completions are read, and scores written, at a time: a few milliseconds."""
FLUSH_SECONDS = 0.25
JOBS_AT_ONCE = 2
"""Score jobs of one scorer: while the last samples of one are scored, the next one keeps the other workers busy."""


@dataclass
class _Open:
    """A score job under way: the scores that are not in the store yet, and how far it is."""

    job: Job
    number: int
    done: int
    rows: list[tuple[int, dict[str, Score]]] = field(default_factory=list)
    fresh: int = 0
    started: float = field(default_factory=time.monotonic)
    flushed: float = field(default_factory=time.monotonic)


class ScoringLane:
    """Scores what sampling jobs left unscored: by batch scorers, and by row scorers that proved slow or are new.

    Each scorer has workers of its own, so that a slow one holds up no other. Scores are stored as they come, with
    the score job, so that a run that is stopped goes on where it was; the completions have them all at once, when
    all are there: the first ones to be scored are no sample of the others. Completions that were kept of another job's
    have been scored there: theirs are copied.

    Args:
        ledger: the run's jobs.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._reader, self._writer = ledger, ledger.reader, ledger.writer
        self._workers: dict[int, ScoringWorkers] = {}
        self._turns: dict[int, asyncio.Semaphore] = {}

    def close(self) -> None:
        """End the workers' processes."""
        for workers in self._workers.values():
            workers.close()

    def nothing_left(self, job: Job) -> bool:
        """Whether every completion that a score job is about has its scores already, of the usual way."""
        if isinstance(self._ledger.scorer(job), DerivedScorer):
            return False  # those that it reads may be new ones
        number, parent = self._ledger.number(job), self._parent(job)
        primary = self._ledger.scorer(job).behaviours[0].name
        return not self._reader.scored(number, primary) and not self._reader.samples(parent, (primary, number), limit=1)

    async def run(self, job: Job) -> None:
        """Score all that a score job's parent lacks, and finish the job; a failing scorer leaves scores missing."""
        if job.id in self._ledger.plan.copied:
            await self._copy(job)
            return
        scorer = self._ledger.scorer(job)
        if isinstance(scorer, DerivedScorer):
            await self._derive(job, scorer)
            return
        assert isinstance(scorer, BatchScorer | RowScorer)  # models are asked in the sampling lane
        if id(scorer) not in self._workers:
            self._workers[id(scorer)] = ScoringWorkers(scorer)
            self._turns[id(scorer)] = asyncio.Semaphore(JOBS_AT_ONCE)
        workers = self._workers[id(scorer)]
        try:
            async with self._turns[id(scorer)]:
                await self._run(job, workers)
        finally:
            self._ledger.put_back(job)

    async def _run(self, job: Job, workers: ScoringWorkers) -> None:
        number, parent = self._ledger.number(job), self._parent(job)
        behaviours = self._ledger.scorer(job).behaviours
        names = [behaviour.name for behaviour in behaviours]
        self._ledger.start(job)
        open_ = _Open(job, number, self._reader.scored(number, names[0]) + self._reader.scored(parent, names[0]))
        under_way: set[asyncio.Task[None]] = set()
        try:
            for batch in self._batches(job, workers.batch_size):
                if len(under_way) >= workers.width:
                    ended, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()
                under_way.add(asyncio.create_task(self._score(workers, batch, open_)))
            for task in list(under_way):
                await task
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            self._flush(open_)
        self._writer.move_scores(number, parent)
        await self._finish(job, parent)

    async def _copy(self, job: Job) -> None:
        """Give kept completions the scores that they have where they were written: nobody is asked twice."""
        kept = self._ledger.job(job.parents[0])
        source, parent = self._ledger.number(self._ledger.job(kept.parents[0])), self._ledger.number(kept)
        self._ledger.start(job)
        try:
            rows = kept_rows(self._ledger.results[kept.id]["rows"])
            names = [behaviour.name for behaviour in self._ledger.scorer(job).behaviours]
            with self._writer.batch():
                self._writer.copy_scores(source, parent, names, rows)
                self._writer.set_total(self._ledger.number(job), len(rows))
                self._writer.progress(self._ledger.number(job), len(rows))
            await self._finish(job, parent)
        finally:
            self._ledger.put_back(job)

    async def _derive(self, job: Job, scorer: DerivedScorer) -> None:
        """Score all completions by the scores that they have of other scorers."""
        parent = self._parent(job)
        self._ledger.start(job)
        try:
            there: dict[int, dict[str, Score]] = {}
            for name in scorer.reads:
                for row in self._reader.iter_completions(parent, name):
                    if row.finish != "failed":
                        score = Score(row.score, row.reason, row.evidence)
                        there.setdefault(row.row, {})[name] = score
            rows = [(row, derived(scorer, scores)) for row, scores in there.items()]
            with self._writer.batch():
                self._writer.put_scores(parent, rows)
                self._ledger.advance(job, job.total)
            await self._finish(job, parent)
        finally:
            self._ledger.put_back(job)

    async def _finish(self, job: Job, parent: int) -> None:
        """Sum up the scores of a job's completions, which are all there, and finish the score job."""
        behaviours = self._ledger.scorer(job).behaviours
        summaries = await summarised(self._reader, parent, behaviours)
        failed = self._reader.missing_scores(parent, behaviours[0].name, FAILED)
        with self._writer.batch():
            for behaviour, summary in summaries.items():
                self._writer.put_summary(parent, behaviour, summary)
            if failed is not None:
                self._ledger.said(job, f"{failed[0]} of {job.total} scores are missing; the first: {failed[1]}")
            self._ledger.finish(job, None if failed is None else {"unscored": failed[0]})

    def _parent(self, job: Job) -> int:
        return self._ledger.number(self._ledger.job(job.parents[0]))

    def _batches(self, job: Job, size: int) -> Iterator[list[tuple[int, Sample]]]:
        """The samples that lack scores, as (row, sample), in the batches that the scorer takes; read page by page."""
        parent = self._ledger.job(job.parents[0])
        condition = self._ledger.plan.condition_name(parent)
        unscored = (self._ledger.scorer(job).behaviours[0].name, self._ledger.number(job))
        after, batch = -1, list[tuple[int, Sample]]()
        # Scores are stored while the pages are read: `after` keeps one row from being read twice.
        while page := self._reader.samples(self._ledger.number(parent), unscored, after=after, limit=PAGE_ROWS):
            for row, phrase, prompt, completion in page:
                batch.append((row, Sample(prompt, completion, condition, phrase)))
                if len(batch) == size:
                    yield batch
                    batch = []
            after = page[-1][0]
        if batch:
            yield batch

    async def _score(self, workers: ScoringWorkers, batch: Sequence[tuple[int, Sample]], open_: _Open) -> None:
        found = await workers.score([sample for _, sample in batch])
        open_.rows += [(row, scores) for (row, _), scores in zip(batch, found, strict=True)]
        if time.monotonic() - open_.flushed >= FLUSH_SECONDS or len(open_.rows) >= PAGE_ROWS:
            self._flush(open_)

    def _flush(self, open_: _Open) -> None:
        rows, open_.rows = open_.rows, []
        open_.flushed = time.monotonic()
        if not rows:
            return
        open_.done += len(rows)
        open_.fresh += len(rows)
        rate = open_.fresh / max(1e-6, open_.flushed - open_.started)
        with self._writer.batch():
            self._writer.put_scores(open_.number, rows)
            self._ledger.advance(open_.job, open_.done, rate=rate)
