"""Which tokens of a batch are prompt, which are response, and which are padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from windowshift.steering.sending import sent


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Masks [rows, columns], bool, of the tokens in one forward pass; a column in neither is padding.

    The counts [rows] come from the lengths and not from the masks, so that a proof compares two things.
    """

    prompt: Tensor
    response: Tensor
    prompt_counts: Tensor
    response_counts: Tensor

    @classmethod
    def sequences(
        cls, prompts: Sequence[int], responses: Sequence[int], width: int, device: torch.device | str = "cpu"
    ) -> Spans:
        """Whole sequences, prompt then response, padded on the right to `width` columns.

        Prefill is the case in which every response length is 0.
        """
        first, counts = sent(torch.tensor([[*prompts], [*responses]], dtype=torch.long), device)
        columns = torch.arange(width, device=device)[None, :]
        prompt = columns < first[:, None]
        response = (columns < (first + counts)[:, None]) & ~prompt
        return cls(prompt, response, first, counts)

    @classmethod
    def prefill(cls, prompts: Sequence[int], width: int, device: torch.device | str = "cpu") -> Spans:
        """Prompts alone, padded on the right."""
        return cls.sequences(prompts, [0] * len(prompts), width, device)

    @staticmethod
    def step(rows: int, device: torch.device | str = "cpu") -> Spans:
        """One token of the response in every row: a step of decoding. The same object for the same rows."""
        return _step(rows, torch.device(device))


@lru_cache(maxsize=512)
def _step(rows: int, device: torch.device) -> Spans:
    with torch.inference_mode(False):  # what is kept must not belong to the mode of its first use
        every = torch.ones(rows, 1, dtype=torch.bool, device=device)
        counts = torch.ones(rows, dtype=torch.long, device=device)
        return Spans(~every, every, torch.zeros_like(counts), counts)
