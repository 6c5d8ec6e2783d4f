"""The pushes of decode steps in tensors that keep their places, so that a recorded step pushes what is asked now."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from windowshift.core.contract.errors import BackendError
from windowshift.steering.intervene import Intervention, SteeredRow
from windowshift.steering.recipe import Recipe, StageKey
from windowshift.steering.sending import sent
from windowshift.steering.spans import Spans
from windowshift.steering.stage import Stage


class FixedStages:
    """What an intervention does in steps of one token a row, for up to `slots` rows.

    The proof is kept as in `Intervention`, but that the device counts the calls: Python does not run where a
    recorded step does.

    Attributes:
        steer: the intervention.
    """

    def __init__(self, steer: Intervention, slots: int) -> None:
        self.steer, self._slots = steer, slots
        self._known: dict[StageKey, Stage] = {}  # of `slots` rows each
        self._lines: dict[StageKey, Tensor] = {}  # [lines]: 1 where a push of the stage is in force
        self._in_force: list[StageKey] = []
        self._last: tuple[list[Recipe], int] = ([], 0)

    def put(self, rows: Sequence[SteeredRow], bucket: int) -> Hashable:
        """Let row i follow its recipe, and those behind them, up to `bucket`, none.

        Returns:
            What a recorded step depends on: as long as it is the same, the step is right.
        """
        plain = self.steer.recipe(())
        recipes = [row.recipe or plain for row in rows] + [plain] * (bucket - len(rows))
        tally = self.steer.tally
        if self._last != (recipes, tally.made):
            stages = self.steer.gathered(recipes)
            # No tensors of inference mode: they are written in it and without.
            with torch.inference_mode(False), torch.no_grad():
                for key, stage in stages.items():
                    self._write(key, stage, bucket)
            self._in_force, self._last = sorted(stages), (recipes, tally.made)
        return (tally.made, *self._in_force)

    def run(self, inputs: dict[str, Any], alive: Tensor) -> Any:
        """A step on `inputs` whose rows ``alive`` [rows], bool, are pushed as was put.

        Raises:
            BackendError: a layer was not reached, or gave out something else than a residual stream.
        """
        rows, tally = alive.shape[0], self.steer.tally
        no = torch.zeros_like(alive)
        spans = Spans(no[:, None], alive[:, None], no.long(), alive.long())
        by_layer: dict[int, list[tuple[StageKey, Stage]]] = {}
        for key in self._in_force:
            stage = _first_rows(self._known[key], rows)
            stage.open(spans, tally.tokens_asked)
            by_layer.setdefault(stage.layer, []).append((key, stage))

        def visit(layer: int, hidden: Tensor) -> Tensor:
            if hidden.shape[:2] != (rows, 1):
                raise BackendError(f"steering was given {rows} tokens, and layer {layer} has {tuple(hidden.shape[:2])}")
            self.steer.saw(hidden.dtype)
            for key, stage in by_layer[layer]:
                hidden = stage.apply(hidden, tally.measures)
                tally.recorded_calls.add_(self._lines[key])
            return hidden

        return self.steer.points.run(list(by_layer), visit, inputs)

    def asked(self) -> None:
        """A step was taken: what was asked of it, whether the device did it or not."""
        for key in self._in_force:
            self.steer.tally.ask(self._known[key].slots)

    def _write(self, key: StageKey, stage: Stage, bucket: int) -> None:
        known = self._known.get(key)
        if known is None:
            known = _empty(stage, self._slots)
        tally = self.steer.tally
        for own, fresh in zip(_tensors(known), _tensors(stage), strict=True):
            own[:bucket].copy_(fresh)
        self._known[key] = replace(known, slots=stage.slots)
        lines = self._lines.get(key)
        if lines is None or lines.shape[0] != tally.lines:
            lines = self._lines[key] = torch.zeros_like(tally.recorded_calls)
        chosen = torch.zeros(lines.shape[0], dtype=lines.dtype)
        chosen[list(stage.slots)] = 1
        lines.copy_(sent(chosen, lines.device))


def _tensors(stage: Stage) -> tuple[Tensor, ...]:
    return (stage.delta, stage.asked, stage.prompt, stage.response, stage.lines)


def _first_rows(stage: Stage, rows: int) -> Stage:
    delta, asked, prompt, response, lines = (each[:rows] for each in _tensors(stage))
    return Stage(stage.layer, stage.ablate, stage.slots, delta, asked, prompt, response, lines)


def _empty(stage: Stage, slots: int) -> Stage:
    delta, asked, prompt, response, lines = (each.new_zeros(slots, *each.shape[1:]) for each in _tensors(stage))
    return Stage(stage.layer, stage.ablate, stage.slots, delta, asked, prompt, response, lines)
