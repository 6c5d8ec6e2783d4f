"""The losses of one training job, step by step, as they came in; a killed run's curve is whole again from here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windowshift.backends.tinker.work import TinkerWork
from windowshift.core.contract.training import TrainProgress

FILE = "losses.jsonl"


@dataclass(frozen=True, slots=True)
class StepLoss:
    """The loss of one step, in nats, and how many tokens its batch had."""

    step: int
    loss: float
    tokens: int


class LossFile:
    """A file of step losses, appended before anybody is told.

    Attributes:
        steps: one for each step, in order and without a gap.
        paid: tokens of all steps that were answered, those that were taken twice included.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.steps: list[StepLoss] = []
        self.paid = 0
        whole = 0
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            content = b""
        for line in content.splitlines(keepends=True):
            try:
                each = StepLoss(**json.loads(line))
            except (ValueError, TypeError):
                break  # cut short by a kill
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self._take(each)
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)

    def add(self, step: int, loss: float, tokens: int) -> bool:
        """Write a step down; False where it was there already, taken again after a kill."""
        each = StepLoss(step, loss, tokens)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "loss": loss, "tokens": tokens}) + "\n")
        return self._take(each)

    def told_again(self, work: TinkerWork) -> Iterator[TrainProgress]:
        """Every step as an event, for a store that an earlier process may not have got them into."""
        tokens = 0
        for each in self.steps:
            tokens += each.tokens
            yield TrainProgress(work.job.key, each.step, work.seen[each.step - 1], each.loss, 0.0, tokens, again=True)

    def clear(self) -> None:
        """Forget everything: the work is another one."""
        self._path.unlink(missing_ok=True)
        self.steps, self.paid = [], 0

    def _take(self, each: StepLoss) -> bool:
        self.paid += each.tokens
        fresh = each.step == len(self.steps) + 1
        if fresh:
            self.steps.append(each)
        return fresh
