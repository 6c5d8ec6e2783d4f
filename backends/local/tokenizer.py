"""A model's tokenizer alone, without its weights and without torch."""

from __future__ import annotations

import json
from pathlib import Path

from windowshift.backends.local.chat_format import ChatFormat
from windowshift.backends.local.model_folder import locate
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import TemplateInputs
from windowshift.core.contract.hub import offline


def load_chat_format(base: str, revision: str | None = None, inputs: TemplateInputs | None = None) -> ChatFormat:
    """The chat format of a model, from its tokenizer alone.

    Raises:
        BackendError: the tokenizer cannot be found, reached or read.
    """
    folder = locate(base)
    try:
        if folder is not None and _generic(folder):
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
        else:
            from transformers import AutoTokenizer  # it imports torch, which takes seconds

            tokenizer = AutoTokenizer.from_pretrained(
                base if folder is None else str(folder),
                revision=revision,
                local_files_only=folder is None and offline(),
            )
    except Exception as error:  # every library in the chain raises its own kinds
        raise BackendError(loading_error(base, folder, error)) from error
    return ChatFormat(tokenizer, base, frozenset(), inputs)


def _generic(folder: Path) -> bool:
    """Whether a folder's tokenizer is all in its files, so that no class of its model's is needed."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    named = config.get("tokenizer_class") if isinstance(config, dict) else None
    return (folder / "tokenizer.json").is_file() and named in ("TokenizersBackend", "PreTrainedTokenizerFast")


def loading_error(base: str, folder: Path | None, error: Exception) -> str:
    """Why a model, or its tokenizer, could not be loaded, in one sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    reason = text if len(text) <= 240 else text[:240].rsplit(" ", 1)[0] + " ..."
    if folder is None and offline() and isinstance(error, OSError):
        return f"model '{base}' is not in the hub's cache on this machine, and the hub cannot be reached"
    if folder is None:
        return f"model '{base}' cannot be loaded from the hub or its cache: {reason}"
    return f"model folder '{base}' cannot be loaded: {reason}"
