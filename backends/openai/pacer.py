"""The pacer: when the next request may go, within requests and tokens a minute, and what the server says of both."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from windowshift.backends.openai.options import LONGEST_BACKOFF

MINUTE = 60.0
BURST_SECONDS = 0.5  # what a timer that fires late may catch up with
FELT_SECONDS = 10.0  # the span in which a limit that nobody named is measured
MOST_A_MINUTE = 1e12  # a limit beyond it is none
LONGEST_RESET = 31 * 86_400.0
LEAST_PAUSE = 1.0  # seconds; what a server that asks for less comes to after some refusals
SLOWER, FASTER_A_SECOND = 0.7, 1.03
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Bucket:
    """Something that comes back at a steady rate: requests, or tokens. `rate` is per second."""

    rate: float
    level: float
    at: float

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until `amount` can be taken; more than the bucket holds waits until it is full."""
        self._refill(now)
        # At least one request, and one request's tokens, must always fit.
        short = min(amount, self.capacity) - self.level
        return max(0.0, short / self.rate)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`; the level may fall below zero, which the next one waits for."""
        self._refill(now)
        self.level -= amount

    @property
    def capacity(self) -> float:
        """The most that it holds: a short burst, and never less than one."""
        return max(1.0, self.rate * BURST_SECONDS)

    def _refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now


class Pacer:
    """Lets requests go one after the other, at the pace that the spec and the server allow.

    The server's own limits are read from its ``x-ratelimit-*`` headers, and the lower of both holds.
    Where a server says 429 without naming a limit, what it answered lately is taken for one: less after
    each further 429, and slowly more again. One pause holds for all: a server that asked for patience is
    not asked by the others.

    Args:
        concurrency: requests under way at once, at most.
        rpm: requests a minute, from the spec; None: no limit is known.
        tpm: tokens a minute, from the spec.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        concurrency: int,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._room = concurrency
        self._spec = {"requests": rpm, "tokens": tpm}
        self._said: dict[str, float] = {}
        self._buckets: dict[str, Bucket] = {}
        self._clock = clock
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._hold_until = 0.0
        self._felt: float | None = None  # requests a second, where no limit is known
        self._felt_at = 0.0
        self._trouble = 0
        self._answered: deque[float] = deque()
        self.waiting = self.in_flight = 0
        for name in self._spec:
            self._set(name)

    @asynccontextmanager
    async def place(self, tokens: int) -> AsyncIterator[None]:
        """Wait for a place for a request of about `tokens` tokens, and keep it until the block ends."""
        self.waiting += 1
        try:
            async with self._turn:
                await self._wait(tokens)
                self.in_flight += 1
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._freed.set()

    async def _wait(self, tokens: int) -> None:
        amounts = {"requests": 1.0, "tokens": float(tokens)}
        while True:
            now = self._clock()
            seconds = self._hold_until - now
            for name, bucket in self._buckets.items():
                seconds = max(seconds, bucket.seconds_until(amounts[name], now))
            if seconds > 0:
                await asyncio.sleep(seconds)
            elif self.in_flight >= self._room:
                self._freed.clear()
                await self._freed.wait()
            else:
                break
        for name, bucket in self._buckets.items():
            bucket.take(amounts[name], now)

    # -- what the server says -------------------------------------------------------------------

    def answered(self, headers: Mapping[str, str]) -> None:
        """A request was answered: learn the limits that the headers name, and take back caution."""
        self._trouble = 0
        now = self._clock()
        self._answered.append(now)
        while self._answered[0] < now - MINUTE:
            self._answered.popleft()
        if self._felt is not None:
            self._feel(self._felt * FASTER_A_SECOND ** min(1.0, now - self._felt_at))
        self.learn(headers)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read the ``x-ratelimit-*`` headers of an answer or a refusal."""
        for name in self._spec:
            limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
            if limit is None or not 1 <= limit <= MOST_A_MINUTE:
                continue
            per_minute = limit
            reset = seconds_of(headers.get(f"x-ratelimit-reset-{name}", ""))
            left = _number(headers.get(f"x-ratelimit-remaining-{name}"))
            if reset is not None and left is not None and reset > MINUTE:
                # A limit by the hour or the day: what is left must last until it comes back.
                per_minute = min(limit, max(1.0, left) * MINUTE / reset)
            self._said[name] = per_minute
            self._set(name)

    def throttled(
        self, seconds: float | None, backoff: float, longest: float = LONGEST_BACKOFF, *, ease: bool = True
    ) -> None:
        """The server said 429, or nobody was there: hold everything for as long as it asked.

        Args:
            seconds: what the server asked for; None: it did not say, and `backoff` holds, longer each time.
            backoff: the first pause, in seconds.
            longest: the longest one.
            ease: send fewer from now on, where no limit is known.
        """
        now = self._clock()
        if now < self._hold_until:
            return  # told already, by a request that was under way with this one
        pause = min(longest, backoff * 2.0**self._trouble)
        if seconds is not None:  # a server that says "in no time" again and again is not asked so often
            pause = max(seconds, min(pause, LEAST_PAUSE))
        self._trouble = min(self._trouble + 1, 16)
        self._hold_until = now + pause
        if (bucket := self._buckets.get("requests")) is not None and ease:
            bucket.level = min(bucket.level, 0.0)  # the server has counted more than was counted here
        if ease and not self._known("requests"):
            self._feel(self._lately(now) if self._felt is None else self._felt * SLOWER)

    def _lately(self, now: float) -> float:
        """Answers a second in the last seconds."""
        recent = [at for at in self._answered if at >= now - FELT_SECONDS]
        return max(1, len(recent)) / max(1.0, now - recent[0] if recent else 0.0)

    def _feel(self, rate: float) -> None:
        if not self._known("requests"):
            self._felt, self._felt_at = rate, self._clock()
            self._set("requests")

    def _known(self, name: str) -> bool:
        return self._spec[name] is not None or name in self._said

    def _set(self, name: str) -> None:
        known = [value for value in (self._spec[name], self._said.get(name)) if value is not None]
        if not known and name == "requests" and self._felt is not None:
            known = [self._felt * MINUTE]
        if not known:
            return
        rate, now = min(known) / MINUTE, self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(rate, 0.0, now)
            bucket.level = bucket.capacity
        bucket.rate = rate

    # -- what people see ------------------------------------------------------------------------

    @property
    def limit(self) -> float | None:
        """Requests a minute in force; None: no limit is known."""
        bucket = self._buckets.get("requests")
        return None if bucket is None else bucket.rate * MINUTE

    @property
    def per_minute(self) -> float:
        """Answers a minute, over the last minute or since the first."""
        now = self._clock()
        recent = [at for at in self._answered if at >= now - MINUTE]
        if len(recent) < 2:
            return 0.0
        return len(recent) * MINUTE / max(1.0, now - recent[0])


def seconds_of(span: str) -> float | None:
    """Read ``6m0s``, ``120ms`` or ``1.5`` (seconds); None: it is none of them, or longer than 31 days."""
    parts = _SPAN.findall(span)
    if parts and "".join(number + unit for number, unit in parts) == span.strip():
        seconds: float | None = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        seconds = _number(span)
    return seconds if seconds is not None and seconds <= LONGEST_RESET else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
