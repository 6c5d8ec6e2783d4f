"""A workspace, or a served data folder, from somebody else: no name and no link in it leads windowshift out of it."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import windowshift
from tests.generated_store import generate_store
from tests.serving import MODEL, Words, serving
from windowshift.backends.openai.fine_tuning_journal import FineTuningJournal
from windowshift.backends.openai.said import Checkpoint, FineTuningJob
from windowshift.backends.serve.batches import Batches
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.jobs import Jobs
from windowshift.backends.serve.state import ServerState
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import read
from windowshift.core.contract.errors import BackendError, StoreError, WindowshiftError
from windowshift.core.contract.whole_file import replacing_file, replacing_folder, within
from windowshift.core.report import frames
from windowshift.core.report.figure_file import file_name
from windowshift.core.report.figures import write_figures
from windowshift.core.run import spawn
from windowshift.core.run.run import logging_to
from windowshift.core.store.artifact_folder import ArtifactFolder
from windowshift.core.store.reader import Reader
from windowshift.tui.read import error_log
from windowshift.tui.read.spec_file import kept_spec, new_spec
from windowshift.tui.widgets.clipboard import write_copy

JOB = "0123456789abcdef0123"
HOSTILE = [
    "..", ".", "", "/etc/passwd", "../x", "a/../../x", "a/b", "..\\..\\x", "C:\\x\\y", "C:/x", "\0", "a\0b", "x\n/../y",
    "\u2025/\u2025", "~/x", "file:///etc/passwd", "\u202e../x",
]  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder of somebody's own; nothing in it, and nothing more in it, after whatever a test did."""
    found = tmp_path / "home"
    (found / "Documents").mkdir(parents=True)
    (found / "Documents" / "letter.txt").write_text("mine")
    (found / ".bashrc").write_text("mine")
    yield found
    there = sorted(str(path.relative_to(found)) for path in found.rglob("*"))
    assert there == [".bashrc", "Documents", "Documents/letter.txt"]
    assert {path.read_text() for path in found.rglob("*") if path.is_file()} == {"mine"}


@pytest.mark.parametrize("part", HOSTILE)
def test_a_part_that_is_no_name_is_refused(tmp_path: Path, part: str) -> None:
    try:
        found = within(tmp_path, "specs", part)
    except StoreError:
        return
    assert found.parent == tmp_path / "specs"  # whatever else it is called


def test_a_link_on_the_way_is_refused(tmp_path: Path, outside: Path) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "logs").symlink_to(outside)
    (workspace / "near").symlink_to(workspace)
    for parts in (("logs",), ("logs", ".bashrc"), ("near", "logs", "x")):
        with pytest.raises(StoreError, match="leads out"):
            within(workspace, *parts)
    assert within(workspace, "near", "x")  # a link that stays in is one
    linked = tmp_path / "linked"
    linked.symlink_to(workspace)
    assert within(linked, "x")  # a workspace may itself be reached through one


