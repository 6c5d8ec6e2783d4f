"""Files of phrases: a line each, or JSONL with `text`."""

from __future__ import annotations

import json
from pathlib import Path

from windowshift.core.contract.errors import SpecError
from windowshift.core.spec.spec import read_text


def read_phrase_file(path: Path, what: str) -> tuple[str, ...]:
    """Return the different texts of a file, in their order; those of JSONL may have several lines.

    Args:
        path: of the file.
        what: one of its texts is called, for errors.

    Raises:
        SpecError: the file cannot be read, a line of it is bad, or there is none.
    """
    found: dict[str, None] = {}
    for number, line in enumerate(read_text(path, f"file of {what}s").splitlines(), 1):
        text = line.strip()
        if not text:
            continue
        if path.suffix == ".jsonl":
            try:
                row = json.loads(text)
            except ValueError as error:
                raise SpecError(f"{path} line {number} is no JSON") from error
            said = row.get("text") if isinstance(row, dict) else None
            if not isinstance(said, str) or not said.strip():
                raise SpecError(f"{path} line {number} has no 'text'")
            text = said
        found.setdefault(text)
    if not found:
        raise SpecError(f"{path} has no {what}: write one a line")
    return tuple(found)
