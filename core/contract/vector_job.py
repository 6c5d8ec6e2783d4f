"""Vector jobs: what a backend that steers is asked to make a steering vector of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windowshift.core.contract.generation import Message, Model

ExtractTokens = Literal["response", "last_prompt", "prompt"]
ControlKind = Literal["random", "orthogonal", "flipped", "layer"]
Answered = tuple[tuple[Message, ...], str]
"""A chat and the completion that followed it; the completion is not read for prompt tokens."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean activations over positive answers minus those over negative ones.

    `labels` name the two sides. `how` says how pairs were chosen; empty where all were taken.
    """

    positive: Sequence[Answered]
    negative: Sequence[Answered]
    tokens: ExtractTokens
    labels: tuple[str, str]
    how: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """A vector that should not do what `of` (a file) does: see `windowshift.steering.controls`."""

    of: str
    kind: ControlKind
    seed: int = 0
    source: int = 0


@dataclass(frozen=True, slots=True)
class Combination:
    """A weighted sum of vectors: (file, weight)."""

    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A vector that is there already, as a windowshift file."""

    file: str


VectorSource = Difference | Control | Combination | Stored


@dataclass(frozen=True, slots=True)
class VectorJob:
    """One vector to make on the base model and to write to `output`, a safetensors file.

    `layer` is the layer chosen for use; None leaves the choice to a sweep.
    """

    key: str
    name: str
    model: Model
    source: VectorSource
    output: Path
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class VectorMade:
    """The file is there."""

    key: str


@dataclass(frozen=True, slots=True)
class VectorFailed:
    """A vector could not be made; `error` is one sentence."""

    key: str
    error: str


VectorEvent = VectorMade | VectorFailed
