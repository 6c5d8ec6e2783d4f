"""Prices of API models: the table in ``assets/prices.yaml``, or what a spec says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import yaml

from windowshift.core.contract.assets import asset
from windowshift.core.contract.errors import BackendError

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens; None: not known, or not offered.

    `tuned_input` and `tuned_output` are those of a fine-tune of the model, `batch` the share that the
    Batch API costs.
    """

    input: float
    output: float
    training: float | None = None
    tuned_input: float | None = None
    tuned_output: float | None = None
    batch: float = 0.5
    source: str = "the spec"

    def tuned(self) -> Price | None:
        """The price of a fine-tune of this model; None: it is not known."""
        if self.tuned_input is None or self.tuned_output is None:
            return None
        return Price(self.tuned_input, self.tuned_output, self.training, batch=self.batch, source=self.source)

    def completion(self, prompt_tokens: int, tokens: int, *, batch: bool = False) -> float:
        """USD of a completion."""
        usd = (prompt_tokens * self.input + tokens * self.output) / MILLION
        return usd * self.batch if batch else usd

    def trained(self, tokens: int) -> float | None:
        """USD of training on `tokens` tokens, all epochs together."""
        return None if self.training is None else tokens * self.training / MILLION


FREE = Price(0.0, 0.0, 0.0, 0.0, 0.0, source="your own machine")


def listed(host: str, model: str) -> Price | None:
    """The price in the table; a dated snapshot of a listed model has its price. None: it is not there."""
    table = _table().get(host, {})
    return table.get(model) or table.get(without_date(model))


def without_date(model: str) -> str:
    """The name of a model of which another one is a dated snapshot: ``gpt-4.1`` of ``gpt-4.1-2025-04-14``."""
    name, _, rest = model.partition("-20")
    return name if rest.replace("-", "").isdigit() else model


@cache
def _table() -> dict[str, dict[str, Price]]:
    data = yaml.safe_load(asset("prices.yaml").read_text(encoding="utf-8"))
    dates = {host: data["dates"].get(host, data["date"]) for host in data["usd_per_million_tokens"]}
    return {
        host: {model: Price(**row, source=f"price table of {dates[host]}") for model, row in models.items()}
        for host, models in data["usd_per_million_tokens"].items()
    }


def read_price(value: object, where: str) -> Price:
    """Read a price that a person wrote: ``{input: 2, output: 8, training: 25}``, or ``free``.

    Raises:
        BackendError: it is not one.
    """
    if value == "free":
        return FREE
    known = [field.name for field in fields(Price) if field.name != "source"]
    if not isinstance(value, Mapping) or not {"input", "output"} <= set(value) <= set(known):
        raise BackendError(
            f"{where} must be  free  or a mapping of {', '.join(known)} in USD per million tokens, input and output "
            "at least"
        )
    numbers: dict[str, Any] = {}
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < float("inf"):
            raise BackendError(f"{where}.{name} must be a number of at least 0, got {number!r}")
        numbers[name] = float(number)
    return Price(**numbers)
