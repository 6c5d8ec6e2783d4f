"""The proof that an intervention fired: what happened, beside what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from windowshift.core.errors import BackendError


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
