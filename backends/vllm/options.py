"""The options of backend `vllm`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from windowshift.backends.shared.option_checks import OptionChecks
from windowshift.core.contract.errors import BackendError

KEY_ENV = "VLLM_API_KEY"
ADDRESS_ENV = "VLLM_BASE_URL"
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
        key_env: the NAME of the environment variable that holds the server's key; where it is not set, or null, none is
            sent.
        concurrency: requests under way at once, at most.
        timeout: seconds after which a request counts as lost.
        patience: seconds that a server may stay away, while it restarts for instance, before requests fail.
        adapters: how many adapters the server may know at once; the least recently used one is unloaded first.
        steering: in this process only: run eagerly, as steering needs; without it vLLM compiles the model.
        engine: in this process only: vLLM's engine arguments, e.g. ``{dtype: float32, max_loras: 8}``.
    """

    base_url: str | None = None
    key_env: str | None = KEY_ENV
    concurrency: int = 256
    timeout: float = 3600.0
    patience: float = 300.0
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
        check = OptionChecks("vllm", KEY_ENV)
        check.names(options, [each.name for each in fields(cls)])
        found = dict(options)
        address = found.get("base_url") or os.environ.get(ADDRESS_ENV) or None
        if address is not None:
            address = check.address(address, "http://localhost:8000/v1").removesuffix("/v1").rstrip("/")
        found["base_url"] = address
        check.variable(found.get("key_env", KEY_ENV))
        for name in ("concurrency", "adapters"):
            check.number(found, name, 1, whole=True)
        check.number(found, "timeout", 1)
        check.number(found, "patience", 0)
        check.flags(found, ("steering",))
        check.mapping(found, "engine")
        _check_engine(found)
        return cls(**found)


def _check_engine(found: Mapping[str, Any]) -> None:
    engine = found.get("engine", {})
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
