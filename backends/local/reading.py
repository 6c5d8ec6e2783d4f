"""Reading: given answers through the model that trains, as a training would see them, pushed or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.coherence import base_logprobs, divergences
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.reading import Divergence, Reading, ReadRequest

AT_ONCE = 64
"""Requests of one kind between two turns of other work."""


Answer = TypeVar("Answer", Reading, Divergence)


def readings(lm: CausalLM, requests: Sequence[ReadRequest]) -> Iterator[list[Reading]]:
    """Read requests to one model; those that are steered alike go together."""

    def read(steering: tuple[Steering, ...], some: Sequence[tuple[ReadRequest, TrainingTokens]]) -> list[Reading]:
        values = base_logprobs(lm, [(one.prompt, one.completion) for _, one in some], steering)
        return [
            Reading(request.key, value, len(one.completion)) for (request, one), value in zip(some, values, strict=True)
        ]

    return _answers(lm, requests, read, lambda request, error: Reading(request.key, None, error=error))


def divergences_of(lm: CausalLM, requests: Sequence[ReadRequest]) -> Iterator[list[Divergence]]:
    """Read requests to one model with their steering and without; those that are steered alike go together."""

    def read(steering: tuple[Steering, ...], some: Sequence[tuple[ReadRequest, TrainingTokens]]) -> list[Divergence]:
        values = divergences(lm, [(one.prompt, one.completion) for _, one in some], steering)
        return [Divergence(request.key, tuple(nats)) for (request, _), nats in zip(some, values, strict=True)]

    return _answers(lm, requests, read, lambda request, error: Divergence(request.key, None, error))


def _answers(
    lm: CausalLM,
    requests: Sequence[ReadRequest],
    read: Callable[[tuple[Steering, ...], Sequence[tuple[ReadRequest, TrainingTokens]]], list[Answer]],
    failed: Callable[[ReadRequest, str], Answer],
) -> Iterator[list[Answer]]:
    groups: dict[tuple[Steering, ...], list[ReadRequest]] = {}
    for request in requests:
        groups.setdefault(request.steering, []).append(request)
    for steering, group in groups.items():
        for start in range(0, len(group), AT_ONCE):
            some = group[start : start + AT_ONCE]
            try:
                written, refused = _written(lm, some)
                found: list[Answer] = read(steering, written) if written else []
                found += [failed(request, why) for request, why in refused]
                yield found
            except WindowshiftError as error:
                yield [failed(request, str(error)) for request in some]
            except Exception as error:  # a library may raise anything, and the others go on
                why = f"'{lm.label}' failed: {library_reason(error)}"
                yield [failed(request, why) for request in some]


def _written(
    lm: CausalLM, group: Sequence[ReadRequest]
) -> tuple[list[tuple[ReadRequest, TrainingTokens]], list[tuple[ReadRequest, str]]]:
    """Requests as tokens, and those that cannot be read, with why."""
    refused: list[tuple[ReadRequest, str]] = []
    written: list[tuple[ReadRequest, TrainingTokens]] = []
    for request in group:
        try:
            tokens = lm.chat_of(request.model).training_tokens(request.messages, request.text)
        except BackendError as error:
            refused.append((request, str(error)))
            continue
        count = len(tokens.prompt) + len(tokens.completion)
        if lm.context is not None and count > lm.context:
            why = f"the answer with its prompt has {count} tokens, and '{lm.label}' takes {lm.context}"
            refused.append((request, why))
        else:
            written.append((request, tokens))
    return written, refused
