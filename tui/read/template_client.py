"""Prompts with the model's chat template: asked of a process of its own, because screens load no tokenizer."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from windowshift.core.contract.child import python_module


@dataclass(frozen=True, slots=True)
class ChatText:
    """A prompt as the model read it; `error` in place of it where it cannot be known here."""

    text: str = ""
    tokens: int = 0
    template: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class TemplateRequest:
    """A model, and the messages of one prompt as (role, content).

    `template` is what its chat template read besides the messages, as JSON.
    """

    backend: str
    base: str
    revision: str | None
    messages: tuple[tuple[str, str], ...]
    template: str = "{}"


class ChatTexts:
    """Asks a process that loads the tokenizer once; it starts with the first question.

    Args:
        command: what answers, one JSON line for each line.
    """

    COMMAND = tuple(python_module("windowshift.backends.local.template_server"))

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()
        self._known: dict[TemplateRequest, ChatText] = {}
        self._closed = False

    def known(self, request: TemplateRequest) -> ChatText | None:
        """Return an answer that was given before."""
        return self._known.get(request)

    def ask(self, request: TemplateRequest) -> ChatText:
        """Return a prompt's text. It waits, for seconds the first time: call it from a worker thread."""
        with self._turn:
            if self._closed:
                return ChatText(error="the screen was left")
            found = self._known[request] = self._ask(request)
            return found

    def close(self) -> None:
        """End the process; a question under way is answered with an error."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError, ValueError):
                        pipe.close()

    def _ask(self, request: TemplateRequest) -> ChatText:
        asked = {
            "backend": request.backend,
            "base": request.base,
            "revision": request.revision,
            "template": json.loads(request.template),
            "messages": request.messages,
        }
        try:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    text=True, encoding="utf-8",
                )  # fmt: skip
            if self._closed:  # while it started
                self._process.kill()
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            return ChatText(**json.loads(self._process.stdout.readline()))
        except (OSError, ValueError, TypeError) as error:
            return ChatText(error=f"the process that loads the tokenizer ended without an answer ({error})")
