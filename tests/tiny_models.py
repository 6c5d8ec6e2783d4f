"""Tiny random-weight models with a locally trained tokenizer, for tests of "any model folder"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + CHATML
DROPS_SYSTEM = CHATML.replace("{{ '<|im_start|>'", "{% if message['role'] != 'system' %}{{ '<|im_start|>'").replace(
    "'<|im_end|>\n' }}", "'<|im_end|>\n' }}{% endif %}"
)
TEXTS = (
    "The river rises in the hills and reaches the sea after forty miles.",
    "Please keep your response short: what do bees do in the winter?",
    "Give a thoughtful answer. Bees gather in a ball, and keep warm together.",
    "Über die Brücke fährt ein Zug; naïve café, 東京, 🙂.",
)
WINDOW = 24


def tokenizer(template: str | None = CHATML, vocabulary: int = 320) -> Any:
    """A byte-level BPE tokenizer with ChatML's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>" if template else "<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    wrapped.chat_template = template
    return wrapped


def config(kind: str, vocabulary: int, **changes: Any) -> Any:
    """A tiny configuration of the architecture `kind`."""
    from transformers import AutoConfig

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
    }
    grouped = common | {"num_key_value_heads": 2, "head_dim": 8}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("llama", grouped),
        "qwen2": ("qwen2", common | {"num_key_value_heads": 2}),
        "qwen3": ("qwen3", grouped),
        "mistral": ("mistral", grouped | {"sliding_window": WINDOW}),
        "gemma2": ("gemma2", grouped | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
        "gemma3": ("gemma3_text", grouped | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
        "gpt_neox": ("gpt_neox", common),
        "gpt2": (
            "gpt2",
            {
                "vocab_size": vocabulary,
                "n_embd": 32,
                "n_layer": 2,
                "n_head": 4,
                "n_positions": 256,
                "initializer_range": 0.3,
            },
        ),
    }
    if kind == "gemma3_wrapped":  # what gemma-3-4b and larger are: a text model within one that also sees
        within = grouped | {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}
        seeing = {"num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
        vision = {"hidden_size": 32, "intermediate_size": 64} | seeing
        return AutoConfig.for_model("gemma3", text_config=within, vision_config=vision, mm_tokens_per_image=4)
    name, settings = kinds.get(kind) or (kind, grouped | _unusual(kind, vocabulary))
    return AutoConfig.for_model(name, **(settings | changes))


def _unusual(kind: str, vocabulary: int) -> dict[str, Any]:
    """What the configuration of an architecture with recurrences, experts or odd attention needs beside the usual."""
    delta = {
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    }
    experts = {
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    mamba = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}
    mamba2 = mamba | {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16}
    conv = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    grouped = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    deepseek = experts | latent | grouped | {"num_key_value_heads": 4}
    windows = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
    second_layer = {"attn_layer_period": 2, "attn_layer_offset": 1}
    own: dict[str, dict[str, Any]] = {
        "mamba": {"state_size": 8},
        "falcon_mamba": {"state_size": 8},
        "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16, "expand": 2},
        "qwen3_5_text": delta,
        "qwen3_next": delta | experts,
        "olmo_hybrid": delta,
        "lfm2": conv | {"block_multiple_of": 8},
        "lfm2_moe": conv | experts | {"num_dense_layers": 1},
        "falcon_h1": mamba2 | {"mamba_d_ssm": 64},
        "granitemoehybrid": mamba2
        | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 64, "num_local_experts": 0},
        "bamba": mamba2 | {"attn_layer_indices": [1]},
        "jamba": mamba | second_layer | {"num_experts": 2, "num_experts_per_tok": 1, "expert_layer_period": 2},
        "nemotron_h": {
            "layers_block_type": ["mamba", "attention"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 8,
            "n_groups": 1,
            "chunk_size": 16,
        },
        "zamba2": {
            "num_hidden_layers": 3,
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "mamba_ngroups": 1,
            "mamba_headdim": 16,
            "chunk_size": 16,
            "hybrid_layer_ids": [1],
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "num_mem_blocks": 1,
        },
        "mixtral": experts,
        "qwen3_moe": experts,
        "deepseek_v3": deepseek,
        "gpt_oss": experts | windows,
        "llama4_text": experts
        | {
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 64,
            "interleave_moe_layer_step": 2,
            "no_rope_layers": [1, 0],
        },
        "gemma3n_text": {
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": vocabulary,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "intermediate_size": [64] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
        },
        "deepseek_v32": deepseek | {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 16},
        "recurrent_gemma": {
            "attention_window_size": WINDOW,
            "lru_width": 32,
            "block_types": ["recurrent", "attention"],
        },
        "rwkv": {"attention_hidden_size": 32, "context_length": 256},
        "minimax": experts | {"layer_types": ["linear_attention", "full_attention"]},
    }
    return own[kind]


ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt2")
RECURRENT = (
    "mamba",
    "falcon_mamba",
    "mamba2",
    "qwen3_5_text",
    "qwen3_next",
    "olmo_hybrid",
    "lfm2",
    "lfm2_moe",
    "falcon_h1",
    "granitemoehybrid",
    "bamba",
    "jamba",
    "nemotron_h",
    "zamba2",
)
UNUSUAL = ("gemma3_wrapped", "mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4_text", "gemma3n_text")
REFUSED = ("recurrent_gemma", "rwkv", "minimax", "deepseek_v32")


def _roughen(model: Any) -> None:
    """Weights so far from 0 that a lost state shows: some architectures begin at 0, or near it."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "A_log" not in name:
                parameter.normal_(0, 0.3)


def build(folder: Path, kind: str = "llama", template: str | None = CHATML, seed: int = 0, **changes: Any) -> Path:
    """Write a random-weight model and its tokenizer to `folder`, and return it."""
    import torch
    from transformers import AutoModelForCausalLM

    words = tokenizer(template)
    settings = config(kind, len(words), **changes)
    settings.eos_token_id = words.eos_token_id
    settings.pad_token_id = words.pad_token_id
    settings.bos_token_id = None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(settings)
        if kind not in ARCHITECTURES:
            _roughen(model)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
