"""One step of an intervention: what is done to a batch at one layer, to at most one push a row."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windowshift.steering.recipe import Push
from windowshift.steering.spans import Spans

MEASURES = 4  # tokens changed, sum of change norms, sum of asked norms, sum of stream norms


class StageTable:
    """The pushes of all recipes that share a stage, by the recipe's number.

    Rows come and go at every step of decoding, so what a batch needs is gathered from here by number. A
    direction that many recipes share, each with its own alpha, is held once.
    """

    def __init__(self, layer: int, ablate: bool, device: torch.device) -> None:
        self.layer, self.ablate, self._device = layer, ablate, device
        self._pushes: dict[int, Push] = {}
        self._size = 0
        self._tensors: tuple[Tensor, ...] | None = None

    def add(self, number: int, push: Push) -> None:
        """Take the push of recipe `number`."""
        self._pushes[number] = push
        self.widen(number)

    def widen(self, number: int) -> None:
        """Know of recipe `number`, which may have no push here."""
        self._size = max(self._size, number + 1)
        self._tensors = None

    def rows(self, numbers: Tensor, slots: tuple[int, ...], dtype: torch.dtype) -> Stage:
        """The stage for a batch whose row i follows the recipe ``numbers[i]``; `slots` are those in use."""
        directions, norms, which, alphas, prompt, response, lines = self._gathered()
        wide = torch.promote_types(dtype, torch.float32)
        alpha, own = alphas[numbers], which[numbers]
        delta = directions[own].to(wide)
        if not self.ablate:
            # The product of two numbers of the model's own width is what a hand-written hook computes too.
            delta = alpha.to(wide)[:, None] * delta
        asked = alpha.abs() * norms[own]
        return Stage(
            self.layer, self.ablate, slots, delta.to(dtype), asked, prompt[numbers], response[numbers], lines[numbers]
        )

    def _gathered(self) -> tuple[Tensor, ...]:
        if self._tensors is None:
            # A recipe without a push here keeps alpha 0, no tokens, and line 0 of the tally.
            size = self._size
            alphas, which = np.zeros(size), np.zeros(size, dtype=np.int64)
            prompt, response = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
            lines = np.zeros(size, dtype=np.int64)
            known: dict[object, int] = {}
            directions: list[NDArray[np.float64]] = []
            for number, push in self._pushes.items():
                name: object = push.slot if self.ablate else push.place[0]
                if name not in known:
                    known[name] = len(directions)
                    directions.append(push.direction)
                which[number], alphas[number], lines[number] = known[name], push.alpha, push.slot
                prompt[number], response[number] = push.tokens != "response", push.tokens != "prompt"
            table = np.stack(directions)
            arrays = (table, np.linalg.norm(table, axis=1), which, alphas, prompt, response, lines)
            self._tensors = tuple(torch.from_numpy(array).to(self._device) for array in arrays)
        return self._tensors


@dataclass(slots=True)
class Stage:
    """A stage for the rows of one batch: change [rows, width], and asked change norm a token [rows]."""

    layer: int
    ablate: bool
    slots: tuple[int, ...]
    delta: Tensor
    asked: Tensor
    prompt: Tensor
    response: Tensor
    lines: Tensor
    _spans: Spans | None = None
    _mask: Tensor = field(default_factory=lambda: torch.empty(0))
    _weight: Tensor = field(default_factory=lambda: torch.empty(0))
    _asked_tokens: Tensor = field(default_factory=lambda: torch.empty(0))
    _counts: Tensor = field(default_factory=lambda: torch.empty(0))

    def open(self, spans: Spans, tokens_asked: Tensor) -> None:
        """Take the tokens of the pass to come, and add their number to `tokens_asked` [slots]."""
        if spans is not self._spans:  # decoding comes with the same spans again and again
            self._spans = spans
            self._mask = (spans.prompt & self.prompt[:, None]) | (spans.response & self.response[:, None])
            self._weight = self._mask[:, :, None].to(self.delta.dtype)
            self._asked_tokens = self._mask * self.asked[:, None]
            counts = spans.prompt_counts * self.prompt + spans.response_counts * self.response
            self._counts = counts.to(tokens_asked.dtype)
        tokens_asked.index_add_(0, self.lines, self._counts)

    def apply(self, hidden: Tensor, tally: Tensor) -> Tensor:
        """The residual stream [rows, tokens, width] after the pushes; what happened goes to `tally` [4, slots]."""
        push = self.delta[:, None, :]
        asked = self._asked_tokens
        if self.ablate:
            along = (hidden * push).sum(-1, keepdim=True) * self._weight
            changed = hidden - along * push
            asked = along.detach().abs().squeeze(-1)
        else:
            changed = hidden + self._weight * push
        with torch.no_grad():
            wide = torch.promote_types(hidden.dtype, torch.float32)
            moved = torch.linalg.vector_norm(changed - hidden, dim=-1, dtype=wide)
            touched = moved > 0
            if self.ablate:
                touched = touched | self._mask  # a stream may happen to be orthogonal already
            size = torch.linalg.vector_norm(hidden, dim=-1, dtype=wide)
            # Where nothing is asked for, the size is of no interest, and padding's may not be finite.
            size = size.where(self._mask, 0.0)
            measures = torch.stack((touched.to(wide), moved, asked.to(wide), size))
            tally.index_add_(1, self.lines, measures.sum(-1, dtype=tally.dtype))
        return changed
