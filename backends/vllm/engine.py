"""What backend `vllm` needs of vLLM: a server, or an engine in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.core.contract.errors import BackendError

SLOT = "windowshift_slot"
"""The name under which a request says which steering slot it belongs to (vLLM's `vllm_xargs`)."""


class EngineError(BackendError):
    """vLLM refused something or could not be reached; `status` is that of HTTP where a server answered."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Served:
    """The base model that an engine holds: the name it goes by, where it was loaded from, its context in tokens."""

    name: str
    root: str
    max_model_len: int


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One completion to draw, as token ids.

    `adapter` is the name that one was loaded under, None for the base model. `slot` is the steering that it
    belongs to; its name also keeps the prefix cache apart from that of anything else (`cache_salt`).
    """

    prompt: tuple[int, ...]
    adapter: str | None
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: tuple[int, ...]
    logprobs: int | None = None
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What came back: all token ids drawn, the one that ended it included, and whether one did."""

    ids: tuple[int, ...]
    stopped: bool
    drawn: tuple[DrawnToken, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Prompt tokens that were looked for in the prefix cache so far, and those that were found."""

    queries: float
    hits: float

    @property
    def rate(self) -> float | None:
        """The share found; None where nothing was looked for."""
        return self.hits / self.queries if self.queries > 0 else None

    def since(self, before: CacheCounts) -> CacheCounts:
        """What came after `before`: everything, where a server was restarted meanwhile and counts anew."""
        if self.queries < before.queries or self.hits < before.hits:
            return self
        return CacheCounts(self.queries - before.queries, self.hits - before.hits)

    def plus(self, other: CacheCounts) -> CacheCounts:
        """Both together."""
        return CacheCounts(self.queries + other.queries, self.hits + other.hits)


class Engine(Protocol):
    """A running vLLM with one base model. Every method raises EngineError with one clear sentence."""

    async def served(self) -> Sequence[Served]:
        """The base models; starts an engine that is not running yet."""
        ...

    async def extended(self) -> bool:
        """Whether the workers have windowshift's extension."""
        ...

    async def complete(self, model: str, question: EngineRequest) -> EngineAnswer:
        """Draw one completion from the base model called `model`, or from an adapter on it."""
        ...

    async def score(self, model: str, ids: Sequence[int], first: int) -> list[float]:
        """The log-probabilities in nats of ``ids[first:]``, each after all ids before it, under the base model."""
        ...

    async def load_adapter(self, name: str, folder: str) -> None:
        """Make a PEFT folder known under a name; one that is known under it already is left as it is."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter."""
        ...

    async def call(self, method: str, argument: str) -> list[Mapping[str, Any]]:
        """Call a method of the steering extension on every worker."""
        ...

    async def cache_counts(self) -> CacheCounts | None:
        """The counters of the prefix cache; None where they cannot be read."""
        ...

    async def aclose(self) -> None:
        """Close connections, or end the engine."""
        ...


def ranked(found: Mapping[int, float], most: int) -> tuple[tuple[int, float], ...]:
    """The likeliest tokens, the best first; vLLM adds the drawn token to them, however unlikely it is."""
    return tuple(sorted(found.items(), key=lambda one: -one[1])[:most])
