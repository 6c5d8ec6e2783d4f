"""What the files of a notebook's folder were made of, so that none is taken for another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.whole_file import replacing_file

_FILE = "made_of.json"


class MadeOf:
    """Names for results in a folder: a name of its own for everything that is made of something else.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, name: str | None, kind: str, parts: Mapping[str, Any]) -> str:
        """The name under which a result belongs.

        Args:
            name: what a person calls it; None: what it is made of says.
            kind: what it is, e.g. ``adapter``.
            parts: everything that determines it, as JSON or dataclasses.

        Raises:
            SpecError: something else has that name.
        """
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()
        if name is None:
            return f"{kind}-{digest[:12]}"
        if name != Path(name).name or name.startswith("."):
            raise SpecError(f"name '{name}' must be a plain name, without a folder")
        known = self._read()
        key = f"{kind}:{name}"
        if known.get(key, digest) != digest:
            raise SpecError(
                f"'{name}' is the name of another {kind} in {self._folder}, made of something else: give this one "
                "another name, or none"
            )
        if key not in known:
            self._write({**known, key: digest})
        return name

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads((self._folder / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SpecError(f"{self._folder / _FILE} cannot be read ({error}): move it away") from error
        return dict(found)

    def _write(self, known: Mapping[str, str]) -> None:
        with replacing_file(self._folder / _FILE) as partial:
            partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def content_digest(file: str | Path) -> str:
    """The SHA-256 of a file's content.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {error.strerror}") from error


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else list(value)
