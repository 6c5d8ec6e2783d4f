"""The libraries that backend `local` needs, which are an extra."""

from __future__ import annotations

import importlib.util

from windowshift.core.contract.errors import MissingExtraError

_LIBRARIES = ("torch", "transformers", "peft", "safetensors")


def require_libraries(*, steering: bool = False) -> None:
    """Say which library is missing, without importing any: with a crew only the workers need them."""
    for name in (*_LIBRARIES, *(("nnsight",) if steering else ())):
        try:
            there = importlib.util.find_spec(name) is not None
        except ValueError:  # marked in sys.modules as not to be had
            there = False
        if not there:
            raise MissingExtraError("backend 'local'", "local", name)
