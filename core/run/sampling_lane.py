"""The sampling lane: the missing rows of some jobs, in one call to a backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import takewhile
from typing import TypeVar

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import GenerateRequest
from windowshift.core.contract.records import SAMPLING
from windowshift.core.contract.setting import ModelScorer
from windowshift.core.measure.summarise import summarised
from windowshift.core.plan.jobs import Job
from windowshift.core.run.answer_cache import AnswerCache
from windowshift.core.run.call import call
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.recorder import OPENED_AT_ONCE, Recorder
from windowshift.core.run.requests import AskedRow, RequestMaker
from windowshift.core.run.vector_work import VectorJobMaker
from windowshift.core.settings.filtering import choose_by_judge, choose_by_variance

Item = TypeVar("Item")


async def in_turns(items: Iterable[Item]) -> list[Item]:
    """Return a list of what is made one by one; others on the event loop have their turns meanwhile."""
    found: list[Item] = []
    for item in items:
        found.append(item)
        if len(found) % OPENED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return found


class SamplingLane:
    """Asks backends for completions, and finishes the jobs whose rows are all there."""

    def __init__(
        self,
        ledger: Ledger,
        backends: Mapping[str, Backend],
        recorder: Recorder,
        maker: RequestMaker,
        vector_maker: VectorJobMaker,
        cache: AnswerCache | None,
    ) -> None:
        self._ledger, self._backends, self._recorder = ledger, backends, recorder
        self._reader, self._writer = ledger.reader, ledger.writer
        self._maker, self._vector_maker, self._cache = maker, vector_maker, cache

    async def run(self, name: str, jobs: Sequence[Job]) -> None:
        """Ask one backend for every missing row of these jobs in one call."""
        opened: dict[int, Job] = {}
        try:
            with call(self._ledger, name, opened.values(), "an answer to every request"):
                asking = self._ledger.plan.asks(jobs[0])
                requests: list[GenerateRequest] = []
                # D first: training waits for it, while base cells have no children.
                for job in jobs if asking else sorted(jobs, key=self._turn):
                    requests += await self._open(job, opened)
                backend = self._backends[name]
                cache = self._cache if asking else None
                asked = backend.generate(requests) if cache is None else cache.generate(backend, name, requests)
                async with aclosing(asked) as stream:
                    async for completion in stream:
                        number, row_number = map(int, completion.key.split(":"))
                        self._recorder.add(number, row_number, completion)
                        self._recorder.tick()
                        if self._recorder.complete(number):
                            await self.finish(number, opened[number])
        finally:
            self._recorder.flush()
            for number in opened:
                self._recorder.close(number)

    async def _open(self, job: Job, opened: dict[int, Job]) -> list[GenerateRequest]:
        """Expect a job's missing rows, and return what is asked for them."""
        number = self._ledger.number(job)
        done = self._reader.rows_done(number)
        questions = job.kind == "score"
        rows: list[AskedRow] | None = None
        with self._ledger.remaking(job):
            try:
                # Their content is looked at, which takes a while for a large adapter.
                await asyncio.to_thread(self._maker.check_artifacts, job)
                rows = self._questions(job, done) if questions else await in_turns(self._rows(job, done))
            except SpecError as error:  # its own: a dose that its vector cannot be given in
                self._ledger.fail(job, str(error))
        if rows is None:
            return []
        opened[number] = job
        self._ledger.start(job)
        # Of what a judge is asked, failed completions are left out: they count as there.
        there = job.total - len(rows) if questions else len(done)
        scorers = self._ledger.arriving_scorers(job)
        condition = "" if questions else self._ledger.plan.condition_name(job)
        await self._recorder.open(job, number, there, rows, scorers, self._ledger.results[job.id], condition)
        if not rows:
            await self.finish(number, job)
        # A group of its own, so that every job has its own proof of what steering did.
        return await in_turns(replace(row.request, key=f"{number}:{row.number}", group=str(number)) for row in rows)

    def _rows(self, job: Job, done: set[int]) -> Iterator[AskedRow]:
        """A job's missing rows; in a pilot the first ones alone."""
        limit = self._ledger.pilot.limit(job)
        rows = self._maker.rows(job, done)
        return rows if limit is None else takewhile(lambda row: row.number < limit, rows)

    def _turn(self, job: Job) -> tuple[int, int]:
        return -self._ledger.priority(job), SAMPLING.index(job.kind)

    async def finish(self, number: int, job: Job) -> None:
        """End a job whose rows are all there."""
        self._recorder.flush()
        failed = self._reader.failures(number)
        # Of a judge's job the scores are the judged completions'.
        shown = number
        if job.kind == "score":
            self._ledger.judged(job)
            shown = self._ledger.number(self._ledger.job(job.parents[0]))
        else:
            self._recorder.drop_half_scored(number)
        behaviours = [each for scorer in self._ledger.arriving_scorers(job) for each in scorer.behaviours]
        summaries = await summarised(self._reader, shown, behaviours)
        with self._writer.batch():
            for behaviour, summary in summaries.items():
                self._writer.put_summary(shown, behaviour, summary)
            if failed and job.kind != "filter":  # a prompt that cannot be asked is one that is not kept
                count, first = failed
                self._ledger.fail(job, f"{count} of {job.total} completions failed; the first: {first}")
                return
            missing = self._reader.unanswered(number)
            if missing:
                self._ledger.said(job, f"{missing[0]} of {job.total} completions are missing; the first: {missing[1]}")
            if job.kind == "filter":
                try:
                    self._choose(number, job)
                except SpecError as error:
                    self._ledger.fail(job, str(error))
            elif job.kind in ("sweep", "dose"):
                self._ledger.sampled(job)
            else:
                self._ledger.finish(job)

    def calibrate(self, job: Job) -> None:
        """End a sweep, or a dose curve, whose rows have their scores."""
        try:
            self._ledger.finish(job, self._vector_maker.calibrated(job))
        except SpecError as error:
            self._ledger.fail(job, str(error))

    def _choose(self, number: int, job: Job) -> None:
        keep, count = int(job.inputs["keep"]), len(self._maker.prompts(job.inputs["prompts"]))
        texts = {row.row: row.text for row in self._reader.completions(number, "") if row.finish != "failed"}
        if job.inputs["how"] == "variance":
            lengths = {row: float(len(text)) for row, text in texts.items()}
            choice = choose_by_variance(lengths, count, len(job.inputs["conditions"]), keep)
        else:
            choice = choose_by_judge([texts.get(position) for position in range(count)], keep)
        self._ledger.finish(
            job, {"positions": list(choice.positions), "refused": choice.refused, "missing": choice.missing}
        )

    def _questions(self, job: Job, done: set[int]) -> list[AskedRow]:
        scorer, parent = self._ledger.scorer(job), self._ledger.job(job.parents[0])
        assert isinstance(scorer, ModelScorer)  # what comes to this lane asks a model
        return list(self._maker.questions(scorer, job, parent, self._reader, self._ledger.number(parent), done))
