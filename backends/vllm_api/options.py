"""The options of backend `vllm`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from windowshift.core.errors import BackendError

KEY_ENV = "VLLM_API_KEY"
ADDRESS_ENV = "VLLM_BASE_URL"
_SECRETS = ("api_key", "key", "token", "password", "secret")
# What windowshift decides itself; the rest of vLLM's engine arguments is the person's own.
_OWN_ENGINE = {
    "model": "write  model:  in the spec",
    "revision": "write  revision:  in the spec",
    "enable_lora": "adapters are always enabled",
    "worker_extension_cls": "it is windowshift's own",
    "generation_config": "sampling is the spec's alone",
}


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Where vLLM is, and how it is asked.

    Attributes:
        base_url: of a vLLM server, with or without ``/v1``; without it the environment variable
            ``VLLM_BASE_URL``, and then vLLM runs in this process.
        key_env: the NAME of the environment variable that holds the server's key; where it is not set, none is sent.
        concurrency: requests under way at once, at most.
        timeout: seconds after which a request counts as lost.
        adapters: how many adapters the server may know at once; the least recently used one is unloaded first.
        steering: in this process only: run eagerly, as steering needs; without it vLLM compiles the model.
        engine: in this process only: vLLM's engine arguments, e.g. ``{dtype: float32, max_loras: 8}``.
    """

    base_url: str | None = None
    key_env: str = KEY_ENV
    concurrency: int = 256
    timeout: float = 3600.0
    adapters: int = 64
    steering: bool = True
    engine: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> VllmOptions:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), a value that makes no sense, or a key where
                only the name of one belongs.
        """
        known = [each.name for each in fields(cls)]
        for name in options:
            if str(name).lower() in _SECRETS:
                raise BackendError(
                    f"a key does not belong in a spec: take '{name}' out, and put the key into the environment "
                    f"variable {KEY_ENV}, or into another one that  key_env: NAME  names"
                )
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known options: {', '.join(known)}"
                raise BackendError(f"backend 'vllm' has no option '{name}': {hint}")
        found = dict(options)
        address = found.get("base_url") or os.environ.get(ADDRESS_ENV) or None
        found["base_url"] = None if address is None else _base_url(address)
        key_env = found.get("key_env", KEY_ENV)
        if not isinstance(key_env, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_env):
            raise BackendError(
                f"option 'key_env' of backend 'vllm' must be the NAME of an environment variable, e.g. {KEY_ENV}; "
                "the key itself belongs into that variable"
            )
        for name, kinds in (("concurrency", (int,)), ("adapters", (int,)), ("timeout", (int, float))):
            value = found.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, kinds) or not 1 <= value < float("inf"):
                raise BackendError(f"option '{name}' of backend 'vllm' must be a number of at least 1, got {value!r}")
        if not isinstance(found.get("steering", True), bool):
            raise BackendError(f"option 'steering' of backend 'vllm' must be true or false, got {found['steering']!r}")
        _check_engine(found)
        return cls(**found)


def _check_engine(found: Mapping[str, Any]) -> None:
    engine = found.get("engine", {})
    if not isinstance(engine, Mapping):
        raise BackendError(f"option 'engine' of backend 'vllm' must be a mapping, got {engine!r}")
    for name, remedy in _OWN_ENGINE.items():
        if name in engine:
            raise BackendError(f"option 'engine.{name}' of backend 'vllm' is not yours to set: {remedy}")
    if found["base_url"] is not None and engine:
        raise BackendError(
            "option 'engine' of backend 'vllm' is for vLLM in this process: the server at base_url has its own; "
            "take one of the two out"
        )
    if found.get("steering", True) and engine.get("enforce_eager") is False:
        raise BackendError("option 'engine.enforce_eager' of backend 'vllm' cannot be false with  steering: true")


def _base_url(value: object) -> str:
    """The server's address without ``/v1``."""
    if not isinstance(value, str):
        raise BackendError(f"option 'base_url' of backend 'vllm' must be an address, got {value!r}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise BackendError("option 'base_url' of backend 'vllm' is not an address") from error
    if parts.username or parts.password or parts.query:
        # Not repeated: what stands there is a key, most likely.
        raise BackendError("option 'base_url' of backend 'vllm' must hold no user, password or query")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise BackendError(f"option 'base_url' of backend 'vllm' must be like http://localhost:8000/v1, got '{value}'")
    return value.rstrip("/").removesuffix("/v1").rstrip("/")
