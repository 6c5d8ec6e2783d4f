"""Steering inside a vLLM worker: every request of a batch pushed in its own way.

vLLM lays the tokens of all requests of a step end to end, [tokens, width]. The scheduler's output says how many
are whose and where in its request each one stands; with that, every token gets the entry by which the operator finds
its pushes. What the prefix cache holds was steered when it was computed, as its blocks carry the slot in their hash
(`cache_salt`); such tokens are counted as `cached`, and are not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from windowshift.backends.vllm.decoder_layers import install_pushes, steerable_decoder
from windowshift.backends.vllm.engine import SLOT
from windowshift.backends.vllm.push_operator import use_table
from windowshift.backends.vllm.push_table import IN_PROMPT, IS_FIRST, RECIPE_SHIFT, Place, PushTable
from windowshift.backends.vllm.pushes import from_json
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Tokens

_SPARE_TOKENS = 1024  # a pass is padded to a size that was captured, or to the number of workers
_GRAPH = {"windowshift": "push-1"}


@dataclass(slots=True)
class _Slot:
    """One way of being steered, and what was seen of it: passes, requests, and the tokens that went through."""

    place: Place
    open: bool = True
    passes: int = 0
    requests: int = 0
    cached: int = 0
    running: int = 0
    in_prompts: int = 0
    in_responses: int = 0

    def asked(self, tokens: Tokens) -> int:
        """How many tokens a push was asked for; this comes from the lengths, and not from the tokens' entries."""
        prompts = 0 if tokens == "response" else self.in_prompts
        return prompts + (0 if tokens == "prompt" else self.in_responses)


@dataclass(slots=True)
class _Request:
    """A request under way that belongs to a slot. It is pushed to its end, even where the slot is closed before."""

    slot: _Slot
    prompt: int


