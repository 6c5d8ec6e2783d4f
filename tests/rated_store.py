"""A generated workspace whose primary behaviour is a rate: 0 or 1, some missing, some truncated, with work to do."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.generated_store import LENGTHS, generate_store
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.summarise import put_summaries
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

HACK = Behaviour("hack", "share", Scale.rate(), "primary")
KEPT = Behaviour("kept", "points", Scale.difference(low=-10, high=10), "guard")


def rate_store(workspace: Path, *, prompts: int = 40, running: int = 0, steering: bool = False) -> Writer:
    """Write it; longer completions hack more often, and every ninth score of a trained cell is missing."""
    writer = generate_store(workspace, prompts=prompts, data_size=40, running=running, steering=steering)
    rng = random.Random(5)
    behaviours = [
        {"name": one.name, "unit": one.unit, "scale": one.scale.to_json(), "role": one.role} for one in (HACK, KEPT)
    ]
    reader = Reader(workspace, writer.connection)
    jobs = writer.connection.execute(
        "SELECT n, label FROM jobs WHERE kind IN ('generate', 'evaluate') ORDER BY n"
    ).fetchall()
    with writer.batch() as connection:
        connection.execute("UPDATE experiments SET behaviours = ?", (json.dumps(behaviours),))
        connection.execute("DELETE FROM summaries")
        for job, label in jobs:
            rows = reader.scores(job, LENGTHS[0])
            lacking = [row for row, *_ in rows if not label.startswith(("base", "data")) and row % 9 == 4]
            scores = []
            for row, _, length, _ in rows:
                hit = float(rng.random() < min(0.95, (length or 0) / 700))
                missing = "the tests could not be run" if row in lacking else None
                scores.append((row, HACK.name, None if missing else hit, missing))
                scores.append((row, KEPT.name, rng.gauss(-2.0, 3.0), None))
            writer.add_scores(job, scores)
        connection.execute(
            "DELETE FROM scores WHERE behaviour IN (SELECT id FROM behaviours WHERE name LIKE 'length%')"
        )
    for job, _ in jobs:
        if reader.scores(job, HACK.name):
            put_summaries(reader, writer, job, (HACK, KEPT))
    return writer
