"""Steering inside a vLLM worker: every request of a batch pushed in its own way.

vLLM lays the tokens of all requests of a step end to end, [tokens, width]. The scheduler's output says how many
are whose and where in its request each one stands; with that, a step becomes the stages that backend `local`
uses, with one token a row. What the prefix cache holds was steered when it was computed, as its blocks carry the
slot in their hash (`cache_salt`); such tokens are counted as `cached`, and are not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from windowshift.backends.vllm.engine import SLOT
from windowshift.backends.vllm.layer_hooks import changed, steerable_decoder
from windowshift.backends.vllm.pushes import from_json
from windowshift.core.contract.errors import BackendError
from windowshift.steering.recipe import Push, Recipe, StageKey
from windowshift.steering.spans import Spans
from windowshift.steering.stage import MEASURES, Stage, StageTable


@dataclass(slots=True)
class _Slot:
    """One way of being steered, and what was seen of it."""

    recipe: Recipe
    calls: list[int] = field(default_factory=list)
    passes: int = 0
    requests: int = 0
    cached: int = 0


@dataclass(slots=True)
class _Request:
    """A request under way that belongs to a slot. It is pushed to its end, even where the slot is closed before."""

    slot: _Slot
    prompt: int


@dataclass(slots=True)
class _Step:
    """The steered tokens of one forward pass."""

    rows: Tensor
    stages: dict[int, list[Stage]]
    slots: tuple[_Slot, ...]


class BatchSteering:
    """Hooks on the decoder layers of a worker's model, and the tallies of all open slots.

    Args:
        runner: vLLM's model runner, of its first or second kind.
        config: vLLM's configuration.

    Raises:
        BackendError: this engine cannot be steered; the sentence names the remedy.
    """

    def __init__(self, runner: Any, config: Any) -> None:
        _check_config(config)
        self._runner = runner
        self._decoder = steerable_decoder(runner.get_model())
        self._device, self._dtype = runner.device, runner.dtype
        self._slots: dict[str, _Slot] = {}
        self._requests: dict[str, _Request] = {}
        self._step: _Step | None = None
        self._seen: torch.dtype = self._dtype
        self._problem = ""
        self._tally, self._tokens_asked = self._zeros(MEASURES, 1), self._zeros(1)
        self._clear()
        for layer, module in enumerate(self._decoder.layers):
            module.register_forward_hook(lambda _module, _inputs, output, layer=layer: self._visit(layer, output))
        _wrap(runner, "execute_model", self._around_execute)
        # The two kinds of runner put a batch together in a method of different name.
        self._second = not hasattr(runner, "_prepare_inputs")
        _wrap(runner, "prepare_inputs" if self._second else "_prepare_inputs", self._around_prepare)

    # -- called from outside ----------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What a caller must know before it opens a slot."""
        return {"layers": len(self._decoder.layers), "width": self._decoder.width}

    def open(self, slots: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Open slots.

        Raises:
            BackendError: a push does not fit the model.
        """
        if not self._slots and not self._requests:
            self._clear()  # nobody looks at old lines any more
        with torch.inference_mode(False), torch.no_grad():
            for name, records in slots.items():
                pushes = tuple(from_json(record, self._lines + index) for index, record in enumerate(records))
                for push in pushes:
                    self._check(push)
                self._add(name, pushes)
        return self.about()

    def close(self, names: Sequence[str]) -> dict[str, Any]:
        """Close slots and say what was done in each; one that is not open is left out."""
        tally, asked = self._tally.cpu(), self._tokens_asked.cpu()
        eps = torch.finfo(self._seen).eps
        found: dict[str, Any] = {}
        for name in names:
            slot = self._slots.pop(name, None)
            if slot is None:
                continue
            lines = []
            for push, calls in zip(slot.recipe.pushes, slot.calls, strict=True):
                tokens, moved, wanted, size = tally[:, push.slot].tolist()
                lines.append(
                    {"calls": calls, "tokens": tokens, "moved": moved, "wanted": wanted, "size": size,
                     "tokens_asked": float(asked[push.slot])}
                )  # fmt: skip
            found[name] = {
                "pushes": lines, "passes": slot.passes, "requests": slot.requests, "cached": slot.cached,
                "problem": self._problem,
                "eps": eps, "exact": self._seen in (torch.float32, torch.float64),
            }  # fmt: skip
        return found

    # -- called by vLLM -----------------------------------------------------------------------------

    def _around_execute(self, execute: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        """A step: take note of who comes and goes, and let no step see another's rows."""
        for name in output.finished_req_ids:
            self._requests.pop(name, None)
        for new in output.scheduled_new_reqs:
            extra = getattr(new.sampling_params, "extra_args", None) or {}
            slot = self._slots.get(extra.get(SLOT, ""))
            if slot is not None and new.req_id not in self._requests:  # a request may come back after preemption
                prompt = len(new.prompt_token_ids)
                self._requests[new.req_id] = _Request(slot, prompt)
                slot.requests += 1
                slot.cached += min(new.num_computed_tokens, prompt)
        try:
            return execute(output, *args, **kwargs)
        finally:
            self._step = None

    def _around_prepare(self, prepare: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        """The batch is put together: find out which of its tokens are to be pushed."""
        found = prepare(output, *args, **kwargs)
        if self._requests and not self._requests.keys().isdisjoint(output.num_scheduled_tokens):
            if self._second:
                names, computed = found.req_ids, found.num_computed_tokens_np
            else:
                batch = self._runner.input_batch
                names, computed = batch.req_ids[: batch.num_reqs], batch.num_computed_tokens_cpu
            with torch.inference_mode(False), torch.no_grad():
                self._step = self._staged(names, computed, output.num_scheduled_tokens)
        return found

    def _visit(self, layer: int, output: Any) -> Any:
        """A decoder layer has run."""
        step = self._step
        if step is None or layer not in step.stages:
            return None

        def change(stream: Tensor) -> Tensor:
            hidden = stream[:, None, :]
            self._seen = hidden.dtype
            for stage in step.stages[layer]:
                hidden = stage.apply(hidden, self._tally)
            return hidden[:, 0, :]

        try:
            found = changed(output, step.rows, change, self._decoder.width)
        except BackendError as error:  # the proof will tell; raised here it would end the whole engine
            self._problem = str(error)
            return None
        for slot in step.slots:
            for index, push in enumerate(slot.recipe.pushes):
                slot.calls[index] += push.layer == layer
        return found

    # -- within ---------------------------------------------------------------------------------------

    def _staged(self, names: Sequence[str], computed: Any, scheduled: Mapping[str, int]) -> _Step:
        """The stages of a step, one token a row.

        Positions come from the tokens computed before; how many tokens are asked for comes from the lengths.
        """
        places: list[Any] = []
        is_prompt: list[Any] = []
        numbers: list[Any] = []
        prompt_counts: list[Any] = []
        response_counts: list[Any] = []
        slots: dict[int, _Slot] = {}
        start = 0
        for index, name in enumerate(names):
            count = scheduled[name]
            request = self._requests.get(name)
            if request is not None:
                slot = request.slot
                slots[slot.recipe.number] = slot
                before = int(computed[index])
                positions = np.arange(before, before + count)
                of_prompt = max(0, min(request.prompt, before + count) - before)
                places.append(np.arange(start, start + count))
                is_prompt.append(positions < request.prompt)
                numbers.append(np.full(count, slot.recipe.number))
                counts = np.zeros((2, count), dtype=np.int64)
                counts[:, 0] = of_prompt, count - of_prompt  # the request's whole count, at its first token
                prompt_counts.append(counts[0])
                response_counts.append(counts[1])
            start += count
        prompt = self._tensor(np.concatenate(is_prompt))[:, None]
        spans = Spans(
            prompt, ~prompt, self._tensor(np.concatenate(prompt_counts)), self._tensor(np.concatenate(response_counts))
        )
        which = self._tensor(np.concatenate(numbers))
        found: dict[StageKey, list[int]] = {}
        for slot in slots.values():
            slot.passes += 1
            for push in slot.recipe.pushes:
                found.setdefault(push.stage, []).append(push.slot)
        stages: dict[int, list[Stage]] = {}
        for key in sorted(found):
            stage = self._tables[key].rows(which, tuple(found[key]), self._dtype)
            stage.open(spans, self._tokens_asked)
            stages.setdefault(stage.layer, []).append(stage)
        return _Step(self._tensor(np.concatenate(places)), stages, tuple(slots.values()))

    def _add(self, name: str, pushes: tuple[Push, ...]) -> None:
        self._count += 1
        recipe = Recipe(self._count, (), pushes)
        for push in pushes:
            if push.stage not in self._tables:
                self._tables[push.stage] = StageTable(push.layer, push.ablate, self._device)
            self._tables[push.stage].add(recipe.number, push)
        for table in self._tables.values():
            table.widen(recipe.number)
        self._lines += len(pushes)
        self._tally = torch.cat([self._tally, self._zeros(MEASURES, len(pushes))], dim=1)
        self._tokens_asked = torch.cat([self._tokens_asked, self._zeros(len(pushes))])
        self._slots[name] = _Slot(recipe, [0] * len(pushes))

    def _check(self, push: Push) -> None:
        layers, width = len(self._decoder.layers), self._decoder.width
        if len(push.direction) != width:
            raise BackendError(
                f"vector '{push.vector}' has width {len(push.direction)}, but the served model's hidden size is {width}"
            )
        if not 0 <= push.layer < layers:
            raise BackendError(f"vector '{push.vector}': the served model has no layer {push.layer}, only {layers}")

    def _clear(self) -> None:
        """Forget all lines; line 0 and number 0 are for rows that asked for nothing."""
        self._tables: dict[StageKey, StageTable] = {}
        self._lines, self._count = 1, 0
        with torch.inference_mode(False), torch.no_grad():
            self._tally, self._tokens_asked = self._zeros(MEASURES, 1), self._zeros(1)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self._device)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _check_config(config: Any) -> None:
    if not config.model_config.enforce_eager:
        raise BackendError("steering needs eager execution, as compiled graphs pass hooks by: add  --enforce-eager")
    if config.parallel_config.pipeline_parallel_size > 1:
        raise BackendError("steering does not work with pipeline parallelism: use tensor parallelism instead")
    if config.parallel_config.data_parallel_size > 1:
        raise BackendError("steering does not work with data parallelism: start one server for each replica")
    if config.speculative_config is not None:
        raise BackendError("steering does not work with speculative decoding: start vLLM without it")


def _wrap(target: Any, name: str, around: Any) -> None:
    """Put `around(original, ...)` in the place of a method of one object."""
    original = getattr(target, name)
    setattr(target, name, lambda *args, **kwargs: around(original, *args, **kwargs))
