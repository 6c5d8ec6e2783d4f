"""Gradient checkpointing: blocks forget what they computed forwards, and compute it again for gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from windowshift.steering.architecture import find_decoder


@contextmanager
def recomputed(model: nn.Module, served: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Within this block the parts of decoder layers keep their inputs alone; `served` is entered to compute again.

    transformers' own checkpointing works in training mode only, in which dropout is on. Attention and the rest of a
    layer are computed again and not the layer as a whole, whose output steering changes: it would count twice.

    Raises:
        BackendError: the decoder layers are not found.
    """
    parts = [
        part
        for layer in find_decoder(model).layers
        for part in layer.children()
        if next(part.children(), None) is not None  # norms have none, and would keep as much
    ]
    before = [part.__dict__.get("forward") for part in parts]
    try:
        for part in parts:
            part.forward = partial(_forgetful, part.forward, served)
        yield
    finally:
        for part, forward in zip(parts, before, strict=True):
            if forward is None:
                del part.forward
            else:
                part.forward = forward


def _forgetful(
    forward: Callable[..., Any], served: Callable[[], AbstractContextManager[None]], *args: Any, **more: Any
) -> Any:
    def run(*inputs: Any, **named: Any) -> Any:
        with served():
            return forward(*inputs, **named)

    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **more)
