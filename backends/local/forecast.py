"""What a run takes of the device's memory, predicted from a model's configuration."""

from __future__ import annotations

from typing import Any

import torch

from windowshift.backends.local.causal_lm import EXACT_BELOW, weights_dtype
from windowshift.backends.local.memory_trial import TrialModel, sampling_bytes, training_bytes
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.row_limit import default_rows, most_rows, row_bytes
from windowshift.backends.local.stack import AT_ONCE, CPU_TOKENS, FREE_SHARE
from windowshift.core.contract.memory import MemoryAsked, MemoryForecast


def forecast(config: dict[str, Any], options: LocalOptions, asked: MemoryAsked) -> MemoryForecast:
    """What a run comes to on the device that the options choose.

    Args:
        config: the content of a config.json.
        options: of the backend.
        asked: the largest that the run asks for.

    Raises:
        ValueError, KeyError: transformers knows no such model.
    """
    cuda = options.device.startswith("cuda") or (options.device == "auto" and torch.cuda.is_available())
    target = "cuda" if cuda else "cpu"
    dtype = weights_dtype(options, torch.device(target))
    lm = TrialModel.made(config, dtype, target)
    if options.dtype == "float64" or (options.dtype == "auto" and not cuda and lm.parameters < EXACT_BELOW):
        lm.sampled = torch.float64
    lm.recomputes = options.gradient_checkpointing
    lm.quantise = options.quantise
    weights, unpacked = lm.weights, lm.unpacked  # before adapters lie beside them
    free = _free(target)
    training, jobs, each = None, 0, 0
    if asked.sft is not None and asked.trainings:
        training, jobs, each = _training(lm, asked, free)
    sampling, rows = None, 0
    longest = asked.prompt_tokens + asked.max_tokens
    if asked.completions:
        rows = options.batch_rows or default_rows(target, exact=lm.sampled is not None)
        if cuda and not options.batch_rows and free is not None:
            fixed, each_row = row_bytes(lm, asked.prompt_tokens, asked.max_tokens)
            rows = most_rows(fixed, each_row, free - weights - unpacked, rows)
        rows = min(rows, asked.completions)
        sampling = weights + unpacked + sampling_bytes(lm, rows, asked.prompt_tokens, asked.max_tokens)
    device = f"{str(dtype).removeprefix('torch.')} on {target}"
    if lm.sampled is not None:
        device += f", and {str(lm.sampled).removeprefix('torch.')} to sample"
    if options.quantise != "none":
        device += f", quantised to {options.quantise}"
    return MemoryForecast(device, weights, training, jobs, each, sampling, rows, longest)


def _training(lm: TrialModel, asked: MemoryAsked, free: int | None) -> tuple[int, int, int]:
    """Bytes at the peak, the jobs in a pass, and what one more takes."""
    assert asked.sft is not None
    most = min(asked.trainings, AT_ONCE)
    weights, unpacked = lm.weights, lm.unpacked
    sizes = [training_bytes(lm, asked.sft, jobs, asked.example_tokens, asked.learned_tokens) for jobs in (1, 2)]
    one, held, each = sizes[0][0] + unpacked, sizes[0][1], sizes[1][0] - sizes[0][0]
    if lm.target == "cpu":
        jobs = min(most, max(1, CPU_TOKENS // (asked.sft.batch_size * asked.example_tokens)))
        waiting = most - jobs  # under way, and not in the pass
    else:
        room = 0 if free is None else FREE_SHARE * (free - weights) - one
        jobs, waiting = max(1, min(most, 1 + int(room // max(each, 1)))), 0
    return weights + one + (jobs - 1) * each + waiting * held, jobs, each


def _free(target: str) -> int | None:
    """Bytes that are free on the GPU; None: there is none here."""
    return int(torch.cuda.mem_get_info()[0]) if target == "cuda" and torch.cuda.is_available() else None
