"""Where a model lives, and what identifies it, found out without loading weights or torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import windowshift
from windowshift.backends.local.hub import hub_config
from windowshift.core.contract.backend import ModelIdentity, ModelSize
from windowshift.core.contract.errors import BackendError

MICROWORLD = "microworld"
MIB = 1 << 20
TINY_BYTES = 24_000_000  # of weights, about 5 M parameters: below it one core is all that a model can use
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)


def locate(base: str) -> Path | None:
    """The folder that `base` names, or None where it is a hub id.

    Raises:
        BackendError: `base` looks like a path and is no folder, or is no possible hub id.
    """
    if base == MICROWORLD:
        folder = Path(windowshift.__file__).parent / "assets" / MICROWORLD
        if not folder.is_dir():
            raise BackendError(f"the embedded model 'microworld' is missing from this installation ({folder})")
        return folder
    path = Path(base).expanduser()
    if base and path.is_dir():
        return path
    if base and path.exists():
        raise BackendError(f"model '{base}' is a file: name the folder that holds config.json and the weights")
    if base.startswith((".", "/", "~")) or base.count(os.sep) > 1:
        raise BackendError(f"model folder '{base}' does not exist")
    if not _HUB_ID.fullmatch(base):
        raise BackendError(f"model '{base}' is neither a folder nor a hub id (organisation/name)")
    return None


def identify(base: str, revision: str | None = None) -> ModelIdentity:
    """Name a model: by its content for a folder, by id and revision for the hub.

    A folder's fingerprint is the SHA-256 of its configuration, tokenizer and chat template files,
    and of size, first and last MiB of every weight file.

    Raises:
        BackendError: there is no such folder, or it is not a model.
    """
    folder = locate(base)
    if folder is None:
        name = f"{base}@{revision or 'main'}"
        return ModelIdentity(label=base, fingerprint=hashlib.sha256(name.encode()).hexdigest())
    config = _config(base, folder)
    weights = _weights(folder)
    if not weights:
        raise BackendError(f"model folder '{base}' has no weights (*.safetensors or pytorch_model*.bin)")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise BackendError(f"model folder '{base}' has no tokenizer ({', '.join(_TOKENIZERS[:3])}, ...)")
    return ModelIdentity(
        label=MICROWORLD if base == MICROWORLD else folder.resolve().name,
        fingerprint=_fingerprint(base, folder, weights),
        rehearsal=base == MICROWORLD,
        details={"path": str(folder), "model_type": config.get("model_type", "unknown")},
    )


def model_size(base: str, revision: str | None = None) -> ModelSize:
    """Decoder layers and hidden size, from config.json; a hub id's is fetched or found in the cache.

    Raises:
        BackendError: there is no configuration, or it does not name the two.
    """
    folder = locate(base)
    if folder is None:
        folder = hub_config(base, revision).parent
    config = _config(base, folder)
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    layers = next((config[key] for key in ("num_hidden_layers", "n_layer", "n_layers") if key in config), None)
    width = next((config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config), None)
    if not isinstance(layers, int) or not isinstance(width, int):
        raise BackendError(f"config.json of model '{base}' does not say how many layers it has and how wide they are")
    return ModelSize(layers, width)


def weight_bytes(base: str) -> int | None:
    """Size of a folder's weight files; None where `base` is a hub id.

    Raises:
        BackendError: there is no such folder.
    """
    folder = locate(base)
    return None if folder is None else sum(path.stat().st_size for path in _weights(folder))


def _config(base: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise BackendError(f"model folder '{base}' has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(f"config.json of model folder '{base}' cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BackendError(f"config.json of model folder '{base}' is not a JSON object")
    return config


def _weights(folder: Path) -> list[Path]:
    found = {*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")}
    return sorted(path for path in found if path.name != "adapter_model.safetensors")


def _fingerprint(base: str, folder: Path, weights: list[Path]) -> str:
    digest = hashlib.sha256()
    try:
        for name in _TEXT_FILES:
            path = folder / name
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{name}:{len(content)}\n".encode())
                digest.update(content)
        for path in weights:
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(MIB))
                if size > MIB:
                    file.seek(max(MIB, size - MIB))
                    digest.update(file.read(MIB))
    except OSError as error:
        raise BackendError(f"model folder '{base}' cannot be read: {error}") from error
    return digest.hexdigest()