def _log(workspace: Path) -> None:
    with logging_to(within(workspace, "logs", "x.log")):
        logging.getLogger("windowshift").info("curl evil | sh")


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "run log": ("logs/x.log", _log),
    "launch log": ("logs/launch.log", lambda workspace: spawn.launch(workspace / "x.yaml", workspace)),
    "kept spec": ("specs/x.yaml", lambda workspace: kept_spec(workspace, "x", "name: x")),
    "new spec": ("specs", lambda workspace: new_spec(workspace, "x", "name: x")),
    "copy": ("copied", lambda workspace: write_copy(workspace, "x", ".txt", "text", 0.0)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("how", ["folder", "file"])
def test_what_is_written_into_a_workspace_stays_in_it(
    tmp_path: Path, outside: Path, writer: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise AssertionError("nothing is started")

    monkeypatch.setattr(subprocess, "Popen", refused)
    place, write = WRITERS[writer]
    workspace = tmp_path / "ws"
    workspace.mkdir()
    path = workspace / place
    if how == "folder" or path.parent == workspace:
        target = path if path.parent == workspace else path.parent
        target.symlink_to(outside)
    else:
        path.parent.mkdir()
        path.symlink_to(outside / ".bashrc")
    with pytest.raises(StoreError, match="leads out"):
        write(workspace)


def test_the_log_of_screens_goes_elsewhere(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "logs").symlink_to(outside)
    assert error_log.note(workspace, ValueError("x")).startswith(str(tmp_path / "state"))


def test_a_temporary_file_that_is_a_link_is_not_written_through(tmp_path: Path, outside: Path) -> None:
    path = tmp_path / "files.json"
    (tmp_path / ".files.partial.json").symlink_to(outside / ".bashrc")
    with replacing_file(path) as partial:
        partial.write_text("ours")
    assert path.read_text() == "ours"
    folder = tmp_path / "adapter"
    folder.symlink_to(outside)
    (tmp_path / ".adapter.partial").symlink_to(outside / "Documents")
    with replacing_folder(folder) as aside:
        (aside / "x").write_text("ours")
    assert not folder.is_symlink()
    assert (folder / "x").read_text() == "ours"


@pytest.mark.parametrize("hostile", ["Documents", "home", ".bashrc", "../home"])
def test_artifacts_that_are_a_link_give_nothing_away(tmp_path: Path, outside: Path, hostile: str) -> None:
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "artifacts").symlink_to(outside)
    artifacts = ArtifactFolder(workspace)
    with pytest.raises(StoreError):
        artifacts.delete(hostile)
    disk = tmp_path / "large-disk"  # a person's own link to a larger disk works on
    (disk / JOB).mkdir(parents=True)
    (workspace / "artifacts").unlink()
    (workspace / "artifacts").symlink_to(disk)
    artifacts.delete(JOB)
    assert not (disk / JOB).exists()


@pytest.mark.parametrize("deep", ["adapter_model.safetensors", "sub/adapter_config.json"])
def test_a_link_deep_inside_an_artifact_is_refused(tmp_path: Path, outside: Path, deep: str) -> None:
    folder = tmp_path / "artifacts" / JOB / "adapter"
    (folder / deep).parent.mkdir(parents=True)
    (folder / deep).symlink_to(outside / ".bashrc")
    artifacts = ArtifactFolder(tmp_path)
    for use in (artifacts.get, artifacts.exists, artifacts.discard):
        with pytest.raises(StoreError, match="leads out"):
            use(f"artifacts/{JOB}/adapter")
    (folder / deep).unlink()
    os.mkfifo(folder / deep)  # who reads it waits for ever
    with pytest.raises(StoreError, match="neither a file nor a folder"):
        artifacts.get(f"artifacts/{JOB}/adapter")


@pytest.mark.parametrize("name", [*HOSTILE, "CON", "\u4e2d" * 200, "\U0001f41d" * 90, "-rf", "a" * 5000, "\udcff"])
def test_a_figures_name_is_one_file(tmp_path: Path, name: str) -> None:
    found = file_name(name, "x", name)
    assert "/" not in found
    assert "\\" not in found
    assert len(f"{found}.csv".encode()) < 255
    (tmp_path / f"{found}.csv").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [f"{found}.csv"]
    assert not found.startswith(("-", "."))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_figures_of_a_received_store_stay_in_their_folder(tmp_path: Path, outside: Path, hostile: str) -> None:
    workspace = tmp_path / "ws"
    generate_store(workspace, prompts=2, data_size=2).close()
    with sqlite3.connect(workspace / "windowshift.db") as store:
        for column in ("generate", "train", "evaluate"):
            store.execute(f"UPDATE cells SET {column} = ? || {column}", (hostile,))
        store.execute("UPDATE experiments SET name = ?", (f"{hostile}x",))
    out = tmp_path / "figures"
    with suppress(WindowshiftError):  # refused is fine, too
        write_figures(workspace, f"{hostile}x", out, formats=("csv",))
    assert all(path.parent == out for path in tmp_path.rglob("*.csv"))
    assert not [path for path in tmp_path.iterdir() if path.name not in ("ws", "home", "figures")]


@pytest.mark.parametrize("place", ["/etc/passwd", "../x", "artifacts/x/y", "~/x", "C:\\x", "file:///etc/passwd"])
def test_a_servers_model_is_no_path(tmp_path: Path, place: str) -> None:
    job = {"id": "ftjob-1", "status": "succeeded", "created_at": 1.0, "fine_tuned_model": place}
    with pytest.raises(BrokenAnswerError, match="fine_tuned_model"):
        read(FineTuningJob, job)
    with pytest.raises(BrokenAnswerError):
        read(Checkpoint, {"id": "c", "step_number": 1, "fine_tuned_model_checkpoint": place})
    journal = FineTuningJournal("token", "http://s", adapter="ft:m:1").write(tmp_path)
    assert FineTuningJournal.read(tmp_path) == journal
    FineTuningJournal("token", "http://s", adapter=place).write(tmp_path)
    with pytest.raises(BackendError, match="it is a path"):
        FineTuningJournal.read(tmp_path)


# A data folder of `windowshift serve`.


@pytest.mark.parametrize("name", ["files", "jobs", "batches"])
def test_a_data_folder_that_leads_out_is_refused_before_anything_is_swept(
    tmp_path: Path, outside: Path, name: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).symlink_to(outside)
    with pytest.raises(StoreError, match="leads out"):
        ServerState(tmp_path / "data")


def test_a_sweep_removes_what_the_server_made_and_nothing_else(tmp_path: Path) -> None:
    kept = ["letters", "file.txt", "jobs.csv", "my batch_x", "file-"]
    gone = ["file-abc", ".file-abc.partial", "ftjob-abc", "batch_abc", "file-cut-short"]
    for folder in ("files", "jobs", "batches"):
        for name in (*kept, *gone):
            (tmp_path / folder / name).mkdir(parents=True)
    state = ServerState(tmp_path)
    for each in (Files(state), Jobs(state), Batches(state)):
        each.sweep()
    state.close()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}
    assert {f"{folder}/{name}" for folder in ("files", "jobs", "batches") for name in kept} <= left
    assert not {"files/file-abc", "files/.file-abc.partial", "jobs/ftjob-abc", "batches/batch_abc"} & left


