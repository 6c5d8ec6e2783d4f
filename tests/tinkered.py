"""The Tinker test server as a process of its own, in its own environment, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import windowshift

KEY = "tml-test-0123456789abcdef"
KEY_ENV = "WINDOWSHIFT_TEST_TINKER_KEY"
MODEL = Path(windowshift.__file__).parent / "assets" / "microworld"
_REPOSITORY = Path(__file__).parent.parent
_START_SECONDS = 120.0


def environment() -> Path:
    """The Python of the server's environment.

    Raises:
        AssertionError: it is not there; `make tinker-env` makes it.
    """
    folder = Path(os.environ.get("WINDOWSHIFT_TINKER_ENV", _REPOSITORY / ".venv-skyrl"))
    python = folder / "bin" / "python"
    assert python.exists(), f"there is no environment of the Tinker test server at {folder}: run  make tinker-env"
    return python


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class TinkerServed:
    """A running server; it can be killed and started again on the same port and data."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """Options of backend `tinker` for it; the key must be in `KEY_ENV`."""
        return {"base_url": self.base_url, "key_env": KEY_ENV, "settle": 6.0, "patience": 60.0}

    def start(self) -> None:
        """Start it, engine included, and wait until it answers."""
        python = environment()
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [str(python), "-m", "tests.tinker_server.server", str(MODEL), str(self.folder), str(self.port)],
            cwd=_REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its engine is a process of its own, and ends with it
            env={
                **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
                "PYTHONPATH": str(_REPOSITORY),
                "KEY_OF_THIS_TEST": KEY,
                "JAX_PLATFORMS": "cpu",
                "HF_HUB_OFFLINE": "1",
                "XLA_FLAGS": "--xla_backend_optimization_level=1",  # compiling takes longer here than computing
                "JAX_COMPILATION_CACHE_DIR": str(python.parent.parent / "jax-cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            },
        )
        log.close()
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, engine included, as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.base_url}/api/v1/healthz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    # -- what is at the server, asked past any backend --------------------------------------------

    def rest(self) -> Any:
        """The SDK's own client."""
        import tinker

        return tinker.RestClient(base_url=self.base_url, api_key=KEY)

    def checkpoints(self) -> list[Any]:
        """Every checkpoint of every run."""
        return list(self.rest().list_user_checkpoints(limit=10_000).result().checkpoints)

    def saved(self) -> Counter[str]:
        """How many checkpoints of each kind there are."""
        return Counter(one.checkpoint_type for one in self.checkpoints())

    def runs(self) -> set[str]:
        """The ids of all training runs."""
        found = self.rest().list_training_runs(limit=10_000).result().training_runs
        return {one.training_run_id for one in found}


@contextmanager
def tinker_served(folder: Path) -> Iterator[TinkerServed]:
    """Run a server while the block lasts."""
    served = TinkerServed(folder)
    served.start()
    try:
        yield served
    finally:
        served.kill()


@pytest.fixture(scope="session")
def tinker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinkerServed]:
    """One server for all tests of a session."""
    with tinker_served(tmp_path_factory.mktemp("tinker")) as served:
        yield served
