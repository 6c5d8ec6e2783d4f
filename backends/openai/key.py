"""The key: found in the environment or the OS keyring, and kept out of every sentence."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from windowshift.core.contract.errors import BackendError

KEYRING_SERVICE = "windowshift"
REDACTED = "[key]"
# What keys of known services look like, for those that a server repeats and that are not our own.
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|tml|hf|gsk|xai)[-_][A-Za-z0-9_\-*]{8,}|(?i:bearer)\s+[A-Za-z0-9._\-]{8,}")
_NO_KEY = "none"


@dataclass(frozen=True, repr=False)
class Key:
    """A key and where it was found; it has no repr, so that no traceback or log can show it."""

    value: str
    source: Literal["environment", "keyring", "none needed"]

    def redact(self, text: str) -> str:
        """Take this key, and what looks like one, out of a text."""
        if self.source != "none needed":
            text = text.replace(self.value, REDACTED)
        return _LOOKS_LIKE_A_KEY.sub(REDACTED, text)


def find_key(name: str | None, backend: str = "openai") -> Key:
    """Find the key called `name`: in the environment, then in the OS keyring where `keyring` is installed.

    Raises:
        BackendError: it is in neither, or it is none that can be sent.
    """
    if name is None:
        return Key(_NO_KEY, "none needed")
    value = os.environ.get(name, "")
    if value.strip():
        return Key(_sendable(value.strip(), f"the environment variable {name}"), "environment")
    value = _from_keyring(name) or ""
    if value.strip():
        return Key(_sendable(value.strip(), f"the keyring entry {name}"), "keyring")
    raise BackendError(
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
