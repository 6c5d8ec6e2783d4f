"""How many completions are drawn at once: as many as the device's memory holds, by what a row was found to take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from windowshift.backends.local.stack import FREE_SHARE, free_bytes
from windowshift.backends.shared.refusal import library_reason

if TYPE_CHECKING:
    from windowshift.backends.local.causal_lm import CausalLM
    from windowshift.backends.local.memory_trial import TrialModel

log = logging.getLogger("windowshift.local")

MOST_ROWS = 512
"""From some hundred rows on a step is bound by arithmetic, and more rows only wait for each other."""
_UNTRIED = 64
"""Rows where nobody knows what they take."""
_TRIED = (8, 16)
"""Rows of the two trials that tell what a row takes."""


def default_rows(device: str, *, exact: bool) -> int:
    """Rows where memory is no question: on a CPU more of them make no step cheaper."""
    if device == "cuda":
        return MOST_ROWS
    return 128 if exact else 16


def row_bytes(lm: TrialModel, prompt: int, completion: int) -> tuple[float, float]:
    """What decoding takes whatever the rows, and what each row of so many tokens takes."""
    from windowshift.backends.local.memory_trial import sampling_bytes

    few, more = (sampling_bytes(lm, rows, prompt, completion) for rows in _TRIED)
    each = max(1.0, (more - few) / (_TRIED[1] - _TRIED[0]))
    return max(0.0, few - _TRIED[0] * each), each


def most_rows(fixed: float, each: float, room: float, most: int) -> int:
    """How many rows go into `room` bytes, up to `most`."""
    rows = int((FREE_SHARE * room - fixed) // each)
    if rows > 32:
        rows = rows // 32 * 32  # as recorded steps have them
    return max(1, min(most, rows))


class RowLimit:
    """The rows of a decode batch.

    On a GPU what rows of the lengths asked for take is tried on the meta device (`memory_trial`), and corrected by what
    the first batches took in truth. A batch that found no memory halves them for good.

    Args:
        lm: the model.
        asked: a person's choice; 0 leaves it to the memory.
        free: bytes that are free on the device.
        counted: whether memory is looked at; None: on a GPU.

    Attributes:
        most: rows where memory is no question.
    """

    def __init__(
        self, lm: CausalLM, asked: int, free: Callable[[torch.device], int] = free_bytes, *, counted: bool | None = None
    ) -> None:
        self._lm, self._asked, self._free = lm, asked, free
        self._by_memory = (lm.device.type == "cuda" if counted is None else counted) and not asked
        self.most = asked or default_rows(lm.device.type, exact=lm.exact)
        self._trial: TrialModel | None = None
        self._sizes: dict[tuple[int, int], tuple[float, float]] = {}
        self._said = 0
        self._factor = 1.0
        self._predicted = 0.0
        self._before = 0

    def begin(self, prompt: int, completion: int, waiting: int) -> int:
        """Rows of a batch that begins, of so many tokens at most; `waiting` is how many rows there are for it."""
        if not self._by_memory:
            return self.most
        free, most = self._free(self._lm.device), self.most
        try:
            fixed, each = (self._factor * size for size in self._size(_rounded(prompt), _rounded(completion)))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model that cannot be made of its configuration alone
            rows, self._predicted = min(most, _UNTRIED), 0.0
            if rows != self._said:
                log.warning("'%s' is decoded %d rows at a time: what a row takes could not be tried (%s)",
                            self._lm.label, rows, library_reason(error))  # fmt: skip
        else:
            rows = most_rows(fixed, each, free, most)
            self._predicted = fixed + min(rows, waiting) * each
            if rows != self._said:
                log.info("'%s' is decoded up to %d rows at a time: of %d tokens one takes %.1f MiB, of %.2f GiB",
                         self._lm.label, rows, prompt + completion, each / 2**20, free / 2**30)  # fmt: skip
        self._said = rows
        self._before = self._allocated()
        return rows

    def ended(self, rows: int) -> None:
        """A batch has ended, of so many rows at most: what it took corrects what the next ones are taken to take."""
        peak = self._peak() - self._before
        if not self._predicted or peak <= 0:
            return
        found = peak / self._predicted
        log.info("decoding %d rows of '%s' took %.2f GiB at its peak, %.2f of what was predicted",
                 rows, self._lm.label, peak / 2**30, found)  # fmt: skip
        # What is far off was not this batch's: training takes from the same memory.
        if 0.5 <= found <= 2.0:
            self._factor = round(self._factor * found, 2)
        self._predicted = 0.0

    def halve(self, rows: int) -> int:
        """A batch of so many rows found no memory: how many from now on."""
        self.most = max(1, rows // 2)
        return self.most

    def _size(self, prompt: int, completion: int) -> tuple[float, float]:
        if (prompt, completion) not in self._sizes:
            self._sizes[prompt, completion] = row_bytes(self._tried(), prompt, completion)
        return self._sizes[prompt, completion]

    def _tried(self) -> TrialModel:
        if self._trial is None:
            from windowshift.backends.local.memory_trial import TrialModel

            config: dict[str, Any] = self._lm.model.config.to_dict()
            self._trial = TrialModel.made(config, self._lm.model.dtype, "cuda")
        return self._trial

    def _allocated(self) -> int:
        if self._lm.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self._lm.device)
        return int(torch.cuda.memory_allocated(self._lm.device))

    def _peak(self) -> int:
        return int(torch.cuda.max_memory_allocated(self._lm.device)) if self._lm.device.type == "cuda" else 0


def _rounded(tokens: int) -> int:
    """Lengths in steps, so that not each batch is tried anew."""
    return -(-tokens // 64) * 64
