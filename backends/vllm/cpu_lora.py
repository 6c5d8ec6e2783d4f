"""Two faults of vLLM 0.32's LoRA layers on a CPU, mended in its workers; CUDA has kernels of its own, without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def mend_cpu_lora() -> None:
    """Mend what this process runs on a CPU, once.

    A request to the base model has the adapter index -1, which the original takes for the last adapter in memory:
    base completions that share a batch with adapters' would be that adapter's. And a prompt's log-probabilities
    give the output layer more rows than there are requests, on which the original breaks, and the engine with it;
    adapters of decoder layers have nothing to add to the output layer, so its rows are left as they are.
    """
    from vllm.lora.punica_wrapper import punica_cpu

    wrapper = punica_cpu.PunicaWrapperCPU
    if getattr(wrapper, "windowshift_mended", False):
        return
    original = wrapper.add_lora_logits

    def add_lora_logits(
        self: Any, y: Any, x: Any, lora_a_stacked: Any, lora_b_stacked: Any, *rest: Any, **by: Any
    ) -> Any:
        if not bool(lora_b_stacked.any()):
            return None
        return original(self, y, x, lora_a_stacked, lora_b_stacked, *rest, **by)

    wrapper.add_lora_logits = add_lora_logits
    punica_cpu.bgmv_shrink = _without_base_rows(punica_cpu.bgmv_shrink)
    punica_cpu.sgmv_shrink = _without_base_rows_in_spans(punica_cpu.sgmv_shrink)
    wrapper.windowshift_mended = True


def _without_base_rows(shrink: Callable[..., Any]) -> Callable[..., Any]:
    """Down-projections of a batch with one index a row: rows of the base model come to nothing."""

    def mended(inputs: Any, weights: Any, output: Any, indices: Any, *rest: Any, **by: Any) -> None:
        shrink(inputs, weights, output, indices.clamp_min(0), *rest, **by)
        output[: len(indices)][indices < 0] = 0

    return mended


def _without_base_rows_in_spans(shrink: Callable[..., Any]) -> Callable[..., Any]:
    """The same with one index a request, whose rows lie end to end."""

    def mended(
        inputs: Any, weights: Any, output: Any, starts: Any, lengths: Any, indices: Any, *rest: Any, **by: Any
    ) -> None:
        shrink(inputs, weights, output, starts, lengths, indices.clamp_min(0), *rest, **by)
        by_row = indices.repeat_interleave(lengths)
        output[: len(by_row)][by_row < 0] = 0

    return mended
