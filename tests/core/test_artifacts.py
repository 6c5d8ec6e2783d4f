"""Artifacts: paths that a store names lie inside its workspace, and what was cut off is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from windowshift.core.contract.artifacts import Artifacts, is_whole
from windowshift.core.contract.errors import StoreError

OUTSIDE = [
    "/etc", "~/x", "..", "../x", "artifacts/../..", "artifacts/../../x", "a/../../b", "..\\x", "C:\\x", "\\\\host\\x",
    "artifacts/", "artifacts/.",
]  # fmt: skip


@pytest.mark.parametrize("place", OUTSIDE)
def test_a_place_outside_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(StoreError, match="outside"):
        Artifacts(tmp_path).resolve(place)


@pytest.mark.parametrize("identifier", [*OUTSIDE, "", ".", "a/b", "a\0b", "-x", ".hidden", "x" * 200, "a b", "ä"])
def test_an_id_that_is_none_is_refused_and_nothing_is_deleted(tmp_path: Path, identifier: str) -> None:
    kept = tmp_path / "ws" / "kept"
    kept.mkdir(parents=True)
    with pytest.raises(StoreError):
        Artifacts(tmp_path / "ws").remove(identifier)
    assert kept.is_dir()


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    artifacts = Artifacts(tmp_path / "ws")
    artifacts.root.mkdir(parents=True)
    (artifacts.root / "job").symlink_to(outside)
    for act in (lambda: artifacts.resolve("artifacts/job/file"), lambda: artifacts.remove("job")):
        with pytest.raises(StoreError, match="outside"):
            act()
    assert (outside / "file").exists()


def test_names_at_a_service_stay_and_a_workspace_may_move(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    for name in ("tinker://run/weights/3", "ft:gpt-4.1:org:name:id", "microworld:short:ft-1", "org/model"):
        assert artifacts.resolve(name) == name
        assert artifacts.is_there(name)
    folder = artifacts.folder("0123abc") / "adapter"
    assert artifacts.place(str(folder)) == "artifacts/0123abc/adapter"
    assert artifacts.resolve("artifacts/0123abc/adapter") == str(folder)
    assert not artifacts.is_there("artifacts/0123abc/adapter")


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
