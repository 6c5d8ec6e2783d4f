"""A stand-in for CUDA graphs on the CPU: operations are recorded with the tensors they had, and done again on those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records operations; `play` does them again with no Python of the model's.

    As in a graph, results go where they went when they were recorded, and numbers of Python's are those of then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self._fresh = True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self._operations.append((function, args, kwargs or {}, _tensors(result)))
        return result

    def play(self) -> None:
        """Do all of it again. The first time it was done in recording, which a graph does not do."""
        if self._fresh:
            self._fresh = False
            return
        for function, args, kwargs, results in self._operations:
            for before, now in zip(results, _tensors(function(*args, **kwargs)), strict=True):
                if before.data_ptr() != now.data_ptr():
                    before.copy_(now)


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step."""
    tape = Tape()
    with tape:
        step()
    return tape.play


def _tensors(result: Any) -> list[torch.Tensor]:
    return [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
