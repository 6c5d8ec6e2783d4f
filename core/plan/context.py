"""Whether prompts, and what is drawn or learned after them, fit the model's context: known before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from windowshift.core.contract.backend import Backend, ContextBackend
from windowshift.core.contract.conditions import Channel, Condition, PrefixGroup
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Message, TemplateInputs
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.selective import Selective
from windowshift.core.settings.given_rows import GivenRows
from windowshift.core.spec.dose import SteeringDose
from windowshift.core.spec.spec import Spec

_A_MESSAGE = 16
"""Tokens that a template may put around a message, when only an upper bound is asked for."""

Met = tuple[Condition, Channel, Sequence[Prompt]]
"""A condition, the channel of its prefix, and the prompts that are sampled under it, in their order."""


@dataclass(frozen=True, slots=True)
class _Model:
    """A model at a backend that knows its context."""

    backend: ContextBackend
    base: str
    revision: str | None
    inputs: TemplateInputs | None
    tokens: int

    def count(self, chats: Sequence[tuple[tuple[Message, ...], str]]) -> list[int]:
        return self.backend.count_tokens(self.base, self.revision, self.inputs, chats)


def check_context(
    spec: Spec,
    met: Iterable[Met],
    given: Iterable[GivenRows],
    backends: Mapping[str, Backend],
    inputs: TemplateInputs | None,
) -> list[str]:
    """Refuse prompts that do not fit with `max_tokens` after them; return what a person must know.

    A text has at most as many tokens as it has bytes in UTF-8, so that tokens are counted only where that bound is
    not enough, which loads the tokenizer.

    Raises:
        SpecError: a prompt does not fit, or no example of a given D does.
    """
    sampler = _model(spec, spec.generate_backend, backends, inputs)
    if sampler is not None:
        _check_prompts(sampler, met, spec.sampling.max_tokens)
    trainer = _model(spec, spec.train_backend, backends, inputs)
    return [] if trainer is None else list(_check_examples(trainer, given))


def _model(spec: Spec, name: str, backends: Mapping[str, Backend], inputs: TemplateInputs | None) -> _Model | None:
    backend = backends[name]
    if not isinstance(backend, ContextBackend):
        return None
    try:
        tokens = backend.context(spec.model, spec.revision)
    except BackendError:
        return None  # whoever loads the model, or asks its server, says why
    return None if tokens is None else _Model(backend, spec.model, spec.revision, inputs, tokens)


def _check_prompts(model: _Model, met: Iterable[Met], most: int) -> None:
    if most >= model.tokens:
        raise SpecError(
            f"sampling.max_tokens is {most}, and the context of '{model.base}' has {model.tokens} tokens, prompt and "
            "completion together: lower it"
        )
    room = model.tokens - most
    for condition, channel, prompts in met:
        around = _longest_phrase(condition)
        suspects = [
            (prompt, condition.push(prompt, place, channel).messages)
            for place, prompt in enumerate(prompts)
            if _bytes(prompt.messages) + around > room
        ]
        if not suspects:
            continue
        try:
            counts = model.count([(messages, "") for _, messages in suspects])
        except BackendError:
            return  # said by whoever tries the template
        too_long = [(count, prompt) for count, (prompt, _) in zip(counts, suspects, strict=True) if count > room]
        if too_long:
            count, prompt = max(too_long, key=lambda one: one[0])
            others = f", and so do {len(too_long) - 1} others" if len(too_long) > 1 else ""
            raise SpecError(
                f"prompt '{prompt.id}' under '{condition.name}' has {count} tokens, which with sampling.max_tokens "
                f"{most} go beyond the {model.tokens} of '{model.base}'{others}: lower max_tokens, or leave such "
                "prompts out"
            )


def _check_examples(model: _Model, given: Iterable[GivenRows]) -> Iterator[str]:
    for rows in given:
        both = list(zip(rows.prompts, rows.completions, strict=True))
        suspects = [
            (prompt.messages, completion)
            for prompt, completion in both
            if _bytes(prompt.messages) + _bytes_of(completion) + _A_MESSAGE > model.tokens
        ]
        if not suspects:
            continue
        try:
            long = sum(count > model.tokens for count in model.count(suspects))
        except BackendError:
            return
        if long == len(both):
            raise SpecError(
                f"none of the {len(both)} examples of '{rows.place}' fits the {model.tokens} tokens of "
                f"'{model.base}': shorten them, or take a model with a longer context"
            )
        if long:
            yield (
                f"{long} of {len(both)} examples of '{rows.place}' are longer than the {model.tokens} tokens of "
                f"'{model.base}', and are left out of training"
            )


def _longest_phrase(condition: Condition) -> int:
    """The bytes of the longest text that a condition puts beside a prompt."""
    if isinstance(condition, Selective):
        return max(_longest_phrase(condition.then), _longest_phrase(condition.otherwise))
    if isinstance(condition, SteeringDose):
        return _longest_phrase(condition.beside)
    if isinstance(condition, PrefixGroup):
        return max(map(_bytes_of, condition.phrases)) + _A_MESSAGE
    return _A_MESSAGE


def _bytes(messages: Sequence[Message]) -> int:
    return sum(_bytes_of(one.content) + _A_MESSAGE for one in messages)


def _bytes_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
