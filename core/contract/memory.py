"""What a run asks of the memory of the device that computes, and what that comes to: predicted before, and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from windowshift.core.contract.training import Sft

GIB = 2**30


@dataclass(frozen=True, slots=True)
class MemoryAsked:
    """The largest that a run asks for.

    Attributes:
        sft: how adapters are trained; None: none is.
        trainings: how many.
        example_tokens: of the longest training example, prompt and completion.
        learned_tokens: of its completion.
        completions: how many are drawn from the model.
        prompt_tokens: of the longest prompt.
        max_tokens: of the longest completion.
    """

    sft: Sft | None
    trainings: int
    example_tokens: int
    learned_tokens: int
    completions: int
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class MemoryForecast:
    """What training and sampling take at their peak, in bytes, the model's weights included.

    Attributes:
        device: what computes, in words.
        weights: of the model, as loaded.
        training: with `jobs` in a pass; None: none is trained.
        jobs: that share a pass.
        each_job: what one more of them takes.
        sampling: with `rows` completions drawn at once; None: none are.
        rows: completions drawn at once.
        longest: tokens of the longest of them, with its prompt.
    """

    device: str
    weights: int
    training: int | None
    jobs: int
    each_job: int
    sampling: int | None
    rows: int
    longest: int

    @property
    def together(self) -> int:
        """With adapters that are trained and others that are sampled from at the same time."""
        return self.weights + sum(each - self.weights for each in (self.training, self.sampling) if each is not None)

    @property
    def words(self) -> str:
        """As people read it."""
        parts = []
        if self.training is not None:
            parts.append(
                f"training {_gib(self.training)} with {self.jobs} {'job' if self.jobs == 1 else 'jobs'} in a pass "
                f"({_gib(self.each_job)} for each further one)"
            )
        if self.sampling is not None:
            parts.append(f"sampling {_gib(self.sampling)} with {self.rows} rows of up to {self.longest} tokens")
        if len(parts) == 2:
            parts.append(f"both at once {_gib(self.together)}")
        return f"{', '.join(parts)}; the weights are {_gib(self.weights)} of each ({self.device})"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


@runtime_checkable
class ForecastsMemory(Protocol):
    """A backend that knows what its passes take before it takes any."""

    def memory(self, base: str, revision: str | None, asked: MemoryAsked) -> MemoryForecast | None:
        """What a run comes to, from the model's configuration alone; None where it is too little to matter.

        Raises:
            BackendError: the configuration cannot be had.
        """
        ...

    def expect(self, base: str, revision: str | None, asked: MemoryAsked) -> None:
        """A run is to ask for so much: when it ends, what it took is logged beside what was predicted."""
        ...
