"""What is installed on a machine, as far as it decides what a job comes to: a cluster's nodes must have the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import windowshift

_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "safetensors", "numpy", "nnsight")


@cache
def installation() -> Mapping[str, str]:
    """Versions by name, and ``code``: the SHA-256 of all of windowshift's own source."""
    found = {"windowshift": windowshift.__version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        try:
            # The build (+cpu, +cu128) is a node's own affair.
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "code": _code()}


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """What a node has otherwise than this machine, in a few words; None where nothing is.

    A library that one of both lacks is no difference: one that only asks a cluster needs no torch.
    """
    for name in sorted({*here} & {*there} - {"code"}):
        if here[name] != there[name]:
            return f"it has {name} {there[name]}, and this machine has {here[name]}"
    if here["code"] != there["code"]:
        return "its windowshift has other source files than this machine's"
    return None


def _code() -> str:
    digest = hashlib.sha256()
    root = Path(windowshift.__file__).parent
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if name != "__pycache__")
        for name in sorted(names):
            if name.endswith((".py", ".yaml")):
                path = Path(folder, name)
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
