"""Adapters and vectors for tests of backend `vllm`: of the right shape for the embedded model, with drawn numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from windowshift.backends.local.model_folder import identify, model_size
from windowshift.core.contract.generation import Model
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.vector import SteeringVector

_FEATURES = {
    "self_attn.q_proj": (128, 128),
    "self_attn.k_proj": (128, 128),
    "self_attn.v_proj": (128, 128),
    "self_attn.o_proj": (128, 128),
    "mlp.gate_proj": (128, 352),
    "mlp.up_proj": (128, 352),
    "mlp.down_proj": (352, 128),
}


def make_adapters(folder: Path, count: int, rank: int = 4, width: int = 128, size: float = 0.15) -> list[Model]:
    """PEFT folders as backend `local` writes them, strong enough to change greedy answers."""
    import torch
    from safetensors.torch import save_file

    found = []
    for number in range(count):
        draw = torch.Generator().manual_seed(number)
        state = {}
        for layer in range(4):
            for name, (inputs, outputs) in _FEATURES.items():
                key = f"base_model.model.model.layers.{layer}.{name}"
                inputs, outputs = (width if each == 128 else each for each in (inputs, outputs))
                state[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=draw) * size
                state[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=draw) * size
        path = folder / f"adapter{number}"
        path.mkdir()
        save_file(state, str(path / "adapter_model.safetensors"), metadata={"format": "pt"})
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0,
            "bias": "none", "inference_mode": True, "base_model_name_or_path": "microworld",
            "target_modules": sorted({name.rsplit(".", 1)[-1] for name in _FEATURES}),
        }  # fmt: skip
        (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        found.append(Model("microworld", adapter=str(path)))
    return found


def make_vector(folder: Path, name: str = "push", seed: int = 0) -> Path:
    """A vector of drawn numbers for the embedded model, for layer 2."""
    size = model_size("microworld")
    numbers = np.random.default_rng(seed).normal(size=(size.layers, size.width))
    own = Provenance("microworld", identify("microworld").fingerprint, "random")
    path = folder / f"{name}.safetensors"
    SteeringVector.make(name, numbers, own, layer=2).save(path)
    return path
