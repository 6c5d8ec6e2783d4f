"""A row of a decode batch, what it comes to, and who computes and follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from torch import Tensor

from windowshift.backends.local.drawn_token import DrawnToken

if TYPE_CHECKING:
    from windowshift.backends.local.row_adapters import RowAdapter
    from windowshift.steering.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Row:
    """One completion to draw, as token ids; `index` is the caller's name for it.

    `recipe` is how its activations are pushed, None for not at all; `adapter` None is the base model.
    """

    index: int
    prompt: list[int]
    seed: int
    temperature: float
    top_p: float
    max_tokens: int
    recipe: Recipe | None = None
    logprobs: int | None = None
    adapter: RowAdapter | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a row came to: token ids without the end token; ``failed`` when logits were not numbers.

    `drawn` has an entry for each id where the row's `logprobs` asked for them, with that many alternatives.
    """

    row: Row
    ids: list[int]
    finish: Literal["stop", "length", "failed"]
    drawn: tuple[DrawnToken, ...] = ()


class Forward(Protocol):
    """One pass of the model: the seam where interventions on activations come in."""

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        cache: Any,
        rows: Sequence[Row],
        keep: int,
    ) -> Tensor:
        """Logits [rows, keep, vocabulary] at the last `keep` columns of `input_ids` [rows, columns].

        `rows` are the requests in batch order; `cache` is extended by the columns given. In decoding,
        `attention_mask` [rows, cached + 1] is 0 on left padding. In prefill it is None: rows are padded
        on the right, which causal attention never looks at from a real token; row i has
        ``len(rows[i].prompt)`` real columns. Behind a beginning that is cached already there are several columns and
        a mask, and no row that is pushed.
        """
        ...


class Watcher(Protocol):
    """Follows rows while they are drawn, and ends them early."""

    @property
    def wants_none(self) -> bool:
        """Whether every row is waited for."""
        ...

    @property
    def follows(self) -> bool:
        """Whether any row is to be told of at every token, and not only once it has ended."""
        ...

    def unwanted(self, row: Row) -> bool:
        """Whether nobody waits for a row any more."""
        ...

    def begin(self, rows: Sequence[Row]) -> None:
        """Rows are drawn from their beginning, for the first time or anew."""
        ...

    def take(self, rows: Sequence[Row], tokens: Tensor, drawn: Mapping[int, Sequence[DrawnToken]]) -> list[int]:
        """Take the tokens [rows] that rows drew; the places of those that end here.

        `drawn` has, by row index, what the model thought of all tokens of a row so far, where it asks for that.
        """
        ...
