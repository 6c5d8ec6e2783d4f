"""Whether the hub of models and data sets can be reached, asked once and quickly.

Without this, the hub's client tries every file six times, half a minute in all, and says so on stderr.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


@cache
def offline() -> bool:
    """True where no connection to the hub can be made, so that only its cache on disk can serve.

    Behind a proxy the client is left to find out by itself.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
        return False
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError:
        return True
    return False


@contextmanager
def cache_alone() -> Iterator[None]:
    """Let the hub's client, and `datasets` where it is loaded, look into their caches and ask nobody."""
    from huggingface_hub import constants

    settings: list[Any] = [constants]
    if (datasets := sys.modules.get("datasets")) is not None:
        settings.append(datasets.config)
    before = [each.HF_HUB_OFFLINE for each in settings]
    for each in settings:
        each.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for each, was in zip(settings, before, strict=True):
            each.HF_HUB_OFFLINE = was
