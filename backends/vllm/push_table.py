"""Every open push of a vLLM worker, in tensors whose addresses never change, so that a captured graph finds them.

A recipe is what one slot asks for, and a line is one of its pushes: recipe `n` has the lines ``starts[n, layer]`` up to
``starts[n, layer + 1]`` at a layer, in the order in which they are done. Before a pass every token of it gets its
recipe in `tokens`; what the pass did comes to lie in `calls` and `tally`, and is read when a slot is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windowshift.core.contract.errors import BackendError
from windowshift.steering.recipe import Push

if TYPE_CHECKING:
    from windowshift.backends.vllm.push_rounds import PushRound

MEASURES = 4
"""Rows of the tally: tokens changed, and the sums of change norms, asked norms and stream norms over them."""
IN_PROMPT, IS_FIRST, RECIPE_SHIFT = 1, 2, 2
"""A token's entry: whether it is of the prompt, whether it is its slot's first in this pass, and above both its recipe.
"""
ABLATES, ON_PROMPT, ON_RESPONSE = 1, 2, 4
"""A line's kind."""
RECIPES, LINES, DIRECTIONS = 1 << 15, 1 << 16, 2048


@dataclass(frozen=True, slots=True)
class Tallied:
    """What the operator did for one push: passes in which it came to its layer, and the four measures."""

    calls: int
    tokens: float
    moved: float
    wanted: float
    size: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recipe lies: its number, its first line, and its pushes in the order of the lines."""

    number: int
    first: int
    pushes: tuple[Push, ...]

    @property
    def lines(self) -> range:
        """Its lines."""
        return range(self.first, self.first + len(self.pushes))


class PushTable:
    """Room for so many recipes, lines and directions, taken once.

    Args:
        layers: of the model.
        width: of its residual stream.
        tokens: of one pass at most, padding included.
        device: of the model.
        dtype: of its residual stream.
    """

    def __init__(self, layers: int, width: int, tokens: int, device: torch.device, dtype: torch.dtype) -> None:
        self.layers, self.width, self.dtype = layers, width, dtype
        self.problem = ""
        self.in_use = False  # whether a token of the pass at hand is steered
        self.rounds: dict[int, list[PushRound]] | None = None  # what it does, where no kernel finds that out
        self._last: NDArray[np.int32] | None = None  # the entries that the rounds are made of
        self._device = device
        with torch.inference_mode(False):
            wide = torch.promote_types(dtype, torch.float32)
            self.tokens = self._zeros(tokens, dtype=torch.int32)
            self.starts = self._zeros(RECIPES, layers + 1, dtype=torch.int32)
            self.kinds = self._zeros(LINES, dtype=torch.int32)
            self.places = self._zeros(LINES, dtype=torch.int32)  # the direction of each line
            self.alphas = self._zeros(LINES, dtype=wide)
            self.norms = self._zeros(LINES, dtype=torch.float64)  # of what an additive line adds to a token
            self.directions = self._zeros(DIRECTIONS, width, dtype=wide)
            self.calls = self._zeros(LINES, dtype=torch.int64)
            self.tally = self._zeros(MEASURES, LINES, dtype=torch.float64)
        self.clear()

    # -- recipes ----------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget every recipe; number 0 stays that of tokens that ask for nothing."""
        self._numbers = _Room(1, RECIPES)
        self._lines = _Room(0, LINES)
        self._directions = _Room(0, DIRECTIONS)
        self._known: dict[str, tuple[int, int]] = {}  # a direction by its content: its place, and lines that use it
        self._last = None

    def add(self, pushes: Sequence[Push]) -> Place:
        """Take in a recipe.

        Raises:
            BackendError: a push does not fit the model, or there is no room left.
        """
        for push in pushes:
            self._check(push)
        ordered = tuple(sorted(pushes, key=lambda push: push.stage))
        new = {_content(push) for push in ordered} - self._known.keys()
        if not (self._numbers.has(1) and self._lines.has(len(ordered)) and self._directions.has(1, len(new))):
            raise BackendError(
                f"more is steered at once than a vLLM worker has room for ({RECIPES - 1} steerings, {LINES} pushes, "
                f"{DIRECTIONS} directions): evaluate fewer vectors, doses or groups in one run"
            )
        self._last = None
        place = Place(self._numbers.take(1), self._lines.take(len(ordered)), ordered)
        counts = np.bincount([push.layer for push in ordered], minlength=self.layers)
        self.starts[place.number] = self._tensor(place.first + np.concatenate(([0], np.cumsum(counts))))
        lines = slice(place.first, place.first + len(ordered))
        self.kinds[lines] = self._tensor(np.array([_kind(push) for push in ordered]))
        self.places[lines] = self._tensor(np.array([self._direction(push) for push in ordered]))
        self.alphas[lines] = self._tensor(np.array([push.alpha for push in ordered]))
        self.norms[lines] = self._tensor(
            np.array([abs(push.alpha) * float(np.linalg.norm(push.direction)) for push in ordered])
        )
        self.calls[lines] = 0
        self.tally[:, lines] = 0
        return place

    def remove(self, place: Place) -> None:
        """Give a recipe's room back."""
        self._numbers.give(place.number, 1)
        self._lines.give(place.first, len(place.pushes))
        for push in place.pushes:
            content = _content(push)
            at, uses = self._known.pop(content)
            if uses > 1:
                self._known[content] = (at, uses - 1)
            else:
                self._directions.give(at, 1)

    def read(self, places: Sequence[Place]) -> list[dict[int, Tallied]]:
        """What was done for each recipe, by the pushes' own slots; waits for the device, once."""
        lines = self._tensor(np.array([line for place in places for line in place.lines], dtype=np.int64))
        calls, tally = self.calls[lines].tolist(), self.tally[:, lines].T.tolist()
        done = iter(Tallied(int(count), *measures) for count, measures in zip(calls, tally, strict=True))
        return [{push.slot: next(done) for push in place.pushes} for place in places]

    # -- passes -----------------------------------------------------------------------------------

    def begin(self, tokens: NDArray[np.int32]) -> None:
        """Say what each token of the pass to come asks for; an entry is made of the three constants above.

        A device's copy is queued behind the passes before, from memory that stays untouched until it is done.
        """
        if self._last is None or not np.array_equal(tokens, self._last):
            self.rounds, self._last = None, tokens
        source = torch.from_numpy(tokens)
        if self._device.type != "cpu":
            source = source.pin_memory()
        self.tokens[: len(tokens)].copy_(source, non_blocking=True)
        self.in_use = True

    def end(self) -> None:
        """The pass is queued: no pass of vLLM's own, which has no requests, may find its tokens."""
        if self.in_use:
            self.tokens.zero_()
            self.in_use = False

    # -- within -----------------------------------------------------------------------------------

    def _check(self, push: Push) -> None:
        if len(push.direction) != self.width:
            raise BackendError(
                f"vector '{push.vector}' has width {len(push.direction)}, "
                f"but the served model's hidden size is {self.width}"
            )
        if not 0 <= push.layer < self.layers:
            raise BackendError(
                f"vector '{push.vector}': the served model has no layer {push.layer}, only {self.layers}"
            )

    def _direction(self, push: Push) -> int:
        content = _content(push)
        if content not in self._known:
            at = self._directions.take(1)
            self.directions[at] = self._tensor(push.direction)
            self._known[content] = (at, 0)
        at, uses = self._known[content]
        self._known[content] = (at, uses + 1)
        return at

    def _zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class _Room:
    """Runs of places in ``[first, end)``; a run that was given back is taken again for one of its length."""

    def __init__(self, first: int, end: int) -> None:
        self._next, self._end = first, end
        self._free: dict[int, list[int]] = {}

    def has(self, length: int, times: int = 1) -> bool:
        """Whether so many runs of a length can be taken."""
        return len(self._free.get(length, ())) + (self._end - self._next) // max(length, 1) >= times

    def take(self, length: int) -> int:
        """Where a run begins."""
        if self._free.get(length):
            return self._free[length].pop()
        self._next += length
        return self._next - length

    def give(self, start: int, length: int) -> None:
        """Give a run back."""
        self._free.setdefault(length, []).append(start)


def _content(push: Push) -> str:
    """What tells one direction from another: a push that came over the wire has its hash in its place."""
    return push.place[0]


def _kind(push: Push) -> int:
    kind = ABLATES if push.ablate else 0
    return kind | (0 if push.tokens == "response" else ON_PROMPT) | (0 if push.tokens == "prompt" else ON_RESPONSE)
