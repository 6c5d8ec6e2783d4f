"""Experiments, jobs and grids in the store: planning again, retrying, deleting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.store_rows import completion, put_experiment
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Summary
from windowshift.core.store import control, liveness
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(writer: Writer) -> Iterator[Reader]:
    made = Reader(writer.workspace)
    yield made
    made.close()


def test_retried_job_gets_a_fresh_start(writer: Writer, reader: Reader) -> None:
    _, (job, _) = put_experiment(writer)
    writer.set_job(job, "running")
    first = reader.job(job)
    assert first.started is not None
    assert first.ended is None
    for state in ("paused", "running"):
        writer.set_job(job, state)
        assert reader.job(job).started == first.started, "a pause is part of the same start"
    writer.set_job(job, "failed", error="why", result={"kept": 1}, usd=0.5)
    failed = reader.job(job)
    assert failed.ended is not None
    assert failed.started == first.started
    writer.set_job(job, "running")
    again = reader.job(job)
    assert again.started is not None
    assert again.started > first.started
    assert (again.ended, again.error, again.result, again.usd) == (None, None, {"kept": 1}, 0.5)
    writer.set_job(job, "pending")
    assert reader.job(job).started is None
    writer.set_job(job, "done")
    done = reader.job(job)
    assert done.done == done.total == 10
    assert [event.data["state"] for event in reader.job_events(job, "state")][-2:] == ["pending", "done"]


def test_planning_again_keeps_states_and_cell_ids(writer: Writer, reader: Reader) -> None:
    experiment, (job, other) = put_experiment(writer)
    cells = [("prefix", "", "base", name, 0, 0, 1, job) for name in ("a", "b")]
    writer.put_grid(experiment, cells, [])
    before = reader.cells(experiment, "x")
    writer.set_job(job, "done")
    assert put_experiment(writer) == (experiment, [job, other])
    put_experiment(writer, "between")
    writer.put_grid(experiment, iter(cells), [])
    after = reader.cells(experiment, "x")
    assert [cell.id for cell in after] == [cell.id for cell in before]
    assert {cell.state for cell in after} == {"done"}
    writer.put_grid(experiment, cells[:1], [])
    assert [cell.evaluate for cell in reader.cells(experiment, "x")] == ["a"]
    duplicate = ("job0", "evaluate", "again", "{}", "[]", 10)
    assert writer.put_jobs(experiment, [duplicate, duplicate]) == {"job0": job}


def test_deleting_an_experiment_keeps_what_others_share(writer: Writer, reader: Reader) -> None:
    first, (shared, _) = put_experiment(writer, "first", 2)
    second, (_, own) = put_experiment(writer, "second", 2)
    jobs = [("job0", "evaluate", "", "{}", "[]", 1), ("lone", "train", "", "{}", "[]", 1)]
    lone = writer.put_jobs(first, jobs)["lone"]
    writer.put_prompts("p", [Prompt("a", "b")])
    for experiment, job in ((first, shared), (first, lone), (second, own)):
        writer.add_completions([completion(job, 0)])
        writer.add_scores(job, [(0, "x", 1.0, None)])
        writer.put_summary(job, "x", Summary(1, 0, 0, 1.0, 0.0, 1.0, 1.0))
        writer.event("loss", {"loss": 1.0}, experiment=experiment, job=job)
        writer.put_grid(experiment, [("prefix", "", "base", "a", 0, 0, 1, shared)], [])
    writer.start_run(first)
    control.request(writer.workspace, first, "pause")
    last = reader.events()[-1].id
    assert writer.delete_experiment(first) == ["lone"]
    assert [row.name for row in reader.experiments()] == ["second"]
    assert reader.rows_done(shared) == {0}
    assert reader.summary(shared, "x") is not None
    assert len(reader.job_events(shared, "loss")) == 1, "the loss curve of a shared job stays"
    assert reader.rows_done(lone) == set()
    assert reader.cells(first, "x") == []
    assert reader.run(first) is None
    assert len(reader.cells(second, "x")) == 1
    with pytest.raises(StoreError, match="was deleted"):
        reader.job(lone)
    with pytest.raises(StoreError, match="was deleted"):
        reader.spec_text(first)
    assert check_store(writer.workspace) == []
    again, _ = put_experiment(writer, "first")
    assert again > second, "a number that a screen remembers never means another experiment"
    writer.event("message", {})
    assert reader.events()[-1].id > last, "a tail of the log misses nothing"
    assert writer.delete_experiment(12345) == []


def test_check_store_counts_rows_that_point_nowhere(writer: Writer) -> None:
    experiment, (job, _) = put_experiment(writer)
    writer.add_completions([completion(job, 0, prompt=77), completion(99, 0, prompt=77)])
    writer.add_scores(job, [(5, "x", 1.0, None)])
    writer.put_grid(experiment, [("prefix", "", "base", "a", 0, 0, 1, 98)], [])
    problems = check_store(writer.workspace)
    for part in ("2 completions without a prompt", "1 completions without a job", "1 scores without a completion",
                 "1 cells without a job"):  # fmt: skip
        assert any(part in problem for problem in problems), problems


def test_a_process_that_ended_and_waits_for_its_parent_is_no_run() -> None:
    """A run that was killed stays in the process table while the screens that started it are open."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert liveness._exists(process.pid)
    process.kill()
    try:
        wait_until(lambda: not liveness._exists(process.pid), "the end of the process")
    finally:
        process.communicate()
    assert not liveness._exists(process.pid)
