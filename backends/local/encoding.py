"""SFT examples to token ids: those that cannot be learned are left out, counted, with the reason of each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from windowshift.backends.local.chat_format import ChatFormat, TrainingTokens
from windowshift.backends.local.token_weights import token_weights
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Example, TrainEvent, TrainJob, TrainMessage

_AT_ONCE = 64
_SHOWN = 3


@dataclass
class Encoded:
    """Examples with their tokens, and why others were left out: a sentence each.

    `examples` and `tokens` go together, in the order given.
    """

    examples: list[Example] = field(default_factory=list)
    tokens: list[TrainingTokens] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """How many were left out, and why the first of them were; empty where none was."""
        if not self.problems:
            return ""
        count, whole = len(self.problems), len(self.problems) + len(self.examples)
        more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
        return f"{count} of {whole} examples were left out: {'; '.join(self.problems[:_SHOWN])}{more}"


def encoded_example(chat: ChatFormat, example: Example, context: int | None) -> TrainingTokens:
    """The tokens of one example.

    Raises:
        BackendError: it cannot be learned.
    """
    tokens = chat.training_tokens(example.messages, example.completion, example.reasoning)
    if example.weighted:
        tokens = replace(tokens, weights=token_weights(example, tokens.completion, chat.written_out))
    if not tokens.prompt:
        raise BackendError("it has no prompt tokens, so its first token could not be learned")
    length = len(tokens.prompt) + len(tokens.completion)
    if context is not None and length > context:
        raise BackendError(f"it has {length} tokens, more than the {context} of the model's context")
    return tokens


def encode(
    chat: ChatFormat, examples: Sequence[Example], context: int | None, what: str = "example"
) -> Iterator[Encoded]:
    """Encode examples; yields what there is so far now and then, and at the end.

    Args:
        chat: how the model writes a chat.
        examples: what is to be learned.
        context: positions that the model knows; None: it names none.
        what: an example is called, with its number from 1 on.

    Raises:
        BackendError: there are examples, and none of them can be learned.
    """
    found = Encoded()
    for number, example in enumerate(examples, start=1):
        try:
            tokens = encoded_example(chat, example, context)
        except BackendError as error:
            found.problems.append(f"{what} {number}: {error}")
        else:
            found.examples.append(example)
            found.tokens.append(tokens)
        if number % _AT_ONCE == 0:
            yield found
    if found.problems and not found.examples:
        raise BackendError(f"no {what} can be learned; {found.problems[0]}")
    yield found


def encoded_job(
    job: TrainJob, chat: ChatFormat, context: int | None
) -> Generator[list[TrainEvent], None, tuple[TrainJob, list[TrainingTokens], list[TrainingTokens]]]:
    """A job without what cannot be learned, with the tokens of its examples and of its validation examples.

    Raises:
        BackendError: none of the examples, or none of the validation examples, can be learned.
    """
    learned = yield from _all(encode(chat, job.examples, context))
    checked = yield from _all(encode(chat, job.validation, context, "validation example"))
    messages: list[TrainEvent] = [TrainMessage(job.key, each.words) for each in (learned, checked) if each.words]
    yield messages
    return replace(job, examples=learned.examples, validation=checked.examples), learned.tokens, checked.tokens


def threshold(job: TrainJob, kept: int) -> Callable[[int], int]:
    """After how many of the examples that were kept a checkpoint is due; whole epochs stay whole epochs.

    Args:
        job: as it was given.
        kept: how many of its examples can be learned.
    """
    whole = len(job.examples)

    def due(wanted: int) -> int:
        return wanted // whole * kept if wanted % whole == 0 else min(wanted, kept * job.sft.epochs)

    return due


def _all(steps: Iterator[Encoded]) -> Generator[list[TrainEvent], None, Encoded]:
    found = Encoded()
    for each in steps:
        found = each
        yield []
    return found
