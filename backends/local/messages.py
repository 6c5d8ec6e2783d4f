"""What a crew and its workers say to each other.

A module of its own: a worker runs as ``__main__``, whose classes would not unpickle on the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Order:
    """Start a stream of one of the backend's methods; `number` comes back with everything it yields."""

    number: int
    method: Literal["generate", "stream", "train", "make_vectors", "look_inside"]
    items: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Close a stream."""

    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the work on some requests of streams, by their keys; the streams go on."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Yielded:
    """What a stream yielded."""

    number: int
    items: list[Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream ended: by itself, closed, or with the error that `error` names."""

    number: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker elsewhere takes work from now on."""

    where: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """A worker's machine cannot do this work as the others do: other code, other versions, another model."""

    reason: str


CrewMessage = Order | Cancel | GiveUp
"""What a crew says."""
WorkerMessage = Yielded | Ended | Ready | Unfit
"""What a worker says."""
