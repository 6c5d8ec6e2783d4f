"""The budget: what may still be spent, reserved before a request and settled after it."""

from __future__ import annotations

import asyncio

from windowshift.core.contract.errors import BackendError


class BudgetSpentError(BackendError):
    """The next request could take the spending above `limits.usd`."""


class Budget:
    """Spending of one run, in USD, against a limit.

    A request reserves the most that it can cost before it is sent, so that the limit holds whatever
    comes back; what it did not cost is free again once it is settled.

    Args:
        limit: the limit; None: there is none.
        spent: what was spent before, e.g. by an earlier run of the same experiment.
    """

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0.0
        self._under_way = 0
        self._settled = asyncio.Condition()

    async def reserve(self, usd: float) -> None:
        """Set `usd` aside, and wait for requests under way where only their reserves stand against it.

        Raises:
            BudgetSpentError: it does not fit, and nothing under way could make room.
        """
        async with self._settled:
            while self.limit is not None and self.spent + self.reserved + usd > self.limit:
                if not self._under_way or self.spent + usd > self.limit:
                    raise BudgetSpentError(
                        f"limits.usd: {dollars(self.spent)} of {dollars(self.limit)} are spent, and the next request "
                        f"may cost up to {dollars(usd)}: raise limits.usd and run again"
                    )
                await self._settled.wait()
            self.reserved += usd
            self._under_way += 1

    async def settle(self, reserved: float, usd: float) -> None:
        """A request that had `reserved` set aside has cost `usd`."""
        async with self._settled:
            self._under_way -= 1
            self.reserved = self.reserved - reserved if self._under_way else 0.0
            self.spent += usd
            self._settled.notify_all()


def dollars(usd: float) -> str:
    """Return an amount as people read it: cents, and more digits below one."""
    return f"${usd:,.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.2g}"
