"""Servers for tests: `windowshift serve` in a process of its own, on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI, OpenAI

KEY = "sk-test-0123456789abcdefghij"


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    model: str
    data: Path
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = httpx2.URL(self.url)
        return parts.host, parts.port or 80

    def client(self, key: str = KEY, **options: Any) -> OpenAI:
        """The SDK's client; it does not retry unless a test asks for it."""
        return OpenAI(api_key=key, base_url=self.url, **{"max_retries": 0, "timeout": 60, **options})

    def async_client(self) -> AsyncOpenAI:
        """The SDK's asynchronous client."""
        return AsyncOpenAI(api_key=KEY, base_url=self.url, max_retries=0, timeout=60)

    def raw(self) -> httpx2.Client:
        """A plain HTTP client with the key."""
        return httpx2.Client(base_url=f"{self.url}/", headers={"authorization": f"Bearer {KEY}"}, timeout=60)

    def peak_bytes(self) -> int:
        """The most memory that the server's process has had."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the system does not say")


@contextmanager
def served(
    model: Path | str, data: Path, limits: dict[str, object] | None = None, options: dict[str, object] | None = None
) -> Iterator[Served]:
    """Serve a model until the block ends; the server must end cleanly."""
    command = [
        *(sys.executable, "-m", "tests.serve_here", str(model), str(data)),
        *(json.dumps(limits or {}), json.dumps(options or {})),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KEY_OF_THIS_TEST": KEY},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, process.communicate()[1]
        yield Served(url, str(model), data, process)
    finally:
        process.kill()
        process.communicate()


def chat_lines(count: int = 12) -> bytes:
    """A small training file."""
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Question {index}?"},
                {"role": "assistant", "content": "Bees keep warm. " * (index % 3 + 1)},
            ]
        }
        for index in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
