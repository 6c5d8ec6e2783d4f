"""The fields of an adapter_config.json, checked before any library sees them.

PEFT does what such a file says, to the base model too: PiSSA subtracts its first factors from the shared weights,
`layer_replication` repeats layers, dropout stays on. vLLM reads over most of it. So a field that is not known here to
be plain LoRA, or without an effect, must be empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import BackendError

CONFIG = "adapter_config.json"

# How the weights were begun matters only where the base model was changed along with it.
_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")
# They say which modules have an adapter, and how its two matrices are scaled.
_TAKEN = frozenset(
    {
        "r",
        "lora_alpha",
        "target_modules",
        "exclude_modules",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "layers_to_transform",
        "layers_pattern",
    }
)
# Looked at by name below, or without an effect on what a finished adapter computes. Dropout and the settings of
# methods that begin weights belong to training; how a weight lies in memory is known from the model itself.
_WITHOUT_EFFECT = frozenset(
    {
        "peft_type",
        "task_type",
        "bias",
        "init_lora_weights",
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",
        "fan_in_fan_out",
        "peft_version",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "runtime_config",
        "qalora_group_size",
    }
)
_REASONS = {
    "modules_to_save": "it replaces whole modules of the model",
    "trainable_token_indices": "it replaces rows of the embeddings",
    "target_parameters": "it changes parameters that are no linear layer, such as fused experts",
    "layer_replication": "it repeats layers of the model that all adapters share",
    "use_dora": "DoRA rescales the base weights",
    "lora_bias": "it changes biases",
    "alora_invocation_tokens": "it is in force for a part of the text only",
    "megatron_config": "it is sharded over several devices",
}


def plain_lora_fields(folder: Path) -> dict[str, Any]:
    """The configuration of the plain LoRA adapter in a folder.

    Raises:
        BackendError: it cannot be read, or asks for something else than plain LoRA; the field is named.
    """
    where = f"adapter '{folder}'"
    try:
        fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(f"{where} cannot be read: {CONFIG}: {reason}") from error
    if not isinstance(fields, dict):
        raise BackendError(f"{where} cannot be read: {CONFIG} is not a JSON object")
    _refuse(where, fields)
    return fields


def _refuse(where: str, fields: Mapping[str, Any]) -> None:
    """Refuse what is not plain LoRA, by the name of the field."""
    kind = str(fields.get("peft_type") or "LORA")
    if kind.upper() != "LORA":
        raise BackendError(f"{where} is a {kind} adapter, not a plain LoRA adapter, which is all that is loaded here")
    task = fields.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise BackendError(f"{where} has task_type {task}: only adapters of causal language models are loaded")
    if fields.get("bias", "none") not in ("none", None):
        raise BackendError(f"{where} trains biases (bias: {fields['bias']}), which are not loaded here")
    beginning = fields.get("init_lora_weights", True)
    if beginning is not None and not any(beginning is each or beginning == each for each in _BEGINNINGS):
        raise BackendError(
            f"{where} has init_lora_weights {beginning!r}, which changes the base model that all adapters share: "
            "convert it to plain LoRA first (PEFT's save_pretrained with path_initial_model_for_weight_conversion)"
        )
    for name, value in fields.items():
        if name in _TAKEN or name in _WITHOUT_EFFECT or value is None or value is False or value in ("", {}, []):
            continue
        reason = _REASONS.get(name, "what it changes is not known here")
        raise BackendError(f"{where} sets {name}, and so is no plain LoRA adapter: {reason}")
