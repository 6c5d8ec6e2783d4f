"""What a run cannot do is said, and not written down for nobody: every action, in every state."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from tests.runs import windowshift
from tests.scripted_backend import scripted
from windowshift.core.contract.records import ControlAction, ExperimentRow, ExperimentState, JobRow, JobState, RunRow
from windowshift.core.store.control import ACTIONS, refusal, request
from windowshift.core.store.reader import Reader

EXPERIMENT = ExperimentRow(1, "x", "running", "length", "m", False, "local", (), {}, {}, 1, 0.0, 0.0, None, None)
JOB = JobRow(7, "h", "evaluate", "a → b", "running", 0, 1, None, None, None, None, None, None)
HERE = RunRow(1, 1, os.getpid(), socket.gethostname(), 0.0, 0.0, None)
"""A run that has been silent for long, whose process is there: busy, and it takes up what it is asked."""


STANDS: dict[ExperimentState, str] = {
    "planned": "is planned, and 'windowshift run' starts it",
    "running": "was interrupted",
    "paused": "was interrupted",
    "done": "is done",
    "failed": "has ended",
    "interrupted": "was interrupted",
    "cancelled": "was cancelled",
}


def said(action: ControlAction, state: ExperimentState, run: RunRow | None = HERE, **options: object) -> str | None:
    return refusal(action, replace(EXPERIMENT, state=state), run, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", get_args(ExperimentState))
@pytest.mark.parametrize("action", ACTIONS)
def test_without_a_run_nothing_is_asked(action: ControlAction, state: ExperimentState) -> None:
    for run in (None, replace(HERE, ended=1.0), replace(HERE, host="elsewhere"), replace(HERE, pid=2**22 + 1)):
        found = said(action, state, run, job=JOB if action in ("first", "last") else None)
        assert found is not None
        assert found.startswith("no run is alive to ")
        assert f"'x' {STANDS[state]}" in found


def test_a_run_elsewhere_is_alive_while_it_says_so() -> None:
    assert said("pause", "running", replace(HERE, host="elsewhere", heartbeat=time.time())) is None


def test_an_experiment_is_asked_for_what_changes_it() -> None:
    assert said("pause", "running") is None
    assert said("cancel", "running") is None
    assert said("cancel", "paused") is None
    assert said("resume", "paused") is None
    assert said("pause", "paused") == "'x' is paused already: 'resume' lets it go on"
    assert said("resume", "running") == "there is nothing to resume: 'x' is not paused"
    assert said("retry", "running") == "there is nothing to retry: no job of 'x' has failed or was cancelled"
    assert said("retry", "running", unscored=True) is None
    held = replace(EXPERIMENT, jobs={"paused": 1, "failed": 2})
    assert "name one with --job" in str(refusal("resume", held, HERE))
    assert refusal("retry", held, HERE) is None


def test_what_was_asked_before_counts() -> None:
    """The run takes up what it is asked within a second: a script need not wait for that."""
    assert said("resume", "running", asked=[("pause", None)]) is None
    assert "is paused already" in str(said("pause", "running", asked=[("pause", None)]))
    assert "was asked to cancel" in str(said("pause", "running", asked=[("cancel", None)]))
    assert refusal("resume", EXPERIMENT, HERE, JOB, asked=[("pause", 7)]) is None
    assert "job 7 (a → b) is running" in str(refusal("resume", EXPERIMENT, HERE, JOB, asked=[("pause", 8)]))


DOES: dict[ControlAction, set[JobState]] = {
    "pause": {"pending", "running"},
    "resume": {"paused"},
    "cancel": {"pending", "running", "paused"},
    "retry": {"failed", "cancelled"},
    "first": {"pending", "running", "paused"},
    "last": {"pending", "running", "paused"},
}


@pytest.mark.parametrize("state", get_args(JobState))
@pytest.mark.parametrize("action", ACTIONS)
def test_a_job_is_asked_for_what_changes_it(action: ControlAction, state: JobState) -> None:
    found = refusal(action, EXPERIMENT, HERE, replace(JOB, state=state))
    assert (found is None) == (state in DOES[action])
    assert found is None or f"job 7 (a → b) is {state}" in found
    assert refusal("retry", EXPERIMENT, HERE, replace(JOB, state="done"), unscored=True) is None


async def test_the_command_says_it_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await scripted(monkeypatch, tmp_path, prompts=4).go()
    for words in (["pause"], ["first", "--job", "1"]):
        done = windowshift("control", "scripted", *words, "--workspace", tmp_path, check=2)
        assert "'scripted' is done, and nothing of it is left to do" in done.stderr
        assert done.stdout == ""
    done = windowshift("control", "scripted", "pause", "--job", "4000", "--workspace", tmp_path, check=2)
    assert "'scripted' has no job 4000" in done.stderr
    with closing(Reader(tmp_path)) as reader:
        assert reader.asked(1) == []
        request(tmp_path, 1, "pause")
        assert reader.asked(1) == [("pause", None)]
