"""SFT examples to token ids, in small steps: a large data set must not hold everybody up."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Example, TrainEvent

_AT_ONCE = 64


def encode(
    lm: CausalLM, examples: Sequence[Example], what: str = "example"
) -> Generator[list[TrainEvent], None, list[TrainingTokens]]:
    """Encode all examples; yields between some of them, and returns their tokens.

    Raises:
        BackendError: one cannot be encoded, or is too long for the model; it is named as `what`, counted from 1.
    """
    found: list[TrainingTokens] = []
    for number, example in enumerate(examples, start=1):
        try:
            tokens = lm.chat.training_tokens(example.messages, example.completion)
        except BackendError as error:
            raise BackendError(f"{what} {number}: {error}") from error
        length = len(tokens.prompt) + len(tokens.completion)
        if lm.context is not None and length > lm.context:
            raise BackendError(
                f"{what} {number} has {length} tokens, more than the {lm.context} of the model's context: "
                "shorten or remove it"
            )
        found.append(tokens)
        if number % _AT_ONCE == 0:
            yield []
    return found
