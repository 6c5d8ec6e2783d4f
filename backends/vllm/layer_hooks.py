"""The decoder layers of a vLLM model: where they are, and what one of them gives out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from windowshift.core.contract.errors import BackendError
from windowshift.steering.architecture import Decoder, find_decoder

# Layers that give out (what the last sublayer adds, the stream before it): read in vLLM 0.32. Others mean something
# else by such a pair (Cohere's second part is the layer's input), so what is not known is refused.
_SUMMED = {
    "LlamaDecoderLayer",
    "MistralDecoderLayer",
    "MixtralDecoderLayer",
    "Qwen2DecoderLayer",
    "Qwen3DecoderLayer",
    "Qwen3MoeDecoderLayer",
    "Gemma2DecoderLayer",
    "Gemma3DecoderLayer",
}


def steerable_decoder(model: nn.Module) -> Decoder:
    """Find the decoder layers, and refuse those whose output is not understood.

    Raises:
        BackendError: the architecture cannot be steered at vLLM.
    """
    decoder = find_decoder(model)
    kind = type(decoder.layers[0])
    if not _SUMMED & {one.__name__ for one in kind.__mro__}:
        raise BackendError(
            f"layers of the class '{kind.__name__}' have not been tried with steering on vLLM: "
            "generate with  backend: local"
        )
    return decoder


def changed(output: Any, rows: Tensor, change: Callable[[Tensor], Tensor], width: int) -> Any:
    """A layer's output in which the residual stream of `rows` is what `change` makes of it.

    Other rows keep their very numbers. In the changed rows the pair becomes (stream, 0), so that the sum which
    the next layer forms is the stream, without a rounding of its own.

    Raises:
        BackendError: the output is not a residual stream.
    """
    hidden, residual = output if isinstance(output, tuple) else (output, None)
    if not isinstance(hidden, Tensor) or hidden.ndim != 2 or hidden.shape[1] != width or len(hidden) < len(rows):
        raise BackendError(f"a layer gave out {getattr(hidden, 'shape', type(hidden).__name__)}, not [tokens, {width}]")
    stream = hidden[rows] if residual is None else hidden[rows] + residual[rows]
    hidden = hidden.clone()
    hidden[rows] = change(stream)
    if residual is not None:
        residual = residual.clone()
        residual[rows] = 0
    return (hidden, residual) if isinstance(output, tuple) else hidden
