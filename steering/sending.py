"""Numbers that Python made, sent to a device without waiting for what it is at."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(numbers: Tensor, device: torch.device | str) -> Tensor:
    """Put numbers from the CPU on a device.

    A copy from ordinary memory waits for the device, one from pinned memory takes its turn there.
    """
    if torch.device(device).type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)
