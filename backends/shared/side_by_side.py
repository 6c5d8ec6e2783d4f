"""Training jobs side by side at a service: each in a task of its own, their events as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import TrainEvent, TrainFailed, TrainJob

Put = Callable[[TrainEvent], None]


async def side_by_side(
    jobs: Sequence[TrainJob], work: Callable[[TrainJob, Put], Awaitable[None]], places: asyncio.Semaphore | None
) -> AsyncGenerator[TrainEvent, None]:
    """Work on all jobs and yield what `work` puts; a job whose work raises a BackendError fails with its sentence.

    A reader that leaves ends what is under way here; what goes on at the service is for the next call to take up.

    Args:
        jobs: in the order in which they get places.
        work: does one job; it puts the job's events.
        places: how many are worked on at once; None: all.

    Raises:
        Exception: what else `work` raised: a bug, or a full disk. The rest is ended.
    """
    found: asyncio.Queue[TrainEvent | Exception | None] = asyncio.Queue()

    async def guarded(job: TrainJob) -> None:
        try:
            if places is None:
                await work(job, found.put_nowait)
            else:
                async with places:
                    await work(job, found.put_nowait)
        except BackendError as error:
            found.put_nowait(TrainFailed(job.key, str(error)))
        except Exception as error:  # the reader must see it
            found.put_nowait(error)
            return
        found.put_nowait(None)

    tasks = [asyncio.create_task(guarded(job)) for job in jobs]
    left = len(tasks)
    try:
        while left:
            event = await found.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
