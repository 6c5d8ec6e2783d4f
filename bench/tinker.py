"""Backend `tinker`: training steps a second, with steps sent ahead of their answers and without."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.tinkered import KEY, KEY_ENV, tinker_served

from bench.latency import delayed
from bench.measurement import Measurement
from windowshift.backends.tinker.backend import TinkerBackend
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Message, Model
from windowshift.core.contract.training import Example, Sft, TrainFailed, TrainJob, TrainProgress

DEPTH = 4
AWAY = 0.1  # seconds, each way: a service on another continent


def measure_tinker(folder: Path, small: bool) -> Iterator[Measurement]:
    """Train on SkyRL's server on loopback, in the environment that `make tinker-env` makes, near and far."""
    os.environ[KEY_ENV] = KEY
    try:
        with tinker_served(folder / "server") as server, delayed(server.port, AWAY) as far:
            steps = 10 if small else 60
            for where, port in (("on loopback", server.port), (f"{1000 * AWAY:.0f} ms away", far)):
                speeds = {}
                for depth in (1, DEPTH):
                    own = {"base_url": f"http://127.0.0.1:{port}", "pipeline": depth}
                    options = {**server.options, **own, "download": False, "state_seconds": 3600.0}
                    speeds[depth] = asyncio.run(_train(options, folder / f"{port}-{depth}", steps))
                yield Measurement(
                    f"tinker: training steps a second, {DEPTH} sent ahead, {where}",
                    speeds[DEPTH],
                    "steps/s",
                    better="higher",
                    baseline=speeds[1],
                    against="one at a time",
                    note=f"{steps} steps of batch 2, rank 4; SkyRL takes one step of a run at each look",
                )
    finally:
        del os.environ[KEY_ENV]


async def _train(options: dict[str, object], output: Path, steps: int) -> float:
    """Steps a second, from the first answer to the last: compiling comes before."""
    data = tuple(
        Example((Message("user", f"What do {index} bees do?"),), "Bees keep warm. " * 4) for index in range(2 * steps)
    )
    job = TrainJob("job", Model("microworld"), data, Sft(rank=4, batch_size=2, learning_rate=1e-3), 0, output)
    times = []
    async for event in TinkerBackend(options).train([job]):
        if isinstance(event, TrainProgress):
            times.append(time.perf_counter())
        if isinstance(event, TrainFailed):
            raise BackendError(event.error)
    return (len(times) - 1) / (times[-1] - times[0])
