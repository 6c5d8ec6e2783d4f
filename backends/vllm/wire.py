"""What a vLLM server writes: tokens with their log-probabilities, and the counters of its metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.vllm.engine import CacheCounts, ranked

_COUNTER = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def cache_counts_in(metrics: str) -> CacheCounts:
    """The counters of the prefix cache, summed over all engines."""
    sums = {"queries": 0.0, "hits": 0.0}
    for name, value in _COUNTER.findall(metrics):
        sums[name] += float(value)
    return CacheCounts(sums["queries"], sums["hits"])


def drawn_in(logprobs: Mapping[str, Any], most: int) -> tuple[DrawnToken, ...]:
    """The drawn tokens of a completion's ``logprobs``, each with at most so many of the likeliest ones.

    Raises:
        KeyError, TypeError, ValueError: it is not what vLLM writes with ``return_tokens_as_token_ids``.
    """
    found = []
    for token, value, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        others = {_id(name): float(number) for name, number in (top or {}).items()}
        found.append(DrawnToken(_id(token), float(value), ranked(others, most)))
    return tuple(found)


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))
