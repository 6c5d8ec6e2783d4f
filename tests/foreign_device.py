"""The meta device in place of CUDA: what would wait for the device, or mix it with the CPU, raises or is counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
)


class ForeignDevice(TorchDispatchMode):
    """Within it each operation is looked at.

    Whatever needs a number from the device (`item`, `bool`, `float`, `tolist`, `cpu`, `nonzero`, an index that is a
    mask) raises, as there is none on the meta device; so does an operation over tensors of both. Numbers that are sent
    there from the CPU are counted.

    Attributes:
        sent: how many tensors were sent from the CPU.
        seen: how many operations there were on the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent = self.seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, torch.Tensor)]
        here = [each for each in given if each.device.type == "cpu" and each.dim()]
        there = [each for each in given if each.device.type == "meta"]
        name = function.overloadpacket.__name__
        if there and name in _READS:
            raise AssertionError(f"{name} waits for the device")
        if here and there and name != "copy_":
            raise AssertionError(f"{name} of tensors on the device and on the CPU: {function}")
        result = function(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        if any(each.device.type == "meta" for each in made):
            self.seen += 1
            if here:
                self.sent += 1
        elif there and made:
            raise AssertionError(f"{name} brings numbers from the device to the CPU")
        return result


@contextmanager
def watched() -> Iterator[ForeignDevice]:
    """A block in which operations are looked at."""
    with ForeignDevice() as found:
        yield found
