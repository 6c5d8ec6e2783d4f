"""Two faults of vLLM 0.32's LoRA layers on a CPU, mended in its workers; CUDA has kernels of its own, without them."""

from __future__ import annotations

from typing import Any


def mend_cpu_lora() -> None:
    """Mend the wrapper class of this process, once.

    A prompt's log-probabilities give the output layer more rows than there are requests, on which the original
    breaks, and the whole engine with it. Adapters of decoder layers have nothing to add to the output layer: its
    rows are left as they are, and those of an adapter that has weights there still go the original's way.
    """
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    original = PunicaWrapperCPU.add_lora_logits
    if getattr(original, "mended", False):
        return

    def add_lora_logits(
        self: Any, y: Any, x: Any, lora_a_stacked: Any, lora_b_stacked: Any, scale: Any, **kwargs: Any
    ) -> Any:
        if not bool(lora_b_stacked.any()):
            return None
        return original(self, y, x, lora_a_stacked, lora_b_stacked, scale, **kwargs)

    add_lora_logits.mended = True  # type: ignore[attr-defined]
    PunicaWrapperCPU.add_lora_logits = add_lora_logits
