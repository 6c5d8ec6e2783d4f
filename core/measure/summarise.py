"""Summaries of cells: from stored scores to the numbers that screens show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from windowshift.core.contract.records import Behaviour, Summary
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import mean_summary
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

SMALL_CELL = 500
"""Rows that are summarised at once; more of them would hold the event loop up."""


def prepare() -> None:
    """Make what every summary of a small cell takes, for a thread: the first one would hold the event loop up."""
    for n in (2, SMALL_CELL):
        mean_summary([0.0] * n, range(n), [False] * n)


def summarise(reader: Reader, job: int, behaviour: Behaviour) -> Summary:
    """Summarise one behaviour over a job's completions so far.

    What a truncated completion counts as is its scale's business; it is counted in `truncated`. A completion that
    failed or has no score is counted in `missing`, never averaged.
    """
    weights = reader.weights(job, behaviour.name) if behaviour.counts else {}
    return summary_of(behaviour.scale, reader.scores(job, behaviour.name), weights)


ScoredRows = Sequence[tuple[int, int, float | None, str]]
"""(row, prompt number, score, finish) of some completions."""


def summary_of(scale: Scale, rows: ScoredRows, weights: Mapping[int, int] | None = None) -> Summary:
    """Summarise some completions.

    With `weights`, a row's score stands there as often as its weight says: mean and sd are over what it is a mean of,
    while `n`, `missing` and `truncated` count completions.
    """
    if weights:
        plain = summary_of(scale, rows)
        found = summary_of(scale, [row for row in rows for _ in range(weights.get(row[0], 1))])
        return replace(found, n=plain.n, missing=plain.missing, truncated=plain.truncated)
    found = mean_summary(
        [scale.counted(value, finish) for _, _, value, finish in rows],
        [prompt for _, prompt, _, _ in rows],
        [finish == "length" for _, _, _, finish in rows],
        scale=scale,
    )
    if scale.truncation != "missing":
        return found
    cut = sum(finish == "length" and value is not None for _, _, value, finish in rows)
    return replace(found, truncated=cut)


async def summarised(reader: Reader, job: int, behaviours: Iterable[Behaviour]) -> dict[str, Summary]:
    """A job's summary of each behaviour, by its name, read and worked out beside the event loop.

    What it reads is committed already: a large cell is read through a connection of the thread's own.
    """
    measured = tuple(behaviours)
    # A small cell takes a millisecond, less than the way to a thread and back.
    if len(reader.rows_done(job)) <= SMALL_CELL:
        return _summaries(reader, job, measured)
    return await asyncio.to_thread(_summarised_apart, reader.workspace, job, measured)


def _summarised_apart(workspace: Path, job: int, behaviours: Sequence[Behaviour]) -> dict[str, Summary]:
    with closing(Reader(workspace)) as reader:
        return _summaries(reader, job, behaviours)


def _summaries(reader: Reader, job: int, behaviours: Iterable[Behaviour]) -> dict[str, Summary]:
    return {behaviour.name: summarise(reader, job, behaviour) for behaviour in behaviours}


def put_summaries(reader: Reader, writer: Writer, job: int, behaviours: Iterable[Behaviour]) -> dict[str, Summary]:
    """Compute and store a job's summary of each behaviour; return them by the behaviour's name.

    `reader` may share the writer's connection, and must where the scores are not committed yet.
    """
    summaries = _summaries(reader, job, behaviours)
    with writer.batch():
        for behaviour, summary in summaries.items():
            writer.put_summary(job, behaviour, summary)
    return summaries
