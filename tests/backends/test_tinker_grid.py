"""Grids at Tinker from the command line: beside a local run, killed at random moments, through a restart."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs import command, wait_until, windowshift
from tests.tinkered import KEY, KEY_ENV, TinkerServed, tinker_served
from windowshift.backends.tinker.training_journal import TrainingJournal
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.records import JobRow
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader

pytestmark = pytest.mark.tinker

SPEC = """\
name: {name}
model: microworld
backend: {backend}
prompts: microworld
conditions:
  generate: [med_short]
  train: {train}
  evaluate: [short]
data: {{size: {size}}}
sft: {{rank: 4, alpha: 32, learning_rate: 1e-3, batch_size: 2}}
sampling: {{prompts: 4, max_tokens: 16}}
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


def write(
    folder: Path, name: str, backend: str, options: dict[str, Any] | None = None, *, size: int = 24,
    train: str = "[short, long]", more: str = "",
) -> Path:  # fmt: skip
    path = folder / f"{name}.yaml"
    text = SPEC.format(name=name, backend=backend, size=size, train=train) + more
    if options is not None:
        text += f"backend_options: {json.dumps(options)}\n"
    path.write_text(text, encoding="utf-8")
    return path


def train_jobs(workspace: Path, name: str) -> list[JobRow]:
    if not store_path(workspace).is_file():
        return []
    try:
        reader = Reader(workspace)
    except StoreError:  # it is being made
        return []
    try:
        experiment = reader.experiment(name)
        return [] if experiment is None else [job for job in reader.jobs(experiment.id) if job.kind == "train"]
    finally:
        reader.close()


def events(workspace: Path, job: JobRow, kind: str) -> list[dict[str, Any]]:
    reader = Reader(workspace)
    try:
        return [dict(event.data) for event in reader.job_events(job.n, kind)]
    finally:
        reader.close()


def check_curves(workspace: Path, name: str, steps: int, unheard: int = 0) -> None:
    """Every step of every job once, in order; up to `unheard` of the last ones may lack, where a message says so."""
    for job in train_jobs(workspace, name):
        assert job.state == "done", job.error
        found = [event["step"] for event in events(workspace, job, "loss")]
        lacking = [event["text"] for event in events(workspace, job, "message") if "are not known" in event["text"]]
        known = steps
        if lacking and unheard:
            known = len(found)
            assert known >= steps - unheard
            assert f"the last {steps - known} of {steps} steps" in lacking[-1]
        assert found == list(range(1, known + 1))


def at_the_server(server: TinkerServed, workspace: Path) -> dict[str, Counter[str]]:
    """What every training job of a workspace has saved at the server, by name."""
    owner = {}
    for folder in (workspace / "artifacts").iterdir():
        journal = TrainingJournal.read(folder) if folder.is_dir() else None
        for run in journal.runs if journal is not None else ():
            owner[run] = folder.name
    found: dict[str, Counter[str]] = {name: Counter() for name in owner.values()}
    for one in server.checkpoints():
        run, _, name = one.tinker_path.removeprefix("tinker://").split("/")
        if run in owner:
            found[owner[run]][name] += 1
    return found


