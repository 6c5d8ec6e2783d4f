"""Summaries of cells: from stored scores to the numbers that screens show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from windowshift.core.contract.records import Summary
from windowshift.core.contract.stats import mean_summary
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

SMALL_CELL = 500
"""Rows that are summarised at once; more of them would hold the event loop up."""


def summarise(reader: Reader, job: int, behaviour: str) -> Summary:
    """Summarise one behaviour over a job's completions so far.

    A truncated completion counts with the length it was cut off at (a lower bound) and is counted in
    `truncated`; a completion that failed or has no score is counted in `missing`, never averaged.
    """
    return summary_of(reader.scores(job, behaviour))


def summary_of(rows: Sequence[tuple[int, int, float | None, str]]) -> Summary:
    """Summarise scores as `Reader.scores` gives them; a second and more for ten thousand prompts."""
    return mean_summary(
        [None if finish == "failed" else value for _, _, value, finish in rows],
        [prompt for _, prompt, _, _ in rows],
        [finish == "length" for _, _, _, finish in rows],
    )


async def summarised(reader: Reader, job: int, behaviours: Iterable[str]) -> dict[str, Summary]:
    """A job's summary of each behaviour, worked out beside the event loop."""
    found: dict[str, Summary] = {}
    for behaviour in behaviours:
        rows = reader.scores(job, behaviour)
        # A small cell takes a millisecond, less than the way to a thread and back.
        found[behaviour] = summary_of(rows) if len(rows) <= SMALL_CELL else await asyncio.to_thread(summary_of, rows)
    return found


def put_summaries(reader: Reader, writer: Writer, job: int, behaviours: Iterable[str]) -> dict[str, Summary]:
    """Compute and store a job's summary of each behaviour; return them by behaviour.

    `reader` may share the writer's connection, and must where the scores are not committed yet.
    """
    summaries = {behaviour: summarise(reader, job, behaviour) for behaviour in behaviours}
    with writer.batch():
        for behaviour, summary in summaries.items():
            writer.put_summary(job, behaviour, summary)
    return summaries
