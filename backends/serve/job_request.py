"""A request for a fine-tuning job, checked."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

from windowshift.backends.serve.api_error import ApiError
from windowshift.core.contract.training import Sft

SUFFIX_LENGTH = 64
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]*")
_TARGET_EXAMPLES, _TARGET_EPOCHS, _MOST_EPOCHS = 100, 3, 25
_BATCH_SHARE, _MOST_BATCH = 0.002, 256

Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
_auto = BeforeValidator(lambda value: None if value == "auto" else value)
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


class Hyperparameters(BaseModel):
    """Hyperparameters of a request; None is ``auto``."""

    model_config = ConfigDict(extra="forbid")

    n_epochs: Annotated[int | None, _auto] = Field(default=None, ge=1, le=50)
    batch_size: Annotated[int | None, _auto] = Field(default=None, ge=1, le=1024)
    learning_rate_multiplier: Annotated[float | None, _auto] = Field(default=None, gt=0, le=1000, allow_inf_nan=False)

    def resolve(self, examples: int) -> Resolved:
        """The numbers to train with.

        ``auto`` follows what OpenAI published of its own choice: three passes, more where there are
        fewer than 34 examples so that 100 are seen, and a batch of 0.2 % of the examples.
        """
        epochs = self.n_epochs
        if epochs is None:
            few = examples * _TARGET_EPOCHS < _TARGET_EXAMPLES
            epochs = min(_MOST_EPOCHS, -(-_TARGET_EXAMPLES // examples)) if few else _TARGET_EPOCHS
        batch = self.batch_size
        if batch is None:
            batch = min(_MOST_BATCH, max(1, round(examples * _BATCH_SHARE)))
        return Resolved(epochs, batch, self.learning_rate_multiplier or 1.0)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Hyperparameters in force. `multiplier` scales the server's learning rate."""

    n_epochs: int
    batch_size: int
    multiplier: float

    def to_api(self) -> dict[str, Any]:
        """As the API's hyperparameters object."""
        return {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.multiplier,
        }


class OwnSft(BaseModel):
    """LoRA settings beyond the API, under the key ``windowshift`` of a request (the SDK's ``extra_body``).

    None leaves the server's own. `learning_rate` stands in place of the server's, which the multiplier
    multiplies; without `shuffle` the examples are taken in the file's order in the first epoch.
    """

    model_config = ConfigDict(extra="forbid")

    rank: int | None = Field(default=None, ge=1, le=512)
    alpha: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    betas: tuple[Fraction, Fraction] | None = None
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    schedule: Literal["linear", "constant", "cosine"] | None = None
    max_grad_norm: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    shuffle: bool = True

    def over(self, sft: Sft) -> Sft:
        """These settings above the server's; a `max_grad_norm` of 0 clips nothing."""
        given = self.model_dump(exclude_none=True, exclude={"shuffle"})
        if given.get("max_grad_norm") == 0:
            given["max_grad_norm"] = None
        if "rank" in given and "alpha" not in given:
            given["alpha"] = None  # a scale of 1, whatever the server's rank
        return dataclasses.replace(sft, **given)


class Supervised(BaseModel):
    """The method `supervised`."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: Hyperparameters | None = None


class Method(BaseModel):
    """How to train; only `supervised` is offered."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Any = None
    reinforcement: Any = None


class JobRequest(BaseModel):
    """The body of ``POST /v1/fine_tuning/jobs``."""

    model_config = ConfigDict(extra="forbid")

    model: Text
    training_file: Text
    validation_file: Text | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    suffix: str | None = None
    metadata: Metadata | None = None
    integrations: list[Any] | None = None
    windowshift: OwnSft | None = None

    @field_validator("suffix")
    @classmethod
    def _plain(cls, suffix: str | None) -> str | None:
        # It becomes a part of a model name, whose parts are told apart by colons.
        if suffix and (len(suffix) > SUFFIX_LENGTH or not _SUFFIX.fullmatch(suffix)):
            raise ValueError(
                f"may hold letters, digits, spaces, '.', '_' and '-', must begin with a letter or digit, "
                f"and has at most {SUFFIX_LENGTH} characters"
            )
        return suffix.replace(" ", "-") if suffix else None

    def chosen(self) -> Hyperparameters:
        """The hyperparameters, wherever they are given.

        Raises:
            ApiError: something is asked for that this server does not do.
        """
        if self.method is not None and self.method.type != "supervised":
            raise ApiError(
                400, f"this server trains with the method 'supervised' only, not '{self.method.type}'", param="method"
            )
        if self.integrations:
            raise ApiError(
                400, "this server sends nothing to other services: leave 'integrations' out", param="integrations"
            )
        given = self.method.supervised.hyperparameters if self.method and self.method.supervised else None
        if given is not None and self.hyperparameters is not None and given != self.hyperparameters:
            raise ApiError(
                400,
                "'hyperparameters' and 'method' say different things: give them under 'method' only",
                param="hyperparameters",
            )
        return given or self.hyperparameters or Hyperparameters()
