"""The key of a vLLM server: sent where the environment holds one, and kept out of every sentence."""

from __future__ import annotations

import os

from windowshift.backends.shared.key import ApiKey, find_key


def server_key(name: str | None) -> ApiKey:
    """The key in the environment variable `name`; vLLM needs none unless it was started with one.

    Raises:
        BackendError: what is there cannot be sent.
    """
    return find_key(name if name and os.environ.get(name, "").strip() else None)
