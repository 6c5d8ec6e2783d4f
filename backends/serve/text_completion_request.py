"""A request for texts that are continued as they are, without a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StringConstraints

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.sampling_request import SamplingRequest, Tokens
from windowshift.backends.serve.text_completion_writer import TextCompletionWriter
from windowshift.core.contract.generation import GenerateRequest

MOST_PROMPTS = 2048
_TOKENS = 16  # what the API takes where a request does not say


def _listed(value: Any) -> Any:
    """A prompt alone as a list of one: a text, or the ids of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
        return [value]
    return value


_Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
_Ids = Annotated[list[Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]], Field(min_length=1)]


class TextCompletionRequest(SamplingRequest):
    """The body of ``POST /v1/completions``: one or several texts, or lists of token ids."""

    prompt: Annotated[list[_Text | _Ids], BeforeValidator(_listed), Field(min_length=1, max_length=MOST_PROMPTS)]
    n: int | None = Field(default=None, ge=1, le=128)
    best_of: int | None = Field(default=None, ge=1, le=128)
    max_tokens: Tokens | None = _TOKENS
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None

    suffix: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    PROMPT: ClassVar[str] = "prompt"
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "suffix": ("",),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
    }

    @property
    def choices(self) -> int:
        """How many completions of each prompt are wanted."""
        return self.n or 1

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to name at each token; None where no log-probabilities are wanted."""
        return self.logprobs

    def refuse(self, limits: ServerLimits) -> None:
        """Check what the types cannot say.

        Raises:
            ApiError: something is asked for that this server does not do, or that contradicts itself.
        """
        super().refuse(limits)
        if self.best_of is not None and self.best_of != self.choices:
            raise ApiError(400, "this server does not choose the best of several: leave 'best_of' out", param="best_of")
        if self.echo and self.logprobs is not None:
            raise ApiError(
                400, "this server has no log-probabilities of prompts: leave 'echo' or 'logprobs' out", param="echo"
            )
        if self.echo and not all(isinstance(each, str) for each in self.prompt):
            raise ApiError(400, "echo needs prompts that are texts, not token ids", param="echo")

    def prompts(self, first: GenerateRequest) -> Sequence[GenerateRequest]:
        """Each prompt."""
        return [replace(first, prompt=each if isinstance(each, str) else tuple(each)) for each in self.prompt]

    def writer(self, fingerprint: str) -> TextCompletionWriter:
        """What writes the answer as a text completion, or as chunks of one."""
        before = [str(each) for each in self.prompt for _ in range(self.choices)] if self.echo else None
        return TextCompletionWriter(self.model, fingerprint, usage=self.wants_usage, before=before)
