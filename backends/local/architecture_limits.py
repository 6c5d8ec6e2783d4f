"""What a model's configuration tells about what backend `local` can do with it, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VLLM = "backend vllm can"
NONE = "no backend here can"
# Architectures whose state between tokens is no cache that rows can come into and leave, and who can sample them.
_STATES = {
    "rwkv": NONE,
    "xlstm": NONE,
    "recurrent_gemma": NONE,
    "reformer": NONE,
    "xlnet": NONE,
    "transfo-xl": NONE,
    "minimax": VLLM,
    "deepseek_v32": VLLM,
    "deepseek_v4": VLLM,
}
_OTHER_CACHES = ("indexed_attention", "heavily_compressed_attention", "compressed_sparse_attention")
_OTHER_TASKS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
    "ForSpeechSeq2Seq",
    "ForCTC",
)


def unsupported(config: Mapping[str, Any]) -> str | None:
    """Why backend `local` cannot sample from a model with this configuration; None where it can be tried."""
    kind = str(config.get("model_type") or "unknown")
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else {}
    if config.get("is_encoder_decoder"):
        return f"'{kind}' has an encoder and a decoder, and backend 'local' samples from decoders alone"
    for name in (kind, str(inner.get("model_type") or "")):
        if name in _STATES:
            return f"'{name}' keeps a state between tokens that backend 'local' cannot carry; {_STATES[name]}"
    types = inner.get("layer_types") or config.get("layer_types") or ()
    for name in _OTHER_CACHES:
        if isinstance(types, list) and name in types:
            return f"'{kind}' has layers of {name}, whose cache backend 'local' cannot carry; {VLLM}"
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name.endswith(_OTHER_TASKS):
            return f"'{name}' is no causal language model, and writes no text"
    if "auto_map" in config and not _known(kind):
        return f"'{kind}' needs code of its own (auto_map in config.json), which windowshift does not run"
    return None


def notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know before such a model is trained."""
    text = config.get("text_config")
    merged = {**config, **text} if isinstance(text, dict) else config
    for name in ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"):
        count = merged.get(name)
        if isinstance(count, int) and count > 1:
            return (
                f"its {count} experts are not trained: LoRA goes on attention, and where PEFT lets it on the layers "
                "that all tokens pass",
            )
    return ()


def _known(kind: str) -> bool:
    """Whether transformers has code for the architecture; only asked of models that bring code along."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ImportError:
        return True  # said by whoever loads it
    return kind in CONFIG_MAPPING_NAMES
