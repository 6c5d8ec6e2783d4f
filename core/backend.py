"""The backend protocol: generate and train, many at once.

The batch is the unit. A caller hands over everything it wants done and reads results as they
arrive, in any order; each backend exploits the batch in its own way. The same request gives the
same completion whatever shares its batch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from windowshift.core.proof import Proof

if TYPE_CHECKING:
    from windowshift.core.vector_job import VectorEvent, VectorJob

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "failed"]
Tokens = Literal["all", "prompt", "response"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model to sample from: a base model, or an adapter on top of it.

    `base` is an API model name, a hub id, a local folder or ``microworld``; `adapter` is what the
    training backend returned as `Trained.adapter` (a PEFT folder or a remote name), None for the
    base model itself.
    """

    base: str
    revision: str | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. `max_tokens` counts completion tokens; temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class Steering:
    """h + alpha * v on the chosen tokens at the output of decoder layer `layer`.

    `vector` is the path of a safetensors file made by windowshift; None for `layer` uses the layer
    that the file names.
    """

    vector: str
    alpha: float
    layer: int | None = None
    tokens: Tokens = "all"
    ablate: bool = False


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One completion to draw. `key` comes back with the completion and has no influence on it.

    `coherence` asks for `Completion.logprob`, which has no influence on the text either, and neither has
    `group`: what is steered in the same way is proven together within a group.
    `logprobs` asks for `Completion.token_logprobs` with that many alternatives; None asks for none.
    """

    key: str
    messages: tuple[Message, ...]
    model: Model
    sampling: Sampling
    seed: int
    steering: tuple[Steering, ...] = ()
    coherence: bool = False
    group: str = ""
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A completion token as text, and its log-probability in nats.

    Probabilities are the model's own, at temperature 1, however the token was drawn. `top` are the
    likeliest tokens at this place, the best first.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for one request.

    `finish` is ``stop`` (the model ended), ``length`` (cut off at `max_tokens`) or ``failed``
    (`error` says why, `text` is empty). `tokens` counts completion tokens without the end token.
    `logprob` is the sum over those tokens of their log-probability under the base model, without adapter
    and without steering, given the same messages, in nats; None where it was not asked for, where the
    backend does not offer it, and for an empty completion. `proofs` says what steering did to this
    completion and to others of the same call and group that were steered in the same way; one of them
    carries it, and none of them is given out before the proof holds.
    `token_logprobs` has one entry for each of `tokens`, where `GenerateRequest.logprobs` asked for them.
    `usd` is what it cost; None where nothing is priced.
    """

    key: str
    text: str
    finish: Finish
    tokens: int
    prompt_tokens: int = 0
    logprob: float | None = None
    error: str | None = None
    proofs: tuple[Proof, ...] = ()
    token_logprobs: tuple[TokenLogprob, ...] | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One SFT example: the loss is on `completion` only."""

    messages: tuple[Message, ...]
    completion: str
    steering: tuple[Steering, ...] = ()


@dataclass(frozen=True, slots=True)
class Sft:
    """LoRA fine-tuning hyperparameters; the defaults are those of the published runs.

    `alpha` is the LoRA scaling numerator (scale = alpha / rank); None means `rank`, a scale of 1.
    `batch_size` counts examples a step. `schedule` is the learning-rate schedule over all steps.
    """

    rank: int = 32
    alpha: float | None = None
    learning_rate: float = 1.6e-4
    batch_size: int = 2
    epochs: int = 1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    max_grad_norm: float | None = 1.0

    @property
    def lora_alpha(self) -> float:
        """The LoRA alpha in force: `alpha`, or `rank` (scale 1) where none is given."""
        return float(self.rank) if self.alpha is None else self.alpha


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One adapter to train.

    The first epoch takes `examples` in the order given (already shuffled by the caller), each further
    one a permutation that `seed` determines.
    Checkpoints are wanted after each number of examples in `checkpoints`; `output` is a folder
    that the backend may write adapters and its resume state to, one subfolder per checkpoint.
    `validation` are examples that are not learned: a backend that takes them measures the loss on them at
    every checkpoint and at the end, and says it in a `Validated`.
    """

    key: str
    model: Model
    examples: Sequence[Example]
    sft: Sft
    seed: int
    output: Path
    checkpoints: tuple[int, ...] = ()
    validation: Sequence[Example] = ()


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Training steps were done, `step` the last. `loss` is the mean over completion tokens of a step, in nats.

    `tokens` counts those of prompts and completions in all steps so far, where the backend says it.
    """

    key: str
    step: int
    examples: int
    loss: float
    tokens_per_second: float
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TrainMessage:
    """Something that a person may want to read about a job under way, e.g. that it waits in a queue."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """An adapter after `examples` examples was saved and can be sampled from."""

    key: str
    examples: int
    adapter: str


@dataclass(frozen=True, slots=True)
class Validated:
    """After `examples` examples, `loss` is the mean over all completion tokens of `TrainJob.validation`, in nats."""

    key: str
    examples: int
    loss: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A job ended; `adapter` is what `Model.adapter` takes. `usd` is None where there is no price.

    `proofs` says what steering did in the steps since the job was started or resumed.
    """

    key: str
    adapter: str
    examples: int
    usd: float | None = None
    proofs: tuple[Proof, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainFailed:
    """A job failed; `error` is one sentence."""

    key: str
    error: str


TrainEvent = TrainProgress | TrainMessage | Validated | Checkpointed | Trained | TrainFailed


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; `plan` refuses a spec that asks for more.

    `checkpoints` are adapters after any number of examples, `epoch_checkpoints` after whole epochs only.
    `leaves_peft` says that training leaves PEFT folders here, `loads_peft` that they can be sampled from: what
    two different backends need between them.
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
    """Generate and train. Made by `windowshift.core.registry.backend`; used inside one event loop."""

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
