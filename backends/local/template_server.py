"""What a model reads: messages with its chat template, for screens that may not import a tokenizer.

`python -m windowshift.backends.local.template_server` answers one JSON line for each on its standard input:
``{"backend": …, "base": …, "revision": …, "template": {…}, "messages": [[role, content], …]}`` gives ``{"text": …,
"tokens": …, "template": true}``, or ``{"error": sentence}``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from windowshift.core.contract.errors import BackendError, MissingExtraError, WindowshiftError
from windowshift.core.contract.generation import Message, TemplateInputs


def render(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text of a prompt, its number of tokens, and whether the model has a chat template.

    Raises:
        BackendError: the backend keeps its template to itself, or the tokenizer cannot be loaded here.
    """
    backend, base = str(request["backend"]), str(request["base"])
    if backend != "local":
        raise BackendError(
            f"backend '{backend}' takes the messages as they are shown, and its server puts '{base}'s chat template "
            "around them: the text that the model reads never comes here"
        )
    try:
        from windowshift.backends.local.tokenizer import load_chat_format
    except ImportError as error:
        raise MissingExtraError("a chat template", "local", error.name or "transformers") from error
    messages = [Message(role, content) for role, content in request["messages"]]
    chat = load_chat_format(base, request.get("revision"), TemplateInputs.of(request.get("template")))
    return {
        "text": chat.prompt_text(messages),
        "tokens": len(chat.prompt_ids(messages)),
        "template": chat.has_template,
    }


def answer(lines: TextIO, out: TextIO) -> None:
    """Answer line after line until the input ends."""
    for line in lines:
        try:
            found = render(json.loads(line))
        except WindowshiftError as error:
            found = {"error": str(error)}
        out.write(json.dumps(found) + "\n")
        out.flush()


if __name__ == "__main__":
    # Libraries print where they like: the answers keep the standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer(sys.stdin, answers)
