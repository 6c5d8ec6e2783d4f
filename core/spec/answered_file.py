"""Files of completions: one side of a steering vector that was written elsewhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.vector_job import Answered
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.spec.spec import read_text

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class AnsweredFile:
    """The chats of one file, with a digest of what they say."""

    name: str
    rows: tuple[Answered, ...]
    digest: str


def read_answered(path: Path) -> AnsweredFile:
    """Read a JSONL file of chats that end with an answer.

    A line is ``{"messages": [{"role", "content"}, ...]}`` whose last message is the assistant's, or
    ``{"prompt": ..., "completion": ...}``.

    Raises:
        SpecError: the file cannot be read, is empty, or a line (which is named) is neither.
    """
    rows: list[Answered] = []
    # Not splitlines: U+2028 may stand in a completion.
    for number, line in enumerate(read_text(path, "completions file").split("\n"), 1):
        if line.strip():
            rows.append(_row(line, f"{path} line {number}"))
    if not rows:
        raise SpecError(f"{path} holds no completions")
    content = json.dumps([[[(m.role, m.content) for m in messages], answer] for messages, answer in rows])
    return AnsweredFile(path.name, tuple(rows), hashlib.sha256(content.encode()).hexdigest()[:16])


def _row(line: str, where: str) -> Answered:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where} is not JSON: {error}") from error
    require_whole(data, where)
    wanted = f'{where} needs {{"messages": [...]}} that end with the answer, or {{"prompt", "completion"}}'
    if not isinstance(data, dict):
        raise SpecError(wanted)
    if "messages" in data:
        turns = _messages(data["messages"], wanted)
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise SpecError(wanted)
        return turns[:-1], turns[-1].content
    prompt, completion = data.get("prompt"), data.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise SpecError(wanted)
    return (Message("user", prompt),), completion


def _messages(turns: Any, wanted: str) -> tuple[Message, ...]:
    if not isinstance(turns, list):
        raise SpecError(wanted)
    found: list[Message] = []
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise SpecError(wanted)
        found.append(Message(turn["role"], turn["content"]))
    return tuple(found)
