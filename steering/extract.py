"""Extraction: the mean difference of residual-stream activations between two sets of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import Provenance
from windowshift.core.contract.vector_job import ExtractTokens
from windowshift.steering.points import LayerPoints
from windowshift.steering.vector import SteeringVector

BATCH_TOKENS = 8192


class TokenRow(Protocol):
    """A prompt and its completion as token ids; what a chat format makes of messages has this form."""

    @property
    def prompt(self) -> Sequence[int]:
        """Ids up to where the answer begins."""
        ...

    @property
    def completion(self) -> Sequence[int]:
        """Ids of the answer."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """The plain `TokenRow`."""

    prompt: Sequence[int]
    completion: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ActivationMeans:
    """Mean activations [layers, width], float64, and residual RMS norms [layers] of one set of rows."""

    mean: Tensor
    square_sum: Tensor
    tokens: int
    rows: int


def extract(
    points: LayerPoints,
    positive: Sequence[TokenRow],
    negative: Sequence[TokenRow],
    *,
    name: str,
    model: str,
    fingerprint: str,
    tokens: ExtractTokens = "response",
    layer: int | None = None,
    labels: tuple[str, str] = ("positive", "negative"),
    keep: Sequence[bool] | None = None,
    how: str = "",
    batch_tokens: int = BATCH_TOKENS,
) -> SteeringVector:
    """Make the vector that points from the negative rows to the positive ones, at every layer in one pass.

    A row's activations are averaged over its tokens first, and rows count alike, so that long answers do
    not outweigh short ones. Means are summed in float64. The residual RMS is taken over the same tokens of
    both sets, without a row's first token where there are others: its norm is an outlier in trained models.

    Args:
        points: the model, with the adapter in force that is meant.
        positive: rows that show the behaviour.
        negative: rows that show its opposite.
        name: of the vector.
        model: what people call the model.
        fingerprint: of its weights; the vector is bound to them.
        tokens: averaged over: all of the response, the last of the prompt, or all of the prompt.
        layer: the layer chosen for use; may be chosen later (`SteeringVector.at`).
        labels: the two conditions, for the provenance.
        keep: one flag a pair (positive[i], negative[i]); the others are left out.
        how: how the rows were chosen, for the provenance.
        batch_tokens: tokens in one forward pass, padding included.

    Raises:
        SpecError: a set is empty, a row lacks the tokens, the flags do not fit, or there is no difference.
        BackendError: the architecture cannot be steered.
    """
    if keep is not None:
        if not len(keep) == len(positive) == len(negative):
            raise SpecError(
                f"vector '{name}': {len(keep)} flags for {len(positive)} positive and {len(negative)} negative rows"
            )
        positive = [row for row, kept in zip(positive, keep, strict=True) if kept]
        negative = [row for row, kept in zip(negative, keep, strict=True) if kept]
    for rows, label in zip((positive, negative), labels, strict=True):
        if not rows:
            why = "no pair passes the filter" if keep is not None else "there are no rows"
            raise SpecError(f"vector '{name}': {why} for '{label}'")
    high, low = (means(points, rows, tokens, batch_tokens) for rows in (positive, negative))
    rms = ((high.square_sum + low.square_sum) / (high.tokens + low.tokens)).sqrt()
    provenance = Provenance(
        model=model,
        fingerprint=fingerprint,
        how=", ".join(filter(None, ("mean difference", "pairs filtered by score" if keep is not None else "", how))),
        positive=labels[0],
        negative=labels[1],
        prompts=_digest(positive, negative),
        tokens=tokens,
        positive_count=len(positive),
        negative_count=len(negative),
    )
    difference = (high.mean - low.mean).float().numpy()
    return SteeringVector.make(name, difference, provenance, layer=layer, rms=rms.tolist())


def residual_rms(
    points: LayerPoints,
    rows: Sequence[TokenRow],
    tokens: ExtractTokens = "response",
    batch_tokens: int = BATCH_TOKENS,
) -> list[float]:
    """The residual RMS norm at every layer, for a vector made elsewhere.

    Raises:
        SpecError: there are no rows, or a row lacks the tokens.
    """
    if not rows:
        raise SpecError("residual norms need at least one row")
    found = means(points, rows, tokens, batch_tokens)
    return [float(value) for value in (found.square_sum / found.tokens).sqrt()]


@torch.inference_mode()
def means(points: LayerPoints, rows: Sequence[TokenRow], tokens: ExtractTokens, batch_tokens: int) -> ActivationMeans:
    """Mean activations of rows; memory does not grow with their number.

    Raises:
        SpecError: a row lacks the tokens to average over.
    """
    decoder = points.decoder
    count, width = len(decoder.layers), decoder.width
    device = next(points.model.parameters()).device
    sums = torch.zeros(count, width, dtype=torch.float64, device=device)
    squares = torch.zeros(count, dtype=torch.float64, device=device)
    total = 0
    for batch in _batches(rows, tokens, batch_tokens):
        ids = [[*row.prompt, *row.completion] if tokens == "response" else list(row.prompt) for row in batch]
        columns = max(map(len, ids))
        # Padding on the right, with the row's first token: causal attention never looks at it.
        padded = torch.tensor([row + row[:1] * (columns - len(row)) for row in ids], device=device)
        chosen = torch.zeros(len(batch), columns, dtype=torch.float64, device=device)
        for i, row in enumerate(batch):
            start, end = _range(row, tokens)
            chosen[i, start:end] = 1.0
        weights = chosen / chosen.sum(1, keepdim=True)
        counted = chosen.clone()
        if columns > 1:
            counted[:, 0] = torch.where(chosen.sum(1) > 1, 0.0, counted[:, 0])
        total += int(counted.sum())

        def visit(layer: int, hidden: Tensor, weights: Tensor = weights, counted: Tensor = counted) -> None:
            exact = hidden.double()
            sums[layer] += torch.einsum("rt,rtd->d", weights, exact)
            squares[layer] += (exact.square().sum(-1) * counted).sum()

        points.run(range(count), visit, {"input_ids": padded, "use_cache": False}, stop=True)
    return ActivationMeans((sums / len(rows)).cpu(), squares.cpu(), total, len(rows))


def _range(row: TokenRow, tokens: ExtractTokens) -> tuple[int, int]:
    length = len(row.prompt)
    if tokens == "response":
        return length, length + len(row.completion)
    return (length - 1 if tokens == "last_prompt" else 0), length


def _batches(rows: Sequence[TokenRow], tokens: ExtractTokens, batch_tokens: int) -> Iterator[list[TokenRow]]:
    """Rows of like length together, at most `batch_tokens` columns times rows, at least one row."""
    for index, row in enumerate(rows):
        if not row.prompt or (tokens == "response" and not row.completion):
            part = "prompt" if not row.prompt else "completion"
            raise SpecError(f"row {index + 1} has no {part} tokens to read activations from")

    def length(row: TokenRow) -> int:
        return len(row.prompt) + (len(row.completion) if tokens == "response" else 0)

    batch: list[TokenRow] = []
    for row in sorted(rows, key=length):
        if batch and length(row) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _digest(*sets: Sequence[TokenRow]) -> str:
    content = hashlib.sha256()
    for rows in sets:
        content.update(repr([(list(row.prompt), list(row.completion)) for row in rows]).encode())
    return content.hexdigest()[:16]
