"""Summaries of cells: from stored scores to the numbers that screens show."""

from __future__ import annotations

from collections.abc import Iterable

from windowshift.core.contract.records import Summary
from windowshift.core.contract.stats import mean_summary
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


def summarise(reader: Reader, job: int, behaviour: str) -> Summary:
    """Summarise one behaviour over a job's completions so far.

    A truncated completion counts with the length it was cut off at (a lower bound) and is counted in
    `truncated`; a completion that failed or has no score is counted in `missing`, never averaged.
    """
    rows = reader.scores(job, behaviour)
    return mean_summary(
        [None if finish == "failed" else value for _, _, value, finish in rows],
        [prompt for _, prompt, _, _ in rows],
        [finish == "length" for _, _, _, finish in rows],
    )


def put_summaries(reader: Reader, writer: Writer, job: int, behaviours: Iterable[str]) -> dict[str, Summary]:
    """Compute and store a job's summary of each behaviour; return them by behaviour.

    `reader` may share the writer's connection, and must where the scores are not committed yet.
    """
    summaries = {behaviour: summarise(reader, job, behaviour) for behaviour in behaviours}
    with writer.batch():
        for behaviour, summary in summaries.items():
            writer.put_summary(job, behaviour, summary)
    return summaries
