"""The proof that an intervention fired: what happened, beside what was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from windowshift.core.contract.errors import BackendError


@dataclass(frozen=True, slots=True)
class Proof:
    """What one push did over all passes of its use.

    `calls` counts passes in which the layer was visited, `tokens` those whose activation changed, `change`
    the mean over tokens of the L2 norm of that change. The asked values come from the number of passes,
    the lengths of the rows, and |alpha| * norm (for an ablation: the mean size of the projection that is
    taken away). `resolution` is the change that the number format can lose: eps * mean norm of the stream.
    """

    vector: str
    layer: int
    alpha: float
    ablate: bool
    calls: int
    calls_asked: int
    tokens: int
    tokens_asked: int
    change: float
    change_asked: float
    resolution: float = 0.0
    tolerance: float = 1e-3

    def problem(self) -> str | None:
        """What differs from what was asked, as one sentence; None where nothing does."""
        what = f"steering with vector '{self.vector}' at layer {self.layer}"
        if self.calls != self.calls_asked:
            return f"{what} did not fire: {self.calls} hook calls in {self.calls_asked} forward passes"
        lost = 0 < self.change_asked <= self.resolution  # then a token may be left as it was
        if self.tokens > self.tokens_asked or (self.tokens < self.tokens_asked and not lost):
            return f"{what} changed {self.tokens} tokens, and {self.tokens_asked} were asked for"
        allowed = self.tolerance * self.change_asked + self.resolution
        if not abs(self.change - self.change_asked) <= allowed:  # NaN fails too
            return (
                f"{what} moved activations by {self.change:.6g} a token on average, "
                f"and {self.change_asked:.6g} was asked for"
            )
        return None

    def check(self) -> None:
        """Refuse a push that did not do what was asked.

        Raises:
            BackendError: it did not fire, touched other tokens, or moved them by another amount.
        """
        problem = self.problem()
        if problem is not None:
            raise BackendError(problem)


def check_all(proofs: Iterable[Proof]) -> None:
    """Check every proof.

    Raises:
        BackendError: one of them fails.
    """
    for proof in proofs:
        proof.check()


@dataclass(frozen=True, slots=True)
class Fired:
    """The proofs of one job together, for one vector at one layer.

    `alpha_low` and `alpha_high` are the ends of the alphas that were pushed with; `change` and
    `change_asked` are means over `tokens` and `tokens_asked`.
    """

    vector: str
    layer: int
    ablate: bool
    alpha_low: float
    alpha_high: float
    calls: int
    calls_asked: int
    tokens: int
    tokens_asked: int
    change: float
    change_asked: float

    @classmethod
    def of(cls, proof: Proof) -> Fired:
        """One push alone."""
        return cls(
            proof.vector,
            proof.layer,
            proof.ablate,
            proof.alpha,
            proof.alpha,
            proof.calls,
            proof.calls_asked,
            proof.tokens,
            proof.tokens_asked,
            proof.change,
            proof.change_asked,
        )

    def words(self) -> str:
        """The push in a few words: ``length alpha 1.98 at layer 3``."""
        if self.ablate:
            return f"{self.vector} ablated at layer {self.layer}"
        low, high = f"{self.alpha_low:.4g}", f"{self.alpha_high:.4g}"
        return f"{self.vector} alpha {low if low == high else f'{low} to {high}'} at layer {self.layer}"

    def plus(self, other: Fired) -> Fired:
        """Both together."""
        return Fired(
            self.vector,
            self.layer,
            self.ablate,
            min(self.alpha_low, other.alpha_low),
            max(self.alpha_high, other.alpha_high),
            self.calls + other.calls,
            self.calls_asked + other.calls_asked,
            self.tokens + other.tokens,
            self.tokens_asked + other.tokens_asked,
            _mean(self.change, self.tokens, other.change, other.tokens),
            _mean(self.change_asked, self.tokens_asked, other.change_asked, other.tokens_asked),
        )


def total(parts: Iterable[Fired]) -> list[Fired]:
    """One line for every vector, layer and way of pushing, in order of appearance."""
    found: dict[tuple[str, int, bool], Fired] = {}
    for part in parts:
        key = (part.vector, part.layer, part.ablate)
        found[key] = found[key].plus(part) if key in found else part
    return list(found.values())


def fired_to_json(parts: Iterable[Fired]) -> list[dict[str, Any]]:
    """As a job's result holds it."""
    return [asdict(part) for part in parts]


def fired_from_json(parts: Iterable[Mapping[str, Any]]) -> list[Fired]:
    """The inverse of `fired_to_json`."""
    return [Fired(**part) for part in parts]


def _mean(one: float, count: int, other: float, others: int) -> float:
    return (one * count + other * others) / (count + others) if count + others else 0.0
