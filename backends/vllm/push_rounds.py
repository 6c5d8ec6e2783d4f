"""The pushes of one pass as tensor operations: a round changes every token that it names once.

Step after step of decoding has the same tokens' entries, so what a layer does is put together once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class PushRound:
    """One push each for the tokens ``rows`` [n]: change [n, width], and the norm that an addition asks for [n].

    `ablates` [n] says where the change is a direction to be projected out; None: nowhere. `counted` are the lines that
    come to this layer in this pass, whether or not a token of theirs is changed.
    """

    counted: Tensor
    rows: Tensor
    lines: Tensor
    delta: Tensor
    norms: Tensor
    ablates: Tensor | None

    def push(self, table: PushTable, hidden: Tensor, residual: Tensor) -> None:
        """Change the stream ``hidden + residual`` [tokens, width], and tally what happened."""
        table.calls.index_add_(0, self.counted, torch.ones_like(self.counted))
        if not len(self.rows):
            return
        stream = hidden.index_select(0, self.rows) + residual.index_select(0, self.rows)
        asked = self.norms
        if self.ablates is None:
            changed = stream + self.delta
        else:
            along = (stream * self.delta).sum(-1)
            changed = stream + torch.where(self.ablates, -along, 1.0)[:, None] * self.delta
            asked = torch.where(self.ablates, along.abs().to(asked.dtype), asked)
        wide = torch.promote_types(stream.dtype, torch.float32)
        moved = torch.linalg.vector_norm(changed - stream, dim=-1, dtype=wide)
        size = torch.linalg.vector_norm(stream, dim=-1, dtype=wide)
        touched = moved > 0
        if self.ablates is not None:
            touched = touched | self.ablates  # a stream may happen to be orthogonal already
        measures = [one.to(asked.dtype) for one in (touched, moved, asked, size)]
        table.tally.index_add_(1, self.lines, torch.stack(measures))
        hidden.index_copy_(0, self.rows, changed)
        residual.index_fill_(0, self.rows, 0)


def rounds_of(table: PushTable) -> dict[int, list[PushRound]]:
    """What the pass at hand does at each layer that does anything."""
    if table.rounds is None:
        table.rounds = _made(table)
    return table.rounds


def _made(table: PushTable) -> dict[int, list[PushRound]]:
    rows = table.tokens.nonzero().squeeze(1)
    marks = table.tokens[rows]
    starts = table.starts[marks >> RECIPE_SHIFT]
    found: dict[int, list[PushRound]] = {}
    for layer in (starts[:, 1:] > starts[:, :-1]).any(0).nonzero().squeeze(1).tolist():
        line, end = starts[:, layer].long(), starts[:, layer + 1]
        while bool((line < end).any()):
            there = line < end
            found.setdefault(layer, []).append(_round(table, rows[there], marks[there], line[there]))
            line = line + 1
    return found


def _round(table: PushTable, rows: Tensor, marks: Tensor, lines: Tensor) -> PushRound:
    counted = lines[(marks & IS_FIRST).ne(0)]
    kind = table.kinds[lines]
    wanted = torch.where((marks & IN_PROMPT).ne(0), kind & ON_PROMPT, kind & ON_RESPONSE).ne(0)
    rows, lines, kind = rows[wanted], lines[wanted], kind[wanted]
    ablates = (kind & ABLATES).ne(0)
    alpha = table.alphas[lines].masked_fill(ablates, 1.0)
    # The product of two numbers of the model's own width is what a hand-written hook computes too.
    delta = (alpha[:, None] * table.directions[table.places[lines]]).to(table.dtype)
    return PushRound(counted, rows, lines, delta, table.norms[lines], ablates if bool(ablates.any()) else None)
