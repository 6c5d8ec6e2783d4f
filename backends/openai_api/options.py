"""The options of backend `openai`."""

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

LONGEST_BACKOFF = 30.0
HOSTED = "https://api.openai.com/v1"
_SECRETS = ("api_key", "key", "token", "password", "secret")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """How backend `openai` talks to a server.

    Attributes:
        base_url: where the API is, up to and with ``/v1``; without it the environment variable
            ``OPENAI_BASE_URL``, and then the hosted service.
        key_env: the NAME of the environment variable (or of the entry in the OS keyring) that holds
            the key; null for a server that needs none.
        concurrency: requests under way at once, at most.
        timeout: seconds without a byte after which a request counts as lost.
        patience: seconds that one request may go on failing before it is given up.
        tries: how often a request may meet an error of the server itself (5xx, a broken answer).
        backoff: seconds before the first repetition; each further one waits twice as long, up to 30 s.
        poll: seconds between two looks at a fine-tuning job or a batch.
        settle: seconds that a server may need to list a job whose creation nobody saw confirmed.
        batch: completions go through the Batch API, at its price and its pace (up to a day).
        seeds: send the seed of each request.
        logprobs: ask for the log-probability of each completion.
        system: whether the models pass a system message on.
        trains: whether the server has the fine-tuning API.
        server_learning_rate: the learning rate that the server's ``learning_rate_multiplier`` multiplies, so
            that ``sft.learning_rate`` can hold; without it the server's own holds (`windowshift serve` takes
            all of ``sft`` then).
        hyperparameters: what fine-tuning jobs are given besides, e.g. ``learning_rate_multiplier``.
        prices: USD per million tokens by model, or ``free``; they stand above the price table.
        unlisted: take a model that the server's list does not have.
    """

    base_url: str = HOSTED
    key_env: str | None = "OPENAI_API_KEY"
    concurrency: int = 64
    timeout: float = 600.0
    patience: float = 900.0
    tries: int = 8
    backoff: float = 0.5
    poll: float = 10.0
    settle: float = 10.0
    batch: bool = False
    seeds: bool = True
    logprobs: bool = False
    system: bool = True
    trains: bool = True
    unlisted: bool = False
    server_learning_rate: float | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def longest_backoff(self) -> float:
        """The longest pause between two tries: short enough that `patience` allows several."""
        return min(LONGEST_BACKOFF, max(self.backoff, self.patience / 8))

    @property
    def host(self) -> str:
        """The server's host name; one name for this machine."""
        name = urlsplit(self.base_url).hostname or ""
        return "localhost" if name in _LOOPBACK else name

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> OpenAIOptions:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), a value that makes no sense, or a key
                where only the name of one belongs. No message repeats a value that could be a key.
        """
        known = [each.name for each in fields(cls)]
        for name in options:
            if str(name).lower() in _SECRETS:
                raise BackendError(
                    f"a key does not belong in a spec: take '{name}' out, and put the key into the environment "
                    "variable OPENAI_API_KEY, or into another one that  key_env: NAME  names"
                )
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known options: {', '.join(known)}"
                raise BackendError(f"backend 'openai' has no option '{name}': {hint}")
        found = dict(options)
        found["base_url"] = _base_url(found.get("base_url") or os.environ.get("OPENAI_BASE_URL") or HOSTED)
        _key_env(found.get("key_env", "OPENAI_API_KEY"))
        for name in ("batch", "seeds", "logprobs", "system", "trains", "unlisted"):
            if not isinstance(found.get(name, False), bool):
                raise BackendError(f"option '{name}' of backend 'openai' must be true or false, got {found[name]!r}")
        for name, kinds, least in (
            ("concurrency", (int,), 1),
            ("tries", (int,), 1),
            *((name, (int, float), 0) for name in ("timeout", "patience", "backoff", "poll", "settle")),
        ):
            value = found.get(name, least)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
                raise BackendError(
                    f"option '{name}' of backend 'openai' must be a number of at least {least}, got {value!r}"
                )
        rate = found.get("server_learning_rate")
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1):
            raise BackendError(
                f"option 'server_learning_rate' of backend 'openai' must be a number above 0 and below 1, got {rate!r}"
            )
        for name in ("hyperparameters", "prices"):
            if not isinstance(found.get(name, {}), Mapping):
                raise BackendError(f"option '{name}' of backend 'openai' must be a mapping, got {found[name]!r}")
        if "prices" in found:
            found["prices"] = {
                str(model): read_price(value, f"option 'prices.{model}'") for model, value in found["prices"].items()
            }
        return cls(**found)


def _base_url(value: object) -> str:
    if not isinstance(value, str):
        raise BackendError(f"option 'base_url' of backend 'openai' must be an address, got {value!r}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise BackendError("option 'base_url' of backend 'openai' is not an address") from error
    if parts.username or parts.password or parts.query:
        # Not repeated: what stands there is a key, most likely.
        raise BackendError("option 'base_url' of backend 'openai' must hold no user, password or query")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise BackendError(
            f"option 'base_url' of backend 'openai' must be like http://localhost:8000/v1, got '{value}'"
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not _private(parts.hostname):
        raise BackendError(
            f"option 'base_url' of backend 'openai' would send the key unencrypted to {parts.hostname}: use https://"
        )
    return value.rstrip("/")


def _private(host: str) -> bool:
    """Whether a host is in a network of one's own: a name without a dot, or a private address."""
    if "." not in host and ":" not in host:
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith((".local", ".internal", ".lan"))


def _key_env(value: object) -> None:
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)):
        raise BackendError(
            "option 'key_env' of backend 'openai' must be the NAME of an environment variable, e.g. OPENAI_API_KEY; "
            "the key itself belongs into that variable"
        )
