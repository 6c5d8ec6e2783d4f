"""Portions of requests, each for one worker."""

from __future__ import annotations

from collections.abc import Sequence

from windowshift.core.contract.generation import GenerateRequest, Model

PORTION_ROWS = 128


def portions(requests: Sequence[GenerateRequest], workers: int) -> list[list[GenerateRequest]]:
    """Cut requests into portions for workers, those of one model and adapter beside each other."""
    groups: dict[Model, list[GenerateRequest]] = {}
    for request in requests:
        groups.setdefault(request.model, []).append(request)
    ordered = [request for group in groups.values() for request in group]
    # Small enough that all workers have something, also towards the end; a worker's portions share its batch.
    size = min(PORTION_ROWS, max(PORTION_ROWS // 4, -(-len(ordered) // workers)))
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]
