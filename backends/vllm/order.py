"""The order in which requests go out: what can share work in vLLM goes out side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windowshift.backends.vllm.adapters import AdapterFolder
from windowshift.core.contract.generation import GenerateRequest
from windowshift.steering.recipe import Push


@dataclass(frozen=True, slots=True)
class Asked:
    """A request made ready: its place among those handed over, its prompt as token ids, its adapter and its pushes.

    `slot` is the name under which its steering is known to vLLM; None: it is not steered.
    """

    place: int
    request: GenerateRequest
    prompt: tuple[int, ...]
    adapter: AdapterFolder | None
    pushes: tuple[Push, ...] = ()
    slot: str | None = None


def ordered(asked: Sequence[Asked]) -> list[Asked]:
    """Requests to one adapter together, those of one slot within them, and prompts by their beginnings.

    The prefix cache is one for each adapter and each slot, so prompts that begin alike find each other's
    blocks while they are fresh; and fewer adapters are in use at a time. Groups keep their order of appearance.
    """
    first: dict[tuple[str, str], int] = {}
    for one in asked:
        first.setdefault(_group(one), len(first))
    return sorted(asked, key=lambda one: (first[_group(one)], one.prompt, one.place))


def _group(one: Asked) -> tuple[str, str]:
    return (one.adapter.name if one.adapter else "", one.slot or "")
