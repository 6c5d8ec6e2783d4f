"""The operator ``windowshift::push``: what steers the residual stream after a decoder layer of vLLM.

It is one node of the model's graph, which neither a compiler looks into nor a captured graph leaves out. What it reads
and tallies lies in a worker's `PushTable`, as attention's cache lies outside of the graph too: a compiled graph holds
nothing but the layer's number. On CUDA it is one kernel (`push_kernel`), on a CPU tensor operations (`push_rounds`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from windowshift.backends.vllm.push_rounds import rounds_of
from windowshift.backends.vllm.push_table import PushTable

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
    if {hidden.dtype, residual.dtype} != {table.dtype}:
        table.problem = f"a layer gave out {hidden.dtype} and {residual.dtype}, not twice {table.dtype}"
        return None
    if len(hidden) > len(table.tokens):
        table.problem = f"a pass had {len(hidden)} tokens, and room is for {len(table.tokens)}"
        return None
    return table


def push_rows(table: PushTable, hidden: Tensor, residual: Tensor, layer: int) -> None:
    """The operator in tensor operations: one round for every push that a token has at this layer."""
    for one in rounds_of(table).get(layer, ()):
        one.push(table, hidden, residual)
