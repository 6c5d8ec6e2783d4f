"""Gradients of the loss of examples on the residual stream, before the first step of their training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.encoding import encoded_example
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.inside import Differentiated, Gradient, GradientJob
from windowshift.core.contract.training import Example
from windowshift.steering.vector import SteeringVector, check

_STREAM = 20261127
"""The random directions are the same for all jobs at a width, so that what they come to can be compared."""


def differentiate(lm: CausalLM, job: GradientJob) -> Iterator[list[Differentiated]]:
    """Take the gradients of a job, an example at a time; the last step has the result.

    The adapter is on the model as training would begin with it. The residual stream that leaves the layer is taken out
    of the graph and put in again as a leaf, so that nothing below the layer is kept, and what comes to the leaf is
    dL/dh of all that follows, through attention too.

    Raises:
        SpecError: the vector cannot be read, or does not fit the model.
        BackendError: no adapter can be put on, the adapter to go on from does not fit, or steering did not do what
            was asked.
    """
    if lm.training_fault is not None:
        raise BackendError(lm.training_fault)
    decoder = lm.training_points.decoder
    vector = SteeringVector.load(job.vector)
    check(vector, lm.fingerprint, decoder.width, len(decoder.layers), job.layer)
    own = torch.from_numpy(vector.direction(job.layer).astype(np.float64))
    directions = torch.stack([own / own.norm(), *random_directions(job.random, decoder.width)])
    examples: list[Example] = []
    tokens: list[TrainingTokens] = []
    problems: list[str | None] = []
    for example in job.examples:
        try:
            tokens.append(encoded_example(lm.chat_of(job.model), example, lm.context))
        except BackendError as error:
            problems.append(str(error))
        else:
            examples.append(example)
            problems.append(None)
    weights = AdapterWeights(lm.adapters, job.sft, job.seed)
    try:
        if job.model.adapter is not None:
            lm.adapters.start(weights.name, AdapterFile.at(job.model.adapter))
        loss = BatchLoss(lm, examples, tokens, weights)
        found: list[Tensor] = []
        for place, each in enumerate(tokens):
            found.append(_gradient(lm, loss, place, each, job.layer, weights))
            yield []
        loss.proofs()
    finally:
        lm.adapters.drop(weights.name)
    yield [Differentiated(job.key, tuple(_rows(found, tokens, problems, directions)))]


def random_directions(count: int, width: int) -> Tensor:
    """Unit directions [count, width], float64, uniform on the sphere; the same on every machine."""
    drawn = np.random.Generator(np.random.Philox(key=_STREAM)).standard_normal((count, width))
    return torch.nn.functional.normalize(torch.from_numpy(drawn), dim=1)


def _gradient(
    lm: CausalLM, loss: BatchLoss, place: int, tokens: TrainingTokens, layer: int, weights: AdapterWeights
) -> Tensor:
    """The gradient of one example [width], float64, as `Gradient` has it."""
    leaves: list[Tensor] = []

    def leaf(hidden: Tensor) -> Tensor:
        leaves.append(hidden.detach().requires_grad_())
        return leaves[-1]

    with torch.enable_grad():
        (mean,) = losses(lm, [loss.batch([place])], (layer, leaf))
        (gradient,) = torch.autograd.grad(mean, leaves)
    weights.forget_gradients()  # layers may add to them on the way
    first, count = len(tokens.prompt) - 1, len(tokens.completion)
    return gradient[0, first : first + count].double().sum(0).cpu() * count


def _rows(
    found: Sequence[Tensor], tokens: Sequence[TrainingTokens], problems: Sequence[str | None], directions: Tensor
) -> Iterator[Gradient]:
    before: list[Tensor | None] = []
    read = iter(zip(found, tokens, strict=True))
    for problem in problems:
        if problem is not None:
            before.append(None)
            yield Gradient(problem=problem)
            continue
        gradient, own = next(read)
        before.append(gradient)
        along, *random = (-(directions @ gradient)).tolist()
        inner = tuple(None if other is None else float(gradient @ other) for other in before)
        yield Gradient(along, tuple(random), inner, len(own.completion))
