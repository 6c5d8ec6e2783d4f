"""What earlier completions of the model say of the token limit, before money is spent under it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from windowshift.core.plan.plan import Plan
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader

MUCH = 0.05
"""Cells of which more is cut off than this are named: at 5 % a true uplift of 1.00 reads .95, at 25 % .79."""


def truncation_notes(plan: Plan, workspace: Path) -> list[str]:
    """A note where the model's completions were cut off before, at the plan's token limit or at a higher one."""
    if not store_path(workspace).is_file():
        return []
    limit = plan.spec.sampling.max_tokens
    with closing(Reader(workspace)) as reader:
        found = [one for one in reader.truncated_cells(plan.model.fingerprint, limit) if one[1] > MUCH * one[2]]
    if not found:
        return []
    label, cut, n = max(found, key=lambda one: one[1] / one[2])
    cells = "1 cell has" if len(found) == 1 else f"{len(found)} cells have"
    return [
        f"{cells} more than {MUCH:.0%} of completions of this model cut off at {limit} tokens or more, most of them "
        f"'{label}' ({cut} of {n}): differences between cells shrink; raise sampling.max_tokens, which makes new jobs"
    ]
