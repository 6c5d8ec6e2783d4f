"""A fine-tune that exists already, as the model that an experiment starts from: a base model with a PEFT adapter."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from windowshift.core.contract.backend import ModelIdentity
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.home import at_home

_FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapter_digest(folder: str | Path) -> str:
    """SHA-256 of an adapter's two files, in hexadecimal.

    Raises:
        BackendError: the folder is none, or lacks one of them.
    """
    digest = hashlib.sha256()
    for name in _FILES:
        path = at_home(folder) / name
        if not path.is_file():
            raise BackendError(f"adapter folder '{folder}' has no {name}")
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise BackendError(f"{name} of adapter folder '{folder}' cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def fine_tuned_fingerprint(base: str, digest: str) -> str:
    """The fingerprint of a base model with an adapter, from the fingerprint of the one and the digest of the other."""
    return hashlib.sha256(f"{base}+{digest}".encode()).hexdigest()


def fine_tuned(base: ModelIdentity, folder: str | Path) -> ModelIdentity:
    """The identity of a base model with an adapter, by the content of both.

    Raises:
        BackendError: as `adapter_digest`.
    """
    digest = adapter_digest(folder)
    return replace(
        base,
        label=f"{base.label}+{at_home(folder).resolve().name}",
        fingerprint=fine_tuned_fingerprint(base.fingerprint, digest),
        details={**base.details, "adapter": digest},
    )
