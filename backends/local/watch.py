"""Following completions while they are drawn: parts of them, where they are to stop, and who has given up on them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import PartedTokens
from windowshift.backends.local.decode_row import Row
from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.local.given_up import GivenUp
from windowshift.backends.shared.reasoning import TAGS
from windowshift.core.contract.generation import GenerateRequest, WrittenPiece

PIECE_SECONDS = 0.05  # a row's text is not looked at more often: reading it costs more, the longer it is
_TAIL = 16  # tokens at a text's end that hold a stop sequence of as many characters, and some more
_MARKS = tuple({mark for pair in TAGS for mark in pair} | {"<|channel|>"})
_LONGEST_MARK = max(map(len, _MARKS))


class Watch:
    """Follows the rows of one group of requests.

    Args:
        lm: what draws them.
        group: the requests; a row's index is a place in it.
        given_up: asked at every step.
    """

    def __init__(self, lm: CausalLM, group: Sequence[GenerateRequest], given_up: GivenUp) -> None:
        self._lm, self._group, self._given_up = lm, group, given_up
        # A steered text is not given out before its proof.
        self._followed = {
            index: _Followed(lm, request)
            for index, request in enumerate(group)
            if (request.pieces or request.stop) and not request.steering
        }

    def unwanted(self, row: Row) -> bool:
        """Whether nobody waits for a row."""
        return self._group[row.index].key in self._given_up

    @property
    def wants_none(self) -> bool:
        """Whether every row is waited for."""
        return not self._given_up

    @property
    def follows(self) -> bool:
        """Whether any row is to be told of at every token: it is read along with, may stop, or was given up."""
        return bool(self._followed) or bool(self._given_up)

    def begin(self, rows: Sequence[Row]) -> None:
        """Rows are drawn from their beginning: again, where a batch did not fit the memory."""
        for row in rows:
            followed = self._followed.get(row.index)
            if followed is not None:
                followed.begin()

    def take(self, rows: Sequence[Row], tokens: Tensor, drawn: Mapping[int, Sequence[DrawnToken]]) -> list[int]:
        """Take the tokens that rows drew in a pass; the places of those that end here, though the model would go on."""
        ending: list[int] = []
        ids = tokens.tolist() if self._followed else ()
        for place, row in enumerate(rows):
            followed = self._followed.get(row.index)
            if (self._given_up and self.unwanted(row)) or (
                followed is not None and followed.take(ids[place], drawn.get(row.index, ()))
            ):
                ending.append(place)
        return ending

    def pieces(self) -> list[WrittenPiece]:
        """What was written since the last call, of requests that want it."""
        if not self._followed:
            return []
        now = time.monotonic()
        found = (each.piece(now) for each in self._followed.values() if each.request.pieces)
        return [piece for piece in found if piece is not None]


def written(lm: CausalLM, request: GenerateRequest, ids: Sequence[int]) -> PartedTokens:
    """What the tokens of a request's completion say."""
    if request.prompt is not None:
        return PartedTokens(None, lm.chat.text(ids), 0)
    return lm.chat_of(request.model).written(ids)


class _Followed:
    """One completion as far as it is drawn, and as far as it was told."""

    def __init__(self, lm: CausalLM, request: GenerateRequest) -> None:
        self._lm, self.request = lm, request
        self._ids: list[int] = []
        self._drawn: Sequence[DrawnToken] = ()
        self._new = False
        self._at = 0.0
        self._text = self._reasoning = ""  # as told
        self._told = 0  # tokens of the answer whose log-probabilities were told
        self._longest = max(map(len, request.stop), default=0)

    def begin(self) -> None:
        """It is drawn from its beginning; what was told stays told, and the tokens will be the same."""
        self._ids, self._drawn, self._new = [], (), False

    def take(self, token: int, drawn: Sequence[DrawnToken]) -> bool:
        """Take a token; whether the text has come to where it is to stop."""
        if token in self._lm.end_ids:
            return False
        self._ids.append(token)
        self._drawn, self._new = drawn, True
        if not self._longest:
            return False
        tail = self._lm.chat.text(self._ids[-self._longest - _TAIL :])
        if not any(stop in tail for stop in self.request.stop):
            return False
        answer = written(self._lm, self.request, self._ids).text or ""  # what is thought does not stop it
        return any(stop in answer for stop in self.request.stop)

    def piece(self, now: float) -> WrittenPiece | None:
        """What can be told that was not: whole characters, and nothing that may turn out to be a mark."""
        if not self._new or now - self._at < PIECE_SECONDS:
            return None
        self._at, self._new = now, False
        found = written(self._lm, self.request, self._ids)
        reasoning, text = found.reasoning or "", found.text or ""
        if found.text is None:
            reasoning = reasoning[: max(0, len(reasoning) - _LONGEST_MARK)]
        elif found.reasoning is None and any(mark.startswith(text.lstrip()) for mark in _MARKS):
            return None
        if text.endswith("\ufffd"):  # a part of a character
            return None
        if not text.startswith(self._text) or not reasoning.startswith(self._reasoning):
            return None  # it reads otherwise now: what it came to will tell
        more, thought = text[len(self._text) :], reasoning[len(self._reasoning) :]
        if not more and not thought:
            return None
        at, thought_at = len(self._text), len(self._reasoning)
        self._text, self._reasoning = text, reasoning
        logprobs = None
        if self.request.logprobs is not None and more:
            drawn = self._drawn[found.start : len(self._ids)]
            logprobs = self._lm.chat.token_logprobs(drawn)[self._told :]
            self._told = len(drawn)
        return WrittenPiece(self.request.key, more, at, thought, thought_at, logprobs)
