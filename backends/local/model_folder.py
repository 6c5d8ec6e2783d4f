"""Where a model lives, and what identifies it, found out without loading weights or torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import windowshift
from windowshift.backends.local.hub import hub_config, known_commit, resolved, snapshot
from windowshift.backends.local.weight_files import (
    MIB,
    TINY_PARAMETERS,
    digest_ends,
    digest_samples,
    parameters,
    weight_files,
)
from windowshift.core.contract.assets import MICROWORLD, is_embedded
from windowshift.core.contract.backend import ModelIdentity, ModelSize
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.home import at_home

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of a folder's files."""
_UNSEEN = "the commit behind this name is not known: neither the hub nor its cache on disk has told of"
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length")
"""What configurations call the number of positions."""
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
_TEXT_SUFFIXES = (".json", ".jinja", ".model", ".py", ".tiktoken", ".bpe", ".spm")
# Written beside a model by who trains it, and read by nobody who loads it.
_BYSTANDERS = (
    "trainer_state.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "training_args.json",
)


def locate(base: str) -> Path | None:
    """The folder that `base` names, or None where it is a hub id.

    Raises:
        BackendError: `base` looks like a path and is no folder, or is no possible hub id.
    """
    if base == MICROWORLD or is_embedded(base):
        folder = Path(windowshift.__file__).parent / "assets" / base
        if not folder.is_dir():
            raise BackendError(f"the embedded model 'microworld' is missing from this installation ({folder})")
        return folder
    path = at_home(base)
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
    """Name a model: by its content for a folder, by id and commit for the hub.

    A folder's fingerprint is the SHA-256 of every file beside the weights that may change what is loaded
    (configurations, tokenizer, chat templates, indexes, code), and of size, first and last MiB and samples of
    every tensor of every weight file. A hub id's branch moves, so the commit that it stands for counts; where
    neither the hub nor its cache on disk can be asked, the branch, and a note says so.

    Raises:
        BackendError: there is no such folder, or it is not a model.
    """
    folder = locate(base)
    if folder is None:
        commit = resolved(base, revision)
        name = f"{base}@{commit or 'main'}"
        details = {"commit": commit} if known_commit(commit) else {"notes": (f"{_UNSEEN} '{base}'",)}
        return ModelIdentity(label=base, fingerprint=hashlib.sha256(name.encode()).hexdigest(), details=details)
    if (folder / "adapter_config.json").is_file():
        if not (folder / "config.json").is_file():
            raise BackendError(
                f"'{base}' is an adapter, not a model: write its base model under  model:  and this under  adapter:"
            )
        raise BackendError(
            f"model folder '{base}' holds an adapter too (adapter_config.json), which transformers would load unseen: "
            "move it to a folder of its own, and name that under  adapter:"
        )
    config = _config(base, folder)
    weights = weight_files(base, folder)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise BackendError(f"model folder '{base}' has no tokenizer ({', '.join(_TOKENIZERS[:3])}, ...)")
    return ModelIdentity(
        label=base if is_embedded(base) else folder.resolve().name,
        fingerprint=_fingerprint(base, folder, weights),
        rehearsal=is_embedded(base),
        details={"path": str(folder), "model_type": config.get("model_type", "unknown")},
    )


def stamp(base: str) -> Stamp:
    """Name, size and time of every file of a model's folder: what is loaded is loaded anew once they change.

    Nothing for a hub id, and for what is no folder, which whoever loads it will say.
    """
    try:
        folder = locate(base)
        files = [] if folder is None else [(path, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    except (BackendError, OSError):
        return ()
    return tuple((path.name, found.st_size, found.st_mtime_ns) for path, found in files)


def model_size(base: str, revision: str | None = None) -> ModelSize:
    """Decoder layers and hidden size, from config.json; a hub id's is fetched or found in the cache.

    Raises:
        BackendError: there is no configuration, or it does not name the two.
    """
    folder = locate(base)
    if folder is None:
        folder = hub_config(base, resolved(base, revision)).parent
    config = _config(base, folder)
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    layers = next((config[key] for key in ("num_hidden_layers", "n_layer", "n_layers") if key in config), None)
    width = next((config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config), None)
    if not isinstance(layers, int) or not isinstance(width, int):
        raise BackendError(f"config.json of model '{base}' does not say how many layers it has and how wide they are")
    return ModelSize(layers, width)


def model_context(base: str, revision: str | None = None) -> int | None:
    """Positions that a model knows, prompt and completion together, from config.json; None where it names none.

    Raises:
        BackendError: there is no configuration.
    """
    config = model_config(base, revision)
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    for name in POSITIONS:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def tiny(base: str, revision: str | None = None) -> bool:
    """Whether a model is so small that one core is all that it can use; from the heads of its weight files.

    A hub id's are looked for in the hub's cache; one that was never loaded is not tiny.
    """
    try:
        folder = locate(base) or snapshot(base, revision)
        return folder is not None and parameters(base, folder) <= TINY_PARAMETERS
    except BackendError:
        return False  # said by whoever loads it


def model_config(base: str, revision: str | None = None) -> dict[str, Any]:
    """A model's config.json; a hub id's is fetched or found in the cache.

    Raises:
        BackendError: there is none.
    """
    folder = locate(base)
    return _config(base, hub_config(base, resolved(base, revision)).parent if folder is None else folder)


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


def _texts(folder: Path) -> list[Path]:
    """Every file beside the weights that may change what is loaded: those known by name first, then the others."""
    known = [folder / name for name in _TEXT_FILES]
    others = [
        path
        for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*"))
        if path.suffix in _TEXT_SUFFIXES and path.name not in _BYSTANDERS and path not in known
    ]
    return [path for path in (*known, *sorted(others)) if path.is_file()]


def _fingerprint(base: str, folder: Path, weights: list[Path]) -> str:
    digest = hashlib.sha256()
    try:
        for path in _texts(folder):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()}:{len(content)}\n".encode())
            digest.update(content)
        for path in weights:
            digest_ends(digest, path)
        # A small file is whole in its ends; and what ships with windowshift does not change between releases.
        for path in weights if not is_embedded(base) else ():
            if path.stat().st_size > 2 * MIB:
                digest_samples(digest, base, path)
    except OSError as error:
        raise BackendError(f"model folder '{base}' cannot be read: {error}") from error
    return digest.hexdigest()
