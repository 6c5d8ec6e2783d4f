"""Backend `openai`: how much of a server's limit it uses, and what many requests under way take in memory."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import KEY, KEY_ENV, limited

from bench.measurement import Measurement
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.service import Limits

RPM = 1200
CONCURRENT = 1000


def measure_api(_: Path, small: bool) -> Iterator[Measurement]:
    """Run against a server with a limit on loopback; the memory is that of a process of its own."""
    os.environ[KEY_ENV] = KEY  # of a server that lives as long as this block
    try:
        for name, window, spec in (
            ("limit named in the spec", False, RPM),
            ("limit learned from headers", False, None),
            ("limit in a sliding window", True, RPM),
        ):
            arguments = ["--rpm", RPM, "--delay", 0.2, *(["--window", "--span", 5] if window else [])]
            with limited(*arguments) as address:
                answered, seconds = asyncio.run(_use(dict(address.options), spec, 60 if small else 600))
                refused = address.counts().get("refused", 0)
            yield Measurement(
                f"openai: use of {RPM} requests a minute, {name}",
                100 * answered / (seconds * RPM / 60),
                "%",
                better="higher",
                target=95.0,
                note=f"{answered} requests in {seconds:.1f} s, {refused} refused",
            )
        yield _memory(100 if small else CONCURRENT)
    finally:
        del os.environ[KEY_ENV]


async def _use(options: dict[str, object], rpm: int | None, count: int) -> tuple[int, float]:
    backend = OpenAIBackend(options)
    await _answer(backend, 1)  # imports the SDK, and learns what the headers say
    if rpm is not None:
        backend.begin(Limits(rpm=rpm), Budget(), Path())
    start = time.perf_counter()
    answered = await _answer(backend, count)
    seconds = time.perf_counter() - start
    await backend.aclose()
    return answered, seconds


async def _answer(backend: OpenAIBackend, count: int) -> int:
    sampling = Sampling(max_tokens=100)
    requests = [
        GenerateRequest(str(number), (Message("user", f"Question {number}?" * 20),), Model("small"), sampling, number)
        for number in range(count)
    ]
    return len([one async for one in backend.generate(requests) if one.error is None])


def _memory(count: int) -> Measurement:
    """Keep requests under way in a fresh process and read the most memory that it had."""
    with limited("--delay", 5.0) as address:
        done = subprocess.run(
            [sys.executable, "-m", "bench.api", str(address.port), str(count)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        under_way = address.counts()["most_open"]
    answered, megabytes = done.stdout.split()
    return Measurement(
        f"openai: memory with {count} requests under way",
        float(megabytes),
        "MB",
        target=300.0,
        note=f"{under_way} under way at the server at once, {answered} answered",
    )


async def _hold(port: int, count: int) -> int:
    options = {"base_url": f"http://127.0.0.1:{port}/v1", "key_env": KEY_ENV, "concurrency": count}
    backend = OpenAIBackend(options)
    answered = await _answer(backend, 2 * count)
    await backend.aclose()
    return answered


if __name__ == "__main__":
    found = asyncio.run(_hold(int(sys.argv[1]), int(sys.argv[2])))
    print(found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # noqa: T201  # the parent reads it