def test_a_grid_ends_beside_the_local_one(tinker_server: TinkerServed, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    here = write(tmp_path, "here", "local")
    there = write(tmp_path, "there", "tinker", tinker_server.options)  # two lines differ, beside the name
    windowshift("run", here, "--workspace", workspace, "-q")
    planned = windowshift("plan", there, "--workspace", workspace)
    assert "learning rate 0.001" in planned.stdout
    assert "scaled by 8" not in planned.stdout  # alpha is given
    windowshift("run", there, "--workspace", workspace, "-q")
    check_curves(workspace, "there", 12)
    beside = windowshift("report", "there", "--beside", "here", "--workspace", workspace).stdout
    assert "here" in beside
    assert "there" in beside
    cells = json.loads(windowshift("report", "there", "--workspace", workspace, "--json").stdout)["cells"]
    assert {cell["status"] for cell in cells} == {"done"}
    saved = at_the_server(tinker_server, workspace)
    assert len(saved) == 2
    assert all(names == {"final": 1} for names in saved.values())
    # What was trained there can be sampled from here: the adapters are in the workspace.
    mixed = write(tmp_path, "mixed", "{train: tinker, generate: local}", {"tinker": tinker_server.options})
    windowshift("run", mixed, "--workspace", workspace, "-q")
    assert json.loads(windowshift("report", "mixed", "--workspace", workspace, "--json").stdout)["cells"]


def test_what_tinker_cannot_do_is_refused_in_plan(tinker_server: TinkerServed, tmp_path: Path) -> None:
    steered = write(
        tmp_path, "steered", "tinker", tinker_server.options, train="[short, {steer: length, alpha: 1}]",
        more="vectors: {length: {positive: long, negative: short}}\n",
    )  # fmt: skip
    refused = windowshift("plan", steered, check=2).stderr
    assert "local" in refused
    assert "tinker" in refused
    other = write(tmp_path, "other", "tinker", tinker_server.options)
    text = other.read_text(encoding="utf-8")
    other.write_text(text.replace("model: microworld", "model: microworl"), encoding="utf-8")
    unknown = windowshift("plan", other, check=2).stderr
    assert "does not offer model 'microworl'" in unknown
    assert "did you mean 'microworld'?" in unknown
    other.write_text(text.replace("alpha: 32", "alpha: 16"), encoding="utf-8")
    assert "alpha: 32" in windowshift("plan", other, check=2).stderr
    away = write(tmp_path, "away", "tinker", {**tinker_server.options, "base_url": "http://127.0.0.1:9"})
    assert "cannot be reached" in windowshift("plan", away).stdout  # costs come before there is a server
    assert "cannot be reached" in windowshift("run", away, "--workspace", tmp_path / "ws", check=2).stderr


def test_killed_at_ten_random_moments(tinker_server: TinkerServed, tmp_path: Path) -> None:
    options = {**tinker_server.options, "state_steps": 3, "pipeline": 3, "clients": 2}
    spec = write(
        tmp_path, "killed", "tinker", options, size=64, train="[short, no_prefix]",
        more="checkpoints: {at: [20, 48], evaluate: [short]}\n",
    )  # fmt: skip
    workspace = tmp_path / "ws"
    # D first: what is killed is training.
    run = subprocess.Popen(command("run", spec, "--workspace", workspace, "-q"), stderr=subprocess.DEVNULL)
    wait_until(lambda: any(job.state == "running" for job in train_jobs(workspace, "killed")), 120)
    draw = random.Random(11)
    for number in range(10):
        if number:
            run = subprocess.Popen(command("run", spec, "--workspace", workspace, "-q"), stderr=subprocess.DEVNULL)
        wait_until(_further(run, workspace, "killed"), 120)
        time.sleep(draw.uniform(0.0, 1.0))  # the random moment: between two saves, or within one
        assert run.poll() is None, "the grid was done before it was killed ten times"
        run.kill()
        run.wait()
    windowshift("run", spec, "--workspace", workspace, "-q")
    # Of steps that were under way when it was killed the last time nobody may have heard.
    check_curves(workspace, "killed", 32, unheard=3)
    jobs = train_jobs(workspace, "killed")
    resumed = [event["text"] for job in jobs for event in events(workspace, job, "message")]
    assert any("goes on from the state after step" in text for text in resumed)
    saved = at_the_server(tinker_server, workspace)
    assert len(saved) == len(jobs) == 2
    assert all(names == {"sampler-000020": 1, "sampler-000048": 1, "final": 1} for names in saved.values())


def _further(run: subprocess.Popen[bytes], workspace: Path, name: str) -> Callable[[], bool]:
    """Whether a run has taken steps since now, or ended."""
    before = sum(job.done for job in train_jobs(workspace, name))
    return lambda: run.poll() is not None or sum(job.done for job in train_jobs(workspace, name)) > before


def test_a_server_that_restarts_costs_no_step(tmp_path: Path) -> None:
    with tinker_served(tmp_path / "server") as server:
        options = {**server.options, "state_steps": 3, "clients": 1}
        spec = write(tmp_path, "restarted", "tinker", options, size=32, train="[short]")
        workspace = tmp_path / "ws"
        run = subprocess.Popen(command("run", spec, "--workspace", workspace, "-q"), stderr=subprocess.PIPE, text=True)
        wait_until(lambda: any(job.done > 10 for job in train_jobs(workspace, "restarted")), 120)
        server.kill()
        server.start()
        _, problem = run.communicate(timeout=240)
        assert run.returncode == 0, problem
        check_curves(workspace, "restarted", 16)
        (job,) = train_jobs(workspace, "restarted")
        told = [event["text"] for event in events(workspace, job, "message")]
        assert any("going on from step" in text for text in told), told
        assert at_the_server(server, workspace)[job.id] == {"final": 1}
