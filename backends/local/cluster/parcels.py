"""Files on their way between the driver and a worker elsewhere: adapters, vectors, states of trainings.

Nobody but the driver writes a workspace: a worker has a folder of its own, which it fills from parcels and whose
changes it sends back. So a worker that was thought lost, and is not, harms nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.whole_file import replacing_file, replacing_folder


@dataclass(frozen=True, slots=True)
class Packed:
    """One file: its name below the folder that it belongs to, its SHA-256, and what a carrier gave for its content."""

    name: str
    digest: str
    content: Any


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files of one folder, each top-level name whole; `gone` are top-level names that are no longer there.

    `single` is a parcel of one file that is not part of a folder.
    """

    files: tuple[Packed, ...]
    gone: tuple[str, ...] = ()
    single: bool = False

    @property
    def digest(self) -> str:
        """Of all names and contents."""
        return hashlib.sha256("\0".join(f"{one.name}\0{one.digest}" for one in self.files).encode()).hexdigest()


class Carrier(Protocol):
    """Takes bytes from one machine to another."""

    def give(self, data: bytes, digest: str) -> Any:
        """Hand over some bytes: what goes into a message in their place."""
        ...

    def take(self, content: Any) -> bytes:
        """The bytes that were handed over."""
        ...


class Enclosed:
    """The bytes go in the message itself: under Ray, through its object store."""

    def give(self, data: bytes, digest: str) -> Any:  # noqa: ARG002  # a folder names it by that
        """As `Carrier.give`."""
        return data

    def take(self, content: Any) -> bytes:
        """As `Carrier.take`."""
        assert isinstance(content, bytes)
        return content


class Dropbox:
    """The bytes lie in a folder that all machines see: a shared disk, or whatever fsspec reads (``s3://...``).

    Args:
        url: the folder.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._files, self._root = url_to_fs(url)
            self._files.makedirs(self._root, exist_ok=True)
        except (OSError, ValueError, ImportError) as error:
            raise BackendError(f"artifacts: '{url}' cannot be used: {error}") from error

    def give(self, data: bytes, digest: str) -> Any:
        """As `Carrier.give`; the same bytes lie there once."""
        place = f"{self._root}/{digest}"
        if not self._files.exists(place):
            aside = f"{place}.{uuid.uuid4().hex}"
            self._files.pipe_file(aside, data)
            self._files.mv(aside, place)
        return digest

    def take(self, content: Any) -> bytes:
        """As `Carrier.take`."""
        return bytes(self._files.cat_file(f"{self._root}/{content}"))


def packed(path: Path, carrier: Carrier, names: Sequence[str] | None = None) -> Parcel:
    """A file, or a folder's files below some of its top-level names (None: all), as they are now.

    What is being written aside is left out.
    """
    tops = [path] if path.is_file() else sorted(path.iterdir() if names is None else (path / name for name in names))
    root = path.parent if path.is_file() else path
    files = []
    for top in tops:
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            try:
                if not file.is_file() or ".partial" in file.name:
                    continue
                data = file.read_bytes()
            except FileNotFoundError:  # a state that is not needed any more
                continue
            digest = hashlib.sha256(data).hexdigest()
            files.append(Packed(file.relative_to(root).as_posix(), digest, carrier.give(data, digest)))
    return Parcel(tuple(files), single=path.is_file())


def unpack(parcel: Parcel, folder: Path, carrier: Carrier) -> None:
    """Write a parcel's files below a folder, each top-level name whole or not at all.

    Raises:
        BackendError: what came is not what was sent.
        OSError: it cannot be written.
    """
    tops: dict[str, list[Packed]] = {}
    for one in parcel.files:
        parts = one.name.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in one.name:
            raise BackendError(f"a worker sent a file of the name '{one.name!r:.80}'")
        tops.setdefault(parts[0], []).append(one)
    for top, files in tops.items():
        if [one.name for one in files] == [top]:
            with replacing_file(folder / top) as partial:
                partial.write_bytes(_content(files[0], carrier))
            continue
        with replacing_folder(folder / top) as partial:
            for one in files:
                place = partial / one.name.partition("/")[2]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(_content(one, carrier))
    for name in parcel.gone:
        (folder / name).unlink(missing_ok=True)


def _content(one: Packed, carrier: Carrier) -> bytes:
    data = carrier.take(one.content)
    if hashlib.sha256(data).hexdigest() != one.digest:
        raise BackendError(f"'{one.name}' came otherwise than it was sent: run again to go on")
    return data
