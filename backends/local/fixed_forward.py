"""Passes of one token a row in which all that a model reads and writes keeps its place."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from windowshift.backends.local.decode_row import Row
from windowshift.backends.local.fixed_adapters import FixedAdapters

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM
    from windowshift.steering.fixed_stages import FixedStages
    from windowshift.steering.intervene import Intervention

_WITH_MASKS = "sdpa"


class FixedForward:
    """The model that samples, for the rows of one decode batch: their adapters and pushes are written in place.

    Args:
        lm: the model.
        slots: rows at most.
        steer: gives what pushes the rows that have a recipe.
    """

    def __init__(self, lm: CausalLM, slots: int, steer: Callable[[], Intervention | None] = lambda: None) -> None:
        self._lm, self._slots, self._steer = lm, slots, steer
        self._adapters = FixedAdapters(lm.row_adapters.sites, slots)
        self._stages: FixedStages | None = None
        self._made = 0
        self._adapted = self._pushed = False

    def put(self, rows: Sequence[Row], bucket: int) -> Hashable:
        """Put in place what is in force in rows, and nothing in those behind them up to `bucket`.

        Returns:
            What a recorded pass depends on beside its shapes: it is right where this is the same.
        """
        tables = self._adapters.put([row.adapter for row in rows], bucket)
        pushes: Hashable = None
        steer = self._steer()
        if steer is not None and any(row.recipe is not None and row.recipe.pushes for row in rows):
            if self._stages is None or self._stages.steer is not steer:
                from windowshift.steering.fixed_stages import FixedStages

                self._stages = FixedStages(steer, self._slots)
                self._made += 1
            pushes = (self._made, self._stages.put(rows, bucket))
        self._adapted, self._pushed = bool(tables), pushes is not None
        return tables, pushes

    def asked(self) -> None:
        """A pass was taken, recorded or not: the proofs of steering are to find it done."""
        if self._pushed and self._stages is not None:
            self._stages.asked()

    def __call__(self, tokens: Tensor, mask: Tensor, positions: Tensor, alive: Tensor, cache: Any) -> Tensor:
        """Logits [rows, vocabulary] behind one token a row.

        Args:
            tokens: [rows, 1].
            mask: [rows, columns], 1 where a row may look; the columns are those that the cache gives out.
            positions: [rows, 1].
            alive: [rows], bool: rows that are pushed, where anything pushes them.
            cache: what was before; the tokens are written to it.
        """
        lm = self._lm
        model = lm.base()
        inputs = lm.inputs_of(tokens, mask, positions, cache, 1)
        with self._adapted_rows(alive.shape[0]), _seeing_masks(model):
            if self._pushed and self._stages is not None:
                logits: Tensor = self._stages.run(inputs, alive).logits
            else:
                logits = model(**inputs).logits
        return logits[:, -1]

    @contextmanager
    def _adapted_rows(self, bucket: int) -> Iterator[None]:
        if not self._adapted:
            yield
            return
        with self._adapters.serving(bucket):
            yield


@contextmanager
def _seeing_masks(model: Any) -> Iterator[None]:
    """Flash attention reads how long rows are, for which it waits: a mask says the same and is looked at there."""
    before = model.config._attn_implementation
    if before is None or "flash" not in before:
        yield
        return
    model.set_attn_implementation(_WITH_MASKS)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
