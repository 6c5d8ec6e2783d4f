"""Payloads: what a prompt carries beside its text, as JSON that nobody can change."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any


class Payload(Mapping[str, Any]):
    """A JSON object (tests, labels, the user's claim, ...) that stays as it is.

    What is read from it is a copy: a scorer that changes a list has changed its own.

    Args:
        values: the object; its keys are text, its values what JSON can hold.

    Raises:
        ValueError: a value is not JSON (NaN, a date, a set, ...); the key is named.
    """

    __slots__ = ("_values", "json")

    json: str
    """The object as canonical JSON: sorted keys, no spaces."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        found = {}
        for key, value in (values or {}).items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} of a payload is not text")
            found[key] = _plain(key, value)
        self._values: dict[str, Any] = found
        self.json = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, text: str | None) -> Payload:
        """A payload as the store has it; None is the empty one."""
        return cls(json.loads(text)) if text else NO_PAYLOAD

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._values[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.json)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Payload):
            return self.json == other.json
        return isinstance(other, Mapping) and self._values == dict(other)

    def __repr__(self) -> str:
        return f"Payload({self._values!r})"


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, Payload):
        return json.loads(value.json)
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"'{key}' is not JSON ({error})") from error


NO_PAYLOAD = Payload()
