"""The operator ``windowshift::push``: what steers the residual stream after a decoder layer of vLLM.

It is one node of the model's graph, which neither a compiler looks into nor a captured graph leaves out. What it reads
and tallies lies in a worker's `PushTable`, as attention's cache lies outside of the graph too: a compiled graph holds
nothing but the number of the layer. On CUDA it is one kernel (`push_kernel`), elsewhere these tensor operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windowshift.backends.vllm.push_table import (
    ABLATES,
    IN_PROMPT,
    IS_FIRST,
    ON_PROMPT,
    ON_RESPONSE,
    RECIPE_SHIFT,
    PushTable,
)

_table: PushTable | None = None  # a worker process has one model


def use_table(table: PushTable | None) -> None:
    """What the operator reads from now on; None: it does nothing."""
    global _table
    _table = table


@torch.library.custom_op("windowshift::push", mutates_args=("hidden", "residual"), device_types="cpu")
def push(hidden: Tensor, residual: Tensor, layer: int) -> None:
    """Change the stream ``hidden + residual`` [tokens, width] of the tokens that are to be pushed, in place.

    Such a token's pair becomes (stream, 0), so that the sum which the next layer forms is the stream, without a
    rounding of its own; all other tokens keep their very numbers.
    """
    table = _fitting(hidden, residual)
    if table is not None and table.in_use:
        push_rows(table, hidden, residual, layer)


@push.register_fake
def _(hidden: Tensor, residual: Tensor, layer: int) -> None:
    """It gives nothing back, and changes no shape."""


@push.register_kernel("cuda")
def _(hidden: Tensor, residual: Tensor, layer: int) -> None:
    table = _fitting(hidden, residual)
    if table is not None:  # whether a token is steered is for each replay of the graph to see
        from windowshift.backends.vllm.push_kernel import launch

        launch(table, hidden, residual, layer)


def _fitting(hidden: Tensor, residual: Tensor) -> PushTable | None:
    """The table, unless this is no residual stream, which the proof will tell: an error would end the whole engine."""
    table = _table
    if table is None:
        return None
    if hidden.shape != residual.shape or hidden.ndim != 2 or hidden.shape[1] != table.width:
        table.problem = (
            f"a layer gave out {list(hidden.shape)} and {list(residual.shape)}, not twice [tokens, {table.width}]"
        )
        return None
    if len(hidden) > len(table.tokens):
        table.problem = f"a pass had {len(hidden)} tokens, and room is for {len(table.tokens)}"
        return None
    return table


def push_rows(table: PushTable, hidden: Tensor, residual: Tensor, layer: int) -> None:
    """The operator in tensor operations: one round for every push that a token has at this layer."""
    tokens = table.tokens[: len(hidden)]
    rows = tokens.nonzero().squeeze(1)
    marks = tokens[rows]
    recipes = marks >> RECIPE_SHIFT
    line, end = table.starts[recipes, layer], table.starts[recipes, layer + 1]
    while True:
        there = line < end
        if not bool(there.any()):
            return
        _round(table, hidden, residual, rows[there], marks[there], line[there])
        line = line + 1


def _round(table: PushTable, hidden: Tensor, residual: Tensor, rows: Tensor, marks: Tensor, line: Tensor) -> None:
    table.calls.index_add_(0, line, (marks & IS_FIRST).ne(0).to(table.calls.dtype))
    kind = table.kinds[line]
    wanted = torch.where((marks & IN_PROMPT).ne(0), kind & ON_PROMPT, kind & ON_RESPONSE).ne(0)
    rows, line, kind = rows[wanted], line[wanted], kind[wanted]
    if not len(rows):
        return
    stream = hidden[rows] + residual[rows]
    wide = torch.promote_types(stream.dtype, torch.float32)
    ablates = (kind & ABLATES).ne(0)
    alpha = table.alphas[line].masked_fill(ablates, 1.0)
    # The product of two numbers of the model's own width is what a hand-written hook computes too.
    delta = (alpha[:, None] * table.directions[table.places[line]]).to(stream.dtype)
    along = (stream * delta).sum(-1)
    changed = stream + torch.where(ablates, -along, 1.0)[:, None] * delta
    asked = torch.where(ablates, along.abs().to(table.norms.dtype), table.norms[line])
    moved = torch.linalg.vector_norm(changed - stream, dim=-1, dtype=wide)
    touched = moved.gt(0) | ablates  # a stream may happen to be orthogonal already
    size = torch.linalg.vector_norm(stream, dim=-1, dtype=wide)
    measures = torch.stack([one.to(table.tally.dtype) for one in (touched, moved, asked, size)])
    table.tally.index_add_(1, line, measures)
    hidden[rows], residual[rows] = changed, residual.new_zeros(())
