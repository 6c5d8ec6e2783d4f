"""The key: found in the environment or the OS keyring, and kept out of every sentence."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from windowshift.core.contract.errors import BackendError, UnaskedError
from windowshift.core.contract.redaction import Redactor, remember

KEYRING_SERVICE = "windowshift"
_NO_KEY = "none"


@dataclass(frozen=True, repr=False)
class ApiKey:
    """A key and where it was found; it has no repr, so that no traceback or log can show it."""

    value: str
    source: Literal["environment", "keyring", "none needed"]

    def __post_init__(self) -> None:
        if self.source != "none needed":
            remember(self.value)

    @cached_property
    def redactor(self) -> Redactor:
        """What takes this key, and what looks like one, out of everything that a server says."""
        return Redactor(() if self.source == "none needed" else (self.value,))


def find_key(name: str | None, backend: str = "openai") -> ApiKey:
    """Find the key called `name`: in the environment, then in the OS keyring where `keyring` is installed.

    Raises:
        UnaskedError: it is in neither.
        BackendError: it is none that can be sent.
    """
    if name is None:
        return ApiKey(_NO_KEY, "none needed")
    value = os.environ.get(name, "")
    if value.strip():
        return ApiKey(_sendable(value.strip(), f"the environment variable {name}"), "environment")
    value = _from_keyring(name) or ""
    if value.strip():
        return ApiKey(_sendable(value.strip(), f"the keyring entry {name}"), "keyring")
    raise UnaskedError(
        f"backend '{backend}' needs a key: set the environment variable {name}, or run  keyring set {KEYRING_SERVICE} "
        f"{name}  (pip install keyring), or write  key_env: null  under backend_options for a server that needs none"
    )


def _sendable(value: str, where: str) -> str:
    if not value.isascii() or any(character.isspace() or not character.isprintable() for character in value):
        raise BackendError(f"{where} holds no usable key: it has spaces or characters that no header can carry")
    return value


def _from_keyring(name: str) -> str | None:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ModuleNotFoundError:
        return None
    try:
        return keyring.get_password(KEYRING_SERVICE, name)
    except KeyringError:  # locked, or there is no keyring on this machine
        return None
