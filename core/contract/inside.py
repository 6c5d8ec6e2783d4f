"""Inside the model: what a backend that reaches activations is asked to read there, and what it read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from windowshift.core.contract.backend import SteeringBackend
from windowshift.core.contract.generation import Message, Model, Steering
from windowshift.core.contract.training import Example, Sft
from windowshift.core.contract.vector_job import ExtractTokens


@dataclass(frozen=True, slots=True)
class Passage:
    """A chat as a model is to read it; `completion` is what follows, and is not read for prompt tokens.

    `problem` says why there is none: a passage of that sort is read by nobody, and stays missing.
    """

    messages: tuple[Message, ...]
    completion: str = ""
    steering: tuple[Steering, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectionJob:
    """Project the residual streams of one model, the base or an adapter, onto vectors (files), at every layer."""

    key: str
    model: Model
    passages: Sequence[Passage]
    tokens: ExtractTokens
    vectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """One passage inside one model.

    Attributes:
        along: by vector, then layer: the mean over the passage's tokens of <h, v> / |v|, h the residual stream at the
            output of the layer; None where the vector has no direction.
        rms: by layer: the root mean square over these tokens of |h|, without the passage's first token where there are
            others, as vectors are measured too.
        tokens: how many were averaged over.
        problem: why it could not be read: then nothing else is there.
    """

    along: tuple[tuple[float | None, ...], ...] = ()
    rms: tuple[float, ...] = ()
    tokens: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Projected:
    """A job was done: one projection a passage, in their order."""

    key: str
    rows: tuple[Projection, ...]


@dataclass(frozen=True, slots=True)
class GradientJob:
    """Take the gradient of the loss of each example on the residual stream, as it is before the first training step.

    Attributes:
        key: comes back with the result.
        model: what is trained; where it has an adapter, on from that one.
        examples: of D, as they are trained on.
        sft: of the training, whose adapter is put on the model.
        seed: likewise.
        vector: a file.
        layer: at whose output the gradient is taken.
        random: how many random unit directions there are beside the vector.
    """

    key: str
    model: Model
    examples: Sequence[Example]
    sft: Sft
    seed: int
    vector: str
    layer: int
    random: int


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient G of one example: of its summed loss, on a shift of the stream that is the same at every token.

    G is the sum of dL/dh over the positions that write its completion, L the sum of weighted cross entropies of the
    completion's tokens, in nats, and h the residual stream at the output of the layer.

    Attributes:
        along: -<G, v> / |v|: how fast the loss falls as the stream is moved along the vector.
        random: -<G, r> for each random unit direction.
        inner: <G, G'> with each example before it, and with itself; None for one that has no gradient.
        tokens: of the completion.
        problem: why there is none: then nothing else is there.
    """

    along: float | None = None
    random: tuple[float, ...] = ()
    inner: tuple[float | None, ...] = ()
    tokens: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Differentiated:
    """A job was done: one gradient an example, in their order."""

    key: str
    rows: tuple[Gradient, ...]


@dataclass(frozen=True, slots=True)
class InsideFailed:
    """A job could not be done; `error` is one sentence."""

    key: str
    error: str


InsideJob = ProjectionJob | GradientJob
InsideEvent = Projected | Differentiated | InsideFailed


@runtime_checkable
class InsideBackend(SteeringBackend, Protocol):
    """A backend that reads activations, and gradients on them, of the base model and of adapters."""

    def look_inside(self, jobs: Sequence[InsideJob]) -> AsyncGenerator[InsideEvent, None]:
        """Do all jobs; every one ends in exactly one event that is not `InsideFailed`, or in that."""
        ...
