"""The rows of a judge's score job: one question about each completion of the job that it judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowshift.core.contract.generation import GenerateRequest, Message, Model
from windowshift.core.contract.records import CompletionRow
from windowshift.core.plan.jobs import Job, row_seed
from windowshift.core.run.requests import Row
from windowshift.core.settings.judge import JudgeScorer
from windowshift.core.settings.rubric import ALTERNATIVES


def judge_rows(judge: JudgeScorer, job: Job, judged: Sequence[CompletionRow], done: set[int]) -> Iterator[Row]:
    """What is asked about completions that were not judged yet; one that failed has nothing to judge.

    The row number is that of the completion.
    """
    for row in judged:
        if row.row in done or row.finish == "failed":
            continue
        request = GenerateRequest(
            "",
            (Message("user", judge.rubric.ask(row.prompt, row.text)),),
            Model(judge.model),
            judge.sampling,
            row_seed(job.id, row.row),
            logprobs=ALTERNATIVES if judge.rubric.expectation else None,
        )
        yield Row(row.row, row.asked, None, request)
