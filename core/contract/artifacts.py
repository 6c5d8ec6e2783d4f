"""Artifacts: what jobs leave behind beside the store: adapters, datasets, vectors.

A store may come from somebody else. So no text of it becomes a path but through here, and every path lies inside
that folder.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from windowshift.core.contract.errors import StoreError

_FOLDER = "artifacts"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_LARGEST_HEADER = 100_000_000  # as safetensors itself has it


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts of a workspace, as folders by job id.

    A *place* is what the store records: `artifacts/ID/...` for what lies here, so that a workspace can be moved;
    anything else is the name of something at a service, and stays as it is.
    """

    workspace: Path

    @property
    def root(self) -> Path:
        """The folder of all of them."""
        return self.workspace / _FOLDER

    def folder(self, identifier: str) -> Path:
        """The folder of one job, which need not exist.

        Raises:
            StoreError: the id is none.
        """
        if not _ID.fullmatch(identifier):
            raise StoreError(f"the store {self.workspace} is damaged: {identifier[:80]!r} is no id of a job")
        return self._inside(self.root / identifier, identifier)

    def resolve(self, place: str) -> str:
        """A stored place as something that a backend can open.

        Raises:
            StoreError: it is a path that leads out of the workspace's artifacts.
        """
        if place.startswith(f"{_FOLDER}/"):
            return str(self._inside(self.workspace / place, place))
        if (
            place.startswith(("/", "~", "\\"))
            or ".." in re.split(r"[/\\]", place)
            or re.match(r"[A-Za-z]:[/\\]", place)
        ):
            raise StoreError(f"the store {self.workspace} names {place[:200]!r}, which lies outside of its artifacts")
        return place

    def place(self, path: str) -> str:
        """The inverse of `resolve`."""
        found = Path(path)
        return found.relative_to(self.workspace).as_posix() if found.is_relative_to(self.workspace) else path

    def is_there(self, place: str) -> bool:
        """Whether a place is there, and whole as far as its files tell; what is at a service counts as there."""
        if not place.startswith(f"{_FOLDER}/"):
            return True
        return is_whole(Path(self.resolve(place)))

    def remove(self, identifier: str) -> None:
        """Delete what one job left behind.

        Raises:
            StoreError: the id is none.
        """
        shutil.rmtree(self.folder(identifier), ignore_errors=True)

    def _inside(self, path: Path, said: str) -> Path:
        root = self.root.resolve()
        if not path.resolve().is_relative_to(root) or path.resolve() == root:
            raise StoreError(f"the store {self.workspace} names {said[:200]!r}, which lies outside of its artifacts")
        return path


def is_whole(path: Path) -> bool:
    """Whether a file or folder is there and no safetensors file in it was cut off."""
    if path.is_file():
        return path.suffix != ".safetensors" or _is_whole_file(path)
    return path.is_dir() and all(map(_is_whole_file, path.glob("*.safetensors")))


def _is_whole_file(path: Path) -> bool:
    # 8 bytes of length, a JSON header, then the tensors; the header says where the last one ends.
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(size, _LARGEST_HEADER):
                return False
            header = json.loads(file.read(length))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        return bool(size == 8 + length + max(ends, default=0))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, struct.error):
        return False
