"""Real vLLM servers on loopback for tests, each a process of its own in vLLM's environment."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs import wait_until

ROOT = Path(__file__).parent.parent
MICROWORLD = ROOT / "assets" / "microworld"
PYTHON_ENV = "WINDOWSHIFT_VLLM_PYTHON"
KEY = "sk-vllm-test-0123456789"
EXTENSION = "windowshift.backends.vllm.worker_extension.SteeringWorker"
START_SECONDS = 180.0
# One place for an adapter less than the tests have adapters; blocks of 32 tokens are the smallest on a CPU.
ARGUMENTS = (
    "--dtype", "float32", "--generation-config", "vllm", "--enable-prefix-caching", "--block-size", "32",
    "--enforce-eager", "--max-num-seqs", "64",
)  # fmt: skip
# Prompts that arrive together are read in parts: a step takes 128 tokens.
STEERING = (
    "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8", "--worker-extension-cls", EXTENSION,
    "--max-num-batched-tokens", "128",
)  # fmt: skip


def vllm_python() -> Path:
    """The Python of vLLM's environment; the test fails where there is none."""
    found = Path(os.environ.get(PYTHON_ENV) or ROOT / ".venv-vllm" / "bin" / "python")
    if not found.is_file():
        pytest.fail(f"there is no vLLM environment ({found}): run  make vllm-env,  or set {PYTHON_ENV}")
    return found


def vllm_environment(**more: str) -> dict[str, str]:
    """The variables that vLLM runs with here; windowshift comes from this checkout."""
    own = {
        "PYTHONPATH": str(ROOT / "src"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
    }
    return {**os.environ, **own, **more}


@dataclass(frozen=True)
class VllmAddress:
    """Where a server is, and the file that it writes its log to."""

    port: int
    log: Path
    key: str | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def vllm_serving(
    *arguments: str,
    key: str | None = None,
    port: int | None = None,
    model: Path = MICROWORLD,
    seconds: float = START_SECONDS,
    **environment: str,
) -> Iterator[VllmAddress]:
    """Run a vLLM server of a model, the embedded one unless another is named, while the block lasts."""
    if port is None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = int(taken.getsockname()[1])
    folder = Path(tempfile.mkdtemp(prefix="windowshift-vllm-"))
    log = folder / "log"
    command = [
        str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", model.name, "--host", "127.0.0.1", "--port", str(port),
        "--disable-uvicorn-access-log", *arguments,
    ]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=vllm_environment(**environment, **({} if key is None else {"VLLM_API_KEY": key})),
            start_new_session=True,
        )

    def healthy() -> bool:
        assert process.poll() is None, f"vLLM ended\n{log.read_text(errors='replace')[-4000:]}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    try:
        wait_until(healthy, seconds)
        yield VllmAddress(port, log, key)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the engine and its workers are processes of their own
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[VllmAddress]:
    """A server that loads adapters and steers, and wants a key."""
    more = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}
    with vllm_serving(*ARGUMENTS, *STEERING, key=KEY, **more) as address:
        yield address


@pytest.fixture
def keyed(vllm_server: VllmAddress, monkeypatch: pytest.MonkeyPatch) -> VllmAddress:
    """The same server, with its key in the environment."""
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("VLLM_BASE_URL", vllm_server.base_url)
    return vllm_server
