"""Full and read-only disks, for real: one sentence, and nothing lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import run_python
from tests.store_rows import PER_BATCH, completion, rows_of, sentence_of, small_store
from windowshift.core.store.connection import store_path
from windowshift.core.store.integrity import check_store
from windowshift.core.store.writer import Writer

FILL = """
import sys
from pathlib import Path
from windowshift.core.contract.errors import StoreError
from windowshift.core.store.writer import Writer
{before}
workspace = Path(sys.argv[1])
try:
    writer = Writer(workspace)
    job = 1
    first = (writer.connection.execute("SELECT max(row) FROM completions").fetchone()[0] or -1) + 1
    for start in range(first, first + 100_000, 20):
        writer.add_completions(
            (job, row, 1, None, "stop", 1, 1, None, None, "x" * 2000) for row in range(start, start + 20)
        )
except StoreError as error:
    print(error)
"""


@contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """Mount a tmpfs, where this machine allows it; gives False where it does not."""
    place.mkdir()
    mount = shutil.which("mount")
    allowed = mount is not None and os.geteuid() == 0
    done = allowed and subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=False)
    if not done or done.returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


# -- full disk ------------------------------------------------------------------------------------


def test_limit_on_file_sizes_loses_nothing(tmp_path: Path) -> None:
    # Works on every machine: the kernel refuses to let a file grow.
    small_store(tmp_path)
    limit = store_path(tmp_path).stat().st_size + 300_000
    before = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    )
    sentence = run_python(FILL.format(before=before), tmp_path).strip()
    assert str(store_path(tmp_path)) in sentence
    assert "free some space and run the same command again" in sentence
    kept = rows_of(tmp_path)
    assert len(kept) > PER_BATCH
    assert len(kept) % PER_BATCH == 0, "whole batches only"
    assert kept == set(range(len(kept)))
    assert [problem for problem in check_store(tmp_path) if "corrupt" in problem] == []


def test_store_that_may_not_grow_says_that_the_disk_is_full(tmp_path: Path) -> None:
    job = small_store(tmp_path)
    writer = Writer(tmp_path)
    (pages,) = writer.connection.execute("PRAGMA page_count").fetchone()
    writer.connection.execute(f"PRAGMA max_page_count={pages + 2}")
    big = [completion(job, row, text="z" * 2000) for row in range(100, 200)]
    assert "the disk is full; free some space" in sentence_of(lambda: writer.add_completions(big), tmp_path)
    writer.connection.execute("PRAGMA max_page_count=100000")
    writer.add_completions(big)  # the same writer goes on once there is space
    assert len(rows_of(tmp_path)) == PER_BATCH + 100
    writer.close()


def test_full_disk_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=2m") as real:
        if not real:  # the two tests above are the mechanisms that every machine has
            return
        small_store(disk)
        assert "the disk is full" in run_python(FILL.format(before=""), disk)
        kept = rows_of(disk)
        assert len(kept) % PER_BATCH == 0
        assert kept >= set(range(PER_BATCH))
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"0" * 4096):
                pass
        assert "the disk is full" in run_python(FILL.format(before=""), disk)
        assert rows_of(disk) >= kept, "a disk without a free byte can still be read"
        new = sentence_of(lambda: Writer(disk / "new"), disk)
        assert "full" in new or "No space left" in new
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        writer = Writer(disk)
        writer.add_completions([completion(1, 10_000_000)])
        writer.close()
        assert 10_000_000 in rows_of(disk)
        assert [problem for problem in check_store(disk) if "corrupt" in problem] == []


# -- read-only ------------------------------------------------------------------------------------

AS_NOBODY = """
import os, sys
from pathlib import Path
from windowshift.core.store import control
from windowshift.core.contract.errors import StoreError
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer
if os.geteuid() == 0:  # modes do not bind root
    os.setgid(65534); os.setuid(65534)
workspace = Path(sys.argv[1])
for call in (Writer, lambda place: control.request(place, 1, "pause"), Reader):
    try:
        opened = call(workspace)
        print("opened", len(opened.experiments()))
    except StoreError as error:
        print(error)
"""


def readable_by_all(tmp_path: Path) -> None:
    for folder in (*tmp_path.parents[:3], tmp_path):  # pytest's own, one more for each process of several
        folder.chmod(0o755)


@pytest.mark.parametrize("folder_mode", [0o555, 0o777])
def test_read_only_file_is_read_and_not_written(tmp_path: Path, folder_mode: int) -> None:
    workspace = tmp_path / "ws"
    small_store(workspace)
    readable_by_all(tmp_path)
    store_path(workspace).chmod(0o444)
    workspace.chmod(folder_mode)
    before = store_path(workspace).read_bytes()
    writing, asking, reading = run_python(AS_NOBODY, workspace).splitlines()
    for sentence in (writing, asking):
        assert str(store_path(workspace)) in sentence
        assert "writable" in sentence
    assert reading == "opened 1"
    assert store_path(workspace).read_bytes() == before
    workspace.chmod(0o755)


def test_unreadable_store_and_folder(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    small_store(workspace)
    readable_by_all(tmp_path)
    store_path(workspace).chmod(0o000)
    for sentence in run_python(AS_NOBODY, workspace).splitlines():
        assert "Permission denied" in sentence
        assert str(store_path(workspace)) in sentence
    workspace.chmod(0o000)
    for sentence in run_python(AS_NOBODY, workspace).splitlines():
        assert "Permission denied" in sentence
    workspace.chmod(0o755)
    tmp_path.chmod(0o555)
    sentence = run_python(AS_NOBODY, tmp_path / "new").splitlines()[0]
    assert "cannot create the workspace" in sentence
    assert "choose another workspace" in sentence
    tmp_path.chmod(0o755)


def test_read_only_disk_is_read_and_not_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=8m") as real:
        if not real:  # test_read_only_file_is_read_and_not_written needs no mount
            return
        small_store(disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert "writable" in sentence_of(lambda: Writer(disk), disk)
        assert rows_of(disk) == set(range(PER_BATCH))
        assert check_store(disk) == []
