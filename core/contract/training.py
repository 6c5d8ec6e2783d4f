"""Training: the jobs that a backend takes, and the events that come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windowshift.core.contract.generation import Message, Model, Steering, require_messages
from windowshift.core.contract.proof import Proof


@dataclass(frozen=True, slots=True)
class WeightedSpan:
    """A stretch of a completion, in characters from `start` to before `end`, whose tokens weigh `weight`.

    In characters, since tokens are another model's others: a token that lies in several stretches, or across the
    end of one, takes the weight of the last of them that it touches.
    """

    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class Example:
    """One SFT example: the loss is on what the model writes alone, `completion` after its own `reasoning`.

    `reasoning` is None where the model did not think; a model that always thinks learns to answer at once then.
    `weight` multiplies the loss of each of its tokens (the end token's too), a span's weight, in its place, that of
    the tokens in it. The loss of a batch is the weighted sum over the number of its completion tokens, so that a
    weight of 1 everywhere is the plain mean, and an example of weight 0 teaches nothing.
    """

    messages: tuple[Message, ...]
    completion: str
    steering: tuple[Steering, ...] = ()
    reasoning: str | None = None
    weight: float = 1.0
    spans: tuple[WeightedSpan, ...] = ()

    def __post_init__(self) -> None:
        require_messages(self.messages)

    @property
    def weighted(self) -> bool:
        """Whether its tokens count otherwise than those of any other example."""
        return self.weight != 1.0 or bool(self.spans)


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
    """One adapter to train; where `model` has an adapter, on from that one, with an optimizer of its own.

    The first epoch takes `examples` in the order given (already shuffled by the caller), each further
    one a permutation that `seed` determines.
    Checkpoints are wanted after each number of examples in `checkpoints`; `output` is a folder
    that the backend may write adapters and its resume state to, one subfolder per checkpoint.
    `validation` are examples that are not learned: a backend that takes them measures the loss on them at
    every checkpoint and at the end, and says it in a `Validated`.
    `watched` are texts whose log-probability is measured after each number of examples in `watched_at`, 0 being
    before the first step, and said in a `Watched`; what is trained is the same to the byte with them and without.
    """

    key: str
    model: Model
    examples: Sequence[Example]
    sft: Sft
    seed: int
    output: Path
    checkpoints: tuple[int, ...] = ()
    validation: Sequence[Example] = ()
    watched: Sequence[Example] = ()
    watched_at: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Training steps were done, `step` the last. `loss` is the mean over completion tokens of a step, in nats.

    `tokens` counts those of prompts and completions in all steps so far, where the backend says it; `mfu` is the share
    of the accelerator's arithmetic that all jobs on it use together, and `memory` what they take at its peak, in bytes.
    `again` marks a step that was taken before the job went on: an earlier process may not have been heard of it.
    """

    key: str
    step: int
    examples: int
    loss: float
    tokens_per_second: float
    tokens: int | None = None
    mfu: float | None = None
    memory: int | None = None
    again: bool = False


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
class TextLogprob:
    """The log-probability of a text, in nats, summed over its `tokens`, the end token included, at temperature 1.

    Where it could not be read `logprob` is None, and `problem` says why.
    """

    logprob: float | None
    tokens: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """After `examples` examples, how likely each of `TrainJob.watched` is, in their order."""

    key: str
    examples: int
    texts: tuple[TextLogprob, ...]


StepLosses = tuple[tuple[int, float], ...]
"""Losses by step: the examples seen after it, and the mean loss of its completion tokens, in nats."""
LOSS_WINDOW = 0.1
"""The share of a training's examples at its beginning, and at its end, whose losses say how far the loss fell."""
_MOST_STEPS = 200


def ends_of(losses: Sequence[tuple[int, float]]) -> StepLosses:
    """The steps in the first and in the last tenth of a training's examples, at most 200 of each, evenly spaced."""
    if not losses:
        return ()
    total = losses[-1][0]
    first = [one for one in losses if one[0] <= max(total * LOSS_WINDOW, losses[0][0])]
    last = [one for one in losses if one[0] > total * (1 - LOSS_WINDOW)]
    thinned = [window[:: -(-len(window) // _MOST_STEPS)] for window in (first, last)]
    return tuple(sorted({*thinned[0], *thinned[1]}))


@dataclass(frozen=True, slots=True)
class Trained:
    """A job ended; `adapter` is what `Model.adapter` takes. `usd` is None where there is no price.

    `proofs` says what steering did in the steps since the job was started or resumed. `left_out` counts examples
    that could not be learned; a `TrainMessage` said why. `losses` are those of `ends_of`, empty where the backend
    knows none.
    """

    key: str
    adapter: str
    examples: int
    usd: float | None = None
    proofs: tuple[Proof, ...] = ()
    left_out: int = 0
    losses: StepLosses = ()


@dataclass(frozen=True, slots=True)
class TrainFailed:
    """A job failed; `error` is one sentence."""

    key: str
    error: str


TrainEvent = TrainProgress | TrainMessage | Validated | Watched | Checkpointed | Trained | TrainFailed
