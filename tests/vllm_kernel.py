"""The kernel that steers on CUDA beside the same in tensor operations on a CPU; on CUDA also from a captured graph.

Without a GPU, in any environment that has Triton: ``TRITON_INTERPRET=1 python -m tests.vllm_kernel run`` runs it, and
``python -m tests.vllm_kernel compile`` compiles it for Ampere and Hopper.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from windowshift.backends.vllm import push_operator
from windowshift.backends.vllm.push_table import IN_PROMPT, IS_FIRST, RECIPE_SHIFT, Place, PushTable
from windowshift.backends.vllm.pushes import from_json, to_json
from windowshift.core.contract.generation import Tokens
from windowshift.steering.recipe import Push

LAYERS, WIDTH, TOKENS = 3, 200, 40  # the width is no power of two: the kernel masks the rest
KINDS: tuple[Tokens, ...] = ("all", "prompt", "response")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def recipes(table: PushTable) -> list[Place]:
    """Recipes of one to four pushes of every kind."""
    found = []
    for number in range(6):
        draw = np.random.default_rng(number)
        pushes = []
        for slot in range(1 + number % 4):
            ablate = bool((number + slot) % 3 == 0)
            direction = draw.normal(size=WIDTH)
            direction /= np.linalg.norm(direction) if ablate else 4.0
            layer, kind = int(draw.integers(LAYERS)), KINDS[(number + slot) % 3]
            made = Push("v", layer, 0.5 + slot, kind, ablate, direction, (f"{number}-{slot}", 0), slot)
            pushes.append(from_json(to_json(made), slot))
        found.append(table.add(pushes))
    return found


def entries(places: list[Place], seed: int) -> Any:
    """Entries of tokens of which some are nobody's."""
    draw = np.random.default_rng(seed)
    which = draw.integers(-2, len(places), size=TOKENS)
    numbers = np.array([places[one].number if one >= 0 else 0 for one in which])
    first = np.zeros(TOKENS, dtype=np.int64)
    first[np.unique(numbers, return_index=True)[1]] = IS_FIRST
    marks = first + IN_PROMPT * draw.integers(0, 2, size=TOKENS)
    return np.where(numbers > 0, (numbers << RECIPE_SHIFT) + marks, 0).astype(np.int32)


def streams(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(TOKENS, WIDTH, generator=draw).to(dtype) for _ in range(2))  # type: ignore[return-value]


def compare(table: PushTable, places: list[Place], mine: tuple[Tensor, ...], dtype: torch.dtype, seed: int) -> None:
    """A pass of the kernel, and what it tallied, beside tensor operations on a CPU."""
    reference = PushTable(LAYERS, WIDTH, 64, torch.device("cpu"), dtype)
    own = recipes(reference)
    its = streams(dtype, seed)
    before = [part.clone() for part in its]
    marks = entries(own, seed)
    reference.begin(marks)
    for layer in range(LAYERS):
        push_operator.push_rows(reference, *its, layer)
    plain = torch.from_numpy(marks) == 0
    for found, expected, was in zip(mine, its, before, strict=True):
        torch.testing.assert_close(found.cpu(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        assert torch.equal(found.cpu()[plain], was[plain])
    for one, other in zip(table.read(places), reference.read(own), strict=True):
        for slot, done in one.items():
            wanted = other[slot]
            assert (done.calls, done.tokens) == (wanted.calls, wanted.tokens)
            for name in ("moved", "wanted", "size"):
                found, expected = getattr(done, name), getattr(wanted, name)
                assert abs(found - expected) <= 5 * TOLERANCE[dtype] * max(1.0, expected), (name, found, expected)


def check_kernel(device: str) -> None:
    """One pass of each precision, launched as it is."""
    from windowshift.backends.vllm.push_kernel import launch

    # Triton's interpreter cuts bfloat16 off where a GPU rounds.
    for dtype in (torch.float32, torch.float16, *((torch.bfloat16,) if device != "cpu" else ())):
        table = PushTable(LAYERS, WIDTH, 64, torch.device(device), dtype)
        places = recipes(table)
        hidden, residual = (part.to(device) for part in streams(dtype, 1))
        table.begin(entries(places, 1))
        for layer in range(LAYERS):
            launch(table, hidden, residual, layer)
        table.end()
        compare(table, places, (hidden, residual), dtype, 1)


def check_captured(device: str) -> None:
    """A CUDA graph captured while nothing is steered replays what is asked for later, pass after pass."""
    dtype = torch.bfloat16
    table = PushTable(LAYERS, WIDTH, 64, torch.device(device), dtype)
    push_operator.use_table(table)
    try:
        hidden, residual = (part.to(device) for part in streams(dtype, 0))

        def run() -> None:
            for layer in range(LAYERS):
                push_operator.push(hidden, residual, layer)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        for seed in (1, 2):
            table.clear()
            places = recipes(table)
            for part, values in zip((hidden, residual), streams(dtype, seed), strict=True):
                part.copy_(values)
            table.begin(entries(places, seed))
            graph.replay()
            table.end()
            compare(table, places, (hidden, residual), dtype, seed)
        before = hidden.clone()
        graph.replay()  # nobody's tokens
        assert torch.equal(hidden, before)
    finally:
        push_operator.use_table(None)


def check_compiling() -> None:
    """Machine code comes out for every precision."""
    import triton
    from triton.backends.compiler import GPUTarget

    from windowshift.backends.vllm.push_kernel import CONSTANTS, _push

    constants = {**CONSTANTS, "layers": 36, "width": 4096, "block": 4096}
    pointers = {
        "tokens": "i32", "starts": "i32", "kinds": "i32", "places": "i32", "alphas": "fp32", "norms": "fp64",
        "directions": "fp32", "calls": "i64", "tally": "fp64",
    }  # fmt: skip
    for precision in ("bf16", "fp16", "fp32"):
        kinds = {name: f"*{kind}" for name, kind in {**pointers, "hidden": precision, "residual": precision}.items()}
        names = {name: kinds.get(name, "constexpr" if name in constants else "i32") for name in _push.arg_names}
        places = {(_push.arg_names.index(name),): value for name, value in constants.items()}
        for architecture in (80, 90):
            source = triton.compiler.ASTSource(fn=_push, signature=names, constexprs=places)
            target = GPUTarget("cuda", architecture, 32)
            assert triton.compile(source, target=target, options={"num_warps": 8}).asm["cubin"]


if __name__ == "__main__":
    check_compiling() if sys.argv[1] == "compile" else check_kernel("cpu")
