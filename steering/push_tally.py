"""What pushes did, and what they were asked to do: a line for each, on the device that computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windowshift.steering.stage import MEASURES


@dataclass(frozen=True, slots=True)
class PushTallyMark:
    """What was tallied at some time."""

    calls: list[int]
    calls_asked: list[int]
    tensors: tuple[Tensor, ...]


class PushTally:
    """Counts of all pushes of one intervention. Line 0 is for rows that asked for nothing.

    The tensors have room for lines to come and are written in place, so that a recorded step goes on counting in
    them; `made` tells those that were made anew, for want of room, from those before.

    Attributes:
        measures: [4, lines], float64: tokens changed, sums of change norms, of asked norms, of stream norms.
        tokens_asked: [lines], float64.
        recorded_calls: [lines], int64: calls that the device counted, where Python does not run.
        made: how often the tensors were made.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._calls, self._calls_asked = [0], [0]
        self.made = 0
        self.measures = self.tokens_asked = self.recorded_calls = torch.empty(0)
        self._make(1)

    @property
    def lines(self) -> int:
        """Lines that there is room for."""
        return self.measures.shape[1]

    def grow(self, more: int) -> None:
        """Take so many pushes more."""
        self._calls.extend([0] * more)
        self._calls_asked.extend([0] * more)
        if len(self._calls) > self.lines:
            self._make(max(len(self._calls), 2 * self.lines))

    def ask(self, lines: Sequence[int]) -> None:
        """A pass to come has these pushes."""
        for line in lines:
            self._calls_asked[line] += 1

    def called(self, lines: Sequence[int]) -> None:
        """Their layer was reached."""
        for line in lines:
            self._calls[line] += 1

    def read(self) -> PushTallyMark:
        """All of it on the CPU, with what the device counted among the calls; waits for the device."""
        recorded = self.recorded_calls.tolist()
        calls = [own + more for own, more in zip(self._calls, recorded, strict=False)]
        return PushTallyMark(calls, list(self._calls_asked), (self.measures.cpu(), self.tokens_asked.cpu()))

    def mark(self) -> PushTallyMark:
        """What was tallied so far, for `rewind`."""
        return PushTallyMark(
            list(self._calls), list(self._calls_asked), tuple(each.clone() for each in self._tensors())
        )

    def rewind(self, mark: PushTallyMark) -> None:
        """Forget what was tallied since; no lines may have been added."""
        self._calls, self._calls_asked = list(mark.calls), list(mark.calls_asked)
        for each, before in zip(self._tensors(), mark.tensors, strict=True):
            each.copy_(before)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.measures, self.tokens_asked, self.recorded_calls

    def _make(self, lines: int) -> None:
        before = self._tensors() if self.made else ()
        # Tensors made in inference mode could not take part in a backward pass later.
        with torch.inference_mode(False), torch.no_grad():
            self.measures = torch.zeros(MEASURES, lines, dtype=torch.float64, device=self._device)
            self.tokens_asked = torch.zeros(lines, dtype=torch.float64, device=self._device)
            self.recorded_calls = torch.zeros(lines, dtype=torch.long, device=self._device)
            for own, old in zip(self._tensors(), before, strict=False):
                own[..., : old.shape[-1]] = old
        self.made += 1