class BatchSteering:
    """The operator behind the decoder layers of a worker's model, its table, and all open slots.

    To be made after the model is loaded, and before it runs for the first time: then vLLM compiles and captures it.

    Args:
        runner: vLLM's model runner, of its first or second kind.
        config: vLLM's configuration; takes note that its graphs are not those of a model without the operator.

    Raises:
        BackendError: this engine cannot be steered; the sentence names the remedy.
    """

    def __init__(self, runner: Any, config: Any) -> None:
        _check_config(config)
        if runner.device.type not in ("cpu", "cuda"):
            raise BackendError(f"steering works on CUDA and on a CPU, and not on '{runner.device.type}'")
        self._runner = runner
        decoder = steerable_decoder(runner.get_model())
        tokens = max(config.scheduler_config.max_num_batched_tokens, *(_captured(config) or [0])) + _SPARE_TOKENS
        self._table = PushTable(len(decoder.layers), decoder.width, tokens, runner.device, runner.dtype)
        self._slots: dict[str, _Slot] = {}
        self._requests: dict[str, _Request] = {}
        # The names of graphs on disk are made of the configuration, and vLLM leaves extensions out of it.
        config.additional_config = {**config.additional_config, **_GRAPH}
        install_pushes(decoder)
        use_table(self._table)
        _wrap(runner, "execute_model", self._around_execute)
        # The two kinds of runner put a batch together in a method of different name.
        self._second = not hasattr(runner, "_prepare_inputs")
        _wrap(runner, "prepare_inputs" if self._second else "_prepare_inputs", self._around_prepare)

    # -- called from outside ----------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What a caller must know before it opens a slot."""
        return {"layers": self._table.layers, "width": self._table.width}

    def open(self, slots: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Open slots; all of them, or none.

        Raises:
            BackendError: a push does not fit the model, or there is no room for more.
        """
        opened: dict[str, _Slot] = {}
        with torch.inference_mode(False), torch.no_grad():
            try:
                for name, records in slots.items():
                    pushes = [from_json(record, index) for index, record in enumerate(records)]
                    opened[name] = _Slot(self._table.add(pushes))
            except BackendError:
                for slot in opened.values():
                    self._table.remove(slot.place)
                raise
        self._slots |= opened
        return self.about()

    def close(self, names: Sequence[str]) -> dict[str, Any]:
        """Close slots and say what was done in each; one that is not open is left out."""
        closed = {name: self._slots.pop(name) for name in dict.fromkeys(names) if name in self._slots}
        eps = torch.finfo(self._table.dtype).eps
        exact = self._table.dtype in (torch.float32, torch.float64)
        tallied = self._table.read([slot.place for slot in closed.values()])
        found: dict[str, Any] = {}
        for (name, slot), done in zip(closed.items(), tallied, strict=True):
            pushes = {push.slot: push for push in slot.place.pushes}
            lines = [
                {"calls": done[index].calls, "tokens": done[index].tokens, "moved": done[index].moved,
                 "wanted": done[index].wanted, "size": done[index].size,
                 "tokens_asked": float(slot.asked(pushes[index].tokens))}
                for index in sorted(done)
            ]  # fmt: skip
            found[name] = {
                "pushes": lines, "passes": slot.passes, "requests": slot.requests, "cached": slot.cached,
                "problem": self._table.problem, "eps": eps, "exact": exact,
            }  # fmt: skip
            slot.open = False
            self._release(slot)
        return found

    # -- called by vLLM -----------------------------------------------------------------------------

    def _around_execute(self, execute: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        """A step: take note of who comes and goes, and let no step see another's tokens."""
        for name in output.finished_req_ids:
            request = self._requests.pop(name, None)
            if request is not None:
                request.slot.running -= 1
                self._release(request.slot)
        for new in output.scheduled_new_reqs:
            extra = getattr(new.sampling_params, "extra_args", None) or {}
            slot = self._slots.get(extra.get(SLOT, ""))
            if slot is not None and new.req_id not in self._requests:  # a request may come back after preemption
                prompt = len(new.prompt_token_ids)
                self._requests[new.req_id] = _Request(slot, prompt)
                slot.running += 1
                slot.requests += 1
                slot.cached += min(new.num_computed_tokens, prompt)
        try:
            return execute(output, *args, **kwargs)
        finally:
            self._table.end()

    def _around_prepare(self, prepare: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        """The batch is put together: find out which of its tokens are to be pushed."""
        found = prepare(output, *args, **kwargs)
        if self._requests and not self._requests.keys().isdisjoint(output.num_scheduled_tokens):
            if self._second:
                names, computed = found.req_ids, found.num_computed_tokens_np
            else:
                batch = self._runner.input_batch
                names, computed = batch.req_ids[: batch.num_reqs], batch.num_computed_tokens_cpu
            self._table.begin(self._entries(names, computed, output.num_scheduled_tokens))
        return found

    # -- within ---------------------------------------------------------------------------------------

    def _entries(self, names: Sequence[str], computed: Any, scheduled: Mapping[str, int]) -> Any:
        """An entry for each token of a step, int32; positions come from the tokens computed before."""
        entries = np.zeros(sum(scheduled[name] for name in names), dtype=np.int32)
        seen: set[int] = set()
        start = 0
        for index, name in enumerate(names):
            count = scheduled[name]
            request = self._requests.get(name)
            if request is not None:
                slot, number = request.slot, request.slot.place.number
                before = int(computed[index])
                of_prompt = max(0, min(request.prompt, before + count) - before)
                slot.in_prompts += of_prompt
                slot.in_responses += count - of_prompt
                own = number << RECIPE_SHIFT
                entries[start : start + of_prompt] = own | IN_PROMPT
                entries[start + of_prompt : start + count] = own
                if number not in seen:
                    seen.add(number)
                    slot.passes += 1
                    entries[start] |= IS_FIRST
            start += count
        return entries

    def _release(self, slot: _Slot) -> None:
        """Give its room back, once nothing can be pushed by it any more."""
        if not slot.open and not slot.running:
            self._table.remove(slot.place)


def _check_config(config: Any) -> None:
    if config.parallel_config.pipeline_parallel_size > 1:
        raise BackendError("steering does not work with pipeline parallelism: use tensor parallelism instead")
    if config.parallel_config.data_parallel_size > 1:
        raise BackendError("steering does not work with data parallelism: start one server for each replica")
    if config.speculative_config is not None:
        raise BackendError("steering does not work with speculative decoding: start vLLM without it")
    if not isinstance(config.additional_config, dict):
        raise BackendError("steering does not work with an --additional-config that is no JSON object")
    # These let a layer see a part of a step's tokens, which would not be known by their places any more.
    parts = {
        "dual-batch overlap (--enable-dbo)": config.parallel_config.use_ubatching,
        "prefill context parallelism": config.parallel_config.prefill_context_parallel_size > 1,
        "--kv-sharing-fast-prefill": config.cache_config.kv_sharing_fast_prefill,
    }
    for name, used in parts.items():
        if used:
            raise BackendError(f"steering does not work with {name}: start vLLM without it")


def _captured(config: Any) -> list[int]:
    """The sizes of the passes that vLLM captures, in tokens."""
    return list(config.compilation_config.cudagraph_capture_sizes or [])


def _wrap(target: Any, name: str, around: Any) -> None:
    """Put `around(original, ...)` in the place of a method of one object."""
    original = getattr(target, name)
    setattr(target, name, lambda *args, **kwargs: around(original, *args, **kwargs))
