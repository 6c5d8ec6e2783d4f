"""The options of backend `vllm`."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from windowshift.backends.shared.options import BackendOptions, Seconds, Whole, address, variable
from windowshift.core.spec.section import Number

KEY_ENV = "VLLM_API_KEY"
ADDRESS_ENV = "VLLM_BASE_URL"
# What windowshift decides itself; the rest of vLLM's engine arguments is the person's own.
_OWN_ENGINE = {
    "model": "write  model:  in the spec",
    "revision": "write  revision:  in the spec",
    "enable_lora": "adapters are always enabled",
    "worker_extension_cls": "it is windowshift's own",
    "generation_config": "sampling is the spec's alone",
    "enforce_eager": "write  enforce_eager:  beside  engine:",
}

Address = Annotated[
    str, address("http://localhost:8000/v1"), AfterValidator(lambda value: value.removesuffix("/v1").rstrip("/"))
]


class VllmOptions(BackendOptions):
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
        enforce_eager: in this process only: neither compile the model nor capture CUDA graphs. It starts faster and
            answers slower; steering works both ways.
        engine: in this process only: vLLM's engine arguments, e.g. ``{dtype: float32, max_loras: 8}``.
    """

    backend: ClassVar[str] = "vllm"
    key_variable: ClassVar[str | None] = KEY_ENV

    base_url: Address | None = None
    key_env: Annotated[str | None, variable(KEY_ENV)] = KEY_ENV
    concurrency: Whole = 256
    timeout: Annotated[Number, Field(ge=1)] = 3600.0
    patience: Seconds = 300.0
    adapters: Whole = 64
    enforce_eager: bool = False
    engine: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _where(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("base_url"):
            return {**data, "base_url": os.environ.get(ADDRESS_ENV) or None}
        return data

    @model_validator(mode="after")
    def _engine(self) -> Self:
        for name, remedy in _OWN_ENGINE.items():
            if name in self.engine:
                raise ValueError(f"engine.{name} is not yours to set: {remedy}")
        for name, given in (("engine", self.engine), ("enforce_eager", self.enforce_eager)):
            if self.base_url is not None and given:
                raise ValueError(
                    f"{name} is for vLLM in this process: the server at base_url has its own; take one of the two out"
                )
        return self
