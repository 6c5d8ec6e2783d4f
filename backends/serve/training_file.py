"""Chat JSONL for fine-tuning: one ``{"messages": [...]}`` a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.body import load_json
from windowshift.backends.serve.chat_message import TrainingMessage
from windowshift.core.contract.generation import Message
from windowshift.core.contract.training import Example
from windowshift.core.spec.spec_errors import sentence

_BOM = b"\xef\xbb\xbf"


class TrainingLine(BaseModel):
    """A line of a training file."""

    model_config = ConfigDict(extra="forbid")

    messages: list[TrainingMessage] = Field(min_length=1)


def lines(file: BinaryIO, line_bytes: int) -> Iterator[tuple[int, Any]]:
    """The JSON values of a JSONL file with their line numbers, counted from 1; blank lines are passed over.

    Raises:
        ApiError: a line is too long, or not JSON; it is named.
    """
    number = 0
    while raw := file.readline(line_bytes + 1):
        number += 1
        if len(raw) > line_bytes:
            raise _bad(number, f"is longer than {line_bytes} bytes")
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if not raw.strip():
            continue
        try:
            value = load_json(raw)
        except ValueError as error:
            raise _bad(number, f"is not valid JSON: {error}") from error
        yield number, value


def examples(file: BinaryIO, line_bytes: int) -> Iterator[Example]:
    """The examples of a training file: one for each assistant message that is to be learned.

    A chat of several turns gives an example for each answer, with everything before it as its prompt.

    Raises:
        ApiError: a line is malformed (it is named), or there is none at all.
    """
    empty = True
    for number, value in lines(file, line_bytes):
        for example in _examples(number, value):
            empty = False
            yield example
    if empty:
        raise ApiError(400, "the training file has no examples", param="file", code="invalid_training_file")


def count(file: BinaryIO, line_bytes: int) -> int:
    """How many examples a training file has; every line is checked.

    Raises:
        ApiError: a line is malformed (it is named), or there is none at all.
    """
    return sum(1 for _ in examples(file, line_bytes))


def _examples(number: int, value: Any) -> Iterator[Example]:
    if not isinstance(value, dict):
        raise _bad(number, 'must be a JSON object with the key "messages"')
    try:
        line = TrainingLine.model_validate(value)
    except ValidationError as error:
        raise _bad(number, f"is not a chat example: {sentence(error, TrainingLine, value)}") from error
    if line.messages[-1].role != "assistant":
        raise _bad(number, "must end with an assistant message: that is what the model learns to write")
    before: list[Message] = []
    learned = 0
    for each in line.messages:
        message = each.message()
        if each.role == "assistant" and each.weight != 0:
            if not before:
                raise _bad(number, "begins with an assistant message to learn: put a user message before it")
            learned += 1
            yield Example(tuple(before), message.content)
        before.append(message)
    if not learned:
        raise _bad(number, "has no assistant message to learn: all have the weight 0")


def _bad(number: int, what: str) -> ApiError:
    message = f"invalid file format: line {number} {what}"
    return ApiError(400, message, param="file", code="invalid_training_file")
