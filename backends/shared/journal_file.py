"""Journals on the disk: whole, or as they were, and there before a service is asked for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from windowshift.core.contract.whole_file import replacing_file


def write_journal(path: Path, content: dict[str, Any]) -> None:
    """Write JSON under `path`, on the disk when this returns; its folder is made.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    with replacing_file(path, durable=True) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
