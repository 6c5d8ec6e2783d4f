"""The decoder layers of a vLLM model: where they are, and how the operator gets behind each of them."""

from __future__ import annotations

from typing import Any

from torch import nn

from windowshift.backends.vllm.push_operator import push
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


def install_pushes(decoder: Decoder) -> None:
    """Put the operator behind every decoder layer; before the model runs first, so that what is compiled holds it."""
    for number, layer in enumerate(decoder.layers):
        layer.register_forward_hook(_Pushed(number))


class _Pushed:
    """What follows the layer of a number. A compiler that traces the model goes through here once."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002 - torch's signature
        if isinstance(output, tuple) and len(output) == 2:  # anything else the proof will tell
            push(output[0], output[1], self._number)
