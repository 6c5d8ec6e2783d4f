"""A file that a command writes: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from windowshift.core.contract.errors import SpecError


@contextmanager
def whole_file(out: Path, force: bool) -> Iterator[Path]:
    """Give a temporary file beside `out` that takes its name once everything is written.

    Raises:
        SpecError: the folder is not there, the file is (without `force`), or it cannot be written.
    """
    partial = out.with_name(f".windowshift-{os.getpid()}.partial")
    try:
        if not out.parent.is_dir():
            raise SpecError(f"there is no folder {out.parent} to write {out.name} to: create it first")
        if out.is_dir():
            raise SpecError(f"{out} is a folder: name a file in it")
        if out.exists() and not force:
            raise SpecError(f"{out} exists already: choose another name, or overwrite it with --force")
        yield partial
        partial.replace(out)
    except OSError as error:
        raise SpecError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
