"""Whether jobs of one model can share a pass: proven once, on two small jobs, before any of them does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.first_use import text_ids
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Sft

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM

log = logging.getLogger("windowshift.local")

_LENGTHS = (((5, 9), (3, 4)), ((7, 6), (2, 11), (6, 3)), ((4, 17),))
"""Of each job: tokens of prompt and completion of its rows. Two of them have as many columns, the third has more."""
_ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-9}
_HALF = 0.1


def stacking_fault(lm: CausalLM) -> str | None:
    """Why jobs of this model must not share a pass, in a sentence; None where they can.

    Gradients of jobs of unequal ranks, rows and lengths in one pass are compared with those of each job alone: on a
    CPU they must be the same bytes, elsewhere the same up to rounding. Experts that share a capacity, recurrent states
    and whatever else looks past its own row shows here.
    """
    made: list[AdapterWeights] = []
    try:
        jobs = [_job(lm, number, made) for number in range(len(_LENGTHS))]
        alone = [_gradients(lm, [job], [weights])[0] for job, weights in zip(jobs, made, strict=True)]
        together = _gradients(lm, jobs, made)
        for one, other in zip(alone, together, strict=True):
            if lm.device.type == "cpu":
                if not torch.equal(one, other):
                    raise BackendError("a job's numbers would depend on the jobs beside it")
            elif float((one - other).norm() / one.norm()) > _ROUNDING.get(lm.model.dtype, _HALF):
                raise BackendError("a job's gradients would depend on the jobs beside it")
    except (MemoryError, torch.OutOfMemoryError):
        raise  # says nothing about the model
    except Exception as error:  # libraries raise many kinds where an architecture is not as they expect
        reason = str(error) if isinstance(error, BackendError) else library_reason(error)
        log.info("jobs of '%s' train one after another: %s", lm.label, reason)
        return reason
    finally:
        for weights in made:
            lm.adapters.drop(weights.name)
    return None


def _job(lm: CausalLM, number: int, made: list[AdapterWeights]) -> BatchLoss:
    weights = AdapterWeights(lm.adapters, Sft(rank=2 + number, alpha=4), seed=number)
    made.append(weights)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for matrices in weights.layers.values():
            for part in (matrices.down, matrices.up):
                part.copy_(0.1 * torch.randn(part.shape, generator=generator))
    ids = list(text_ids(lm, 40))
    tokens = []
    for place, (prompt, completion) in enumerate(_LENGTHS[number]):
        row = ids[place + number :]
        tokens.append(TrainingTokens(row[:prompt], row[prompt : prompt + completion]))
    return BatchLoss(lm, (), tokens, weights)


def _gradients(lm: CausalLM, jobs: Sequence[BatchLoss], made: Sequence[AdapterWeights]) -> list[Tensor]:
    for weights in made:
        weights.forget_gradients()
    with torch.enable_grad():
        batches = [job.batch(range(len(job))) for job in jobs]
        torch.stack(losses(lm, batches)).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return [weights.flat.grad.clone() for weights in made if weights.flat.grad is not None]
