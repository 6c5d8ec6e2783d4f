"""Services: backends that are somebody's server. What they can say and obey besides the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from windowshift.core.contract.budget import Budget
from windowshift.core.contract.prices import Price
from windowshift.core.contract.training import Sft


@dataclass(frozen=True, slots=True)
class Limits:
    """What a spec allows: USD in all, fine-tuning jobs at once, requests and tokens a minute. None: no limit."""

    usd: float | None = None
    jobs: int | None = None
    rpm: int | None = None
    tpm: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a service: requests, how fast they go, and when the last one is answered.

    `per_minute` is measured over the last minute; `limit` is the rate in force, None where none is
    known; `seconds` is None while nothing was measured. `note` is what else a person may want to see.
    """

    waiting: int
    in_flight: int
    per_minute: float
    limit: float | None
    seconds: float | None
    note: str = ""

    @property
    def words(self) -> str:
        """As people read it; the note alone where nothing waits."""
        if not self.waiting and not self.in_flight:
            return self.note
        limit = "" if self.limit is None else f" of {self.limit:.0f}"
        left = "" if self.seconds is None else f", about {max(1, round(self.seconds / 60))} min left"
        more = f", {self.note}" if self.note else ""
        return f"{self.waiting + self.in_flight} requests waiting, {self.per_minute:.0f}{limit} a minute{left}{more}"


@dataclass(frozen=True, slots=True)
class Reached:
    """What a service answered when it was asked who it is: `key` says where the key was found, never what it is."""

    address: str
    key: Literal["environment", "keyring", "none needed", "missing"]
    reachable: bool
    problem: str | None
    models: tuple[str, ...]


@runtime_checkable
class Service(Protocol):
    """The further members of a backend that costs money or has limits; `Backend` holds the others."""

    def begin(self, limits: Limits, budget: Budget, folder: Path) -> None:
        """A run starts: obey its limits and keep what must be remembered between runs in `folder`."""
        ...

    def price(self, base: str) -> Price | None:
        """What a model costs; None: no price is known."""
        ...

    def batched(self) -> bool:
        """Whether completions go through the Batch API, at its price."""
        ...

    def check(self, base: str, sft: Sft | None, *, steered: bool = False) -> Sequence[str]:
        """What a person must know before money is spent.

        Args:
            base: the model.
            sft: how it is trained; None where nothing is.
            steered: whether some of its completions are.

        Raises:
            BackendError: the service cannot do it at all.
        """
        ...

    def queue(self) -> Queue:
        """How much waits, and for how long."""
        ...

    def reach(self) -> Reached:
        """Ask the service who it is; never raises for what a person can read in the answer."""
        ...

    async def cancel(self, key: str, output: Path) -> None:
        """End a training job that goes on elsewhere, as far as the service lets it."""
        ...
