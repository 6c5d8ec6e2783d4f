"""How many requests a minute are let in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from windowshift.backends.serve.api_error import ApiError


class Allowance:
    """A bucket of requests that fills evenly, `rpm` a minute; 0 lets everything in.

    Args:
        rpm: requests a minute, and the most that can be saved up.
        clock: seconds.
    """

    def __init__(self, rpm: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rpm, self._clock = rpm, clock
        self._left, self._at = float(rpm), clock()

    def take(self) -> dict[str, str]:
        """Take one request out; the headers that tell the client what is left.

        Raises:
            ApiError: nothing is left; ``retry-after`` says when there will be.
        """
        if not self._rpm:
            return {}
        now = self._clock()
        self._left = min(float(self._rpm), self._left + (now - self._at) * self._rpm / 60)
        self._at = now
        if self._left < 1:
            wait = (1 - self._left) * 60 / self._rpm
            raise ApiError(
                429,
                f"rate limit reached: {self._rpm} requests a minute; try again in {wait:.2f} s",
                code="rate_limit_exceeded",
                headers={**self._headers(), "retry-after": str(math.ceil(wait))},
            )
        self._left -= 1
        return self._headers()

    def _headers(self) -> dict[str, str]:
        full = (self._rpm - self._left) * 60 / self._rpm
        return {
            "x-ratelimit-limit-requests": str(self._rpm),
            "x-ratelimit-remaining-requests": str(int(self._left)),
            "x-ratelimit-reset-requests": f"{full:.3f}s",
        }
