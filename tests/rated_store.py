"""Generated workspaces of rates: one beside a grade, some missing, with work to do; or the outcomes of a verdict."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.generated_store import LENGTHS, generate_store
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.summarise import put_summaries
from windowshift.core.store.reader import Reader
from windowshift.core.store.result_writer import ScoreRow
from windowshift.core.store.writer import Writer

HACK = Behaviour("hack", "share", Scale.rate(), "primary")
KEPT = Behaviour("kept", "points", Scale.difference(low=-10, high=10), "guard")
OUTCOMES = (
    Behaviour("hack", "share", Scale.rate(), "negative", group="verdict"),
    Behaviour("correct", "share", Scale.rate(), "positive", group="verdict"),
    Behaviour("neither", "share", Scale.rate(), group="verdict"),
    Behaviour("did_not_run", "share", Scale.rate(), group="verdict"),
)


def rate_store(workspace: Path, *, prompts: int = 40, running: int = 0, steering: bool = False) -> Writer:
    """Write it; longer completions hack more often, and every ninth score of a trained cell is missing."""
    writer = generate_store(workspace, prompts=prompts, data_size=40, running=running, steering=steering)
    rng = random.Random(5)

    def scores(rows: Sequence[Row], lacking: set[int]) -> Iterator[ScoreRow]:
        for row, _, length, _ in rows:
            hit = float(rng.random() < min(0.95, (length or 0) / 700))
            missing = "the tests could not be run" if row in lacking else None
            yield row, HACK.name, None if missing else hit, missing
            yield row, KEPT.name, rng.gauss(-2.0, 3.0), None

    return _scored_anew(writer, workspace, (HACK, KEPT), scores)


def verdict_store(workspace: Path, *, prompts: int = 40, running: int = 0, outcomes: int = 4) -> Writer:
    """Write one whose completions are hack, correct, neither or did not run; longer ones hack more often.

    With fewer `outcomes` some completions are none of those.
    """
    writer = generate_store(workspace, prompts=prompts, data_size=40, running=running)
    rng = random.Random(6)
    shown = OUTCOMES[:outcomes]

    def scores(rows: Sequence[Row], lacking: set[int]) -> Iterator[ScoreRow]:
        for row, _, length, _ in rows:
            hack = min(0.9, (length or 0) / 600)
            odds = (hack, 0.7 * (1 - hack), 0.2 * (1 - hack), 0.1 * (1 - hack))
            found = rng.choices(OUTCOMES, odds)[0]
            missing = "the tests could not be run" if row in lacking else None
            for one in shown:
                yield row, one.name, None if missing else float(one == found), missing

    return _scored_anew(writer, workspace, shown, scores)


Row = tuple[int, int, float | None, str]


def _scored_anew(
    writer: Writer,
    workspace: Path,
    behaviours: tuple[Behaviour, ...],
    scores: Callable[[Sequence[Row], set[int]], Iterator[ScoreRow]],
) -> Writer:
    """Put other behaviours in the place of lengths."""
    written = [
        {key: getattr(one, key) for key in ("name", "unit", "role", "group")} | {"scale": one.scale.to_json()}
        for one in behaviours
    ]
    reader = Reader(workspace, writer.connection)
    jobs = writer.connection.execute(
        "SELECT n, label FROM jobs WHERE kind IN ('generate', 'evaluate') ORDER BY n"
    ).fetchall()
    with writer.batch() as connection:
        connection.execute("UPDATE experiments SET behaviours = ?", (json.dumps(written),))
        connection.execute("DELETE FROM summaries")
        for job, label in jobs:
            rows = reader.scores(job, LENGTHS[0])
            lacking = {row for row, *_ in rows if not label.startswith(("base", "data")) and row % 9 == 4}
            writer.add_scores(job, list(scores(rows, lacking)))
        connection.execute(
            "DELETE FROM scores WHERE behaviour IN (SELECT id FROM behaviours WHERE name LIKE 'length%')"
        )
    for job, _ in jobs:
        if reader.scores(job, behaviours[0].name):
            put_summaries(reader, writer, job, behaviours)
    return writer
