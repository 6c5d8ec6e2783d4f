"""Prompts as token ids: the tokenizer and the end tokens of a model, exactly those of backend `local`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from windowshift.backends.local.chat_format import ChatFormat
from windowshift.backends.local.model_folder import locate
from windowshift.core.contract.errors import BackendError, MissingExtraError
from windowshift.core.contract.generation import Model, TemplateInputs
from windowshift.core.contract.hub import offline


@dataclass(frozen=True, slots=True)
class TokenPrompts:
    """How a model's chats are written, and which tokens end an answer."""

    chat: ChatFormat
    end_ids: frozenset[int]
    readings: dict[TemplateInputs, ChatFormat] = field(default_factory=dict)

    @classmethod
    def load(cls, base: str, revision: str | None = None) -> TokenPrompts:
        """Read a model's tokenizer and configuration; no weights, and no torch.

        Raises:
            BackendError: they cannot be found, reached or read.
        """
        try:
            from transformers import AutoConfig, AutoTokenizer, GenerationConfig
        except ImportError as error:
            raise MissingExtraError("backend 'vllm'", "vllm", error.name or "transformers") from error
        folder = locate(base)
        source = base if folder is None else str(folder)
        how: dict[str, Any] = {"revision": revision, "local_files_only": folder is None and offline()}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **how)
            config = AutoConfig.from_pretrained(source, **how)
        except Exception as error:  # every library in the chain raises its own kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(f"the tokenizer of model '{base}' cannot be loaded: {reason[:240]}") from error
        try:
            generation = GenerationConfig.from_pretrained(source, **how)
        except (OSError, ValueError):  # there is none: the configuration's end tokens are all
            generation = None
        end_ids: set[int] = set()
        for one in (tokenizer, generation, config):
            ids = getattr(one, "eos_token_id", None)
            end_ids.update([ids] if isinstance(ids, int) else ids or ())
        found = frozenset(end_ids)
        return cls(ChatFormat(tokenizer, base, found), found)

    def chat_of(self, model: Model) -> ChatFormat:
        """The format with what a request's model says of its template."""
        if model.template is None:
            return self.chat
        if model.template not in self.readings:
            self.readings[model.template] = self.chat.reading(model.template)
        return self.readings[model.template]
