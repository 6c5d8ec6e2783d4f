"""The options of backend `openai`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from windowshift.backends.shared.option_checks import OptionChecks, host_of
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.prices import Price

LONGEST_BACKOFF = 30.0
HOSTED = "https://api.openai.com/v1"


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
        return host_of(self.base_url)

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> OpenAIOptions:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), a value that makes no sense, or a key
                where only the name of one belongs. No message repeats a value that could be a key.
        """
        check = OptionChecks("openai", "OPENAI_API_KEY")
        check.names(options, [each.name for each in fields(cls)])
        found = dict(options)
        address = found.get("base_url") or os.environ.get("OPENAI_BASE_URL") or HOSTED
        found["base_url"] = check.address(address, "http://localhost:8000/v1")
        check.variable(found.get("key_env", "OPENAI_API_KEY"))
        check.flags(found, ("batch", "seeds", "logprobs", "system", "trains", "unlisted"))
        for name in ("concurrency", "tries"):
            check.number(found, name, 1, whole=True)
        for name in ("timeout", "patience", "backoff", "poll", "settle"):
            check.number(found, name, 0)
        rate = found.get("server_learning_rate")
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1):
            raise BackendError(
                f"option 'server_learning_rate' of backend 'openai' must be a number above 0 and below 1, got {rate!r}"
            )
        check.mapping(found, "hyperparameters")
        check.prices(found)
        return cls(**found)
