"""What a vLLM server writes: models, tokens with their log-probabilities, and the counters of its metrics."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import LARGEST, Count, Finite, Name, Said
from windowshift.backends.vllm.engine import CacheCounts, ranked

_COUNTER = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{[^}]*\})? (\S{1,40})$", re.MULTILINE)
_TOKEN = re.compile(r"(?:token_id:)?(\d{1,10})")
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
TokenSum = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
OneChoice = Field(min_length=1, max_length=1)


class ModelCard(Said):
    """A model, base or adapter."""

    id: Name
    root: str | None = None
    parent: str | None = None
    max_model_len: Annotated[int, Field(ge=1, le=LARGEST)] | None = None


class ModelCards(Said):
    """The list of models."""

    data: list[ModelCard]


class Logprobs(Said):
    """Log-probabilities of drawn tokens, which are written as ids (``return_tokens_as_token_ids``)."""

    tokens: list[str]
    token_logprobs: list[Finite]
    top_logprobs: list[dict[str, Finite] | None]


class DrawnChoice(Said):
    """A completion."""

    token_ids: list[TokenId]
    finish_reason: str
    logprobs: Logprobs | None = None


class DrawnAnswer(Said):
    """What came of a question."""

    model: Name
    choices: Annotated[list[DrawnChoice], OneChoice]


class ScoredToken(Said):
    """A token's log-probability."""

    logprob: Finite
    rank: Count | None = None


class ScoredChoice(Said):
    """The prompt's tokens with their log-probabilities, by id; the first has none."""

    prompt_logprobs: list[dict[str, ScoredToken] | None]


class ScoredAnswer(Said):
    """What came of a text that was scored."""

    model: Name
    choices: Annotated[list[ScoredChoice], OneChoice]


class PushDone(Said):
    """What a worker did for one push of a slot; tokens are counted, the rest are sums over them."""

    tokens_asked: TokenSum
    tokens: TokenSum
    calls: Count
    moved: Finite
    wanted: Finite
    size: Finite


class SlotDone(Said):
    """What a worker did for the requests of a slot."""

    problem: str | None = None
    pushes: list[PushDone]
    cached: Count
    requests: Count
    passes: Count
    eps: Finite
    exact: bool


def cache_counts_in(metrics: str) -> CacheCounts:
    """The counters of the prefix cache, summed over all engines.

    Raises:
        BrokenAnswerError: a counter is no number.
    """
    sums = {"queries": 0.0, "hits": 0.0}
    for name, value in _COUNTER.findall(metrics):
        try:
            count = float(value)
        except ValueError:
            raise BrokenAnswerError("a counter is no number") from None
        if not 0 <= count <= LARGEST:
            raise BrokenAnswerError("a counter is out of bounds")
        sums[name] += count
    return CacheCounts(sums["queries"], sums["hits"])


def drawn_in(logprobs: Logprobs, most: int) -> tuple[DrawnToken, ...]:
    """The drawn tokens of a completion, each with at most so many of the likeliest ones.

    Raises:
        BrokenAnswerError: it is not what vLLM writes with ``return_tokens_as_token_ids``.
    """
    if not len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs):
        raise BrokenAnswerError("its log-probabilities are of another number of tokens")
    found = []
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        others = {_id(name): number for name, number in (top or {}).items()}
        found.append(DrawnToken(_id(token), value, ranked(others, most)))
    return tuple(found)


def _id(token: str) -> int:
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise BrokenAnswerError("its tokens are no ids")
    return int(found[1])
