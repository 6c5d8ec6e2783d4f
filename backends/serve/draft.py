"""A choice while it is written: what can be told of it that was not told before."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.choice import Choice, cut, within
from windowshift.core.contract.generation import TokenLogprob, WrittenPiece


@dataclass(frozen=True, slots=True)
class Delta:
    """What was written of a choice since the last time; of the reasoning first."""

    index: int
    text: str
    reasoning: str
    tokens: tuple[TokenLogprob, ...] | None


class Draft:
    """Follows a choice. What is told of it, joined, is what the choice will say.

    A stop sequence is not told, and neither is what may turn out to be the beginning of one.

    Args:
        index: the choice's.
        stops: its stop sequences.
    """

    def __init__(self, index: int, stops: tuple[str, ...]) -> None:
        self._index, self._stops = index, stops
        self._text = self._reasoning = ""  # as written
        self._tokens: list[TokenLogprob] | None = None
        self._told = self._told_reasoning = ""
        self._told_tokens = 0

    def take(self, piece: WrittenPiece) -> Delta | None:
        """Take a piece; what it adds to what was told."""
        if piece.start < len(self._text) or piece.reasoning_start < len(self._reasoning):
            # Work that begins anew, as the worker that was at it died, tells the same from the start again.
            self._text, self._reasoning = self._text[: piece.start], self._reasoning[: piece.reasoning_start]
            self._tokens = None if self._tokens is None else []
        self._text += piece.text
        self._reasoning += piece.reasoning
        if piece.token_logprobs is not None:
            self._tokens = [*(self._tokens or ()), *piece.token_logprobs]
        return self._tell(self._text[: self._safe()], self._reasoning, self._tokens)

    def end(self, choice: Choice) -> Delta | None:
        """What is left to be told.

        Raises:
            ApiError: it does not go on from what was told.
        """
        text, reasoning = choice.text or "", choice.reasoning or ""
        if not text.startswith(self._told) or not reasoning.startswith(self._told_reasoning):
            raise ApiError(500, "the answer was begun anew and came out otherwise: ask again")
        return self._tell(text, reasoning, choice.tokens)

    def _tell(
        self, text: str, reasoning: str, tokens: list[TokenLogprob] | tuple[TokenLogprob, ...] | None
    ) -> Delta | None:
        more, thought = text[len(self._told) :], reasoning[len(self._told_reasoning) :]
        if not more and not thought:
            return None
        self._told += more
        self._told_reasoning += thought
        new: tuple[TokenLogprob, ...] | None = None
        if tokens is not None and more:
            upto = within(tokens, len(text))
            new = upto[self._told_tokens :]
            self._told_tokens = max(self._told_tokens, len(upto))
        return Delta(self._index, more, thought, new)

    def _safe(self) -> int:
        """How much of the text can be told."""
        found = cut(self._text, self._stops)
        safe = len(self._text) if found is None else found
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self._text)), 0, -1):
                if self._text.endswith(stop[:size]):
                    safe = min(safe, len(self._text) - size)
                    break
        return safe
