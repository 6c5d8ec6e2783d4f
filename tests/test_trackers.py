"""Trackers: what W&B and trackio kept of a run, by their own readers; runs that go on; trackers that fail."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.generated_store import LENGTHS, generate_store
from tests.runs import start, tiny_llama, wait_until, windowshift, write_spec  # noqa: F401  # a fixture
from windowshift import tracker_process
from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.store.reader import Reader
from windowshift.tracker_process import Follower, Journal, main
from windowshift.trackers import TrackedRun, TrackedTable, trackers
from windowshift.tracking import Tracking


class Kept:
    """A tracker in memory; `lost`: it says that it has only what stands below this step. `fails` at its nth value."""

    def __init__(self, lost: int | None = None, fails: int | None = None) -> None:
        self.runs: list[TrackedRun] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.ended: list[str] = []
        self.lost, self.fails = lost, fails

    def begin(self, run: TrackedRun) -> None:
        self.runs.append(run)

    def known(self) -> int | None:
        return None if self.lost is None else self.lost - 1

    def log(self, step: int, values: Mapping[str, Any], along: str | None = None) -> None:
        if self.fails is not None and len(self.rows) >= self.fails:
            raise ConnectionError("no route to the tracker, with the key sk-abcdefghijklmnop0123")
        self.rows.append((step, dict(values)))

    def end(self, state: str) -> None:
        self.ended.append(state)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    generate_store(tmp_path / "ws", prompts=3, data_size=8, running=4).close()
    return tmp_path / "ws"


def follow(workspace: Path, tracker: Any, state: str | None = None) -> Any:
    """A look in a run of its own."""
    follower = Follower(tracker, "kept", workspace, "med-short")
    follower.look()
    if state is not None:
        follower.end(state)
    return tracker


def test_losses_and_done_cells_are_told_with_n_interval_and_the_rehearsal_mark(workspace: Path) -> None:
    kept = follow(workspace, Kept(), "interrupted")
    (run,) = kept.runs
    assert run.config["spec"] == "name: med-short\n"
    assert run.config["spec_sha256"] == hashlib.sha256(b"name: med-short\n").hexdigest()
    assert run.config["rehearsal"] is True
    assert [step for step, _ in kept.rows] == list(range(len(kept.rows)))
    losses = [row for _, row in kept.rows if "loss/train med_short under short" in row]
    assert [row["examples/train med_short under short"] for row in losses] == [0, 4]
    with closing(Reader(workspace)) as reader:
        (found,) = reader.experiments()
        cells = reader.cells(found.id, LENGTHS[0])
    done = [cell for cell in cells if cell.state == "done"]
    told = [row for _, row in kept.rows if row.get("cell/behaviour") == LENGTHS[0]]
    assert len(cells) > len(done) == len(told)
    first, summary = told[0], done[0].summary
    assert summary is not None
    assert (first["cell/mean"], first["cell/low"], first["cell/high"]) == (summary.mean, summary.low, summary.high)
    assert (first["cell/n"], first["cell/missing"], first["cell/rehearsal"]) == (summary.n, summary.missing, True)
    assert first["cell/interval"] == "95 %, over prompts, of one training run"
    table = kept.rows[-2][1]["cells"]
    assert isinstance(table, TrackedTable)
    assert len(table.rows) == len(done) * len(LENGTHS)
    assert kept.rows[-1][1] == {"state": "interrupted", "cells_done": len(done)}
    assert kept.ended == ["interrupted"]


def test_a_run_that_goes_on_is_the_same_run_and_nothing_is_told_twice(workspace: Path) -> None:
    first = follow(workspace, Kept(), "interrupted")
    again = follow(workspace, Kept(), "interrupted")
    assert again.rows == []
    assert (again.runs[0].id, again.runs[0].resumed) == (first.runs[0].id, True)
    with closing(Reader(workspace)) as reader:
        (job,) = [one for one in reader.jobs(1) if one.label == "train med_short under long"]
    writer = generate_store(workspace, name="other", prompts=2, data_size=4)  # of another experiment
    writer.event("loss", {"step": 9, "examples": 99, "loss": 0.5}, experiment=1, job=job.n)
    writer.close()
    more = follow(workspace, Kept())
    step = len(first.rows)
    name = "train med_short under long"
    assert more.rows == [(step, {f"loss/{name}": 0.5, f"examples/{name}": 99})]


@pytest.mark.parametrize("lost", [0, 7])
def test_what_a_tracker_lost_is_told_again_under_the_same_numbers(workspace: Path, lost: int) -> None:
    first = follow(workspace, Kept(), "done")
    again = follow(workspace, Kept(lost=lost), "done")
    assert again.rows == first.rows[lost:]


def test_a_journal_whose_last_line_was_cut_off_goes_on(workspace: Path) -> None:
    first = follow(workspace, Kept(), "interrupted")
    (path,) = (workspace / "tracking").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    at = len(first.rows) - 1  # the second line is step 0
    path.write_bytes(b"".join(lines[:at]) + lines[at][:20])
    again = follow(workspace, Kept(lost=at - 1), "interrupted")
    assert again.rows == first.rows[at - 1 :]
    journal = Journal(path)
    journal.read()
    assert (journal.step, journal.sent) == (len(first.rows) - 1,) * 2


def test_keys_are_in_nothing_that_a_tracker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "verysecretvalue42")
    name, gateway = "verysecretvalue42", "https://gw.example/9f86d081884c7d65/v1"
    writer = generate_store(tmp_path, name="med-short", prompts=2, data_size=4)
    with writer.batch() as connection:
        connection.execute("UPDATE jobs SET label = 'train with ' || ?", (name,))
        connection.execute(
            f"UPDATE experiments SET spec = 'key: sk-abcdefghijklmnop0123 {gateway} ' || ?, model = ?", (name, name)
        )
        connection.execute("UPDATE cells SET evaluate = evaluate || ?", (name,))
    writer.close()
    kept = follow(tmp_path, Kept(), "done")
    told = f"{kept.runs} {kept.rows} {next((tmp_path / 'tracking').glob('*.jsonl')).read_text()}"
    assert "loss/train with [key]" in told
    assert "https://gw.example/[key]/v1" in told
    assert "verysecret" not in told
    assert "sk-abcdef" not in told


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(
            (name, True)
            for name in ("OPENAI_API_KEY", "apikey2", "HF_TOKENS", "MYTOKENVALUE", "DB_PASSWORD", "SECRETS")
        ),
        *((name, False) for name in ("TOKENIZER", "TOKENIZERS_PARALLELISM", "KEYBOARD_LAYOUT", "SECRETARY")),
    ],
)
def test_a_variable_is_a_key_by_a_word_of_its_name(name: str, key: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "some/long-value")
    assert ("some/long-value" in tracker_process._keys()) == key


def test_a_tracker_that_fails_is_said_once_and_counted(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_process, "TRACKERS", {"kept": lambda: Kept(fails=5)})
    answers = io.StringIO()
    main("kept", workspace, "med-short", orders=io.StringIO("done\n"), answers=answers)
    failed, untold = map(json.loads, answers.getvalue().splitlines())
    assert failed["failed"].startswith("no route to the tracker")
    assert "sk-abc" not in failed["failed"]
    whole = follow(workspace, Kept(lost=0))
    assert untold == {"untold": len(whole.rows) - 5}


def test_a_tracker_whose_process_dies_ends_itself_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "windowshift.tracking.python_module", lambda *_: [sys.executable, "-c", "import os; os.abort()"]
    )
    tell_in_a_process("wandb", tmp_path, "small")
    said = capsys.readouterr().err
    assert said.count("note: wandb is told no more, and the run goes on: its process ended without a word") == 1
    assert "wandb was not told some of the losses and cells; the same command again tells it the rest" in said


def test_an_unknown_tracker_and_one_that_is_not_installed_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trackers(["wandb,trackio", "wandb"]) == ["wandb", "trackio"]
    with pytest.raises(SpecError, match="--track takes wandb or trackio, not 'wandv': did you mean 'wandb'"):
        trackers(["wandv"])
    (tmp_path / "wandb").mkdir()  # what W&B leaves is not the library
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(MissingExtraError, match=r"--track wandb needs the library 'wandb'.*windowshift\[wandb\]"):
        trackers(["wandb"])


def test_nothing_of_a_tracker_is_imported_by_a_run() -> None:
    code = (
        "import sys, windowshift.cli, windowshift.run_command, windowshift.trackers, windowshift.tracking\n"
        "windowshift.trackers.trackers(['wandb', 'trackio'])\n"
        "print([name for name in ('wandb', 'trackio', 'windowshift.tracker_process') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def of_wandb(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """The configurations, the rows and the ids of W&B's offline runs, oldest first, by W&B's own reader."""
    from wandb.proto import wandb_internal_pb2 as records
    from wandb.sdk.internal.datastore import DataStore

    configs, rows, ids = [], [], []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime):
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = records.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                rows.append({**row, "step": row["_step"]})
            elif kind == "run":
                ids.append(record.run.run_id)
                configs.append({item.key: json.loads(item.value_json) for item in record.run.config.update})
    return configs, rows, ids


def of_trackio() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """The same of trackio, by its own API, in a process of its own: it reads its folder's name at its import."""
    code = (
        "import json, trackio\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "runs = list(trackio.Api().runs('windowshift'))\n"
        "rows = [row for run in runs for row in SQLiteStorage.get_logs('windowshift', run.name, run_id=run.id)]\n"
        "print(json.dumps([[run.config for run in runs], rows, [run.name for run in runs]], default=str))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    configs, rows, ids = json.loads(done.stdout.splitlines()[-1])
    return configs, rows, ids


def tell_in_a_process(name: str, workspace: Path, experiment: str) -> None:
    """What a run that has nothing to do has of a tracker."""
    found = Tracking(name, workspace, experiment)
    found.over("done")
    found.wait()


@pytest.mark.slow
def test_the_real_trackers_have_every_loss_and_cell_once_of_a_run_that_was_killed_and_went_on(
    tiny_llama: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WINDOWSHIFT_TRACK", "wandb trackio")
    path, workspace = write_spec(tmp_path, tiny_llama), tmp_path / "ws"
    words = ["run", path, "--workspace", workspace, "--quiet"]
    journals = [workspace / "tracking" / f"small-1.{name}.jsonl" for name in ("wandb", "trackio")]
    process = start(*words)
    try:
        wait_until(lambda: all(path.is_file() and '"sent"' in path.read_text() for path in journals))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    windowshift(*words)
    for name in ("wandb", "trackio"):
        tell_in_a_process(name, workspace, "small")  # all is told
    kept_as_in_the_store(of_wandb(workspace), path, workspace)
    kept_as_in_the_store(of_trackio(), path, workspace)


def kept_as_in_the_store(
    kept: tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]], path: Path, workspace: Path
) -> None:
    configs, rows, ids = kept
    assert len(set(ids)) == 1
    for config in configs:
        assert config["spec"] == path.read_text()
        assert config["spec_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    steps = [row["step"] for row in rows]
    assert len(steps) == len(set(steps))
    with closing(Reader(workspace)) as reader:
        (found,) = reader.experiments()
        for job in (one for one in reader.jobs(found.id) if one.kind == "train"):
            losses = [event.data for event in reader.job_events(job.n, "loss")]
            told = [row for row in rows if f"loss/{job.label}" in row]
            assert [row[f"loss/{job.label}"] for row in told] == pytest.approx([one["loss"] for one in losses])
            assert [row[f"examples/{job.label}"] for row in told] == [one["examples"] for one in losses]
        cells = {
            (behaviour.name, cell.generate, cell.train, cell.evaluate): cell.summary
            for behaviour in found.behaviours
            for cell in reader.cells(found.id, behaviour.name)
        }
    told = [row for row in rows if "cell/behaviour" in row]
    places = ("behaviour", "generate", "train", "evaluate")
    seen = {tuple(row[f"cell/{key}"] for key in places): row for row in told}
    assert len(told) == len(seen) == len(cells)
    for place, summary in cells.items():
        row = seen[place]
        assert summary is not None
        assert (row["cell/n"], row["cell/mean"]) == (summary.n, pytest.approx(summary.mean))
        assert (row["cell/low"], row["cell/high"]) == (pytest.approx(summary.low), pytest.approx(summary.high))
        assert row["cell/rehearsal"] is False
    assert [row["state"] for row in rows if "state" in row][-1] == "done"
    assert sum("cells" in row for row in rows) == len([row for row in rows if "state" in row])


@pytest.mark.slow
def test_wandb_without_a_key_says_so_once_and_asks_nothing(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    tell_in_a_process("wandb", workspace, "med-short")
    said = capsys.readouterr().err
    assert said.count("note: wandb is told no more, and the run goes on: No API key configured") == 1
    assert "of the losses and cells; the same command again tells it the rest" in said
