"""A token that was drawn, and what the model thought of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A drawn token, its log-probability in nats, and the likeliest tokens there with theirs, the best first.

    Probabilities are the model's own, at temperature 1 and without `top_p`, however the token was drawn.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
