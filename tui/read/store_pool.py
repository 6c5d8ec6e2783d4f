"""Readers for worker threads, and notice when the store under them changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from windowshift.core.contract.errors import StoreError
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader

Answer = TypeVar("Answer")
FileIdentity = tuple[int, int] | None


class StorePool:
    """Lends one workspace's readers to threads; a replaced store file gets new readers."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._path = store_path(workspace)
        self._lock = threading.Lock()
        self._idle: list[Reader] = []
        self._identity: FileIdentity = None

    def read(self, query: Callable[[Reader], Answer]) -> Answer:
        """Run a query on a reader that no other thread uses.

        Raises:
            StoreError: there is no store, or it cannot be read.
        """
        identity = self.identity()
        reader = self._take(identity)
        try:
            answer = query(reader)
        except BaseException:
            reader.close()
            raise
        with self._lock:
            if identity == self._identity:
                self._idle.append(reader)
                return answer
        reader.close()
        return answer

    def identity(self) -> FileIdentity:
        """Return what tells one store file from another; None where there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Close the idle readers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    def _take(self, identity: FileIdentity) -> Reader:
        with self._lock:
            if identity != self._identity:
                self._identity = identity
                stale, self._idle = self._idle, []
            else:
                stale = []
            reader = self._idle.pop() if self._idle else None
        for old in stale:
            old.close()
        return reader or Reader(self.workspace)


class StoreWatch:
    """Looks at a store now and then, from one thread, and tells what is new."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._path = store_path(workspace)
        self._reader: Reader | None = None
        self._identity: FileIdentity = None
        self._version: int | None = None

    def changed(self) -> bool:
        """Tell whether anything was committed, or the store replaced, since the last look.

        Raises:
            StoreError: there is no store (any more), or it cannot be read.
        """
        try:
            found = self._path.stat()
        except OSError:
            gone = self._identity is not None
            self.close()
            if gone:
                raise StoreError(f"the store {self._path} is gone: it was moved, deleted or unmounted") from None
            raise StoreError(f"there is no workspace at {self.workspace} yet") from None
        identity = (found.st_dev, found.st_ino)
        if identity != self._identity or self._reader is None:
            self.close()
            self._reader = Reader(self.workspace)
            self._identity = identity
        try:
            version = self._reader.data_version()
        except StoreError:
            self.close()
            raise
        if version == self._version:
            return False
        self._version = version
        return True

    def close(self) -> None:
        """Close the reader; the next look opens a new one."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._version = None
