"""The options of backend `tinker`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from windowshift.backends.shared.option_checks import OptionChecks, host_of
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.prices import Price

HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod"
LEAST_DAYS = 1 / 24  # Tinker keeps nothing for less than an hour
_NONE_IS_FINE = ("state_steps", "keep_days")
_FLAGS = ("download", "train_unembed")


@dataclass(frozen=True, slots=True)
class TinkerOptions:
    """How backend `tinker` talks to Tinker, or to a server that speaks its API.

    Attributes:
        base_url: where the API is; without it the environment variable ``TINKER_BASE_URL``, and then the
            hosted service.
        key_env: the NAME of the environment variable (or of the entry in the OS keyring) that holds the key;
            null for a server that needs none.
        tokenizer: hub id or local folder of the tokenizer with its chat template; without it the model's name.
        clients: training clients at once, at most; `limits.jobs` stands above it.
        pipeline: steps that are sent before the first of them has been answered; 1 waits for every step.
        concurrency: completions asked for at once, at most.
        state_steps: save weights and optimizer after so many steps; null: by `state_seconds` alone.
        state_seconds: save them this often.
        state_days: how long such a state lives at the server; the last one is deleted when the job is done.
        keep_days: how long sampler weights live there; null: for ever.
        download: fetch every adapter as a PEFT folder, so that it outlives the server's copy and other
            backends can load it.
        train_unembed: train the output layer too, as Tinker does unless it is told not to. Backends local and
            vllm cannot load such adapters.
        patience: seconds that the server may stay away before a job or a request is given up.
        tries: how often a job may lose its place at the server without getting further.
        settle: seconds that the server may need to list what was saved while nobody listened.
        prices: USD per million tokens by model, or ``free``; they stand above the price table.
    """

    base_url: str = HOSTED
    key_env: str | None = "TINKER_API_KEY"
    tokenizer: str | None = None
    clients: int = 4
    pipeline: int = 2
    concurrency: int = 64
    state_steps: int | None = None
    state_seconds: float = 300.0
    state_days: float = 7.0
    keep_days: float | None = 30.0
    download: bool = True
    train_unembed: bool = False
    patience: float = 900.0
    tries: int = 4
    settle: float = 10.0
    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def host(self) -> str:
        """The server's host name; one name for this machine."""
        return host_of(self.base_url)

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> TinkerOptions:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), a value that makes no sense, or a key where
                only the name of one belongs. No message repeats a value that could be a key.
        """
        check = OptionChecks("tinker", "TINKER_API_KEY")
        check.names(options, [each.name for each in fields(cls)])
        found = dict(options)
        address = found.get("base_url") or os.environ.get("TINKER_BASE_URL") or HOSTED
        found["base_url"] = check.address(address, "http://localhost:8000")
        check.variable(found.get("key_env", "TINKER_API_KEY"))
        check.flags(found, _FLAGS)
        tokenizer = found.get("tokenizer")
        if tokenizer is not None and not (isinstance(tokenizer, str) and tokenizer):
            raise BackendError(
                f"option 'tokenizer' of backend 'tinker' must be a hub id or a folder, got {tokenizer!r}"
            )
        given = {name: value for name, value in found.items() if value is not None or name not in _NONE_IS_FINE}
        for name in ("clients", "pipeline", "concurrency", "tries", "state_steps"):
            check.number(given, name, 1, whole=True)
        for name in ("state_seconds", "patience", "settle"):
            check.number(given, name, 0)
        for name in ("state_days", "keep_days"):
            check.number(given, name, LEAST_DAYS, shown="1/24 (an hour)")
        check.prices(found)
        return cls(**found)
