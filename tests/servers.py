"""Real servers on loopback for tests, each a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.limited_server import KEY

KEY_ENV = "WINDOWSHIFT_TEST_KEY"


@dataclass(frozen=True)
class LimitedAddress:
    """Where a `limited_server` is."""

    port: int

    @property
    def options(self) -> dict[str, object]:
        """Options of backend `openai` for it; the key must be in `KEY_ENV`."""
        return {"base_url": f"http://127.0.0.1:{self.port}/v1", "key_env": KEY_ENV, "backoff": 0.05, "poll": 0.05}

    def counts(self) -> dict[str, int]:
        """What the server has seen."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counts") as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def limited(*arguments: object) -> Iterator[LimitedAddress]:
    """Run a `limited_server` while the block lasts."""
    command = [sys.executable, "-m", "tests.limited_server", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield LimitedAddress(int(process.stdout.readline()))
        finally:
            process.kill()


@dataclass
class Served:
    """A `windowshift serve` process; it can be killed and started again on the same port and data."""

    models: tuple[str, ...]
    data: Path
    arguments: tuple[str, ...] = ()
    port: int = 0
    key: str = KEY
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        named = [part for model in self.models for part in ("--model", model)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "windowshift", "serve", *named, "--data", str(self.data), "--port", str(self.port),
             "--key-env", "SERVED_KEY", *self.arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SERVED_KEY": self.key, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)/v1", self.process.stdout.readline())
        assert found, "the server did not start"
        self.port = int(found[1])

    def kill(self) -> None:
        """End it at once, as a power cut would; its workers end with their pipes."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def get(self, path: str) -> dict[str, object]:
        """Ask it for something, past any backend."""
        asked = urllib.request.Request(f"{self.base_url}{path}", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(asked) as answer:
            found: dict[str, object] = json.load(answer)
        return found

    def jobs(self) -> list[dict[str, object]]:
        """Every fine-tuning job that it has seen."""
        found = self.get("/fine_tuning/jobs?limit=100")["data"]
        assert isinstance(found, list)
        return found


@contextmanager
def serving(data: Path, *arguments: object, models: tuple[str, ...] = ("microworld",)) -> Iterator[Served]:
    """Run `windowshift serve` while the block lasts."""
    served = Served(models, data, tuple(map(str, arguments)))
    served.start()
    try:
        yield served
    finally:
        served.kill()


__all__ = ["KEY", "KEY_ENV", "LimitedAddress", "Served", "limited", "serving"]
