"""How likely the base model finds given completions, and how far a push takes its predictions along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.core.contract.generation import Steering
from windowshift.steering.spans import Spans

if TYPE_CHECKING:
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.recipe import Recipe

LOGITS = 1 << 27  # numbers in one pass's logits: 0.5 GB in float32
TOKENS = 8192


Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Prompts and completions, as token ids."""


@torch.inference_mode()
def base_logprobs(lm: CausalLM, pairs: Pairs, steering: Sequence[Steering] = ()) -> list[float | None]:
    """The log-probability of each completion after its prompt, in nats, summed over its tokens.

    Under the base model, pushed by `steering`: no adapter, temperature 1. The end token is not counted. None for an
    empty completion. `pairs` are token ids. Where completions do not depend on their batch
    (`CausalLM.exact`), each is read alone, so that this does not depend on it either.

    Raises:
        WindowshiftError: a vector does not fit, or did not do what was asked.
    """
    found: list[float | None] = [None] * len(pairs)
    lm.adapters.use(None)
    steer, recipe = _pushed(lm, steering)
    for batch in _batches(pairs, _most(lm)):
        logits, ids, counted = _predicted(lm, [pairs[index] for index in batch], steer, recipe)
        picked = logits.gather(2, ids[:, :, None]).squeeze(2)
        values = torch.where(counted, picked, 0.0).sum(1).double()
        for index, value in zip(batch, values.tolist(), strict=True):
            found[index] = value
    if steer is not None:
        steer.check()
    return found


@torch.inference_mode()
def divergences(lm: CausalLM, pairs: Pairs, steering: Sequence[Steering]) -> list[list[float]]:
    """KL(steered || base) of the next token at each token of each completion, in nats.

    Both read the same completion, as in `base_logprobs`. Empty for an empty one.

    Raises:
        WindowshiftError: a vector does not fit, or did not do what was asked.
    """
    found: list[list[float]] = [[] for _ in pairs]
    lm.adapters.use(None)
    steer, recipe = _pushed(lm, steering)
    for batch in _batches(pairs, max(1, _most(lm) // 2)):  # of two passes at once
        some = [pairs[index] for index in batch]
        plain, _, _ = _predicted(lm, some, None, None)
        pushed, _, counted = _predicted(lm, some, steer, recipe)
        shares = pushed.exp()
        # What is impossible under the push has no part, even where both say so: inf - inf is no number.
        kl = torch.where(shares == 0, 0.0, shares * (pushed - plain)).sum(-1).clamp_min(0.0).double()
        for index, values, own in zip(batch, kl, counted, strict=True):
            found[index] = values[own].tolist()
    if steer is not None:
        steer.check()
    return found


def _pushed(lm: CausalLM, steering: Sequence[Steering]) -> tuple[Intervention | None, Recipe | None]:
    if not steering:
        return None, None
    from windowshift.steering.intervene import Intervention

    steer = Intervention(lm.training_points, fingerprint=lm.fingerprint)
    return steer, steer.recipe(steering)


def _most(lm: CausalLM) -> int:
    """Tokens in one pass."""
    vocabulary = int(lm.model.get_output_embeddings().weight.shape[0])
    return 1 if lm.exact else min(TOKENS, max(1, LOGITS // vocabulary))


def _batches(pairs: Pairs, most: int) -> Iterator[list[int]]:
    """Pairs of like length together, at most `most` tokens with padding, at least one pair."""
    sizes = {index: len(prompt) + len(ids) for index, (prompt, ids) in enumerate(pairs) if len(ids)}
    batch: list[int] = []
    for index in sorted(sizes, key=lambda index: sizes[index]):
        if batch and sizes[index] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _predicted(
    lm: CausalLM, pairs: Pairs, steer: Intervention | None, recipe: Recipe | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass: log-probabilities [rows, columns, vocabulary] of the next token, what it is, and where it counts."""
    rows = [[*prompt, *ids] for prompt, ids in pairs]
    width = max(map(len, rows))
    first = max(min(len(prompt) for prompt, _ in pairs) - 1, 0)
    # Padding on the right, which causal attention never looks at from a real token.
    ids = torch.tensor([row + row[:1] * (width - len(row)) for row in rows], device=lm.device)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if lm.keeps_logits:
        inputs["logits_to_keep"] = width - first
    if steer is None or recipe is None:
        whole: Tensor = lm.model(**inputs).logits
    else:
        lengths = [len(prompt) for prompt, _ in pairs], [len(answer) for _, answer in pairs]
        spans = Spans.sequences(*lengths, width, lm.device)
        whole = steer([recipe] * len(pairs), spans, **inputs).logits
    logits = whole[:, first - width :]
    drawn = torch.log_softmax(logits[:, :-1].float() if logits.dtype.itemsize < 4 else logits[:, :-1], dim=-1)
    column = torch.arange(first + 1, width, device=lm.device)[None, :]
    start = torch.tensor([len(prompt) for prompt, _ in pairs], device=lm.device)[:, None]
    end = torch.tensor([len(row) for row in rows], device=lm.device)[:, None]
    return drawn, ids[:, first + 1 :], (column >= start) & (column < end)
