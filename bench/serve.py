"""`windowshift serve`: chat requests a second, beside what the backend does when it is handed all of them at once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.measurement import Measurement, median
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.spec import registry

KEY = "sk-bench-0123456789abcdef"
MODEL = "microworld"
MAX_TOKENS = 64
THINGS = ("bees", "rivers", "clocks", "gardens", "trains", "bridges", "winters", "markets")


def measure_serve(
    folder: Path, clients: Sequence[int] = (1, 16, 64), rounds: int = 3, runs: int = 3
) -> Iterator[Measurement]:
    """Ask the same questions over HTTP and of the backend itself, by turns.

    The baseline of so many clients is the backend called with so many requests at once, again and again;
    the last line is one call with all that the most clients ask.
    """
    most = max(clients)
    with _server(folder) as address:
        served, called, at_once = asyncio.run(_measured(address, clients, rounds, runs))
    note = f"{MODEL}, at most {MAX_TOKENS} tokens, {runs} runs"
    for count in clients:
        yield Measurement(
            f"chat completions a second, {count} client{'s' if count > 1 else ''}",
            median(served[count]),
            "/s",
            better="higher",
            baseline=median(called[count]),
            against=f"backend local, {count} a call",
            note=note,
        )
    name = f"  backend local, {most * rounds} in one call"
    yield Measurement(name, median(at_once), "/s", better="higher", note=note)


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "windowshift", "serve", "-m", MODEL, "--port", "0", "--data", str(folder / "data")]
    process = subprocess.Popen(
        [*command, "--key-env", "BENCH_KEY"], stdout=subprocess.PIPE, text=True, env={**os.environ, "BENCH_KEY": KEY}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")
        address = urlsplit(line.split()[3])
        yield str(address.hostname), int(address.port or 0)
    finally:
        process.kill()
        process.wait()


Rates = dict[int, list[float]]


async def _measured(
    address: tuple[str, int], clients: Sequence[int], rounds: int, runs: int
) -> tuple[Rates, Rates, list[float]]:
    """Rates of the server and of the backend by number of clients, and of the backend with everything in one call."""
    everything = max(clients) * rounds
    served: Rates = {count: [] for count in clients}
    called: Rates = {count: [] for count in clients}
    at_once: list[float] = []
    backend = registry.backend("local")
    await _asked(address, max(clients), 2 * max(clients))  # workers start, models load
    await _called(backend, everything, everything)
    for _ in range(runs):
        for count in clients:
            total = max(8, count) * rounds
            served[count].append(await _asked(address, count, total))
            called[count].append(await _called(backend, count, total))
        at_once.append(await _called(backend, everything, everything))
    await backend.aclose()
    return served, called, at_once


async def _asked(address: tuple[str, int], clients: int, requests: int) -> float:
    """Requests a second of the server, asked `clients` at a time, each on a connection that is kept."""
    start = time.perf_counter()
    seeds = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        for seed in seeds:
            body = json.dumps(
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": _question(seed)}],
                    "max_tokens": MAX_TOKENS,
                    "seed": seed,
                }
            ).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if not answer.startswith("http/1.1 200"):
                raise RuntimeError(f"the server answered {answer.splitlines()[0]}")
            await reader.readexactly(int(answer.split("content-length:")[1].split()[0]))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return requests / (time.perf_counter() - start)


async def _called(backend: Backend, size: int, total: int) -> float:
    """Requests a second of the backend, `size` a call."""
    start = time.perf_counter()
    for first in range(0, total, size):
        made = [
            GenerateRequest(
                str(seed), (Message("user", _question(seed)),), Model(MODEL), Sampling(max_tokens=MAX_TOKENS), seed
            )
            for seed in range(first, min(total, first + size))
        ]
        async for _ in backend.generate(made):
            pass
    return total / (time.perf_counter() - start)


def _question(seed: int) -> str:
    return f"What do {THINGS[seed % len(THINGS)]} do?"
