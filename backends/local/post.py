"""Where the workers of a crew are: a post is one worker's place, an executor is who gives out posts.

A crew deals work and knows nothing of processes, nodes and queues; what kind of place a worker has makes no difference
to what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from windowshift.backends.local.messages import CrewMessage, WorkerMessage


class Post(Protocol):
    """One worker's place, and the way to it.

    Attributes:
        where: the machine that it is on, for sentences.
        ready: whether it takes work at once; else it says `Ready` when it does.
        lost: whether it ended with its machine, or its time there, and so not of its work.
    """

    where: str
    ready: bool
    lost: bool

    def listen(self, take: Callable[[WorkerMessage | None], None]) -> None:
        """Give everything that the worker says to `take`, from another thread; None once it has ended."""
        ...

    def send(self, message: CrewMessage) -> None:
        """Say something to the worker.

        Raises:
            OSError: it ended; whoever listens hears of it.
        """
        ...

    def close(self) -> None:
        """Hear and say nothing any more."""
        ...

    def end(self) -> str:
        """End the worker and wait for that; how it ended, for a sentence."""
        ...


class Executor(Protocol):
    """Gives out posts.

    Attributes:
        elastic: whether there may be more or fewer posts later on, so that a crew asks again and again.
    """

    elastic: bool

    async def open(self) -> None:
        """Get ready; called before every stream, and free where that was done.

        Raises:
            WindowshiftError: a library is missing, or the machines cannot be reached.
        """
        ...

    @property
    def size(self) -> int:
        """How many workers there is room for now."""
        ...

    def hire(self, held: Sequence[Post]) -> list[Post]:
        """Start the workers that are missing beside those that are held.

        Raises:
            BackendError: there is no room for any, and will not be.
        """
        ...

    def refuse(self, post: Post, reason: str) -> None:
        """Give out no post on the machine of this one any more: it says why it is unfit."""
        ...

    async def aclose(self) -> None:
        """Let everything go."""
        ...
