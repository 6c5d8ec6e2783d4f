"""Coherence: how likely the base model finds completions that were drawn from it steered or fine-tuned."""

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


@torch.inference_mode()
def base_logprobs(
    lm: CausalLM, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], steering: Sequence[Steering] = ()
) -> list[float | None]:
    """The log-probability of each completion after its prompt, in nats, summed over its tokens.

    Under the base model, pushed by `steering`: no adapter, temperature 1. The end token is not counted. None for an
    empty completion. `pairs` are token ids. Where completions do not depend on their batch
    (`CausalLM.exact`), each is read alone, so that this does not depend on it either.

    Raises:
        WindowshiftError: a vector does not fit, or did not do what was asked.
    """
    found: list[float | None] = [None] * len(pairs)
    vocabulary = int(lm.model.get_output_embeddings().weight.shape[0])
    lm.adapters.use(None)
    steer: Intervention | None = None
    if steering:
        from windowshift.steering.intervene import Intervention

        steer = Intervention(lm.training_points, fingerprint=lm.fingerprint)
    recipe = steer.recipe(steering) if steer else None
    for batch in _batches(pairs, 1 if lm.exact else min(TOKENS, max(1, LOGITS // vocabulary))):
        for index, value in zip(batch, _logprobs(lm, [pairs[index] for index in batch], steer, recipe), strict=True):
            found[index] = value
    if steer is not None:
        steer.check()
    return found


def _batches(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], most: int) -> Iterator[list[int]]:
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


def _logprobs(
    lm: CausalLM,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    steer: Intervention | None,
    recipe: Recipe | None,
) -> list[float]:
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
    picked = drawn.gather(2, ids[:, first + 1 :, None]).squeeze(2)
    column = torch.arange(first + 1, width, device=lm.device)[None, :]
    start = torch.tensor([len(prompt) for prompt, _ in pairs], device=lm.device)[:, None]
    end = torch.tensor([len(row) for row in rows], device=lm.device)[:, None]
    counted = (column >= start) & (column < end)
    return [float(value) for value in torch.where(counted, picked, 0.0).sum(1).double()]
