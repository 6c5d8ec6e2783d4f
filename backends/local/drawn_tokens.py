"""What the model thought of the tokens that were drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowshift.backends.local.drawn_token import DrawnToken


def drawn_tokens(logits: Tensor, tokens: Tensor, tops: Sequence[int]) -> list[DrawnToken]:
    """Look up one drawn token a row.

    Args:
        logits: [rows, vocabulary].
        tokens: [rows], the ids drawn.
        tops: for each row, how many of the likeliest tokens to name.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(1, tokens[:, None]).squeeze(1).tolist()
    best, ids = logprobs.topk(min(max(tops), logprobs.shape[1]), dim=-1)
    ranked = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), best.tolist(), strict=True)]
    return [
        DrawnToken(token, logprob, tuple(row[:top]))
        for token, logprob, row, top in zip(tokens.tolist(), chosen, ranked, tops, strict=True)
    ]
