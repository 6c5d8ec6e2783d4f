"""Where people were: open screens, cursors, pins and theme, kept in a small file between two starts."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from windowshift.core.contract.whole_file import replacing_file
from windowshift.tui.read.pins import Pins
from windowshift.tui.read.snapshot import CellKey, GridChoice, Page


@dataclass(frozen=True, slots=True)
class GridPlace:
    """What a grid showed: page, behaviour, seed, step, metric, and the conditions under its cursor."""

    choice: GridChoice = field(default_factory=GridChoice)
    metric: str = "uplift"
    train: str | None = None
    evaluate: str | None = None


@dataclass(slots=True)
class Places:
    """Everything that is kept. `stack` names the open screens, the first one under the others."""

    theme: str | None = None
    experiment: str | None = None
    stack: list[list[Any]] = field(default_factory=list)
    grids: dict[str, GridPlace] = field(default_factory=dict)
    pins: Pins = field(default_factory=Pins)


def state_file(workspace: Path) -> Path:
    """Return the file of a workspace: in the user's state folder, because a workspace may be read-only or shared."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    # Not Path.resolve, which raises for a link that leads to itself.
    name = hashlib.sha256(os.path.realpath(workspace).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(home) / "windowshift" / f"{name}.json"


def load(path: Path | None) -> Places:
    """Read the places; what is missing, unreadable or of another version is forgotten, never an error."""
    if path is None:
        return Places()
    with suppress(Exception):
        found = json.loads(path.read_text(encoding="utf-8"))
        pins = {name: [cell_key(key) for key in keys] for name, keys in found["pins"].items()}
        grids = {name: _grid(place) for name, place in found["grids"].items()}
        return Places(found["theme"], found["experiment"], [list(one) for one in found["stack"]], grids, Pins(pins))
    return Places()


def save(path: Path | None, places: Places) -> None:
    """Write the places; a folder that cannot be written is no reason to fail."""
    if path is None:
        return
    with suppress(OSError, ValueError, TypeError):
        kept = {
            "theme": places.theme,
            "experiment": places.experiment,
            "stack": places.stack,
            "grids": {name: asdict(place) for name, place in places.grids.items()},
            "pins": places.pins.by_experiment,
        }
        with replacing_file(path, shared=True) as part:
            part.write_text(json.dumps(kept), encoding="utf-8")


def cell_key(fields: Any) -> CellKey:
    """Return a cell's key from JSON.

    Raises:
        ValueError: it is none.
    """
    arm, generate, train, evaluate, seed, step = fields
    if arm not in ("prefix", "steering"):
        raise ValueError(arm)
    return CellKey(arm, str(generate), str(train), str(evaluate), int(seed), int(step))


def _grid(fields: dict[str, Any]) -> GridPlace:
    choice = fields["choice"]
    page = Page(*choice["page"]) if choice["page"] else None
    together = choice.get("together")  # stores of places from before have none
    kept = GridChoice(page, choice["behaviour"], choice["seed"], choice["step"], together)
    return GridPlace(kept, str(fields["metric"]), fields["train"], fields["evaluate"])
