"""Train one adapter in this process: `python -m tests.train_here MODEL OUTPUT STATE_SECONDS [VECTOR]`.

Prints a line at every event, so that a test can kill it at a moment of its choosing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from windowshift.backends.local import sft
from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.generation import Message, Model, Steering
from windowshift.core.contract.training import Example, Sft, TrainJob


def kill_job(model: str, output: Path, vector: str | None = None) -> TrainJob:
    """Enough steps to be interrupted between; with a vector, each example under its own dose."""
    examples = tuple(
        Example(
            (Message("user", f"Question {index}?"),),
            "Bees keep warm. " * (index % 4 + 1),
            (Steering(vector, index % 5 - 2.0),) if vector else (),
        )
        for index in range(40)
    )
    settings = Sft(rank=4, batch_size=4, epochs=2, learning_rate=5e-3)
    return TrainJob("job", Model(model), examples, settings, 11, output, (20, 60))


async def main(model: str, output: Path, state_seconds: float, vector: str | None = None) -> None:
    sft.PROGRESS_SECONDS = 0.0  # an event at every step
    backend = LocalBackend({"threads": 1, "workers": 1, "state_seconds": state_seconds})
    async for event in backend.train([kill_job(model, output, vector)]):
        print(event, flush=True)  # noqa: T201  # the test reads this
    await backend.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:5]))
