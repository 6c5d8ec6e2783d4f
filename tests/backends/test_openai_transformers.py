"""Backend `openai`, chat, against `transformers serve`, which nobody here wrote: `make test-transformers-serve`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_contract import BackendContract, Subject
from tests.runs import wait_until
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.core.contract.assets import asset
from windowshift.core.contract.generation import Model

pytestmark = pytest.mark.slow
NAME = "tests/microworld"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_cache(folder: Path) -> Path:
    """A hub cache that holds the embedded model: what `transformers serve` lists and loads without a network."""
    model = folder / f"models--{NAME.replace('/', '--')}"
    shutil.copytree(asset("microworld"), model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi: make test-transformers-serve installs it")
    cache = hub_cache(tmp_path_factory.mktemp("hub"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        "-m",
        "transformers.cli.transformers",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}/v1"

        def there() -> bool:
            assert process.poll() is None, "transformers serve ended"
            try:
                with urllib.request.urlopen(f"{address}/models", timeout=5) as answer:
                    return NAME.encode() in answer.read()
            except OSError:
                return False

        try:
            wait_until(there, 120)
            yield address
        finally:
            process.kill()


class TestContract(BackendContract):
    @pytest.fixture
    def subject(self, base_url: str) -> Subject:
        options = {
            "base_url": base_url,
            "key_env": None,
            "trains": False,
            "seeds": False,  # it takes a seed and does not use it
            "concurrency": 8,
            "backoff": 0.05,
            "tries": 2,
        }
        return Subject(
            make=lambda: OpenAIBackend(options),
            model=Model(NAME),
            unknown_model="tests/no-such-model",
            over_long="",  # it cuts or stretches whatever comes
            exact=False,
        )
