"""Artifacts: what jobs leave behind besides rows (adapters, vectors, data sets), found by the job's id.

A place is what the store keeps of one: ``artifacts/JOB/NAME``, or the name that a service gave to what it keeps
itself. Nobody but an implementation of `Artifacts` makes a path of it.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Protocol

from windowshift.core.contract.errors import StoreError

ROOT = "artifacts"
_LARGEST_HEADER = 100_000_000  # of a safetensors file, as its own library has it
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_PART = re.compile(r"(?!\.{1,2}$)[^/\\\0]{1,200}")


class DamagedError(StoreError):
    """What a job left behind is gone, cut off or changed: `job` is its id, `place` where it should be."""

    def __init__(self, job: str, place: str, what: str) -> None:
        super().__init__(f"{what}; it is made anew when the run goes on, or is run again")
        self.job, self.place = job, place


class Artifacts(Protocol):
    """Keeps what jobs make. An id or a place that could lead elsewhere is refused by every method."""

    def folder(self, job: str) -> Path:
        """A folder on this machine to make a job's artifacts in; it need not be there yet.

        Raises:
            StoreError: the id is none.
        """
        ...

    def cache(self) -> Path:
        """A folder on this machine for what is worth keeping between runs, and belongs to no job."""
        ...

    def put(self, job: str, path: str) -> str:
        """Keep what a job made at `path`, a file or a folder here, or a remote name; return its place.

        Raises:
            StoreError: the id is none, or nothing is there.
        """
        ...

    def get(self, place: str) -> str:
        """What is kept at a place, whole: a path on this machine, or the remote name.

        Raises:
            DamagedError: it is gone, or not what was put.
            StoreError: the place is none of this store's.
        """
        ...

    def exists(self, place: str) -> bool:
        """Whether what was put is there, as far as can be seen at once: names and sizes. A remote name is taken to be.

        Raises:
            StoreError: the place is none of this store's.
        """
        ...

    def discard(self, place: str) -> None:
        """Forget one artifact, so that its job makes it anew; what else the job left stays. Not a remote one.

        Raises:
            StoreError: the place is none of this store's.
        """
        ...

    def delete(self, job: str) -> None:
        """Forget all that a job left behind; nothing happens where there is nothing.

        Raises:
            StoreError: the id is none.
        """
        ...


def checked_id(job: str) -> str:
    """The id of a job, where it is one.

    Raises:
        StoreError: it could lead elsewhere as a name of a folder.
    """
    if not _ID.fullmatch(job):
        raise StoreError(f"'{_shown(job)}' is no job's id: the store was changed by something else than windowshift")
    return job


def split_place(place: str) -> tuple[str, tuple[str, ...]] | None:
    """The job of a place, and the names below its folder; None for a remote name.

    Raises:
        StoreError: it is neither: an absolute path, or one that leaves the artifacts.
    """
    root, *parts = place.split("/")
    if root == ROOT:
        if len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts[1:]):
            raise _elsewhere(place)
        return checked_id(parts[0]), tuple(parts[1:])
    local = place.startswith(("/", "~", "\\", "file:")) or ".." in re.split(r"[/\\]", place)
    if local or not place.strip() or "\0" in place or re.match(r"[A-Za-z]:[/\\]", place):
        raise _elsewhere(place)
    return None


def files_of(path: Path) -> list[Path]:
    """The files of an artifact: those below a folder, or the one that it is."""
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def is_whole(path: Path) -> bool:
    """Whether an artifact is there, as long as it says (safetensors), and can be read (JSON); other files are taken."""
    return path.exists() and all(map(_is_whole_file, files_of(path)))


def _is_whole_file(file: Path) -> bool:
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            with file.open("rb") as content:
                (length,) = struct.unpack("<Q", content.read(8))
                if length > _LARGEST_HEADER:
                    return False
                head = json.loads(content.read(length))
            ends = [int(one["data_offsets"][1]) for key, one in head.items() if key != "__metadata__"]
            whole = 8 + int(length) + max(ends, default=0)
            return file.stat().st_size == whole
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, RecursionError):
        return False
    return True


def _elsewhere(place: str) -> StoreError:
    return StoreError(
        f"the store names '{_shown(place)}', which is outside of its artifacts: it was changed by something else than "
        "windowshift, or made elsewhere; do not use it"
    )


def _shown(text: str) -> str:
    return "".join(one if one.isprintable() else "�" for one in text[:200])
