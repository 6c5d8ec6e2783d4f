"""Backend `vllm` with vLLM in the process: in vLLM's own environment, beside backend `local` in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backend_contract import answers
from tests.vllm_adapters import make_adapters, make_vector
from tests.vllm_here import requests
from tests.vllm_server import ROOT, vllm_environment, vllm_python
from windowshift.backends.local.backend import LocalBackend

pytestmark = pytest.mark.vllm
NATS = 1e-3


async def test_the_engine_in_the_process_gives_the_tokens_of_local(tmp_path: Path) -> None:
    (model,) = make_adapters(tmp_path, 1)
    vector = str(make_vector(tmp_path))
    assert model.adapter is not None
    more = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    done = subprocess.run(
        [vllm_python(), "-m", "tests.vllm_here", model.adapter, vector],
        cwd=tmp_path,
        env={**vllm_environment(), **more},
        capture_output=True,
        text=True,
        timeout=280,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    result = json.loads(lines[0].removeprefix("RESULT "))
    assert result["rate"] is not None

    local = LocalBackend({"workers": 1, "threads": 1})
    expected = await answers(local, requests(model.adapter, vector))
    await local.aclose()
    found = {one["key"]: one for one in result["found"]}
    assert found.keys() == expected.keys()
    for key, other in expected.items():
        one = found[key]
        assert one["error"] is None
        assert (one["text"], one["finish"], one["tokens"]) == (other.text, other.finish, other.tokens)
        assert one["logprob"] == pytest.approx(other.logprob, abs=NATS * 20)
    proofs = [proof for one in found.values() for proof in one["proofs"]]
    assert len(proofs) == 2
    assert all(proof["calls"] == proof["calls_asked"] > 0 for proof in proofs)


def test_without_vllm_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    """In this environment vLLM is not installed; the front imports nothing of it."""
    code = (
        "import asyncio, sys\n"
        "from windowshift.backends.vllm.backend import VllmBackend\n"
        "from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling\n"
        "request = GenerateRequest('a', (Message('user', 'Hi'),), Model('microworld'), Sampling(), 0)\n"
        "async def main():\n"
        "    async for one in VllmBackend({}).generate([request]): print(one.error)\n"
        "assert not {'torch', 'transformers', 'aiohttp', 'vllm'} & set(sys.modules)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert "vLLM is not installed" in done.stdout, done.stderr
    assert "base_url" in done.stdout
