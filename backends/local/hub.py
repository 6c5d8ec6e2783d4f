"""Whether the model hub can be reached, asked once and quickly.

Without this, the hub's client tries every file six times, half a minute each, and says so on stderr.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from windowshift.core.contract.errors import BackendError, MissingExtraError

_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


@cache
def offline() -> bool:
    """True where no connection to the hub can be made, so that only its cache on disk can serve.

    Behind a proxy the client is left to find out by itself.
    """
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
        return False
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return True
    return False


def hub_config(base: str, revision: str | None) -> Path:
    """The config.json of a hub model, fetched or from the cache; no weights are loaded.

    Raises:
        BackendError: it cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError("backend 'local'", "local", "huggingface_hub") from error
    try:
        return Path(hf_hub_download(base, "config.json", revision=revision, local_files_only=offline()))
    except Exception as error:  # the client raises kinds of its own, of httpx and of the file system
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"config.json of model '{base}' cannot be had from the hub or its cache: {reason}"
        ) from error
