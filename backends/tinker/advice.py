"""The learning rate that Tinker's makers recommend, with the rule that it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.backends.local.model_folder import model_size
from windowshift.core.contract.errors import BackendError

SWEEP = "tinker-cookbook, hyperparam_utils.get_lr: the best of a sweep at batch 128"
RULE = "tinker-docs, SFT hyperparameters: 5e-5 * 10 for LoRA * (2000 / hidden size) ** exponent of the family"

# Facts of the cookbook's table as of 2026-11, by model.
_SWEPT = {
    "Qwen/Qwen3-235B-A22B-Instruct-2507": 3e-4,
    "Qwen/Qwen3-30B-A3B": 1e-3,
    "Qwen/Qwen3-30B-A3B-Base": 1e-3,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 1e-3,
    "Qwen/Qwen3-32B": 3e-4,
    "Qwen/Qwen3-4B-Instruct-2507": 1e-3,
    "Qwen/Qwen3-8B": 1e-3,
    "Qwen/Qwen3-8B-Base": 1e-3,
    "Qwen/Qwen3.5-397B-A17B": 3e-4,
    "Qwen/Qwen3.5-35B-A3B": 3e-4,
    "Qwen/Qwen3.5-27B": 3e-4,
    "Qwen/Qwen3.5-4B": 3e-4,
    "deepseek-ai/DeepSeek-V3.1": 4e-4,
    "deepseek-ai/DeepSeek-V3.1-Base": 4e-4,
    "meta-llama/Llama-3.1-70B": 3e-4,
    "meta-llama/Llama-3.1-8B": 3e-4,
    "meta-llama/Llama-3.1-8B-Instruct": 3e-4,
    "meta-llama/Llama-3.2-1B": 1e-3,
    "meta-llama/Llama-3.2-3B": 1e-3,
    "meta-llama/Llama-3.3-70B-Instruct": 3e-4,
    "moonshotai/Kimi-K2-Thinking": 3e-4,
    "moonshotai/Kimi-K2.5": 3e-4,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 4e-4,
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16": 1e-3,
    "openai/gpt-oss-120b": 3e-4,
    "openai/gpt-oss-20b": 1e-4,
}
_EXPONENTS = {"llama": 0.781, "qwen": 0.0775}
_BASE, _LORA, _WIDTH = 5e-5, 10.0, 2000.0


@dataclass(frozen=True, slots=True)
class Recommended:
    """A learning rate for LoRA, and where it comes from."""

    learning_rate: float
    source: str


def recommended(model: str, tokenizer: str | None = None) -> Recommended | None:
    """The learning rate recommended for a model; None: neither the table nor the rule covers it.

    The rule needs the model's hidden size, which is read from config.json where that can be had: of `model`, or
    of `tokenizer`, the folder or hub id that stands for it here.
    """
    if model in _SWEPT:
        return Recommended(_SWEPT[model], SWEEP)
    for source in filter(None, (model, tokenizer)):
        exponent = next((power for family, power in _EXPONENTS.items() if family in source.lower()), None)
        if exponent is None:
            continue
        try:
            width = model_size(source).width
        except BackendError:  # no configuration within reach
            continue
        return Recommended(of_width(width, exponent), RULE)
    return None


def of_width(width: int, exponent: float) -> float:
    """The rule: 5e-5 * 10 * (2000 / hidden size) ** exponent."""
    return float(_BASE * _LORA * (_WIDTH / width) ** exponent)


def advice(model: str, learning_rate: float, tokenizer: str | None = None) -> str:
    """What `plan` says beside the spec's learning rate."""
    found = recommended(model, tokenizer)
    if found is None:
        return (
            f"learning rate {learning_rate:g}: no recommendation is known for '{model}' (neither in tinker-cookbook's "
            "sweep, nor of a family that its rule covers)"
        )
    return f"learning rate {learning_rate:g}; recommended for '{model}': {found.learning_rate:.2g} ({found.source})"
