"""The house: a file is one whole noun of about 450 lines at most, in a room of its own, and a name is one thing."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from windowshift.tui.screens.services import SCREENS

ROOT = Path(__file__).parent.parent
ROOMS = ("core", "backends", "steering", "tui")
LINES = 450
"""What a whole noun takes at most."""


def files() -> list[Path]:
    """The product's files, each once: `src/windowshift` has links to the rooms."""
    return [
        *(ROOT / "src" / "windowshift").glob("*.py"),
        *(path for room in ROOMS for path in (ROOT / room).rglob("*.py")),
    ]


def test_files_are_whole_nouns() -> None:
    long = {str(path.relative_to(ROOT)) for path in files() if len(path.read_text("utf-8").splitlines()) > LINES}
    assert not long


def test_files_stand_in_rooms() -> None:
    for room, entries in {"core": set(), "backends": set(), "tui": {"app.py", "launch.py", "serve.py"}}.items():
        assert {path.name for path in (ROOT / room).glob("*.py")} == {"__init__.py", *entries}


def test_every_setting_and_every_screen_has_a_wall() -> None:
    """Two of them that know each other are refused by import-linter, where its contract names both."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    named = {name for one in contracts if one["type"] == "independence" for name in one["modules"]}
    places = [*project["project"]["entry-points"]["windowshift.settings"].values(), *SCREENS.values()]
    rooms = {".".join(place.split(":")[0].split(".")[:4]) for place in places}
    assert not {room for room in rooms if not room.startswith("windowshift.tui.widgets")} - named


def test_a_class_has_a_name_of_its_own() -> None:
    """Two things of one name are told apart by nobody who reads a line of code alone."""
    found: dict[str, list[str]] = {}
    for path in files():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: places for name, places in found.items() if len(places) > 1}


def names_of(path: Path) -> set[str]:
    """What a module defines at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return found


def test_the_benches_import_what_is_there() -> None:
    """No test runs them: a name that moved would be missed by whoever wants the numbers next."""
    missing = []
    for path in (ROOT / "bench").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("windowshift."):
                continue
            there = ROOT.joinpath("src", *str(node.module).split("."))
            # A room's modules are imported by name.
            known = {one.stem for one in there.glob("*.py")} if there.is_dir() else names_of(there.with_suffix(".py"))
            missing += [f"{path.name}: {node.module}.{one.name}" for one in node.names if one.name not in known]
    assert not missing
