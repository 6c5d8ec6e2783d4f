"""The command that runs one cell again, as a person types it into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from windowshift.core.contract.cell_name import cell_name
from windowshift.core.contract.records import BASE

ANY = ("GENERATE", "TRAIN", "EVALUATE")
"""Stands for whichever cell."""


def rerun_line(name: str, workspace: Path, cell: tuple[str, str, str] = ANY, seed: int | None = None) -> str:
    """`windowshift rerun ...`, quoted for a shell.

    Args:
        name: of the experiment.
        workspace: where it is; the cell is run in a folder beside it.
        cell: (generate, train, evaluate); a base model's cell has no D, and is named without one.
        seed: of the training; None takes the experiment's first one.
    """
    generate, train, evaluate = cell
    named = cell_name([BASE, evaluate] if train == BASE else [generate, train, evaluate])
    seeded = [] if seed is None or train == BASE else ["--seed", str(seed)]
    words = [
        "windowshift",
        "rerun",
        name,
        named,
        *seeded,
        "--workspace",
        str(workspace),
        "--into",
        f"{workspace}-again",
    ]
    return shlex.join(words)
