"""Whether the model hub can be reached, asked once and quickly.

Without this, the hub's client tries every file six times, half a minute each, and says so on stderr.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from urllib.parse import urlsplit

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
