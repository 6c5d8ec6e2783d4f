"""Residual streams of the base model or of an adapter, projected onto vectors at every layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.row_adapters import RowAdapter
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.inside import Passage, Projected, Projection, ProjectionJob
from windowshift.core.contract.vector_job import ExtractTokens
from windowshift.steering.spans import Spans
from windowshift.steering.vector import SteeringVector, check

if TYPE_CHECKING:
    from windowshift.steering.intervene import Intervention
    from windowshift.steering.recipe import Recipe

BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class _Row:
    """A passage that can be read: its place, tokens, and the first and last place that is averaged over."""

    place: int
    prompt: Sequence[int]
    completion: Sequence[int]
    first: int
    last: int
    recipe: Recipe | None

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.completion]


def project(lm: CausalLM, job: ProjectionJob) -> Iterator[list[Projected]]:
    """Read all passages of a job, a pass at a time; the last step has the result.

    The copy of a small model that samples reads each passage alone, so that nothing depends on what else is read.

    Raises:
        SpecError: a vector cannot be read, or does not fit the model.
        BackendError: the adapter or the architecture cannot be used, or steering did not do what was asked.
    """
    points = lm.sampling_points
    decoder = points.decoder
    units = _units([SteeringVector.load(file) for file in job.vectors], lm, decoder.width, len(decoder.layers))
    steer: Intervention | None = None
    if any(passage.steering for passage in job.passages):
        from windowshift.steering.intervene import Intervention

        steer = Intervention(points, fingerprint=lm.fingerprint)
    found: list[Projection | None] = [None] * len(job.passages)
    rows: list[_Row] = []
    for place, passage in enumerate(job.passages):
        row = _row(lm, job, place, passage, steer)
        if isinstance(row, _Row):
            rows.append(row)
        else:
            found[place] = row
    for batch in _batches(rows, 1 if lm.exact else BATCH_TOKENS):
        # Loaded before the inference mode begins: a tensor that is made in it can never be trained.
        adapter = None if job.model.adapter is None else lm.row_adapters.load(AdapterFile.at(job.model.adapter))
        for row, read in zip(batch, _read(lm, adapter, batch, units, steer), strict=True):
            found[row.place] = read
        yield []
    if steer is not None:
        steer.check()
    yield [Projected(job.key, tuple(one for one in found if one is not None))]


def _units(vectors: Sequence[SteeringVector], lm: CausalLM, width: int, layers: int) -> Tensor:
    """The unit directions [layers, vectors, width], float64; zero where a vector has none."""
    for vector in vectors:
        some = next((layer for layer, norm in enumerate(vector.norms) if norm > 0), 0)
        check(vector, lm.fingerprint, width, layers, some)
    stacked = torch.stack([torch.from_numpy(vector.directions.copy()).double() for vector in vectors], dim=1)
    return torch.nn.functional.normalize(stacked, dim=-1, eps=1e-300).to(lm.device)


def _row(
    lm: CausalLM, job: ProjectionJob, place: int, passage: Passage, steer: Intervention | None
) -> _Row | Projection:
    if passage.problem is not None:
        return Projection(problem=passage.problem)
    try:
        tokens = lm.chat_of(job.model).training_tokens(passage.messages, passage.completion)
    except BackendError as error:
        return Projection(problem=str(error))
    answered = tokens.completion if job.tokens == "response" else ()
    first, last = _reach(job.tokens, len(tokens.prompt), len(answered))
    if last <= first:
        return Projection(problem=f"it has no {'completion' if job.tokens == 'response' else 'prompt'} tokens")
    length = len(tokens.prompt) + len(answered)
    if lm.context is not None and length > lm.context:
        return Projection(problem=f"it has {length} tokens, more than the {lm.context} of the model's context")
    recipe = steer.recipe(passage.steering) if steer else None
    return _Row(place, tokens.prompt, answered, first, last, recipe)


def _reach(tokens: ExtractTokens, prompt: int, answer: int) -> tuple[int, int]:
    if tokens == "response":
        return prompt, prompt + answer
    return (max(prompt - 1, 0) if tokens == "last_prompt" else 0), prompt


def _batches(rows: Sequence[_Row], most: int) -> Iterator[list[_Row]]:
    """Rows of like length together, at most `most` tokens with padding, at least one row."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if batch and len(row.ids) * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def _read(
    lm: CausalLM, adapter: RowAdapter | None, batch: Sequence[_Row], units: Tensor, steer: Intervention | None
) -> list[Projection]:
    width = max(len(row.ids) for row in batch)
    # Padding on the right, with the row's first token: causal attention never looks at it.
    padded = torch.tensor([row.ids + row.ids[:1] * (width - len(row.ids)) for row in batch], device=lm.device)
    chosen = torch.zeros(len(batch), width, dtype=torch.float64, device=lm.device)
    counted = torch.zeros_like(chosen)
    for index, row in enumerate(batch):
        chosen[index, row.first : row.last] = 1.0
        counted[index, max(row.first, min(1, row.last - 1)) : row.last] = 1.0
    weights, shares = (each / each.sum(1, keepdim=True) for each in (chosen, counted))
    layers = len(units)
    along = torch.zeros(len(batch), units.shape[1], layers, dtype=torch.float64, device=lm.device)
    squares = torch.zeros(len(batch), layers, dtype=torch.float64, device=lm.device)
    pushed: dict[int, Any] = {}
    if steer is not None and any(row.recipe is not None and row.recipe.pushes for row in batch):
        spans = Spans.sequences([len(row.prompt) for row in batch], [len(row.completion) for row in batch], width,
                                lm.device)  # fmt: skip
        at, push = steer.opened([row.recipe for row in batch if row.recipe is not None], spans)
        pushed = dict.fromkeys(at, push)

    def visit(layer: int, hidden: Tensor) -> Tensor | None:
        changed = pushed[layer](layer, hidden) if layer in pushed else None
        exact = (hidden if changed is None else changed).double()
        means = torch.einsum("rt,rtd->rd", weights, exact)
        along[:, :, layer] = means @ units[layer].T
        squares[:, layer] = (exact.square().sum(-1) * shares).sum(1)
        return changed

    inputs: dict[str, Any] = {"input_ids": padded, "use_cache": False}
    with lm.row_adapters.serving([adapter]):
        lm.base()  # nothing else is in force
        lm.sampling_points.run(range(layers), visit, inputs, stop=True)
    there = (units.abs().sum(-1) > 0).T.tolist()  # by vector, then layer
    numbers, sizes = along.cpu().tolist(), squares.sqrt().cpu().tolist()
    return [
        Projection(
            tuple(
                tuple(value if has else None for value, has in zip(values, known, strict=True))
                for values, known in zip(numbers[index], there, strict=True)
            ),
            tuple(sizes[index]),
            row.last - row.first,
        )
        for index, row in enumerate(batch)
    ]
