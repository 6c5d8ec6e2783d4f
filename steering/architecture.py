"""Where a model keeps its decoder layers, and what one of them gives out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from windowshift.core.contract.errors import BackendError

# Class names that were tried, and the path to their decoder layers. Others are looked for by their shape.
KNOWN = {
    "LlamaForCausalLM": "model.layers",
    "MistralForCausalLM": "model.layers",
    "Qwen2ForCausalLM": "model.layers",
    "Qwen3ForCausalLM": "model.layers",
    "Gemma2ForCausalLM": "model.layers",
    "Gemma3ForCausalLM": "model.layers",
    "Gemma3ForConditionalGeneration": "model.language_model.layers",
    "GPTNeoXForCausalLM": "gpt_neox.layers",
    "GPT2LMHeadModel": "transformer.h",
}


@dataclass(frozen=True, slots=True)
class Decoder:
    """The decoder layers of a model, in order; `name` is the model's class."""

    name: str
    path: str
    layers: tuple[nn.Module, ...]
    width: int

    def hidden(self, output: Any) -> Tensor:
        """The residual stream [rows, tokens, width] in what a layer gave out: a tensor, or a tuple's first.

        Raises:
            BackendError: there is none of that shape.
        """
        found = output[0] if isinstance(output, tuple) and output else output
        if isinstance(found, Tensor) and found.ndim == 3 and found.shape[-1] == self.width:
            return found
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BackendError(
            f"the layers of '{self.name}' give out {shape}, and not a residual stream [rows, tokens, {self.width}]: "
            "this architecture cannot be steered"
        )

    @staticmethod
    def replaced(output: Any, hidden: Tensor) -> Any:
        """What a layer gave out, with another residual stream in it."""
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def find_decoder(model: nn.Module) -> Decoder:
    """Find a model's decoder layers; PEFT wrapping is looked through.

    A class that is not known is searched for the one list of modules that has as many entries as its
    configuration has layers.

    Raises:
        BackendError: there is no such list, or more than one; the sentence names the class.
    """
    inner: Any = model
    if hasattr(inner, "peft_config") and hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    name = type(inner).__name__
    config = getattr(inner, "config", None)
    if config is None:
        raise BackendError(_refusal(name, "it has no configuration"))
    if getattr(config, "is_encoder_decoder", False):
        raise BackendError(_refusal(name, "it has an encoder and a decoder"))
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    count, width = getattr(text, "num_hidden_layers", None), getattr(text, "hidden_size", None)
    if not isinstance(count, int) or not isinstance(width, int):
        raise BackendError(_refusal(name, "its configuration lacks num_hidden_layers or hidden_size"))
    lists = {
        path: tuple(module)
        for path, module in inner.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    if KNOWN.get(name) in lists:
        path = KNOWN[name]
    else:
        # Experts, heads and codebooks come in lists too, but those lists lie inside a layer.
        outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
        alike = [path for path in outer if len({type(layer) for layer in lists[path]}) == 1]
        outer = alike or outer  # hybrids have layers of two kinds in one list
        if len(outer) != 1:
            found = "none" if not outer else ", ".join(outer)
            raise BackendError(_refusal(name, f"lists of {count} modules, one of which would be its layers: {found}"))
        path = outer[0]
    return Decoder(name, path, lists[path], width)


def _refusal(name: str, reason: str) -> str:
    return f"the architecture '{name}' cannot be steered: {reason}"
