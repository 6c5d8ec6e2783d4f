"""How far a run is, for progress bars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from windowshift.core.contract.service import Queue


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one kind, in units that people count: ``rows`` to sample, ``examples`` to train on, ``scores``.

    `done` of `total` counts those within jobs under way, too; `busy` says whether any of it is in work now.
    """

    unit: str
    done: int
    total: int
    busy: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """Cells and jobs done of all, jobs that failed, the labels of what is being worked on, and services' queues.

    `work` has one entry for each kind of work that the run has.
    """

    cells_done: int
    cells: int
    jobs_done: int
    jobs: int
    failed: int
    running: tuple[str, ...]
    queues: tuple[tuple[str, Queue], ...] = ()
    work: tuple[Work, ...] = ()


class Pace:
    """How fast a run works, and how long it still takes, from what was seen of its progress.

    A kind's rate counts the time in which something of that kind was in work. The time left adds the kinds up, as
    they share the machine; so it is rather too long where they work beside each other.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._units: dict[str, int] = {}
        self._last: tuple[float, dict[str, Work]] | None = None

    def see(self, work: Iterable[Work], now: float) -> None:
        """Note how far a run is at a time, in seconds of any clock that does not go back."""
        current = {one.unit: one for one in work}
        if self._last is not None:
            then, before = self._last
            for unit, one in current.items():
                gained = one.done - before[unit].done if unit in before else 0
                if gained > 0 or (unit in before and before[unit].busy):
                    self._seconds[unit] = self._seconds.get(unit, 0.0) + now - then
                    self._units[unit] = self._units.get(unit, 0) + max(0, gained)
        self._last = now, current

    def rate(self, unit: str) -> float | None:
        """Units a second; None while none was done."""
        seconds, units = self._seconds.get(unit, 0.0), self._units.get(unit, 0)
        return units / seconds if units and seconds > 0 else None

    def seconds_left(self) -> float | None:
        """How long the rest takes; None where nothing of a kind that is left was done yet."""
        total = 0.0
        for one in self._last[1].values() if self._last else ():
            if one.done < one.total:
                rate = self.rate(one.unit)
                if rate is None:
                    return None
                total += (one.total - one.done) / rate
        return total if self._last else None
