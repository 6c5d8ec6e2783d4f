"""Reasoning in the store: kept apart from the answer; thought without an answer is missing, and is not asked again."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.store_rows import completion, put_experiment
from windowshift.core.contract.prompts import Prompt
from windowshift.core.report.export import export
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

SPENT = "the model spent its 64 tokens on reasoning before it answered"


def answered(job: int, row: int) -> tuple[object, ...]:
    return (job, row, 1, None, "stop", 1, 5, None, None, "Yes.", "Hm.\nWell.", 7)


def thought(job: int, row: int) -> tuple[object, ...]:
    return (job, row, 1, None, "failed", 0, 5, None, SPENT, "", "Hm", 64)


def test_reasoning_reads_back_beside_the_answer(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("k", "q")])
    writer.add_completions([answered(job, 0), thought(job, 1), completion(job, 2)])
    rows = Reader(tmp_path, writer.connection).completions(job, "length_chars")
    assert [(row.text, row.reasoning, row.reasoning_tokens, row.unanswered) for row in rows] == [
        ("Yes.", "Hm.\nWell.", 7, False),
        ("", "Hm", 64, True),
        ("text", None, 0, False),
    ]
    writer.close()


def test_what_was_thought_away_is_missing_and_not_a_failure(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    _, (mixed, lost) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("k", "q")])
    reader = Reader(tmp_path, writer.connection)
    writer.add_completions([answered(mixed, 0), thought(mixed, 1), thought(lost, 0), thought(lost, 1)])
    assert reader.failures(mixed) is None
    assert reader.unanswered(mixed) == (1, SPENT)
    assert reader.failures(lost) == (2, SPENT)  # nothing is left that could be measured
    writer.add_completions([completion(mixed, 2, finish="failed")])
    assert reader.failures(mixed) == (1, "timed out")
    assert writer.drop_failed_completions(mixed) == 1
    assert reader.rows_done(mixed) == {0, 1}
    writer.close()


def test_a_store_of_before_opens_without_reasoning(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("k", "q")])
    writer.add_completions([completion(job, 0)])
    writer.close()
    raw = sqlite3.connect(store_path(tmp_path))
    raw.execute("ALTER TABLE completions DROP COLUMN reasoning")
    raw.execute("ALTER TABLE completions DROP COLUMN reasoning_tokens")
    raw.execute("ALTER TABLE scores DROP COLUMN evidence")
    raw.execute("ALTER TABLE scores DROP COLUMN weight")
    raw.execute("DROP TABLE checksums")
    for table in ("guard_cells", "projections", "gradients", "watched"):
        raw.execute(f"DROP TABLE {table}")
    raw.execute("PRAGMA user_version=2")
    raw.commit()
    raw.close()
    writer = Writer(tmp_path)
    (row,) = Reader(tmp_path, writer.connection).completions(job, "length_chars")
    assert (row.text, row.reasoning, row.reasoning_tokens) == ("text", None, 0)
    writer.close()


def test_the_export_tells_an_empty_answer_from_none(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    experiment, (job, _) = put_experiment(writer)
    (number,) = writer.put_prompts("p", [Prompt("k", "q")])
    writer.put_grid(experiment, [("prefix", "", "base", "short", 0, 0, 1, job)], [])
    empty = completion(job, 2, number, text="")
    writer.add_completions([(*answered(job, 0)[:2], number, *answered(job, 0)[3:]),
                            (*thought(job, 1)[:2], number, *thought(job, 1)[3:]), empty])  # fmt: skip
    writer.close()
    export(tmp_path, "one", tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["completion"], row["reasoning"], row["reasoning_tokens"], row["missing"]) for row in rows] == [
        ("Yes.", "Hm.\nWell.", 7, None),
        (None, "Hm", 64, SPENT),
        ("", None, 0, None),
    ]
