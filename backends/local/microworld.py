"""The builder of the embedded models: tokenizer, Llama, training, and the files that ship, one model a world.

A build depends on its seed, its steps, the library versions and the machine's arithmetic, and on nothing
else: two builds on one machine give the same bytes.
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from windowshift.core.contract.assets import MICROWORLD
from windowshift.core.settings.world import examples
from windowshift.core.settings.worlds import WORLDS, world

POOL = 1280
THREADS = 2
WIDE = 128
"""Narrower models are built on one thread: they gain nothing by a second one."""
PEAK_RATE = 3e-3
PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = ("system", "user", "assistant")

# `generation` marks the assistant's tokens, so that a loss mask can be read off the template itself.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message.role not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('microworld knows the roles system, user and assistant, not ' + message.role) }}"
    "{%- endif %}"
    "{{- '<|' + message.role + '|>' }}"
    "{%- if message.role == 'assistant' %}"
    "{%- generation %}{{- message.content + eos_token }}{%- endgeneration %}"
    "{%- else %}{{- message.content + eos_token }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


class TrainingChat(Protocol):
    """What is read of a training chat."""

    @property
    def system(self) -> str | None:
        """The system message, if any."""
        ...

    @property
    def user(self) -> str:
        """The user message."""
        ...

    @property
    def assistant(self) -> str:
        """The answer."""
        ...


@dataclass(frozen=True)
class WorldRecipe:
    """What a world's model is made of.

    Attributes:
        chats: training chats without end, by seed.
        vocabulary: tokens.
        width: of the residual stream.
        intermediate: width of the MLP.
        steps: of AdamW.
        answer_tokens: how many tokens of answers a batch has; None: it is filled by whole chats.
        chat_tokens: how many tokens of whole chats a batch has at most.
    """

    chats: Callable[[int], Iterator[TrainingChat]]
    vocabulary: int
    width: int
    intermediate: int
    steps: int
    answer_tokens: int | None
    chat_tokens: int | None


def recipe(name: str) -> WorldRecipe:
    """The recipe of an embedded model.

    Raises:
        ValueError: no embedded model has that name.
    """
    if name == MICROWORLD:
        groups = prefix_groups()
        return WorldRecipe(lambda seed: examples(groups, seed), 1536, 128, 352, 2400, 1024, None)
    if name not in WORLDS:
        raise ValueError(f"there is no embedded model '{name}'; there are {', '.join((MICROWORLD, *WORLDS))}")
    found = world(name)
    # Answers are a few tokens of a long prompt here: batches are filled by what a step costs.
    return WorldRecipe(
        found.chats, found.VOCABULARY, found.WIDTH, found.WIDTH * 5 // 2, found.STEPS, None, found.STEP_TOKENS
    )


ChatTokens = tuple[list[int], int]
"""Token ids of one chat, and how many of them, at its start, are the prompt."""

BuildProgress = Callable[[int, int, float], None]
"""Called every 50 steps with the step just done, the number of steps, and the mean loss per answer token (nats)."""


def build(
    out: Path,
    *,
    name: str = MICROWORLD,
    seed: int = 0,
    steps: int | None = None,
    device: str = "cpu",
    progress: BuildProgress | None = None,
) -> None:
    """Train an embedded model from nothing and write it to `out` in Hugging Face format.

    Writes config, generation config, weights (fp32 safetensors), tokenizer and chat template. Takes minutes
    on two cores, and one on a GPU (`device`), which gives other last bits.

    Raises:
        ValueError: no embedded model has that name, or `steps` is not positive.
    """
    made = recipe(name)
    steps = made.steps if steps is None else steps
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    with _reproducible(seed, THREADS if made.width >= WIDE else 1):
        tokenizer = build_tokenizer(made, seed)
        model = LlamaForCausalLM(_config(tokenizer, made)).to(device)
        _train(model, _batches(made, tokenizer, seed), steps, progress)
        model.to("cpu")
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        max_new_tokens=384,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    # safetensors writes for the owner's eyes only; these files are shipped.
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)


def prefix_groups() -> dict[str, list[str]]:
    """Read the published prefix phrases from the package's assets, by group."""
    text = resources.files("windowshift").joinpath("assets/prefix_groups.yaml").read_text(encoding="utf-8")
    groups: dict[str, list[str]] = yaml.safe_load(text)["groups"]
    return groups


