"""What the model thought of the tokens that were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A drawn token, its log-probability in nats, and the likeliest tokens there with theirs, the best first.

    Probabilities are the model's own, at temperature 1 and without `top_p`, however the token was drawn.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def drawn_tokens(logits: Tensor, tokens: Tensor, tops: Sequence[int]) -> list[DrawnToken]:
    """Look up one drawn token a row.

    Args:
        logits: [rows, vocabulary].
        tokens: [rows], the ids drawn.
        tops: for each row, how many of the likeliest tokens to name.
    """
    import torch

    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
    best, ids = logprobs.topk(min(max(tops), logprobs.shape[1]), dim=-1)
    ranked = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), best.tolist(), strict=True)]
    return [
        DrawnToken(token, logprob, tuple(row[:top]))
        for token, logprob, row, top in zip(tokens.tolist(), chosen, ranked, tops, strict=True)
    ]
