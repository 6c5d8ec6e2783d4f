"""What an OpenAI-style server says of jobs, batches, files and models, with the types that are relied on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator

from windowshift.backends.shared.said import Count, Moment, Name, Said
from windowshift.core.contract.artifacts import split_place
from windowshift.core.contract.errors import StoreError


def _or_nothing(value: Any, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except ValueError:  # pydantic's among them
        return None


def remote(name: str) -> str:
    """A model's name at a server, which is never a path: one here would be taken for an adapter's folder.

    Raises:
        ValueError: it is one.
    """
    try:
        if split_place(name) is None:
            return name
    except StoreError:
        pass
    raise ValueError("it is a path, and no model's name")


# What is only told to people: nonsense there counts as not said, and loses nobody a job that was paid.
_Aside = WrapValidator(_or_nothing)
_Named = Annotated[Name | None, BeforeValidator(lambda value: None if value == "" else value)]
_Remote = Annotated[Name, AfterValidator(remote)]
_RemoteOrNone = Annotated[_Remote | None, BeforeValidator(lambda value: None if value == "" else value)]
Metadata = Annotated[dict[str, Any] | None, _Aside]
_Tokens = Annotated[Count | None, _Aside]


class Listed(Said):
    """One page of a list."""

    data: list[Any]
    has_more: bool | None = None


class Identified(Said):
    """Anything that has an id: a file, a model."""

    kept = ("id",)
    id: Name


class ModelEntry(Said):
    """A model, as lists have it."""

    kept = ("id", "fingerprint")
    id: Name
    owned_by: Annotated[str | None, _Aside] = None
    fingerprint: Annotated[Annotated[str, Field(pattern=r"^[A-Za-z0-9._:+-]{1,200}$")] | None, _Aside] = None
    supports_system: Annotated[bool | None, _Aside] = None
    # What servers call the context in tokens, prompt and completion together.
    max_model_len: _Tokens = None
    context_length: _Tokens = None
    context_window: _Tokens = None
    max_context_length: _Tokens = None

    @property
    def context(self) -> int | None:
        """Tokens of prompt and completion together; None where the server does not say."""
        named = (self.max_model_len, self.context_length, self.context_window, self.max_context_length)
        return next((tokens for tokens in named if tokens), None)


class Reason(Said):
    """Why something failed."""

    message: Annotated[str | None, _Aside] = None


class Taken(Said):
    """The hyperparameters that a server took."""

    batch_size: Annotated[Annotated[int, Field(ge=1, le=1 << 20)] | None, _Aside] = None


class FineTuningJob(Said):
    """A fine-tuning job. `created_at` and `estimated_finish` are Unix seconds."""

    kept = ("id", "status", "model", "fine_tuned_model")
    id: Name
    status: Name
    created_at: Moment
    model: _Named = None
    fine_tuned_model: _RemoteOrNone = None
    metadata: Metadata = None
    user_provided_suffix: Annotated[str | None, _Aside] = None
    trained_tokens: Annotated[Count | None, _Aside] = None
    estimated_finish: Annotated[Moment | None, _Aside] = None
    hyperparameters: Annotated[Taken | None, _Aside] = None
    error: Annotated[Reason | None, _Aside] = None


class JobEvent(Said):
    """An event of a fine-tuning job."""

    kept = ("id",)
    id: Name
    created_at: Moment
    type: Annotated[str | None, _Aside] = None
    message: Annotated[str | None, _Aside] = None
    data: Annotated[dict[str, Any] | None, _Aside] = None


class Checkpoint(Said):
    """A model that was kept on the way; `step_number` counts optimizer steps."""

    kept = ("id", "fine_tuned_model_checkpoint")
    id: Name
    step_number: Count
    fine_tuned_model_checkpoint: _Remote


class BatchErrors(Said):
    """What was wrong with a batch as a whole."""

    data: Annotated[list[Reason] | None, _Aside] = None


class Batch(Said):
    """A batch."""

    kept = ("id", "status", "output_file_id", "error_file_id")
    id: Name
    status: Name
    output_file_id: _Named = None
    error_file_id: _Named = None
    metadata: Metadata = None
    errors: Annotated[BatchErrors | None, _Aside] = None


def job_path(job: str, *more: str) -> str:
    """The path of a fine-tuning job, or of something below it; its id is the server's word, and no path."""
    return "/".join(("/fine_tuning/jobs", quote(job, safe=""), *more))
