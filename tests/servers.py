"""Real servers on loopback for tests, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


__all__ = ["KEY", "KEY_ENV", "LimitedAddress", "limited"]
