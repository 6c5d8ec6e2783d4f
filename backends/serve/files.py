"""Uploaded files and results: content in ``DATA/files``, under ids of the server's own making."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from windowshift.backends.serve.api_error import missing
from windowshift.backends.serve.page import ListPage
from windowshift.backends.serve.state import ServerState, new_id, now
from windowshift.core.contract.whole_file import replacing_file

NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the API shows it."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int

    def to_api(self) -> dict[str, Any]:
        """As the API's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }


class Files:
    """The files of a data folder. A client's file name is shown, and never used as a path."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def path(self, file: StoredFile) -> Path:
        """Where the content is."""
        return self._state.place("files", file.id)

    def hold(self, source: BinaryIO) -> tuple[str, int]:
        """Write content to disk, whole or not at all; its id and size. May run in any thread."""
        found = new_id("file-")
        path = self._state.place("files", found)
        with replacing_file(path) as partial, partial.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        return found, path.stat().st_size

    def add(self, held: tuple[str, int], filename: str, purpose: str) -> StoredFile:
        """List a file whose content `hold` wrote."""
        stored = StoredFile(held[0], plain_name(filename), purpose, held[1], now())
        self._state.connection.execute(
            "INSERT INTO files (id, filename, purpose, bytes, created_at) VALUES (?, ?, ?, ?, ?)",
            (stored.id, stored.filename, stored.purpose, stored.bytes, stored.created_at),
        )
        return stored

    def drop(self, held: tuple[str, int]) -> None:
        """Remove content that `hold` wrote and that is not to be listed."""
        self._state.place("files", held[0]).unlink(missing_ok=True)

    def get(self, file_id: str, *, param: str | None = None, status: int = 404) -> StoredFile:
        """Find a file.

        Raises:
            ApiError: there is none of that id.
        """
        row = self._state.connection.execute("SELECT * FROM files WHERE id = ?", (file_id,)).fetchone()
        if row is None:
            raise missing("file", file_id, param=param, status=status)
        return _file(row)

    def page(self, page: ListPage, purpose: str | None) -> tuple[list[StoredFile], bool]:
        """A part of the list, and whether there is more."""
        where = [] if purpose is None else [("purpose = ?", [purpose])]
        rows, more = page.rows(self._state.connection, "files", where, what="file")
        return [_file(row) for row in rows], more

    def delete(self, file: StoredFile) -> None:
        """Forget a file and remove its content; jobs that were made from it have a copy."""
        self._state.connection.execute("DELETE FROM files WHERE id = ?", (file.id,))
        self.path(file).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove content that no row names: what an upload left that a crash cut short."""
        known = {row["id"] for row in self._state.connection.execute("SELECT id FROM files")}
        self._state.sweep("files", "file-", known)


def plain_name(filename: str) -> str:
    """A client's file name as it is shown: its last part, printable, and not long."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    plain = "".join(character for character in last if character.isprintable()).strip()
    return plain[-NAME_LENGTH:] if plain.strip(". ") else "file"


def _file(row: sqlite3.Row) -> StoredFile:
    return StoredFile(row["id"], row["filename"], row["purpose"], row["bytes"], row["created_at"])
