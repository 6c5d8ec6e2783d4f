"""The workspace lock, held by real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.processes import line, python, run_python, wait_until
from windowshift.core.contract.errors import StoreError, WorkspaceBusyError
from windowshift.core.store.lock import HOLDER_NAME, LOCK_NAME, Holder, hold, holder

HOLD = """
import sys
from pathlib import Path
from windowshift.core.store.lock import hold
with hold(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path / "new", "run a"):
            found = holder(tmp_path / "new")
            assert found is not None
            assert (found.pid, found.host, found.purpose) == (os.getpid(), socket.gethostname(), "run a")
        assert holder(tmp_path / "new") is None
    assert not (tmp_path / "new" / HOLDER_NAME).exists()


def test_lock_is_free_again_after_an_error_in_the_block(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold(tmp_path, "run a"):
        raise ZeroDivisionError
    with hold(tmp_path, "run b"):
        pass


def test_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    with python(HOLD, tmp_path, "run med-short") as process:
        assert line(process) == "held"
        with pytest.raises(WorkspaceBusyError) as caught, hold(tmp_path, "run other"):
            pass
        sentence = str(caught.value)
        for part in (str(tmp_path), str(process.pid), socket.gethostname(), "'run med-short'", "since 20", "--wait"):
            assert part in sentence
        assert "\n" not in sentence
        assert caught.value.exit_code == 2
        assert holder(tmp_path) is not None  # the refused one left the holder's file alone


def test_second_hold_in_one_process_is_refused_too(tmp_path: Path) -> None:
    with hold(tmp_path, "run a"), pytest.raises(WorkspaceBusyError, match="run a"), hold(tmp_path, "run b"):
        pass


def test_waiting_says_so_once_and_gets_the_lock(tmp_path: Path) -> None:
    said: list[str] = []
    with python(HOLD, tmp_path, "run first") as process:
        assert line(process) == "held"

        def release_when_waiting() -> None:
            wait_until(lambda: said, "the waiting sentence")
            process.communicate("\n")

        releasing = threading.Thread(target=release_when_waiting)
        releasing.start()
        with hold(tmp_path, "run second", wait=True, on_wait=said.append):
            releasing.join()
            assert len(said) == 1
            assert "run first" in said[0]
            assert "waiting" in said[0]
            found = holder(tmp_path)
            assert found is not None
            assert found.purpose == "run second"


def test_waiting_says_nothing_where_nobody_holds_it(tmp_path: Path) -> None:
    said: list[str] = []
    with hold(tmp_path, "run a", wait=True, on_wait=said.append):
        assert said == []


def test_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    with python(HOLD, tmp_path, "run killed") as process:
        assert line(process) == "held"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / HOLDER_NAME).exists(), "kill -9 leaves the file"
    assert holder(tmp_path) is None, "but not a holder"
    with hold(tmp_path, "run next"):
        found = holder(tmp_path)
        assert found is not None
        assert found.purpose == "run next"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"pid": "x", "host": "h", "purpose": "p", "since": 1}', "\udcff"]
)
def test_unreadable_holder_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / HOLDER_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert holder(tmp_path) is None
    with python(HOLD, tmp_path, "run a") as process:
        assert line(process) == "held"
        (tmp_path / HOLDER_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(WorkspaceBusyError, match="another process"), hold(tmp_path, "run b"):
            pass


def test_holder_of_another_machine_counts_as_alive(tmp_path: Path) -> None:
    fields = {"pid": 1, "host": "elsewhere", "purpose": "run far", "since": 1.0}
    (tmp_path / HOLDER_NAME).write_text(json.dumps(fields))
    assert holder(tmp_path) == Holder(1, "elsewhere", "run far", 1.0)


def test_many_processes_never_hold_it_together(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from windowshift.core.store.lock import hold
workspace = Path(sys.argv[1])
for _ in range(15):
    with hold(workspace, "run", wait=True):
        inside = workspace / "inside"
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        inside.unlink()
print("fine")
"""
    with python(code, tmp_path) as one, python(code, tmp_path) as two:
        for process in (one, two):
            out, errors = process.communicate(timeout=30)
            assert out.strip() == "fine", errors


def test_workspace_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="is a file: choose a folder"), hold(place, "run a"):
            pass


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    # Root may write anywhere, so a process of another user asks.
    code = """
import os, sys
from pathlib import Path
from windowshift.core.contract.errors import StoreError, WorkspaceBusyError
from windowshift.core.store.lock import hold
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
for place in (Path(sys.argv[1]), Path(sys.argv[1]) / "new"):
    try:
        with hold(place, "run a"):
            print("held")
    except StoreError as error:
        print(error)
"""
    locked = tmp_path / "locked"
    locked.mkdir()
    for folder in (*tmp_path.parents[:2], tmp_path):
        folder.chmod(0o755)
    locked.chmod(0o555)
    first, second = run_python(code, locked).splitlines()
    for sentence in (first, second):
        assert "cannot lock the workspace" in sentence
        assert "Permission denied" in sentence
        assert "make the folder writable" in sentence


def test_lock_file_is_left_in_place(tmp_path: Path) -> None:
    # Removing it would let two processes lock two files of one name.
    with hold(tmp_path, "run a"):
        before = (tmp_path / LOCK_NAME).stat().st_ino
    assert (tmp_path / LOCK_NAME).stat().st_ino == before
