"""The workspace lock: one runner at a time, and who it is."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from windowshift.core.contract.errors import StoreError, WorkspaceBusyError
from windowshift.core.contract.whole_file import replacing_file

LOCK_NAME = "run.lock"
HOLDER_NAME = "run.holder.json"
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a workspace: process, machine, what it does, and since when (Unix seconds)."""

    pid: int
    host: str
    purpose: str
    since: float

    def alive(self) -> bool:
        """Whether the process is there; True for one of another machine, which cannot be asked."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # another user's process
        return True

    def sentence(self) -> str:
        """Return the holder in words, as the middle of a sentence."""
        since = datetime.fromtimestamp(self.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"process {self.pid} on {self.host} since {since} ('{self.purpose}')"


@contextmanager
def hold(
    workspace: Path,
    purpose: str,
    *,
    wait: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
    mode: int = 0o777,
) -> Iterator[None]:
    """Hold a workspace for writing while the block runs.

    The lock is the kernel's (flock, through filelock) and not the existence of a file: it goes with the
    process, so a run that was killed with -9 never blocks the next one. A file beside it says who holds it.

    Args:
        workspace: the folder; made where it is missing.
        purpose: what this process does, e.g. ``run med-short``.
        wait: wait for another holder, without end.
        on_wait: called once, before waiting, with the sentence that says who holds it.
        mode: who may enter a folder that is made here, less the umask.

    Raises:
        WorkspaceBusyError: another process holds it, and `wait` is False.
        StoreError: the folder cannot be written, or its file system has no locks.
    """
    # Without the fall-back: a soft lock is a file that a killed process leaves behind.
    lock = FileLock(
        workspace / LOCK_NAME,
        mode=0o644,
        thread_local=False,
        poll_interval=_POLL_SECONDS,
        fallback_to_soft=False,
    )
    sidecar = workspace / HOLDER_NAME
    try:
        workspace.mkdir(parents=True, exist_ok=True, mode=mode)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            sentence = _busy(workspace)
            if not wait:
                raise WorkspaceBusyError(f"{sentence}; stop it, or add --wait to wait for it") from None
            on_wait(f"{sentence}; waiting for it")
            lock.acquire(timeout=-1)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"the workspace {workspace} is a file: choose a folder") from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"cannot lock the workspace {workspace} ({reason}): make the folder writable, "
            "or choose another workspace on a local disk"
        ) from error
    try:
        _write(sidecar, Holder(os.getpid(), socket.gethostname(), purpose, time.time()))
        yield
    finally:
        with suppress(OSError):
            sidecar.unlink(missing_ok=True)  # while still locked: the next holder's must not be removed
        lock.release()


def holder(workspace: Path) -> Holder | None:
    """Return who holds a workspace, as its file says; None where nobody does, or it is stale or unreadable.

    Does not try the lock: that could make a run that starts in this moment fail.
    """
    try:
        fields = json.loads((workspace / HOLDER_NAME).read_text(encoding="utf-8"))
        found = Holder(int(fields["pid"]), str(fields["host"]), str(fields["purpose"]), float(fields["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.alive() else None


def _busy(workspace: Path) -> str:
    found = holder(workspace)
    # Between taking the lock and writing its file, a holder has no name.
    who = found.sentence() if found else "another process, which is just starting or ending"
    return f"the workspace {workspace} is held by {who}"


def _write(path: Path, found: Holder) -> None:
    try:
        with replacing_file(path, shared=True) as part:
            part.write_text(json.dumps(asdict(found)), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"cannot write {path} ({error.strerror}): make the folder writable and free some space"
        ) from error
