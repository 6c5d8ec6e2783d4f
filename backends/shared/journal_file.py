"""Journals on the disk: whole, or as they were, and there before a service is asked for anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.whole_file import replacing_file

Journal = TypeVar("Journal")


def write_journal(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under `path`, on the disk when this returns; its folder is made.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    with replacing_file(path, durable=True) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_journal(path: Path, make: Callable[[dict[str, Any]], Journal], what: str, remedy: str) -> Journal | None:
    """Read what `write_journal` wrote; None: there is none.

    Args:
        path: the file.
        make: the journal of its content; whatever it raises says that the content is none.
        what: names it in the error, e.g. ``a batch``.
        remedy: what to do besides restoring it.

    Raises:
        BackendError: it is there and cannot be read; nothing may be begun over it.
    """
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackendError(f"the record of {what} {path} cannot be read ({error}): restore it, or {remedy}") from error
