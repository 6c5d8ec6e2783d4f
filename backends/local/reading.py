"""Reading: given answers through the model that trains, as a training would see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.coherence import base_logprobs
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.reading import Reading, ReadRequest

AT_ONCE = 64
"""Requests of one kind between two turns of other work."""


def readings(lm: CausalLM, requests: Sequence[ReadRequest]) -> Iterator[list[Reading]]:
    """Read requests to one model; those that are steered alike go together."""
    groups: dict[tuple[Steering, ...], list[ReadRequest]] = {}
    for request in requests:
        groups.setdefault(request.steering, []).append(request)
    for steering, group in groups.items():
        for start in range(0, len(group), AT_ONCE):
            some = group[start : start + AT_ONCE]
            try:
                yield _read(lm, steering, some)
            except WindowshiftError as error:
                yield [Reading(request.key, None, error=str(error)) for request in some]
            except Exception as error:  # a library may raise anything, and the others go on
                why = f"'{lm.label}' failed: {library_reason(error)}"
                yield [Reading(request.key, None, error=why) for request in some]


def _read(lm: CausalLM, steering: tuple[Steering, ...], group: Sequence[ReadRequest]) -> list[Reading]:
    found: list[Reading] = []
    written: list[tuple[ReadRequest, TrainingTokens]] = []
    for request in group:
        try:
            tokens = lm.chat_of(request.model).training_tokens(request.messages, request.text)
        except BackendError as error:
            found.append(Reading(request.key, None, error=str(error)))
            continue
        count = len(tokens.prompt) + len(tokens.completion)
        if lm.context is not None and count > lm.context:
            why = f"the answer with its prompt has {count} tokens, and '{lm.label}' takes {lm.context}"
            found.append(Reading(request.key, None, error=why))
        else:
            written.append((request, tokens))
    values = base_logprobs(lm, [(one.prompt, one.completion) for _, one in written], steering) if written else []
    for (request, one), value in zip(written, values, strict=True):
        found.append(Reading(request.key, value, len(one.completion)))
    return found
