"""The options of backend `tinker`."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, model_validator

from windowshift.backends.shared.options import BackendOptions, Prices, Seconds, Whole, address, host_of, variable
from windowshift.core.spec.section import Number

HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod"
KEY_ENV = "TINKER_API_KEY"
LEAST_DAYS = 1 / 24  # Tinker keeps nothing for less than an hour


def _days(value: float) -> float:
    if value < LEAST_DAYS:
        raise ValueError(f"must be at least 1/24 (an hour), but it is {value:g}")
    return value


def _tokenizer(value: object) -> object:
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError("must be a hub id or a folder")
    return value


Days = Annotated[Number, AfterValidator(_days)]


class TinkerOptions(BackendOptions):
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

    backend: ClassVar[str] = "tinker"
    key_variable: ClassVar[str | None] = KEY_ENV

    base_url: Annotated[str, address("http://localhost:8000")] = HOSTED
    key_env: Annotated[str | None, variable(KEY_ENV)] = KEY_ENV
    tokenizer: Annotated[str | None, BeforeValidator(_tokenizer)] = None
    clients: Whole = 4
    pipeline: Whole = 2
    concurrency: Whole = 64
    state_steps: Whole | None = None
    state_seconds: Seconds = 300.0
    state_days: Days = 7.0
    keep_days: Days | None = 30.0
    download: bool = True
    train_unembed: bool = False
    patience: Seconds = 900.0
    tries: Whole = 4
    settle: Seconds = 10.0
    prices: Prices = {}

    @model_validator(mode="before")
    @classmethod
    def _where(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("base_url"):
            return {**data, "base_url": os.environ.get("TINKER_BASE_URL") or HOSTED}
        return data

    @property
    def host(self) -> str:
        """The server's host name; one name for this machine."""
        return host_of(self.base_url)
