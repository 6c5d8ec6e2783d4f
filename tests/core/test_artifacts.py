"""Artifacts: nothing outside of their folder, and what is damaged is found and made anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.generated_store import generate_store
from tests.runs import tables, windowshift, write_spec
from windowshift.core.contract.artifacts import DamagedError, is_whole
from windowshift.core.contract.errors import StoreError
from windowshift.core.store.artifact_folder import FILES, ArtifactFolder
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

JOB = "0123456789abcdef0123"


def kept(workspace: Path, *, writes: bool = True) -> tuple[ArtifactFolder, str, Path]:
    artifacts = ArtifactFolder(workspace, writes=writes)
    folder = artifacts.folder(JOB) / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 2}')
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 64)
    return artifacts, artifacts.put(JOB, str(folder)), folder


@pytest.mark.parametrize(
    "job",
    ["/etc", "..", "../..", "a/b", "", ".", "~", "a" * 200, "a\0b", "C:\\x", "-rf", ".hidden", "a\nb", "artifacts/x"],
)
def test_an_id_that_leads_elsewhere_is_refused(tmp_path: Path, job: str) -> None:
    artifacts = ArtifactFolder(tmp_path)
    for use in (artifacts.folder, artifacts.delete, lambda one: artifacts.put(one, str(tmp_path))):
        with pytest.raises(StoreError, match="no job's id"):
            use(job)
    with pytest.raises(StoreError):
        artifacts.get(f"artifacts/{job}/adapter")


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "~/x",
        "../x",
        "a/../../x",
        "artifacts/../x",
        f"artifacts/{JOB}/../../x",
        "artifacts",
        f"artifacts/{JOB}",
        f"artifacts/{JOB}/",
        f"artifacts/{JOB}//etc",
        "artifacts//etc/passwd",
        "C:\\windows",
        "..\\x",
        "file:///etc/passwd",
        "",
        " ",
        "a\0b",
    ],
)
def test_a_place_outside_of_the_artifacts_is_refused(tmp_path: Path, place: str) -> None:
    artifacts = ArtifactFolder(tmp_path)
    for use in (artifacts.get, artifacts.exists):
        with pytest.raises(StoreError) as caught:
            use(place)
        assert not isinstance(caught.value, DamagedError)


def test_a_link_that_leads_out_is_refused_and_never_followed_by_delete(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    workspace = tmp_path / "ws"
    (workspace / "artifacts" / "job1").mkdir(parents=True)
    (workspace / "artifacts" / "job1" / "adapter").symlink_to(outside)
    (workspace / "artifacts" / "job2").symlink_to(outside)
    artifacts = ArtifactFolder(workspace)
    for place in ("artifacts/job1/adapter", "artifacts/job2/file"):
        with pytest.raises(StoreError, match="leads out"):
            artifacts.get(place)
    artifacts.delete("job1")
    artifacts.delete("job2")
    assert (outside / "file").read_text() == "mine"
    assert not (workspace / "artifacts" / "job2").exists()


@pytest.mark.parametrize("name", ["tinker://run/weights", "ft:gpt-4.1:acme::abc", "org/model", "adapter-1"])
def test_a_remote_name_stays_as_it_is(tmp_path: Path, name: str) -> None:
    artifacts = ArtifactFolder(tmp_path)
    assert artifacts.put(JOB, name) == name
    assert artifacts.get(name) == name
    assert artifacts.exists(name)


def test_what_was_put_is_there_wherever_the_workspace_is_moved(tmp_path: Path) -> None:
    _, place, _ = kept(tmp_path / "a")
    assert place == f"artifacts/{JOB}/adapter"
    moved = tmp_path / "b"
    (tmp_path / "a").rename(moved)
    there = ArtifactFolder(moved)
    assert there.exists(place)
    assert there.get(place) == str(moved / place)


def test_what_lies_elsewhere_is_copied(tmp_path: Path) -> None:
    elsewhere = tmp_path / "made"
    elsewhere.mkdir()
    (elsewhere / "x.bin").write_bytes(b"abc")
    artifacts = ArtifactFolder(tmp_path / "ws", writes=True)
    place = artifacts.put(JOB, str(elsewhere))
    shutil.rmtree(elsewhere)
    assert (Path(artifacts.get(place)) / "x.bin").read_bytes() == b"abc"
    with pytest.raises(StoreError, match="nothing at"):
        artifacts.put(JOB, str(elsewhere))


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone", "emptied", "folder gone"])
def test_damage_is_found_at_once_and_by_its_content(tmp_path: Path, damage: str) -> None:
    _, place, folder = kept(tmp_path)
    file = folder / "weights.bin"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:100])
    elif damage == "changed":
        content[77] ^= 4
        file.write_bytes(content)
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "gone":
        file.unlink()
    else:
        shutil.rmtree(folder)
    fresh = ArtifactFolder(tmp_path, writes=True)
    assert not fresh.exists(place)
    with pytest.raises(DamagedError) as caught:
        fresh.get(place)
    assert caught.value.job == JOB


def test_a_flip_that_leaves_the_time_of_change_is_found_before_use(tmp_path: Path) -> None:
    _, place, folder = kept(tmp_path)
    file = folder / "weights.bin"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedError, match="content"):
        ArtifactFolder(tmp_path).get(place)


@pytest.mark.parametrize("record", [None, "{", "[]", '{"adapter": 3}', '{"adapter": {"x": {}}}'])
def test_without_a_record_the_structure_tells(tmp_path: Path, record: str | None) -> None:
    artifacts, place, folder = kept(tmp_path)
    save_file({"a": np.zeros((4, 4), dtype=np.float32)}, str(folder / "m.safetensors"))
    note = artifacts.folder(JOB) / FILES
    note.unlink()
    if record is not None:
        note.write_text(record)
    assert ArtifactFolder(tmp_path).exists(place)
    assert not note.exists() or note.read_text() == record  # who only looks writes nothing
    whole = (folder / "m.safetensors").read_bytes()
    (folder / "m.safetensors").write_bytes(whole[:-1])
    assert not ArtifactFolder(tmp_path).exists(place)
    (folder / "m.safetensors").write_bytes(whole)
    (folder / "adapter_config.json").write_text('{"r": ')
    assert not ArtifactFolder(tmp_path).exists(place)
    (folder / "adapter_config.json").write_text("{}")
    assert ArtifactFolder(tmp_path, writes=True).exists(place)
    assert json.loads(note.read_text())["adapter"]


@pytest.mark.parametrize("hostile", ["{outside}", "../../outside", "x/../../../outside"])
def test_deleting_an_experiment_of_a_received_store_touches_nothing_outside(tmp_path: Path, hostile: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    workspace = tmp_path / "ws"
    writer = generate_store(workspace)
    reader = Reader(workspace)
    experiment = reader.experiments()[0].id
    before = len(reader.jobs(experiment))
    number = reader.jobs(experiment)[0].n
    writer.connection.execute("UPDATE jobs SET id = ? WHERE n = ?", (hostile.format(outside=outside), number))
    with pytest.raises(StoreError, match="no job's id"):
        writer.delete_experiment(experiment)
    assert outside.is_dir()
    assert len(reader.jobs(experiment)) == before
    writer.close()


@pytest.fixture(scope="module")
def trained(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trained")
    spec = write_spec(folder, tiny_llama, train="[short]")
    windowshift("run", spec, "--workspace", folder / "ws")
    return spec, folder / "ws"


def _weights(workspace: Path) -> Path:
    return next((workspace / "artifacts").glob("*/adapter/adapter_model.safetensors"))


@pytest.mark.parametrize("kind", ["cut", "flip", "config"])
def test_a_damaged_adapter_is_made_anew_by_running_again(trained: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    spec, workspace = trained
    copy = shutil.copytree(workspace, tmp_path / "ws")
    before, file = tables(copy), _weights(copy)
    whole = file.read_bytes()
    if kind == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif kind == "flip":
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    else:
        (file.parent / "adapter_config.json").write_text("{")
    more = tmp_path / "more.yaml"
    more.write_text(spec.read_text().replace("evaluate: [short, no_prefix]", "evaluate: [short, no_prefix, long]"))
    windowshift("run", more, "--workspace", copy)
    assert file.read_bytes() == whole
    assert {job: rows for job, rows in tables(copy).items() if job in before} == before
    said = [str(event.data) for event in Reader(copy).events(limit=10_000) if event.kind == "message"]
    assert any("damaged" in text for text in said)


def test_a_place_that_was_changed_in_the_store_is_never_opened(trained: tuple[Path, Path], tmp_path: Path) -> None:
    spec, workspace = trained
    copy = shutil.copytree(workspace, tmp_path / "ws")
    before, outside = tables(copy), tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").touch()
    writer = Writer(copy)
    writer.connection.execute(
        "UPDATE jobs SET result = json_set(result, '$.adapter', ?) WHERE kind = 'train'", (str(outside),)
    )
    writer.close()
    windowshift("run", spec, "--workspace", copy)
    assert tables(copy) == before
    assert (outside / "mine").exists()
    made = [job.result["adapter"] for job in Reader(copy).jobs(1) if job.kind == "train"]
    assert all(place.startswith("artifacts/") for place in made)


@pytest.mark.parametrize("keep", [0, 7, 8, 40, 200, -1])
def test_a_file_that_was_cut_off_is_not_whole(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({"a": np.zeros((8, 8), np.float32), "b": np.ones(3, np.float32)}, path)
    assert is_whole(path)
    assert is_whole(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    assert not is_whole(path)
    assert not is_whole(tmp_path)
    path.unlink()
    assert not is_whole(path)
