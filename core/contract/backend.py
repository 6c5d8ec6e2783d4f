"""The backend protocol: generate and train, many at once.

The batch is the unit. A caller hands over everything it wants done and reads results as they
arrive, in any order; each backend exploits the batch in its own way. What becomes ready while a call
is under way comes in a further call beside it: a backend is free to let it join the batch. The same request
gives the same completion whatever shares its batch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from windowshift.core.contract.generation import Completion, GenerateRequest, Message, TemplateInputs, WrittenPiece
from windowshift.core.contract.training import TrainEvent, TrainJob

if TYPE_CHECKING:
    from windowshift.core.contract.vector_job import VectorEvent, VectorJob


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; `plan` refuses a spec that asks for more.

    `checkpoints` are adapters after any number of examples, `epoch_checkpoints` after whole epochs only.
    `joins` says that a call of `train`, `generate` or `make_vectors` may begin while others are under way, and shares
    the machine with them; else what becomes ready waits until the last call has ended.
    `leaves_peft` says that training leaves PEFT folders here, `loads_peft` that they can be sampled from: what
    two different backends need between them. `merges_peft` says that a PEFT adapter can be part of the model that
    everything starts from (`Model.merged`). `weighs` says that examples, and stretches of them, may have weights,
    `continues` that training may go on from what an earlier job trained (`Model.adapter` of a `TrainJob`), `watches`
    that texts are read while it trains (`TrainJob.watched`).
    """

    trains: bool = False
    generates: bool = True
    steers: bool = False
    system_channel: bool = True
    checkpoints: bool = False
    epoch_checkpoints: bool = False
    logprobs: bool = False
    seeds: bool = True
    priced: bool = False
    leaves_peft: bool = False
    loads_peft: bool = False
    merges_peft: bool = False
    weighs: bool = False
    continues: bool = False
    watches: bool = False
    joins: bool = True


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What determines a model's output, for job hashes.

    `fingerprint` changes when the weights change; `label` is what people read; `rehearsal` marks
    the embedded model, which is not evidence about LLMs.
    """

    label: str
    fingerprint: str
    rehearsal: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How many decoder layers a model has, and how wide its residual stream is."""

    layers: int
    width: int


@runtime_checkable
class Backend(Protocol):
    """Generate and train. Made by `windowshift.core.spec.registry.backend`; used inside one event loop."""

    capabilities: Capabilities

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """Name a model without loading its weights.

        Raises:
            BackendError: the model cannot be found, or a folder is not a model.
        """
        ...

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        """Whether the model passes a system message on; may load its tokenizer, never its weights.

        Raises:
            BackendError: the model, or its tokenizer, cannot be found.
        """
        ...

    def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train all jobs; every job ends in exactly one `Trained` or `TrainFailed`.

        A job that was interrupted goes on from the state it left in `TrainJob.output`, with the
        same result as if it had not been interrupted.
        """
        ...

    def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, exactly one completion each, in any order, as they finish.

        What cannot be answered (an unknown model, an adapter that does not load, a prompt that is too
        long) comes back as a ``failed`` completion that says why, and the others go on.
        """
        ...

    async def aclose(self) -> None:
        """Release models, connections and threads."""
        ...


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """What a model's chat template comes to, found out before anything is spent.

    Attributes:
        inputs: those of `TemplateInputs` that it reads, as JSON: a part of every job's identity.
        unusable: why prompts cannot be written with it; None: they can.
        untrainable: why no example can be learned with it; None: they can.
        notes: what a person must know.
    """

    inputs: Mapping[str, Any]
    unusable: str | None = None
    untrainable: str | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Computing(Protocol):
    """A backend that computes on this machine."""

    def machine(self) -> tuple[str, ...]:
        """What it computes with, for `doctor`: accelerators, their memory, what is compiled. A line each."""
        ...


@runtime_checkable
class TemplateBackend(Protocol):
    """A backend that writes chats with the model's own template, as token ids."""

    def template(self, base: str, revision: str | None, inputs: TemplateInputs) -> TemplateReport:
        """Try the model's chat template on every role; loads the tokenizer, never weights.

        Raises:
            BackendError: the tokenizer cannot be loaded.
        """
        ...


@runtime_checkable
class ContextBackend(Protocol):
    """A backend that knows how many tokens a model takes."""

    def context(self, base: str, revision: str | None = None) -> int | None:
        """Tokens of prompt and completion together, without loading weights; None where nobody says.

        Raises:
            BackendError: the model's configuration cannot be had, or its server cannot be asked.
        """
        ...


@runtime_checkable
class CountingBackend(Protocol):
    """A backend that knows how many tokens a chat has."""

    def count_tokens(
        self,
        base: str,
        revision: str | None,
        inputs: TemplateInputs | None,
        chats: Sequence[tuple[Sequence[Message], str]],
    ) -> list[int]:
        """The tokens of each chat up to where the answer begins, and of the answer where it is not empty.

        Raises:
            BackendError: the tokenizer cannot be loaded, or the template refuses a chat.
        """
        ...


@runtime_checkable
class StreamingBackend(Backend, Protocol):
    """A backend that tells what is written while it is written, and ends what nobody waits for."""

    def stream(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion | WrittenPiece, None]:
        """As `generate`, with pieces before the completion of each request that asks for them.

        Keys must be unique among all calls under way.
        """
        ...

    def give_up(self, keys: Sequence[str]) -> None:
        """End the work on requests of `stream`: they may come back as they are, or not at all."""
        ...


@runtime_checkable
class SteeringBackend(Backend, Protocol):
    """A backend that reaches activations: one whose `capabilities` say that it steers."""

    def size(self, base: str, revision: str | None = None) -> ModelSize:
        """The model's size, without loading its weights.

        Raises:
            BackendError: the model, or its configuration, cannot be found or read.
        """
        ...

    def make_vectors(self, jobs: Sequence[VectorJob]) -> AsyncGenerator[VectorEvent, None]:
        """Make all vectors; every job ends in exactly one `VectorMade` or `VectorFailed`."""
        ...
