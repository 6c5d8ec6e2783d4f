"""A Ray cluster of simulated nodes: what share of their time is work, and what a completion costs the driver.

Cells are independent, and a completion takes a fixed time on a simulated worker, which computes nothing: so many nodes
fit on one machine, and what is measured is the driver, Ray and the messages between.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bench.measurement import Measurement
from windowshift.backends.local.cluster.options import RaySection
from windowshift.backends.local.cluster.ray_executor import RayExecutor
from windowshift.backends.local.cluster.ray_station import RayStation
from windowshift.backends.local.cluster.station import Station
from windowshift.backends.local.crew import Crew
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling

ROOT = Path(__file__).parents[1]
TEXT = "a completion of some hundred characters, as a real one would be; " * 8
TICK = 0.5
"""Seconds after which a simulated worker gives out what it has made, as a batch that decodes does."""


class SimulatedBackend:
    """Answers at a fixed pace, and computes nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """Answer each request after so many seconds."""
        began, given = time.monotonic(), 0
        while given < len(requests):
            await asyncio.sleep(min(TICK, self._seconds * (len(requests) - given)))
            due = min(len(requests), int((time.monotonic() - began) / self._seconds))
            for each in requests[given:due]:
                yield Completion(each.key, TEXT, "stop", 100, 50)
            given = due


class SimulatedStation(RayStation):
    """A station whose worker is simulated."""

    def _begun(self) -> Station:
        station = super()._begun()
        if not isinstance(station._worker._backend, SimulatedBackend):
            station._worker._backend = SimulatedBackend(0.02)  # type: ignore[assignment]  # it has what is asked
        return station


class SimulatedExecutor(RayExecutor):
    """A Ray executor of simulated stations."""

    station = SimulatedStation


def measure_cluster(_: Path, nodes: int = 4, workers: int = 4, rows: int = 800) -> Iterator[Measurement]:
    """Measure `nodes` nodes of `workers` workers, each with `rows` completions to make at fifty a second."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # of its nodes
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _node in range(nodes):
            cluster.add_node(num_cpus=workers)
        wall, cpu = asyncio.run(_run(cluster.address, nodes * workers, rows))
    finally:
        cluster.shutdown()
    count = nodes * workers * rows
    size = f"{nodes} simulated nodes of {workers} workers, {count:,} completions"
    yield Measurement(
        f"Ray: share of the workers' time that is work, {size}", 0.02 * rows / wall, "", "higher", target=0.9
    )
    yield Measurement("Ray: the driver's CPU time a completion", cpu / count * 1e6, "µs", note="without the store")


async def _run(address: str, workers: int, rows: int) -> tuple[float, float]:
    """Seconds on the clock and of the driver's CPUs, once every worker is there."""
    crew = Crew(SimulatedExecutor(RaySection(address=address), 0, {"workers": 1}))
    try:
        await _all(crew, [[_request(f"{worker}")] for worker in range(workers)])  # all have started
        while sum(worker.ready for worker in crew._workers) < workers:
            await _all(crew, [[_request("more")]])
        portions = [[_request(f"{worker}:{row}") for row in range(rows)] for worker in range(workers)]
        began, cpu = time.monotonic(), time.process_time()
        await _all(crew, portions)
        return time.monotonic() - began, time.process_time() - cpu
    finally:
        await crew.aclose()


async def _all(crew: Crew, portions: Sequence[Sequence[Any]]) -> None:
    async with aclosing(crew.stream("generate", portions)) as stream:
        async for _completion in stream:
            pass


def _request(key: str) -> GenerateRequest:
    return GenerateRequest(key, (Message("user", "Tell me about bees."),), Model("microworld"), Sampling(), 0)
