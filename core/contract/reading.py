"""Readings: how likely a model finds texts that are given to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.generation import Message, Model, Steering

KL_QUANTILE = 0.95
KL_TOLERANCE = 0.02
"""The quantile of KL per token that iso-KL goes by, and how near to what was asked it has to be, as a share."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """An answer to be read after some messages. `key` comes back with the reading."""

    key: str
    messages: tuple[Message, ...]
    text: str
    model: Model
    steering: tuple[Steering, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The log-probability of an answer, in nats, summed over its `tokens`: those that a training would learn.

    At temperature 1, the end of the answer included. Where it could not be read `logprob` is None; `error` says why.
    """

    key: str
    logprob: float | None
    tokens: int = 0
    error: str | None = None


@runtime_checkable
class ReadingBackend(Backend, Protocol):
    """A backend that tells how likely given texts are."""

    def read(self, requests: Sequence[ReadRequest]) -> AsyncGenerator[Reading, None]:
        """Read all of them, exactly one reading each, in any order. A base model alone: no adapter is put on top."""
        ...


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(steered || base) of the next token, in nats, at each token of an answer that a training would learn.

    At temperature 1, the end of the answer included. Where it could not be read `nats` is None; `error` says why.
    """

    key: str
    nats: tuple[float, ...] | None
    error: str | None = None


@runtime_checkable
class DivergingBackend(Backend, Protocol):
    """A backend that tells how far a push takes a model's predictions from those without it."""

    def diverge(self, requests: Sequence[ReadRequest]) -> AsyncGenerator[Divergence, None]:
        """Read all of them with and without their steering, exactly one divergence each, in any order.

        The same answer is given both times, so that nothing is sampled. A base model alone, as for `read`.
        """
        ...
