"""Files and folders that are written whole, or stay as they were: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from windowshift.core.contract.errors import SpecError, StoreError


@contextmanager
def replacing_file(path: Path, *, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """Give a temporary file beside `path` that takes its name when the block ends without an error.

    Args:
        path: the file; its folder is made.
        durable: whether the content must be on the disk before it has its name, whatever happens to the machine.
        shared: whether several processes may write the file at once, each a temporary one of its own. Else the next
            one that writes it takes the place of what a killed one left.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = aside(path, f".{os.getpid()}" if shared else "")
    if partial.is_symlink():
        partial.unlink()  # somebody else's: what it points to is not to be written
    try:
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def replacing_folder(folder: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give an empty temporary folder beside `folder` that takes its name, and its place, as `replacing_file` does.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = aside(folder)
    _remove(partial)
    partial.mkdir()
    try:
        yield partial
        if durable:
            for place in [*partial.rglob("*"), partial]:
                _sync(place)
        _remove(folder)  # a name can be given to a folder only where there is none
        partial.rename(folder)
        if durable:
            _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole_file(out: Path, force: bool) -> Iterator[Path]:
    """As `replacing_file`, for a file that a person asked a command to write.

    Raises:
        SpecError: the folder is not there, the file is (without `force`), or it cannot be written.
    """
    try:
        if not out.parent.is_dir():
            raise SpecError(f"there is no folder {out.parent} to write {out.name} to: create it first")
        if out.is_dir():
            raise SpecError(f"{out} is a folder: name a file in it")
        if out.exists() and not force:
            raise SpecError(f"{out} exists already: choose another name, or overwrite it with --force")
        with replacing_file(out, shared=True) as partial:
            yield partial
    except OSError as error:
        raise SpecError(f"cannot write {out}: {error.strerror or error}") from error


def within(root: Path, *parts: str) -> Path:
    """A path below a folder that may be somebody else's, where it is really there: no link on the way leads out.

    Raises:
        StoreError: a part is no name of a file, or a link leads out of the folder.
    """
    path = root
    for part in parts:
        if part in ("", ".", "..") or any(each in part for each in "/\\\0"):
            raise StoreError(
                f"{part[:100]!r} is no name of a file in {root}: what names it was changed by something else"
            )
        path /= part
    if not path.resolve().is_relative_to(root.resolve()):
        raise StoreError(f"{path} is a link that leads out of {root}: remove it")
    return path


def _remove(folder: Path) -> None:
    """Remove a folder, or a link in its place: never what that points to."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def aside(path: Path, process: str = "") -> Path:
    """The temporary file, or folder, that is written in place of `path`."""
    # The ending stays, as some libraries choose the format by it.
    return path.with_name(f".{path.stem[:100]}{process}.partial{path.suffix}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
