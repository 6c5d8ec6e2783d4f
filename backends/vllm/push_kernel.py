"""The operator's kernel for CUDA: one program a token, which ends at once where the token is not steered.

It does in one launch a layer what `push_operator.push_rows` does in many, with float32 between two roundings to the
model's own width. Its addresses are those of a `PushTable`, so a captured graph replays it with other pushes.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from windowshift.backends.vllm.push_table import (
    ABLATES,
    IN_PROMPT,
    IS_FIRST,
    LINES,
    ON_PROMPT,
    ON_RESPONSE,
    RECIPE_SHIFT,
    PushTable,
)

CONSTANTS = {
    "lines": LINES, "in_prompt": IN_PROMPT, "is_first": IS_FIRST, "recipe_shift": RECIPE_SHIFT,
    "ablates": ABLATES, "on_prompt": ON_PROMPT, "on_response": ON_RESPONSE,
}  # fmt: skip
"""What a kernel knows of a table's layout when it is compiled, by the name of its argument."""


def launch(table: PushTable, hidden: Tensor, residual: Tensor, layer: int) -> None:
    """Queue the kernel for all tokens [tokens, width] of a pass, padding included."""
    block = triton.next_power_of_2(table.width)
    _push[(len(hidden),)](
        hidden,
        residual,
        hidden.stride(0),
        residual.stride(0),
        table.tokens,
        table.starts,
        layer,
        table.kinds,
        table.places,
        table.alphas,
        table.norms,
        table.directions,
        table.calls,
        table.tally,
        layers=table.layers,
        width=table.width,
        block=block,
        **CONSTANTS,
        num_warps=8 if block > 2048 else 4,
    )


@triton.jit(do_not_specialize=["layer"])
def _push(  # type: ignore[no-untyped-def]  # Triton's arguments are pointers and constants
    hidden,
    residual,
    hidden_stride,
    residual_stride,
    tokens,
    starts,
    layer,
    kinds,
    places,
    alphas,
    norms,
    directions,
    calls,
    tally,
    layers: tl.constexpr,
    width: tl.constexpr,
    lines: tl.constexpr,
    block: tl.constexpr,
    in_prompt: tl.constexpr,
    is_first: tl.constexpr,
    recipe_shift: tl.constexpr,
    ablates: tl.constexpr,
    on_prompt: tl.constexpr,
    on_response: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    mark = tl.load(tokens + token)
    at = starts + (mark >> recipe_shift).to(tl.int64) * (layers + 1) + layer
    begin = tl.load(at)
    end = tl.load(at + 1)
    if begin < end:
        columns = tl.arange(0, block)
        inside = columns < width
        own = hidden + token * hidden_stride + columns
        before = residual + token * residual_stride + columns
        first_part = tl.load(own, mask=inside, other=0.0)
        second_part = tl.load(before, mask=inside, other=0.0)
        stream = (first_part.to(tl.float32) + second_part.to(tl.float32)).to(first_part.dtype)
        pushed = begin * 0
        for line in range(begin, end):
            kind = tl.load(kinds + line)
            tl.atomic_add(calls + line, 1, mask=(mark & is_first) != 0, sem="relaxed")
            wanted = tl.where((mark & in_prompt) != 0, kind & on_prompt, kind & on_response)
            if wanted != 0:
                ablating = (kind & ablates) != 0
                place = tl.load(places + line).to(tl.int64)
                direction = tl.load(directions + place * width + columns, mask=inside, other=0.0)
                scale = tl.where(ablating, 1.0, tl.load(alphas + line))
                delta = (scale * direction).to(stream.dtype).to(tl.float32)
                wide = stream.to(tl.float32)
                along = tl.sum(wide * delta)
                changed = (wide + tl.where(ablating, -along, 1.0) * delta).to(stream.dtype)
                difference = changed.to(tl.float32) - wide
                moved = tl.sqrt(tl.sum(difference * difference))
                asked = tl.where(ablating, tl.abs(along).to(tl.float64), tl.load(norms + line))
                touched = ((moved > 0) | ablating).to(tl.float64)
                size = tl.sqrt(tl.sum(wide * wide))
                tl.atomic_add(tally + line, touched, sem="relaxed")
                tl.atomic_add(tally + lines + line, moved.to(tl.float64), sem="relaxed")
                tl.atomic_add(tally + 2 * lines + line, asked, sem="relaxed")
                tl.atomic_add(tally + 3 * lines + line, size.to(tl.float64), sem="relaxed")
                stream = changed
                pushed += 1
        if pushed != 0:
            tl.store(own, stream, mask=inside)
            tl.store(before, tl.zeros_like(stream), mask=inside)
