"""The options of backend `openai`."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from windowshift.backends.shared.options import BackendOptions, Prices, Seconds, Whole, address, host_of, variable
from windowshift.core.spec.section import Number

LONGEST_BACKOFF = 30.0
HOSTED = "https://api.openai.com/v1"
KEY_ENV = "OPENAI_API_KEY"


class OpenAIOptions(BackendOptions):
    """How backend `openai` talks to a server.

    Attributes:
        base_url: where the API is, up to and with ``/v1``; without it the environment variable
            ``OPENAI_BASE_URL``, and then the hosted service.
        key_env: the NAME of the environment variable (or of the entry in the OS keyring) that holds
            the key; null for a server that needs none.
        concurrency: requests under way at once, at most.
        timeout: seconds that a request may take as a whole, and more for what it carries (64 KiB a second).
        patience: seconds that one request may go on failing before it is given up.
        tries: how often a request may meet an error of the server itself (5xx, a broken answer).
        backoff: seconds before the first repetition; each further one waits twice as long, up to 30 s.
        poll: seconds between two looks at a fine-tuning job or a batch; as long, a request waits for others that
            go into the same batch.
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

    backend: ClassVar[str] = "openai"
    key_variable: ClassVar[str | None] = KEY_ENV

    base_url: Annotated[str, address("http://localhost:8000/v1")] = HOSTED
    key_env: Annotated[str | None, variable(KEY_ENV)] = KEY_ENV
    concurrency: Whole = 64
    timeout: Seconds = 600.0
    patience: Seconds = 900.0
    tries: Whole = 8
    backoff: Seconds = 0.5
    poll: Seconds = 10.0
    settle: Seconds = 10.0
    batch: bool = False
    seeds: bool = True
    logprobs: bool = False
    system: bool = True
    trains: bool = True
    unlisted: bool = False
    server_learning_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    hyperparameters: dict[str, Any] = {}
    prices: Prices = {}

    @model_validator(mode="before")
    @classmethod
    def _where(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("base_url"):
            return {**data, "base_url": os.environ.get("OPENAI_BASE_URL") or HOSTED}
        return data

    @property
    def longest_backoff(self) -> float:
        """The longest pause between two tries: short enough that `patience` allows several."""
        return min(LONGEST_BACKOFF, max(self.backoff, self.patience / 8))

    @property
    def host(self) -> str:
        """The server's host name; one name for this machine."""
        return host_of(self.base_url)
