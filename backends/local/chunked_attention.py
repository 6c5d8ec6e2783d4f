"""Attention in decoding, a few rows at a time, over the columns that those rows need.

Rows of one batch share their last column but not their first: an old row is long, a new one short.
One call over all of them reads keys and values from the oldest row's first column on, mostly
padding. Rows of one age stand together (see `sampler`), so chunks of them need far fewer columns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from windowshift.backends.local.kv_cache import CHUNK, SlotCache

NAME = "windowshift_chunked"


class _Pass(threading.local):
    """The forward pass in progress in this thread."""

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.masks: dict[int, tuple[Tensor, list[Tensor]]] = {}


_pass = _Pass()


@contextmanager
def decoding(cache: SlotCache) -> Iterator[None]:
    """Let attention within this block use what `cache` knows about its chunks of rows."""
    _pass.firsts = cache.chunk_firsts
    try:
        yield
    finally:
        _pass.firsts, _pass.masks = [], {}


def chunked_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Attend as sdpa in transformers does, chunk by chunk where rows are being decoded.

    Args:
        module: the attention layer.
        query: [rows, heads, new columns, width]; one new column in decoding.
        key: [rows, key heads, columns, width].
        value: like `key`.
        attention_mask: [rows, 1, new columns, columns], True where attention is allowed.
        settings: passed on.

    Returns:
        Outputs [rows, new columns, heads, width], and None for the weights.
    """
    firsts = _pass.firsts
    if len(firsts) < 2 or attention_mask is None or query.shape[2] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)  # type: ignore[no-any-return]  # untyped there
    # All layers of one kind share a mask: turned into numbers once, it is not converted in every call.
    known = _pass.masks.get(id(attention_mask))
    if known is None or known[0] is not attention_mask:
        known = (attention_mask, _chunks(attention_mask, firsts, query.dtype))
        _pass.masks[id(attention_mask)] = known
    outputs = []
    for index, (first, mask) in enumerate(zip(firsts, known[1], strict=True)):
        rows = slice(index * CHUNK, (index + 1) * CHUNK)
        outputs.append(
            sdpa_attention_forward(module, query[rows], key[rows, :, first:], value[rows, :, first:], mask, **settings)[
                0
            ]
        )
    return torch.cat(outputs), None


def _chunks(mask: Tensor, firsts: list[int], dtype: torch.dtype) -> list[Tensor]:
    numbers = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    numbers.masked_fill_(~mask, float("-inf"))
    return [numbers[index * CHUNK : (index + 1) * CHUNK, :, :, first:] for index, first in enumerate(firsts)]


AttentionInterface.register(NAME, chunked_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
