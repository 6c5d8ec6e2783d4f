"""The loss of a batch of SFT examples, each steered in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.core.contract.training import Example
from windowshift.steering.spans import Spans

if TYPE_CHECKING:
    from windowshift.core.contract.proof import Proof
    from windowshift.steering.intervene import Intervention


class BatchLoss:
    """Mean cross entropy over the completion tokens of chosen examples, end token included, in nats.

    Tokens that weigh otherwise than 1 are counted as one each, and their loss by their weight.

    Args:
        lm: the model; the adapter in use is the caller's to choose.
        examples: what `encoded` was made of; an example that is steered is steered here.
        encoded: their tokens.
    """

    def __init__(self, lm: CausalLM, examples: Sequence[Example], encoded: Sequence[TrainingTokens]) -> None:
        self._lm, self._encoded = lm, encoded
        self._steer: Intervention | None = None
        if any(example.steering for example in examples):
            from windowshift.steering.intervene import Intervention

            self._steer = Intervention(lm.training_points, fingerprint=lm.fingerprint)
            self._recipes = [self._steer.recipe(example.steering) for example in examples]

    def proofs(self) -> tuple[Proof, ...]:
        """What steering did since the last call that asked.

        Raises:
            BackendError: it did not do what was asked.
        """
        return () if self._steer is None else tuple(self._steer.check())

    def __call__(self, chosen: Sequence[int]) -> Tensor:
        """The loss of the examples `chosen`, by number: one value.

        Rows are padded on the right, which causal attention never looks at from a real token, so
        no mask is needed.
        """
        batch = [self._encoded[index] for index in chosen]
        width = max(len(each.prompt) + len(each.completion) for each in batch)
        first = max(min(len(each.prompt) for each in batch) - 1, 0)  # the earliest column with a loss
        rows = [[*each.prompt, *each.completion] for each in batch]
        # Padding repeats the row's first token: models warn about pad tokens without a mask.
        ids = torch.tensor([row + row[:1] * (width - len(row)) for row in rows])
        labels = torch.full((len(batch), width - first), -100, dtype=torch.long)
        for i, each in enumerate(batch):
            start, end = len(each.prompt), len(each.prompt) + len(each.completion)
            labels[i, start - 1 - first : end - 1 - first] = torch.tensor(each.completion)
        inputs: dict[str, Any] = {"input_ids": ids.to(self._lm.device), "use_cache": False}
        if self._lm.keeps_logits:
            inputs["logits_to_keep"] = width - first
        if self._steer is None:
            output = self._lm.model(**inputs)
        else:
            prompts, completions = [len(each.prompt) for each in batch], [len(each.completion) for each in batch]
            spans = Spans.sequences(prompts, completions, width, self._lm.device)
            output = self._steer([self._recipes[index] for index in chosen], spans, **inputs)
        logits = output.logits[:, first - width :]
        learned = labels != -100
        target = labels[learned].to(self._lm.device)
        chosen_logits = logits[learned.to(self._lm.device)].float()
        if all(each.weights is None for each in batch):
            return nn.functional.cross_entropy(chosen_logits, target)
        # Row by row, as `learned` picks them.
        flat = [weight for each in batch for weight in each.weights or (1.0,) * len(each.completion)]
        losses = nn.functional.cross_entropy(chosen_logits, target, reduction="none")
        return (losses * torch.tensor(flat, device=losses.device)).sum() / len(flat)
