"""Tokens by inversion: a request's own random stream, and one token a row from the distribution over the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`count` numbers in [0, 1): the stream of one request, the same on every machine."""
    raw = np.random.Philox(key=seed % (1 << 128)).random_raw(count)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def draw(
    logits: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor, *, greedy: bool = True, nucleus: bool = True
) -> tuple[Tensor, Tensor]:
    """Sample one token a row by inverting the cumulative distribution.

    Args:
        logits: [rows, vocabulary], float64.
        uniform: [rows], in [0, 1).
        temperature: [rows]; 0 takes the most likely token.
        top_p: [rows]; sample from the smallest set of tokens that holds this mass.
        greedy: whether any row has temperature 0; the caller is asked, as a look at the tensors would wait for their
            device.
        nucleus: whether any row has a `top_p` below 1.

    Returns:
        Token ids [rows], and whether each row's logits were finite numbers [rows].
    """
    likeliest = temperature == 0
    scaled = logits / torch.where(likeliest, 1.0, temperature)[:, None]
    mass = torch.exp(scaled - scaled.amax(-1, keepdim=True))
    if nucleus:
        ranked, order = mass.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked
        outside = before >= top_p[:, None] * ranked.sum(-1, keepdim=True)
        outside[:, 0] = False
        mass = mass.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), 0.0)
    cumulative = mass.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the target to the very end, where the mass may be zero.
    target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    if greedy:
        tokens = torch.where(likeliest, logits.argmax(-1), tokens)
    return tokens, torch.isfinite(total.squeeze(1))
