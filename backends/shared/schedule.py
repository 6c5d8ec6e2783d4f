"""The course of a fine-tuning: which examples a step takes, and at which learning rate. Every backend's own is this."""

from __future__ import annotations

import math

from windowshift.core.contract.errors import MissingExtraError
from windowshift.core.contract.training import Sft


def learning_rate(sft: Sft, step: int, steps: int) -> float:
    """The rate of step `step` of `steps`, counted from 0."""
    if sft.schedule == "linear":
        return sft.learning_rate * (1 - step / steps)
    if sft.schedule == "cosine":
        return sft.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
    return sft.learning_rate


def batches(count: int, sft: Sft, seed: int) -> list[list[int]]:
    """The examples of every step: the first epoch in order, each further one in a permutation of its own.

    Raises:
        MissingExtraError: torch draws the permutations, and is not installed.
    """
    found: list[list[int]] = []
    for epoch in range(sft.epochs):
        order = list(range(count))
        if epoch:
            try:
                import torch
            except ModuleNotFoundError as error:
                raise MissingExtraError("the order of a second epoch", "local", "torch") from error
            source = torch.Generator().manual_seed(seed % (1 << 62) + epoch)
            order = torch.randperm(count, generator=source).tolist()
        found.extend(order[at : at + sft.batch_size] for at in range(0, count, sft.batch_size))
    return found
