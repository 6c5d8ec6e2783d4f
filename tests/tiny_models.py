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
    name, settings = kinds[kind]
    return AutoConfig.for_model(name, **(settings | changes))


ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt_neox", "gpt2")


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
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
