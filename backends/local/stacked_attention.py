"""Attention in a pass over rows of several jobs: each job's in the shape that it has alone, so that it rounds alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel, masking_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "windowshift_stacked"


class _Pass(threading.local):
    """The jobs of the pass in progress in this thread: rows and columns of each."""

    def __init__(self) -> None:
        self.jobs: tuple[tuple[int, int], ...] = ()


_pass = _Pass()


@contextmanager
def stacked(jobs: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Within this block attention goes job by job; `jobs` are the rows and columns of each, in the order of rows."""
    _pass.jobs = tuple(jobs)
    try:
        yield
    finally:
        _pass.jobs = ()


@contextmanager
def unlooked() -> Iterator[None]:
    """Within this block transformers looks at no numbers of a pass without mask and cache, for which it would wait.

    It reads positions, to see whether rows are several texts, packed, and here none is; and tokens, to warn of padding
    without a mask, which here is on the right, where nothing looks.
    """
    found, warn = masking_utils.find_packed_sequence_indices, PreTrainedModel.warn_if_padding_and_no_attention_mask
    masking_utils.find_packed_sequence_indices = _nothing
    PreTrainedModel.warn_if_padding_and_no_attention_mask = _nothing
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = found
        PreTrainedModel.warn_if_padding_and_no_attention_mask = warn


def _nothing(*_: Any, **__: Any) -> None:
    return None


def stacked_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Attend as sdpa in transformers does, job by job where several share the pass.

    Args:
        module: the attention layer.
        query: [rows, heads, columns, width].
        key: [rows, key heads, columns, width].
        value: like `key`.
        attention_mask: None, or [1 or rows, 1, columns, columns].
        settings: passed on.

    Returns:
        Outputs [rows, columns, heads, width], and None for the weights.
    """
    jobs, columns = _pass.jobs, query.shape[2]
    if attention_mask is None:
        # Each row and head by itself, whatever the number of rows: only the columns decide how it is cut to blocks.
        jobs = _by_width(jobs)
    if len(jobs) < 2:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)  # type: ignore[no-any-return]  # untyped there
    counts = [rows for rows, _ in jobs]
    outputs, first = [], 0
    parts = zip(jobs, *(torch.split(each, counts) for each in (query, key, value)), strict=True)
    for (rows, width), queries, keys, values in parts:
        mask = attention_mask
        if mask is not None:
            mask = mask[first : first + rows] if mask.shape[0] > 1 else mask
            mask = mask[..., :width, :width]
        first += rows
        own = [each[:, :, :width] for each in (queries, keys, values)]
        output = sdpa_attention_forward(module, *own, mask, **settings)[0]
        outputs.append(nn.functional.pad(output, (0, 0, 0, 0, 0, columns - width)) if width < columns else output)
    return torch.cat(outputs), None


def _by_width(jobs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Rows and columns, those of neighbours of one width taken together."""
    return tuple((sum(rows for rows, _ in group), width) for width, group in groupby(jobs, key=lambda job: job[1]))


AttentionInterface.register(NAME, stacked_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
