"""The sampling lane: every row that can be asked for now, in one call to a backend."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import SpecError, StoreError, WindowshiftError
from windowshift.core.contract.generation import GenerateRequest
from windowshift.core.contract.records import SAMPLING
from windowshift.core.plan.jobs import Job
from windowshift.core.run.answer_cache import AnswerCache
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.recorder import Recorder
from windowshift.core.run.requests import RequestMaker, Row
from windowshift.core.run.vector_work import VectorOrders
from windowshift.core.settings.filtering import choose_by_judge, choose_by_variance
from windowshift.core.settings.judge import JudgeScorer, is_judged
from windowshift.core.settings.judge_rows import judge_rows

log = logging.getLogger("windowshift.runner")


class SamplingLane:
    """Asks backends for completions, and finishes the jobs whose rows are all there."""

    def __init__(
        self,
        ledger: Ledger,
        backends: Mapping[str, Backend],
        recorder: Recorder,
        maker: RequestMaker,
        orders: VectorOrders,
        cache: AnswerCache | None,
    ) -> None:
        self._ledger, self._backends, self._recorder = ledger, backends, recorder
        self._reader, self._writer = ledger.reader, ledger.writer
        self._maker, self._orders, self._cache = maker, orders, cache

    async def run(self, name: str, jobs: Sequence[Job]) -> None:
        """Ask one backend for every missing row of these jobs in one call."""
        opened: dict[int, Job] = {}
        try:
            requests: list[GenerateRequest] = []
            judged = asks_judge(jobs[0])
            # D first: training waits for it, while base cells have no children.
            order = jobs if judged else sorted(jobs, key=self._turn)
            for job in order:
                number = self._ledger.number(job)
                done = self._reader.rows_done(number)
                try:
                    rows = self._judge_rows(job, done) if is_judged(job.inputs) else list(self._maker.rows(job, done))
                except SpecError as error:  # its own: a dose that its vector cannot be given in
                    self._ledger.fail(job, str(error))
                    continue
                opened[number] = job
                self._ledger.start(job)
                # Of what a judge is asked, failed completions are left out: they count as there.
                there = job.total - len(rows) if is_judged(job.inputs) else len(done)
                result = self._ledger.results[job.id]
                self._recorder.open(job, number, there, rows, self._ledger.scorers(job), result)
                if not rows:
                    self._finish_sampling(number, job)
                # A group of its own, so that every job has its own proof of what steering did.
                requests.extend(replace(row.request, key=f"{number}:{row.number}", group=str(number)) for row in rows)
            backend = self._backends[name]
            cache = self._cache if judged else None
            asked = backend.generate(requests) if cache is None else cache.generate(backend, name, requests)
            async with aclosing(asked) as stream:
                async for completion in stream:
                    number, row_number = map(int, completion.key.split(":"))
                    self._recorder.add(number, row_number, completion)
                    self._recorder.tick()
                    if self._recorder.complete(number):
                        self._finish_sampling(number, opened[number])
            self._ledger.fail_unfinished(opened.values(), f"backend '{name}' ended without an answer to every request")
        except StoreError:
            raise
        except WindowshiftError as error:
            self._ledger.fail_unfinished(opened.values(), str(error))
        except Exception as error:
            log.exception("generation failed")
            self._ledger.fail_unfinished(
                opened.values(), f"unexpected error in backend '{name}', see the log: {error!r}"
            )
        finally:
            self._recorder.flush()
            for number, job in opened.items():
                self._recorder.close(number)
                self._ledger.put_back(job)

    def _turn(self, job: Job) -> tuple[int, int]:
        return -self._ledger.priority(job), SAMPLING.index(job.kind)

    def _finish_sampling(self, number: int, job: Job) -> None:
        self._recorder.flush()
        failed = self._reader.failures(number)
        scorers = self._ledger.scorers(job)
        with self._writer.batch():
            self._recorder.summarise(number, scorers)
            if is_judged(job.inputs):
                self._ledger.judged(job)
            if failed and job.kind != "filter":  # a prompt that cannot be asked is one that is not kept
                count, first = failed
                self._ledger.fail(job, f"{count} of {job.total} completions failed; the first: {first}")
                return
            missing = self._reader.unanswered(number)
            if missing:
                self._ledger.said(job, f"{missing[0]} of {job.total} completions are missing; the first: {missing[1]}")
            try:
                if job.kind == "filter":
                    self._choose(number, job)
                else:
                    self._ledger.finish(job, self._orders.calibrated(job) if job.kind in ("sweep", "dose") else None)
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

    def _judge_rows(self, job: Job, done: set[int]) -> list[Row]:
        (judge,) = (scorer for scorer in self._ledger.scorers(job) if isinstance(scorer, JudgeScorer))
        judged = self._reader.completions(self._ledger.number(self._ledger.job(job.parents[0])), "")
        return list(judge_rows(judge, job, judged, done))


def asks_judge(job: Job) -> bool:
    """Whether a job's rows are questions to a judge."""
    return is_judged(job.inputs) or (job.kind == "filter" and job.inputs.get("how") == "judge")


def lane_of(job: Job) -> str:
    """Judges have a lane of their own: their answers are cached."""
    return f"{'judge' if asks_judge(job) else 'sample'} {job.inputs['backend']}"
