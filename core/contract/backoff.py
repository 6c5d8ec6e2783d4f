"""When something that failed may be tried again: later each time, and not for ever."""

from __future__ import annotations


class Backoff:
    """Counts failures in a row, and says how long to wait after each.

    Args:
        first: seconds after the first failure; each further one doubles them.
        most: the longest wait, in seconds.
        tries: after so many failures in a row it is over; None for never.
    """

    def __init__(self, first: float = 1.0, most: float = 60.0, tries: int | None = None) -> None:
        self._first, self._most, self._tries = first, most, tries
        self.failures = 0

    @property
    def over(self) -> bool:
        """Whether it is not to be tried again."""
        return self._tries is not None and self.failures >= self._tries

    def failed(self) -> float:
        """It failed once more; the seconds to wait before the next try."""
        self.failures += 1
        return float(min(self._most, self._first * 2 ** min(self.failures - 1, 64)))

    def succeeded(self) -> None:
        """It went on: the next failure is the first again."""
        self.failures = 0
