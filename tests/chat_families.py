"""Tokenizers and chat templates of the families that people use, made here: no files of theirs are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TEXTS = (
    "<s>[INST] What do bees do? [/INST] They gather. </s>",
    "user: hi\n<bot>\nThe river rises.\n\n A river. Hm, long thoughts about it. Yes.",
    "Über die Brücke fährt ein Zug; naïve café, 東京, 🙂. <|im_end|> [SEP] </think>",
) * 3

LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}{% if turn.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') "
    "+ turn.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + turn.content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}{{ '[INST] ' + turn.content + ' [/INST]' }}"
    "{% elif turn.role == 'assistant' %}{{ ' ' + turn.content | trim + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}{%- else %}"
    "{%- set day = '26 Jul 2024' %}{%- endif %}{{- bos_token }}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + day + '\n\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content | trim }}{%- set messages = messages[1:] %}"
    "{%- endif %}"
    "{{- '<|eot_id|>' }}{%- for turn in messages %}"
    "{{- '<|start_header_id|>' + turn.role + '<|end_header_id|>\n\n' + turn.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
QWEN3 = (
    "{% for turn in messages %}{% if turn.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ turn.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)
QWEN3_THINKING = (  # opens the thought itself, and writes it with every last answer
    "{% for turn in messages %}{% if turn.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.last %}{{ '<think>\n' + (turn.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ turn.content.lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
DEEPSEEK = (  # opens the thought in the prompt, and leaves it out of answered chats
    "{{ bos_token }}{% for turn in messages %}{% if turn.role == 'system' %}{{ turn.content }}"
    "{% elif turn.role == 'user' %}{{ '<｜User｜>' + turn.content }}"
    "{% else %}{{ '<｜Assistant｜>' + turn.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
HARMONY = (
    "{{ '<|start|>system<|message|>You are a model.\nCurrent date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
    "{% for turn in messages %}{% if turn.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + turn.content + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% else %}{{ '<|start|>' + ('developer' if turn.role == 'system' else turn.role) + '<|message|>' + turn.content "
    "+ '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def metaspace_bpe(template: str, *, scheme: str = "first", special: Sequence[str] = ()) -> Any:
    """As Llama-2's and Mistral's: SentencePiece's BPE with a dummy space at the start of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)  # its pieces hold one word at most
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>", *special], show_progress=False
    )
    inner.train_from_iterator([*TEXTS, _letters()], trainer)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return _wrapped(inner, template, "</s>", bos_token="<s>", unk_token="<unk>")


def metaspace_unigram(template: str) -> Any:
    """As T5's and Gemma's kind: Unigram pieces, whose vocabulary holds the control tokens too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>", "<|im_end|>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator([*TEXTS, _letters()], trainer)
    return _wrapped(inner, template, "</s>", bos_token="<s>", unk_token="<unk>")


def byte_bpe(template: str, end: str, special: Sequence[str] = (), plain: Sequence[str] = ()) -> Any:
    """As GPT-2's, Llama-3's and Qwen's: byte-level BPE. `plain` are added tokens that are not special."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|bos|>", end, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["\n\n\n\n", *TEXTS], trainer)
    inner.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    return _wrapped(inner, template, end, bos_token="<|bos|>")


def word_piece(template: str) -> Any:
    """As BERT's: words and ``##`` pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    inner.train_from_iterator([*TEXTS, _letters()], trainer)
    return _wrapped(inner, template, "[SEP]", bos_token="[CLS]", unk_token="[UNK]")


def qwen(template: str = QWEN3) -> Any:
    """Qwen3's: think marks are added tokens that are not special."""
    return byte_bpe(template, "<|im_end|>", ["<|im_start|>"], ["<think>", "</think>"])


def llama3() -> Any:
    """Llama-3.2's."""
    return byte_bpe(LLAMA3, "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"])


def deepseek() -> Any:
    """DeepSeek-R1's."""
    return byte_bpe(DEEPSEEK, "<｜end▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>"], ["<think>", "</think>"])


def harmony() -> Any:
    """GPT-OSS's."""
    return byte_bpe(HARMONY, "<|return|>", ["<|start|>", "<|end|>", "<|message|>", "<|channel|>"])


def _wrapped(inner: Any, template: str, end: str, **named: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, **named)
    wrapped.chat_template = template
    return wrapped


def _letters() -> str:
    return " ".join(map(chr, range(33, 127)))
