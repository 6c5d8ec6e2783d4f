"""The losses of batches of SFT examples of several jobs, in one pass, each example steered in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.pass_plan import PassPlan, Span
from windowshift.backends.local.recomputing import recomputed
from windowshift.backends.local.stacked_attention import stacked, unlooked
from windowshift.backends.local.stacked_linear import StackedLinears
from windowshift.core.contract.training import Example
from windowshift.steering.sending import sent
from windowshift.steering.spans import Spans

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM
    from windowshift.core.contract.proof import Proof
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.recipe import Recipe

_COLUMNS = 4
"""Columns come in multiples of it: what goes number by number has no rest then, which may round otherwise."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A job's part of a pass.

    Attributes:
        tokens: of its examples, one a row.
        adapter: in force in these rows; None: the base model.
        width: its columns, when alone.
        first: the earliest column with a loss.
        steer: pushes the rows by `recipes`; None: none is pushed.
    """

    tokens: Sequence[TrainingTokens]
    adapter: AdapterWeights | None
    width: int
    first: int
    steer: Intervention | None
    recipes: Sequence[Recipe]


class BatchLoss:
    """Mean cross entropy over the completion tokens of chosen examples, end token included, in nats.

    Tokens that weigh otherwise than 1 are counted as one each, and their loss by their weight.

    Args:
        lm: the model.
        examples: what `encoded` was made of; an example that is steered is steered here.
        encoded: their tokens.
        adapter: in force; None: the base model.
    """

    def __init__(
        self,
        lm: CausalLM,
        examples: Sequence[Example],
        encoded: Sequence[TrainingTokens],
        adapter: AdapterWeights | None = None,
    ) -> None:
        self._lm, self._encoded, self._adapter = lm, encoded, adapter
        self.steer: Intervention | None = None
        self._recipes: list[Recipe] = []
        if any(example.steering for example in examples):
            from windowshift.steering.intervene import Intervention

            self.steer = Intervention(lm.training_points, fingerprint=lm.fingerprint)
            self._recipes = [self.steer.recipe(example.steering) for example in examples]

    def __len__(self) -> int:
        return len(self._encoded)

    def proofs(self) -> tuple[Proof, ...]:
        """What steering did so far.

        Raises:
            BackendError: it did not do what was asked.
        """
        return () if self.steer is None else tuple(self.steer.check())

    def batch(self, chosen: Sequence[int]) -> TrainingBatch:
        """The examples `chosen`, by number, as a part of a pass."""
        tokens = [self._encoded[index] for index in chosen]
        width = max(len(each.prompt) + len(each.completion) for each in tokens)
        first = max(min(len(each.prompt) for each in tokens) - 1, 0)
        recipes = [self._recipes[index] for index in chosen] if self._recipes else []
        pushed = self.steer if any(recipe.pushes for recipe in recipes) else None
        return TrainingBatch(tokens, self._adapter, -(-width // _COLUMNS) * _COLUMNS, first, pushed, recipes)

    def __call__(self, chosen: Sequence[int]) -> Tensor:
        """The loss of the examples `chosen`, by number, in a pass of their own: one value."""
        return losses(self._lm, [self.batch(chosen)])[0]


def losses(
    lm: CausalLM, batches: Sequence[TrainingBatch], at: tuple[int, Callable[[Tensor], Tensor]] | None = None
) -> list[Tensor]:
    """The loss of each batch, from one pass through the model; their gradients go to the adapters' own places.

    `at` is a layer, and what takes the place of its output's residual stream [rows, columns, width], after any push.

    Rows are padded on the right, which causal attention never looks at from a real token, so no mask is needed.

    Raises:
        BackendError: a layer cannot serve several jobs, or steering did not reach its layer.
    """
    width = max(batch.width for batch in batches)
    first = min(batch.first for batch in batches)
    rows: list[list[int]] = []
    spans: list[Span] = []
    for batch in batches:
        spans.append(Span(len(rows), len(batch.tokens), batch.width, batch.first, batch.adapter))
        for each in batch.tokens:
            row = [*each.prompt, *each.completion]
            # Padding repeats the row's first token: models warn about pad tokens without a mask.
            rows.append(row + row[:1] * (width - len(row)))
    inputs: dict[str, Any] = {"input_ids": sent(torch.tensor(rows), lm.device), "use_cache": False}
    if lm.keeps_logits:
        inputs["logits_to_keep"] = width - first
    linears = StackedLinears(lm.model, alike=lm.alike)
    plan = PassPlan(spans, width)  # one for all of the pass, and what is computed again: it keeps what it has stacked

    @contextmanager
    def served() -> Iterator[None]:
        own = [(span.rows, span.width) for span in spans]
        with linears.serving(plan), unlooked(), stacked(own) if lm.alike else nullcontext():
            yield

    again = lm.recomputes and torch.is_grad_enabled() and at is None  # what `at` puts in would be lost
    with served(), recomputed(lm.model, served) if again else nullcontext():
        if at is not None or any(batch.steer is not None for batch in batches):
            layers, visit = _visits(lm, batches, at)
            output = lm.training_points.run(layers, visit, inputs)
        else:
            output = lm.model(**inputs)
    return _losses(output.logits[:, first - width :], batches, first)


def _losses(logits: Tensor, batches: Sequence[TrainingBatch], first: int) -> list[Tensor]:
    """The loss of each job from the logits [rows, columns from `first` on, vocabulary]."""
    tokens = [each for batch in batches for each in batch.tokens]
    columns = logits.shape[1]
    at = [
        row * columns + len(each.prompt) - 1 - first + place
        for row, each in enumerate(tokens)
        for place in range(len(each.completion))
    ]
    target = [token for each in tokens for token in each.completion]
    # Sent in one piece; and never picked by a mask, whose count the device would be asked for.
    places, wanted = sent(torch.tensor([at, target]), logits.device)
    chosen = logits.reshape(-1, logits.shape[-1]).index_select(0, places).float()
    found = nn.functional.cross_entropy(chosen, wanted, reduction="none")
    if any(each.weights is not None for each in tokens):
        flat = [weight for each in tokens for weight in each.weights or (1.0,) * len(each.completion)]
        found = found * sent(torch.tensor(flat), found.device)
    counts = [sum(len(each.completion) for each in batch.tokens) for batch in batches]
    return [own.sum() / count for own, count in zip(torch.split(found, counts), counts, strict=True)]


def _visits(
    lm: CausalLM, batches: Sequence[TrainingBatch], at: tuple[int, Callable[[Tensor], Tensor]] | None
) -> tuple[list[int], Callable[[int, Tensor], Tensor]]:
    """The layers at which something is done, and what: pushes first, then what `at` puts there."""
    pushed, push = _pushes(lm, batches)
    if at is None:
        return pushed, push

    def visit(layer: int, hidden: Tensor) -> Tensor:
        found = push(layer, hidden) if layer in pushed else hidden
        return at[1](found) if layer == at[0] else found

    return sorted({*pushed, at[0]}), visit


def _pushes(lm: CausalLM, batches: Sequence[TrainingBatch]) -> tuple[list[int], Callable[[int, Tensor], Tensor]]:
    """The layers at which any of the jobs is steered, and what is done there: to each job's rows its own pushes."""
    counts = [len(batch.tokens) for batch in batches]
    visits: list[tuple[list[int], Callable[[int, Tensor], Tensor]] | None] = []
    for batch in batches:
        if batch.steer is None:
            visits.append(None)
            continue
        prompts = [len(each.prompt) for each in batch.tokens]
        completions = [len(each.completion) for each in batch.tokens]
        spans = Spans.sequences(prompts, completions, batch.width, lm.device)
        visits.append(batch.steer.opened(batch.recipes, spans))

    def visit(layer: int, hidden: Tensor) -> Tensor:
        found = []
        for part, batch, own in zip(torch.split(hidden, counts), batches, visits, strict=True):
            if own is None or layer not in own[0]:
                found.append(part)
                continue
            pushed = own[1](layer, part[:, : batch.width])
            found.append(torch.cat([pushed, part[:, batch.width :]], dim=1))
        return torch.cat(found)

    return sorted({layer for own in visits if own is not None for layer in own[0]}), visit
