"""Jobs: the units of work in a plan, identified by the hash of everything that determines them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from windowshift.core.contract.records import JobKind
from windowshift.core.store.connection import to_json

HASH_VERSION = 1  # raise it when the meaning of inputs changes, so that old results are not reused


@dataclass(frozen=True, slots=True)
class Job:
    """A unit of work. `inputs` is JSON and determines the result together with the parents."""

    kind: JobKind
    label: str
    inputs: Mapping[str, Any]
    parents: tuple[str, ...]
    total: int
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", job_hash(self.kind, self.inputs, self.parents))


def job_hash(kind: str, inputs: Mapping[str, Any], parents: tuple[str, ...]) -> str:
    """Hash a job: 20 hex digits of SHA-256 over canonical JSON.

    The label has no part in it, and neither have the places of the model and of the adapter in it: the
    fingerprint says what they are, wherever the folders lie.
    """
    hashed = dict(inputs)
    if isinstance(model := hashed.get("model"), Mapping):
        hashed["model"] = {key: value for key, value in model.items() if key not in ("base", "adapter")}
    text = to_json({"version": HASH_VERSION, "kind": kind, "inputs": hashed, "parents": parents})
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def row_seed(job_id: str, row: int) -> int:
    """The sampling seed of a row of a job: a 63-bit hash, independent between rows and jobs."""
    digest = hashlib.sha256(f"{job_id}:{row}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in the grid and the job that fills it; columns as in the table `cells`."""

    arm: str
    generate: str
    train: str
    evaluate: str
    seed: int
    step: int
    final: bool
    job: str


@dataclass(frozen=True, slots=True)
class GuardCell:
    """A cell on the prompts of a guard, whose name it has."""

    guard: str
    cell: Cell


@dataclass(frozen=True, slots=True)
class Source:
    """A part of the D behind a grid row; columns as in the table `sources`."""

    arm: str
    generate: str
    train: str
    seed: int
    part: int
    fraction: float
    part_generate: str
    part_train: str
    job: str
    first: int
    last: int
    reference: str