@pytest.mark.parametrize(
    "place", ["/etc", "../../home", "jobs", "jobs/ftjob-x", "jobs/../../home", "files/x/y", "jobs/l/x"]
)
def test_a_model_whose_weights_lie_elsewhere_is_neither_read_nor_removed(
    tmp_path: Path, outside: Path, place: str
) -> None:
    def prepare(state: ServerState) -> None:
        (state.folder / "jobs" / "l").symlink_to(outside)
        state.connection.execute(
            "INSERT INTO models (name, base, adapter, created_at) VALUES ('ft:x', ?, ?, 1)", (MODEL, place)
        )

    with serving(Words(["Yes."]), tmp_path / "data", prepare=prepare) as server, server.raw() as http:
        assert [each["id"] for each in http.get("models").json()["data"]] == [MODEL]
        for answer in (
            http.get("models/ft:x"),
            http.delete("models/ft:x"),
            http.post("chat/completions", json={"model": "ft:x", "messages": [{"role": "user", "content": "x"}]}),
        ):
            assert answer.status_code == 500
            assert "not in the data folder" in answer.json()["error"]["message"]
    (tmp_path / "data" / "jobs" / "l").unlink()


@pytest.mark.parametrize("key", ["../../home/.bashrc", "/etc/passwd", "..", "a/b"])
def test_a_file_whose_id_leads_elsewhere_is_neither_read_nor_removed(tmp_path: Path, outside: Path, key: str) -> None:
    state = ServerState(tmp_path / "data")
    file = SimpleNamespace(id=key)
    files = Files(state)
    with pytest.raises(StoreError):
        files.path(file)  # type: ignore[arg-type]
    for each in (Jobs(state), Batches(state)):
        with pytest.raises(StoreError):
            each.folder(file)  # type: ignore[attr-defined]
    state.close()


def test_a_date_that_is_none_is_named(tmp_path: Path) -> None:
    state = ServerState(tmp_path)
    (tmp_path / "template_date").write_text("\x1b]52;c;x\x07\n")
    with pytest.raises(StoreError, match="holds no date"):
        _ = state.day
    state.close()


def test_reading_a_received_store_imports_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored spec names Python of its own: reports and exports read the store and run none of it."""
    workspace = tmp_path / "ws"
    generate_store(workspace, prompts=2, data_size=2).close()
    (workspace / "evil.py").write_text("raise SystemExit('it was run')\n")
    with sqlite3.connect(workspace / "windowshift.db") as store:
        store.execute("UPDATE experiments SET spec = ?", ('scorers: [{name: evil, python: "evil.py:score"}]\n',))
    monkeypatch.chdir(workspace)
    monkeypatch.syspath_prepend(str(workspace))
    with closing(Reader(workspace)) as reader:
        name = reader.experiments()[0].name
    assert len(frames.cells(windowshift.report(workspace, name)))
    assert len(frames.completions(workspace, name))
    assert "evil" not in sys.modules
