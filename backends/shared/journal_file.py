"""Journals on the disk: whole, or as they were, and there before a service is asked for anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_journal(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under `path`, on the disk when this returns; its folder is made.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
