"""What the report says of the pilots before an experiment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from windowshift.core.contract.gates import Preflight
from windowshift.core.report.page import Block, Heading, Line


def preflight_blocks(flown: Sequence[Preflight]) -> Iterator[Block]:
    """The last pilot's gates, and that somebody went on although some failed, whenever that was."""
    if not flown:
        return
    last = flown[-1]
    seeds = f"{last.seeds} seed{'' if last.seeds == 1 else 's'}"
    yield Heading(f"Preflight ({seeds} × {last.prompts} prompts, {_day(last)})")
    for gate in last.gates:
        word = "passed" if gate.passed else "FAILED"
        yield Line(f"{gate.name}: {word}: {gate.said}", "dim" if gate.passed else "bold red")
    for one in flown:
        if one.anyway:
            gates = ", ".join(gate.name for gate in one.failed)
            yield Line(f"The run went on all the same, {_day(one)}, although these gates failed: {gates}.", "bold red")


def _day(one: Preflight) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.at))
