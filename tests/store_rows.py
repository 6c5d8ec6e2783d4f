"""Small rows for tests of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

PER_BATCH = 20

JSON_LISTS = {"behaviours": "[]", "conditions": "{}", "channels": "{}"}
EXPERIMENT = {"spec": "", "setting": "length", "model": "m", "fingerprint": "f", "rehearsal": 1, "backend": "local"}


def put_experiment(writer: Writer, name: str = "one", jobs: int = 2) -> tuple[int, list[int]]:
    experiment = writer.put_experiment({"name": name, **EXPERIMENT, **JSON_LISTS, "data_size": 1})
    numbers = writer.put_jobs(experiment, [(f"job{n}", "evaluate", f"job {n}", "{}", "[]", 10) for n in range(jobs)])
    return experiment, list(numbers.values())


def completion(job: int, row: int, prompt: int = 1, text: str = "text", finish: str = "stop") -> tuple[Any, ...]:
    return (job, row, prompt, None, finish, 3, 5, None, "timed out" if finish == "failed" else None, text)


def small_store(workspace: Path, rows: int = PER_BATCH) -> int:
    """Write a finished store of one job with `rows` completions; return the job."""
    writer = Writer(workspace)
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("a", "b")])
    writer.add_completions(completion(job, row, text="y" * 2000) for row in range(rows))
    writer.close()
    return job


def rows_of(workspace: Path, job: int = 1) -> set[int]:
    reader = Reader(workspace)
    try:
        return reader.rows_done(job)
    finally:
        reader.close()


def sentence_of(call: Callable[[], object], workspace: Path) -> str:
    """Run what must fail and return its sentence, checked for form: one line that names the place."""
    with pytest.raises(StoreError) as caught:
        call()
    sentence = str(caught.value)
    assert str(workspace) in sentence
    assert "\n" not in sentence
    return sentence
