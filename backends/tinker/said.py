"""What a Tinker server says, checked: the SDK builds its answers without looking at their types."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.tinker.adapter_folder import PEFT
from windowshift.core.contract.generation import GenerateRequest

T = TypeVar("T")
MOST_TOKEN = (1 << 31) - 1
MOST_CONTEXT = 1 << 40
LONGEST_NAME = 512


@dataclass(frozen=True, slots=True)
class Offered:
    """A model that the server offers; `context` in tokens, None where it does not say."""

    name: str
    context: int | None
    trainable: bool
    sampleable: bool


@dataclass(frozen=True, slots=True)
class DrawnSequence:
    """A drawn sequence: token ids, whether the model ended it, and log-probabilities as far as the server gave them."""

    ids: list[int]
    ended: bool
    logprobs: list[float]
    tops: list[tuple[tuple[int, float], ...]]


def offered(said: Any) -> dict[str, Offered]:
    """The models of a server's capabilities, by name; what is none is passed over.

    Raises:
        BrokenAnswerError: there is no list of models.
    """
    found: dict[str, Offered] = {}
    for one in _listed(said.supported_models, "supported_models"):
        known = getattr(one, "model_name", None)
        if not isinstance(known, str) or not 0 < len(known) <= LONGEST_NAME or not known.isprintable():
            continue
        context = getattr(one, "max_context_length", None)
        whole = isinstance(context, int) and not isinstance(context, bool) and 0 < context <= MOST_CONTEXT
        found[known] = Offered(
            known,
            context if whole else None,
            getattr(one, "trainable", None) is not False,
            getattr(one, "sampleable", None) is not False,
        )
    return found


def checkpoints(said: Any) -> dict[str, str]:
    """The paths of a list of checkpoints, by the name at their end.

    Raises:
        BrokenAnswerError: something in it is none.
    """
    paths = [name(getattr(one, "tinker_path", None), "tinker_path") for one in _listed(said.checkpoints, "checkpoints")]
    return {path.rsplit("/", 1)[-1]: path for path in paths}


def addresses(said: Any) -> dict[str, str]:
    """Where the files of a PEFT adapter can be had, by name; others, which nobody asked for, are passed over.

    Raises:
        BrokenAnswerError: an address is none of the web.
    """
    if not isinstance(said.urls, Mapping):
        raise BrokenAnswerError("'urls' is no object")
    found = {known: said.urls[known] for known in PEFT if known in said.urls}
    for known, address in found.items():
        if not isinstance(address, str) or not address.startswith(("https://", "http://")):
            raise BrokenAnswerError(f"the address of {known} is none of the web")
    return found


def run(client: T) -> T:
    """A client that trains, where its run has a name.

    Raises:
        BrokenAnswerError: it has none.
    """
    name(getattr(client, "model_id", None), "model_id")
    return client


def saved(said: Any) -> str:
    """The path of something that was saved.

    Raises:
        BrokenAnswerError: it is none.
    """
    return name(said.path, "path")


def drawn(said: Any, request: GenerateRequest) -> DrawnSequence:
    """The one sequence of an answer to a request.

    Raises:
        BrokenAnswerError: it has none, or what it has is none of tokens and numbers.
    """
    sequences = _listed(said.sequences, "sequences")
    if len(sequences) != 1:
        raise BrokenAnswerError(f"it has {len(sequences)} sequences, not 1")
    one = sequences[0]
    ids = [_token(each) for each in _listed(one.tokens, "tokens")]
    if len(ids) > request.sampling.max_tokens + 1:  # with the end token
        raise BrokenAnswerError(f"it has {len(ids)} tokens, and {request.sampling.max_tokens} were asked for")
    if request.logprobs is None:
        return DrawnSequence(ids, one.stop_reason == "stop", [], [])
    logprobs = [number(each, "logprobs") for each in one.logprobs or ()]
    tops = [
        tuple((_token(token), number(value, "topk_logprobs")) for token, value in each or ())
        for each in (one.topk_logprobs or ())
    ]
    return DrawnSequence(ids, one.stop_reason == "stop", logprobs, tops)


def scores(said: Any, prompt: int, count: int) -> list[float]:
    """The log-probabilities of `count` tokens after those of a prompt, in nats.

    Raises:
        BrokenAnswerError: there are not so many.
    """
    found = [number(each, "logprobs") for each in list(said)[prompt:] if each is not None]
    if len(found) != count:
        raise BrokenAnswerError(f"it has log-probabilities of {len(found)} tokens, not of {count}")
    return found


def losses(said: Any, lengths: Sequence[int]) -> list[list[float]]:
    """The log-probabilities of a batch: a row for each example, of so many tokens.

    Raises:
        BrokenAnswerError: there are others. What is not finite is the training's affair.
    """
    rows = [[float(value) for value in row["logprobs"].to_numpy()] for row in said.loss_fn_outputs]
    if [len(row) for row in rows] != list(lengths):
        raise BrokenAnswerError("its log-probabilities are not those of the batch")
    return rows


def name(value: Any, place: str) -> str:
    """A text that is kept as a name.

    Raises:
        BrokenAnswerError: it is no text, or none that can be a name.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise BrokenAnswerError(f"'{place}' is no name")
    return value


def number(value: Any, place: str) -> float:
    """A finite number.

    Raises:
        BrokenAnswerError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BrokenAnswerError(f"a value of '{place}' is no finite number")
    return float(value)


def _token(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKEN:
        raise BrokenAnswerError("a token is none")
    return value


def _listed(value: Any, place: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise BrokenAnswerError(f"'{place}' is no list")
    return list(value)
