"""A run of backend `vllm` with vLLM in the process: started by a test with the Python of vLLM's environment.

``python -m tests.vllm_here ADAPTER VECTOR`` prints completions as JSON. What is imported here is there too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, Steering

ENGINE = {"dtype": "float32", "max_loras": 2, "max_lora_rank": 8, "max_num_seqs": 16, "block_size": 32}
THINGS = ("bees", "rivers", "clocks")


def requests(adapter: str, vector: str) -> list[GenerateRequest]:
    """Plain ones, some with an adapter, some steered, some with both."""
    base, adapted = Model("microworld"), Model("microworld", adapter=adapter)
    way = (Steering(vector, 0.1),)
    found = []
    for name, model, steering in (
        ("plain", base, ()), ("adapted", adapted, ()), ("steered", base, way), ("both", adapted, way),
    ):  # fmt: skip
        for number, thing in enumerate(THINGS):
            turns = (Message("user", f"What do {thing} do?"),)
            sampling = Sampling(0.0, 1.0, 20)
            found.append(
                GenerateRequest(
                    f"{name}-{number}", turns, model, sampling, number, steering, coherence=True, group=name, logprobs=2
                )
            )
    return found


async def _run(asked: Sequence[GenerateRequest], options: dict[str, object]) -> tuple[list[Completion], float | None]:
    backend = VllmBackend(options)
    try:
        return [one async for one in backend.generate(asked)], backend.cache_hit_rate
    finally:
        await backend.aclose()


def main() -> None:
    """Ask the engine as it starts by itself: on CUDA with captured graphs, on a CPU as far as adapters let it."""
    asked = requests(*sys.argv[1:3])
    found, rate = asyncio.run(_run(asked, {"engine": ENGINE}))
    result = {"found": [asdict(one) for one in found], "rate": rate}
    print(f"RESULT {json.dumps(result)}", flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
