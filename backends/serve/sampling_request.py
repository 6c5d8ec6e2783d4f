"""What requests for text have in common, whatever their route: checked, and as a backend takes them."""

from __future__ import annotations

import hashlib
import secrets
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.job_request import Metadata
from windowshift.backends.serve.limits import ServerLimits
from windowshift.core.contract.generation import GenerateRequest, Model, Sampling

if TYPE_CHECKING:
    from windowshift.backends.serve.writer import AnswerWriter

_one = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
_Stop = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1000)]
Stops = Annotated[list[_Stop], _one, Field(max_length=4)]
Tokens = Annotated[int, Field(ge=1)]


class StreamOptions(BaseModel):
    """Options of ``stream: true``."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool | None = None


class SamplingRequest(BaseModel):
    """The body of a request for text.

    What would change the answer and is not offered is refused by `refuse`; what only concerns the hosted service's
    accounts (`user`, `store`, `service_tier`, ...) is taken and has no effect.
    """

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, StringConstraints(strict=True, min_length=1)]
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Accepted: these have no influence on the answer.
    user: str | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    PROMPT: ClassVar[str] = "messages"
    """Where the prompt stands."""
    LENGTHS: ClassVar[tuple[str, ...]] = ("max_tokens",)
    """The names of what limits an answer's length."""
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """What is known and not offered: fine with these values, which ask for nothing."""

    @property
    def choices(self) -> int:
        """How many completions of each prompt are wanted."""
        return 1

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to name at each token; None where no log-probabilities are wanted."""
        return None

    @property
    def stops(self) -> tuple[str, ...]:
        """Where the answer is cut off; empty for nowhere."""
        return tuple(self.stop or ())

    @property
    def length(self) -> int | None:
        """How many tokens an answer may have; None where the request does not say."""
        return next((value for name in self.LENGTHS if (value := getattr(self, name)) is not None), None)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    @abstractmethod
    def prompts(self, first: GenerateRequest) -> Sequence[GenerateRequest]:
        """The prompts that are asked for, each as a copy of `first`, which has all but the prompt."""

    @abstractmethod
    def writer(self, fingerprint: str) -> AnswerWriter:
        """What writes the answer in the route's own format."""

    def refuse(self, limits: ServerLimits) -> None:
        """Check what the types cannot say.

        Raises:
            ApiError: something is asked for that this server does not do, or that contradicts itself.
        """
        for name, neutral in self.NEUTRAL.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                raise ApiError(
                    400, f"this server does not offer '{name}': leave it out", param=name, code="unsupported_parameter"
                )
        wanted = [name for name in self.LENGTHS if getattr(self, name) is not None]
        if len({getattr(self, name) for name in wanted}) > 1:
            raise ApiError(400, f"give {' or '.join(wanted)}, not both", param=wanted[0])
        if wanted and getattr(self, wanted[0]) > limits.max_tokens:
            raise ApiError(400, f"{wanted[0]} may be at most {limits.max_tokens}", param=wanted[0])
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream: true", param="stream_options")

    def requests(self, model: Model, default_tokens: int) -> list[GenerateRequest]:
        """One request for each choice of each prompt; their keys are for the queue to give.

        The first choice has the seed as given, the others seeds made from it.
        """
        seed = secrets.randbits(62) if self.seed is None else self.seed
        sampling = Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            # The hosted API takes 0 for the most likely token alone.
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
            max_tokens=self.length or default_tokens,
        )
        first = GenerateRequest(
            "", (), model, sampling, seed, logprobs=self.alternatives, stop=self.stops, pieces=bool(self.stream)
        )
        return [
            replace(prompt, seed=choice_seed(seed, index))
            for prompt in self.prompts(first)
            for index in range(self.choices)
        ]


def choice_seed(seed: int, index: int) -> int:
    """The seed of a choice: the request's own for the first, so that `n` does not change it."""
    if index == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"choice:{seed}:{index}".encode()).digest()[:8], "big")
