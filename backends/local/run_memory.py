"""What a run takes of the memory: told before it begins, and logged beside what it took once it has ended."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windowshift.backends.local.libraries import require_libraries
from windowshift.backends.local.model_folder import model_config, tiny
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import BackendError, WindowshiftError
from windowshift.core.contract.memory import GIB, MemoryAsked, MemoryForecast

if TYPE_CHECKING:
    import torch

log = logging.getLogger("windowshift.local")


class RunMemory:
    """Predicts and measures. Torch is imported where it predicts, and not with this module.

    Of a GPU what its allocator gave out is measured; of a CPU what this process holds, as far as the system says it.

    Args:
        options: of the backend.
    """

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._expected: tuple[str, str | None, MemoryAsked] | None = None
        self._before: int | None = None
        self._device: torch.device | None = None

    def forecast(self, base: str, revision: str | None, asked: MemoryAsked) -> MemoryForecast | None:
        """What a run comes to; None of a very small model, which takes less than a GiB.

        Raises:
            BackendError: the configuration cannot be had, or transformers knows no such model.
        """
        if tiny(base, revision):
            return None
        config: dict[str, Any] = model_config(base, revision)
        require_libraries()
        try:
            from windowshift.backends.local.forecast import forecast

            return forecast(config, self._options, asked)
        except Exception as error:  # libraries raise many kinds where an architecture is not as they expect
            raise BackendError(f"what '{base}' takes of the memory is not known: {library_reason(error)}") from error

    def expect(self, base: str, revision: str | None, asked: MemoryAsked) -> None:
        """A run is to ask for so much."""
        self._expected = (base, revision, asked)

    def loading(self) -> None:
        """A model is to be loaded: what is held from the first one on counts."""
        if self._before is None:
            self._before = _resident()

    def loaded(self, device: torch.device) -> None:
        """It was loaded onto this device."""
        self._device = device

    @property
    def peak(self) -> int | None:
        """Bytes at most since the first model was loaded; None where none was, or the system does not say it."""
        if self._device is None:
            return None
        if self._device.type == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            import resource
        except ImportError:  # not on Windows
            return None
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return None if self._before is None else max(0, most - self._before)

    def say(self) -> None:
        """Log what was taken at most beside what was predicted."""
        peak = self.peak
        if peak is None or self._expected is None:
            return
        try:
            found = self.forecast(*self._expected)
        except WindowshiftError as error:
            log.info("memory: %.2f GiB at its peak; %s", peak / GIB, error)
            return
        if found is not None:
            log.info(
                "memory: %.2f GiB at its peak, %.2f times the %.2f GiB that were predicted: %s",
                peak / GIB, peak / found.together, found.together / GIB, found.words,
            )  # fmt: skip


def _resident() -> int | None:
    """Bytes that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
