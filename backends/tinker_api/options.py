"""The options of backend `tinker`."""

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
from windowshift.core.prices import Price, read_price

HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod"
LEAST_DAYS = 1 / 24  # Tinker keeps nothing for less than an hour
_SECRETS = ("api_key", "key", "token", "password", "secret")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
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
        name = urlsplit(self.base_url).hostname or ""
        return "localhost" if name in _LOOPBACK else name

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> TinkerOptions:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), a value that makes no sense, or a key where
                only the name of one belongs. No message repeats a value that could be a key.
        """
        known = [each.name for each in fields(cls)]
        for name in options:
            if str(name).lower() in _SECRETS:
                raise BackendError(
                    f"a key does not belong in a spec: take '{name}' out, and put the key into the environment "
                    "variable TINKER_API_KEY, or into another one that  key_env: NAME  names"
                )
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known options: {', '.join(known)}"
                raise BackendError(f"backend 'tinker' has no option '{name}': {hint}")
        found = dict(options)
        found["base_url"] = _base_url(found.get("base_url") or os.environ.get("TINKER_BASE_URL") or HOSTED)
        _key_env(found.get("key_env", "TINKER_API_KEY"))
        for name in _FLAGS:
            if not isinstance(found.get(name, False), bool):
                raise BackendError(f"option '{name}' of backend 'tinker' must be true or false, got {found[name]!r}")
        tokenizer = found.get("tokenizer")
        if tokenizer is not None and not (isinstance(tokenizer, str) and tokenizer):
            raise BackendError(
                f"option 'tokenizer' of backend 'tinker' must be a hub id or a folder, got {tokenizer!r}"
            )
        for name, kinds, least in (
            *((name, (int,), 1) for name in ("clients", "pipeline", "concurrency", "tries")),
            ("state_steps", (int,), 1),
            *((name, (int, float), 0) for name in ("state_seconds", "patience", "settle")),
            *((name, (int, float), LEAST_DAYS) for name in ("state_days", "keep_days")),
        ):
            value = found.get(name, least)
            if value is None and name in ("state_steps", "keep_days"):
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
                shown = "1/24 (an hour)" if least == LEAST_DAYS else least
                raise BackendError(
                    f"option '{name}' of backend 'tinker' must be a number of at least {shown}, got {value!r}"
                )
        if not isinstance(found.get("prices", {}), Mapping):
            raise BackendError(f"option 'prices' of backend 'tinker' must be a mapping, got {found['prices']!r}")
        if "prices" in found:
            found["prices"] = {
                str(model): read_price(value, f"option 'prices.{model}'") for model, value in found["prices"].items()
            }
        return cls(**found)


def _base_url(value: object) -> str:
    if not isinstance(value, str):
        raise BackendError(f"option 'base_url' of backend 'tinker' must be an address, got {value!r}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise BackendError("option 'base_url' of backend 'tinker' is not an address") from error
    if parts.username or parts.password or parts.query:
        # Not repeated: what stands there is a key, most likely.
        raise BackendError("option 'base_url' of backend 'tinker' must hold no user, password or query")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise BackendError(f"option 'base_url' of backend 'tinker' must be like http://localhost:8000, got '{value}'")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and "." in parts.hostname:
        raise BackendError(
            f"option 'base_url' of backend 'tinker' would send the key unencrypted to {parts.hostname}: use https://"
        )
    return value.rstrip("/")


def _key_env(value: object) -> None:
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)):
        raise BackendError(
            "option 'key_env' of backend 'tinker' must be the NAME of an environment variable, e.g. TINKER_API_KEY; "
            "the key itself belongs into that variable"
        )
