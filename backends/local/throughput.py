"""What training makes of a GPU: the share of its arithmetic that is used, and the memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from windowshift.core.contract.training import TrainProgress

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM

HALF_PRECISION = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Operations a second of dense products in bfloat16, by the makers' data sheets: the first name that is a device's."""
OPERATIONS = 4
"""A parameter and token, in training with LoRA: two forwards and two backwards, as frozen weights have no gradient."""
WINDOW_SECONDS = 30.0


def most_operations(name: str, dtype: torch.dtype) -> float | None:
    """Operations a second that a GPU of this name has at most; None where that is not known."""
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    words = name.replace("-", " ").split()
    for known, found in HALF_PRECISION.items():
        if set(known.split()) <= set(words):
            return found
    return None


class Throughput:
    """Counts the tokens of the passes through one model.

    MFU is what the products with the base model's weights need, over what the device could do in the time: attention
    and the adapters are not counted, padding is waste.

    Args:
        lm: the model.
        clock: gives seconds.
    """

    def __init__(self, lm: CausalLM, clock: Callable[[], float] = time.monotonic) -> None:
        self._device, self._clock = lm.device, clock
        cuda = self._device.type == "cuda"
        self._most = most_operations(torch.cuda.get_device_name(self._device), lm.model.dtype) if cuda else None
        self._operations = OPERATIONS * lm.parameters
        self._began = self._ended = clock()
        self._tokens = 0
        self._rate: float | None = None

    def passed(self, tokens: int) -> None:
        """A pass of so many tokens was taken."""
        now = self._clock()
        if now - self._ended > WINDOW_SECONDS:
            self._began, self._tokens = now, 0  # nothing was trained meanwhile
        self._ended = now
        self._tokens += tokens
        if now - self._began >= WINDOW_SECONDS:
            self._rate = self._tokens / (now - self._began)
            self._began, self._tokens = now, 0

    def said(self, event: TrainProgress) -> TrainProgress:
        """A report with the share of the arithmetic and the memory at its peak, on a GPU."""
        if self._device.type != "cuda" or event.again:
            return event
        since = self._clock() - self._began
        rate = self._rate if self._rate is not None else self._tokens / since if since > 0 else None
        mfu = None if rate is None or self._most is None else rate * self._operations / self._most
        return replace(event, mfu=mfu, memory=torch.cuda.max_memory_reserved(self._device))
