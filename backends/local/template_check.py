"""What a model's chat template comes to, found out before anything is spent on it."""

from __future__ import annotations

import re
from typing import Any

from windowshift.backends.local.chat_format import SENTINEL, THINKING, ChatFormat
from windowshift.core.contract.backend import TemplateReport
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import ChatRole, Message, TemplateInputs
from windowshift.core.spec.spec_errors import did_you_mean

_CHANCE = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_VARIABLE = re.compile(r"\b[a-z][a-z_]{3,}\b")

_CHATS: tuple[tuple[ChatRole, ...], ...] = (("user",), ("user", "assistant", "user"))


def check_template(chat: ChatFormat, inputs: TemplateInputs) -> TemplateReport:
    """Try a template on every role.

    Args:
        chat: the format, reading `inputs`.
        inputs: what the template may read besides the messages.
    """
    switches, unusable = _switches(chat, inputs)
    used: dict[str, Any] = {"date": inputs.date} if chat.uses_date else {}
    if switches:
        used["switches"] = switches
    untrainable = None
    notes: list[str] = []
    if _CHANCE.search(chat.source):
        unusable = (
            unusable
            or f"the chat template of '{chat.label}' draws its text at random, so that no prompt could be repeated"
        )
    for roles in _CHATS:
        try:
            chat.prompt_ids([Message(role, SENTINEL.format(f"{role}{place}")) for place, role in enumerate(roles)])
        except BackendError as error:
            if len(roles) == 1:
                unusable = unusable or str(error)
            else:
                notes.append(f"chats of several turns cannot be asked: {error}")
    if unusable is None:
        try:
            chat.training_tokens([Message("user", SENTINEL.format("user"))], "An answer.")
        except BackendError as error:
            untrainable = str(error)
        if chat.opening is not None:
            notes.append(
                f"'{chat.label}' always thinks: its template opens {chat.opening}. Reasoning is kept apart and is not "
                "scored, and max_tokens counts it too"
            )
    return TemplateReport(used, unusable, untrainable, tuple(notes))


def _switches(chat: ChatFormat, inputs: TemplateInputs) -> tuple[dict[str, Any], str | None]:
    """The switches in force, those of the spec and `enable_thinking`; and what is wrong with one of them."""
    problem = None
    for name, _ in inputs.switches:
        if re.search(rf"\b{re.escape(name)}\b", chat.source) is None:
            known = sorted(set(_VARIABLE.findall(chat.source)))
            problem = f"the chat template of '{chat.label}' has no switch '{name}'{did_you_mean(name, known)}"
    switches = {THINKING: False} if re.search(rf"\b{THINKING}\b", chat.source) else {}
    return switches | dict(inputs.switches), problem