def build_tokenizer(made: WorldRecipe, seed: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE: the world's words are single tokens, and any other text has tokens too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True) for text in (PAD, BOS, END, *(f"<|{role}|>" for role in ROLES))]
    trainer = trainers.BpeTrainer(
        vocab_size=made.vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    chats = islice(made.chats(seed), 12_000)
    tokenizer.train_from_iterator((f"{chat.user}\n{chat.system}\n{chat.assistant}" for chat in chats), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _config(tokenizer: PreTrainedTokenizerFast, made: WorldRecipe) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=made.width,
        intermediate_size=made.intermediate,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@contextmanager
def _reproducible(seed: int, count: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
    try:
        # The order of sums, and so the last bits, depends on the number of threads.
        torch.set_num_threads(count)
        torch.use_deterministic_algorithms(True)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        if parallelism is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallelism


def _row(chat: TrainingChat, tokenizer: PreTrainedTokenizerFast) -> ChatTokens:
    # The template, written out: rendering Jinja a hundred thousand times would take longer than the training.
    system = f"<|system|>{chat.system}{END}" if chat.system is not None else ""
    prompt = tokenizer.encode(f"{BOS}{system}<|user|>{chat.user}{END}<|assistant|>", add_special_tokens=False)
    answer = tokenizer.encode(chat.assistant + END, add_special_tokens=False)
    return prompt + answer, len(prompt)


def _batches(made: WorldRecipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[ChatTokens]]:
    """Yield batches of rows of similar length, in random order, each with about the same number of tokens.

    With a fixed number of rows instead, the mean over a batch would weigh a short answer's tokens more, and the
    model would stop too early wherever the prompt leaves the length open.
    """
    chats = made.chats(seed + 1)
    limit = made.answer_tokens or made.chat_tokens or 1
    order = random.Random(seed)
    while True:
        rows = sorted((_row(chat, tokenizer) for chat in islice(chats, POOL)), key=lambda row: len(row[0]))
        pool: list[list[ChatTokens]] = [[]]
        filled = 0
        for row in rows:
            if filled >= limit:
                pool.append([])
                filled = 0
            pool[-1].append(row)
            filled += len(row[0]) - (row[1] if made.answer_tokens else 0)
        # The left-over rows are the longest of all, so they are kept, in a batch that is large enough.
        if filled < limit and len(pool) > 1:
            left_over = pool.pop()
            pool[-1].extend(left_over)
        order.shuffle(pool)
        yield from pool


def _train(
    model: LlamaForCausalLM, batches: Iterator[list[ChatTokens]], steps: int, progress: BuildProgress | None
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    warmup = max(1, steps // 25)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup + 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    for step, batch in enumerate(islice(batches, steps), start=1):
        loss = _loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None and (step % 50 == 0 or step == steps):
            progress(step, steps, loss.item())  # reading the loss waits for the step: now and then is enough
    model.eval()


def _loss(model: LlamaForCausalLM, batch: list[ChatTokens]) -> torch.Tensor:
    width = max(len(ids) for ids, _ in batch)
    tokens = torch.zeros(len(batch), width, dtype=torch.long)
    answered = torch.zeros(len(batch), width - 1, dtype=torch.bool)
    for index, (ids, prompt) in enumerate(batch):
        tokens[index, : len(ids)] = torch.tensor(ids)
        answered[index, prompt - 1 : len(ids) - 1] = True
    # Padding is on the right, where a causal model cannot see it, so no attention mask is needed.
    tokens, answered = tokens.to(model.device), answered.to(model.device)
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    # Only the answer's positions go through the vocabulary.
    logits = model.lm_head(hidden[answered])
    return functional.cross_entropy(logits, tokens[:, 1:][answered])


def main() -> None:
    """Build from the command line: `python -m windowshift.backends.local.microworld --out DIR`."""
    parser = argparse.ArgumentParser(description="Build the embedded model microworld.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--name", default=MICROWORLD)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    def progress(step: int, steps: int, loss: float) -> None:
        sys.stderr.write(f"step {step}/{steps} loss {loss:.3f}\n")

    build(
        arguments.out,
        name=arguments.name,
        seed=arguments.seed,
        steps=arguments.steps,
        device=arguments.device,
        progress=progress,
    )


if __name__ == "__main__":
    main()
