"""Completions: what is asked of a backend, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.proof import Proof
from windowshift.core.contract.texts import texts

ChatRole = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "failed"]
Tokens = Literal["all", "prompt", "response"]


def pushed_order(tokens: str) -> int:
    """The place of a kind of pushed tokens: of several, what belongs to a vector itself is that of the first kind."""
    return get_args(Tokens).index(tokens)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: ChatRole
    content: str


Switch = str | int | float | bool | None


def require_messages(messages: object) -> None:
    """Refuse one text in place of a chat, whose letters would be taken for its turns.

    Raises:
        SpecError: it is one, or a turn is no message.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not all(type(e) is Message for e in messages):
        raise SpecError(f'messages must be a list such as [Message("user", "hello")], not {messages!r:.80}')


@dataclass(frozen=True, slots=True)
class TemplateInputs:
    """What a chat template may read besides the messages.

    `date` is the day that it takes for today (ISO 8601): a template never reads the clock. `switches` are its own
    variables by name, such as ``enable_thinking``, sorted.
    """

    date: str | None = None
    switches: tuple[tuple[str, Switch], ...] = ()

    @classmethod
    def of(cls, inputs: Mapping[str, Any] | None) -> TemplateInputs | None:
        """From a job's inputs, as `TemplateReport.inputs` has them; None where there are none."""
        if not inputs:
            return None
        return cls(inputs.get("date"), tuple(sorted(inputs.get("switches", {}).items())))


@dataclass(frozen=True, slots=True)
class Model:
    """A model to sample from: a base model, or an adapter on top of it.

    `template` is what its chat template reads besides the messages; None where that is nothing, or a server's
    own affair. `base` is an API model name, a hub id, a local folder or ``microworld``; `adapter` is what the
    training backend returned as `Trained.adapter` (a PEFT folder or a remote name), None for the
    base model itself. `merged` is the folder of an adapter that belongs to the base model: the fine-tune
    that an experiment starts from, on top of which its own adapters are trained.
    """

    base: str
    revision: str | None = None
    adapter: str | None = None
    merged: str | None = None
    template: TemplateInputs | None = None


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
    `prompt` is a text, or the token ids of one, to be continued as it is, in place of messages, by backends that do
    that. `pieces` asks a
    `StreamingBackend` for what is written while it is written, and `stop` names texts at the first of which the
    completion may end: what is drawn up to there is as it would be without, and the caller cuts.
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
    prompt: str | tuple[int, ...] | None = None
    stop: tuple[str, ...] = ()
    pieces: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            texts(self.stop, "stop")
        require_messages(self.messages)


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
class WrittenPiece:
    """What was written of a completion since its last piece: of the answer, and of the reasoning before it.

    The pieces of a completion joined are a beginning of its `text` and of its `reasoning`; `start` and
    `reasoning_start` are the characters before this piece, as work that begins anew tells from the start again.
    `token_logprobs` are those of the tokens of this piece, where they were asked for.
    """

    key: str
    text: str
    start: int
    reasoning: str = ""
    reasoning_start: int = 0
    token_logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for one request.

    `text` is the answer: nothing that the model only thought stands in it. `reasoning` is what it thought before,
    without the marks around it: None where it did not think, empty where it did and the server does not show it.
    `finish` is ``stop`` (the model ended), ``length`` (cut off at `max_tokens`) or ``failed``
    (`error` says why, `text` is empty). One that failed with a `reasoning` is `unanswered`: the model thought, and
    gave no answer. `tokens` counts completion tokens without the end token and without `reasoning_tokens`, those
    of the reasoning and of the marks around it; None where a server does not say how many there are.
    `logprob` is the sum over those tokens of their log-probability under the base model, without adapter
    and without steering, given the same messages and its own reasoning, in nats; None where it was not asked
    for, where the backend does not offer it, and for an empty completion. `proofs` says what steering did to this
    completion and to others of the same call and group that were steered in the same way; one of them
    carries it, and none of them is given out before the proof holds.
    `token_logprobs` has one entry for each of `tokens`, where `GenerateRequest.logprobs` asked for them.
    `usd` is what it cost; None where nothing is priced.
    """

    key: str
    text: str
    finish: Finish
    tokens: int | None
    prompt_tokens: int = 0
    logprob: float | None = None
    error: str | None = None
    proofs: tuple[Proof, ...] = ()
    token_logprobs: tuple[TokenLogprob, ...] | None = None
    usd: float | None = None
    reasoning: str | None = None
    reasoning_tokens: int = 0

    @property
    def unanswered(self) -> bool:
        """Whether the model thought and gave no answer: missing data, which asking again does not mend."""
        return self.finish == "failed" and self.reasoning is not None
