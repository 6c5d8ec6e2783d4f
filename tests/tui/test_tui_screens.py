"""Screens open through one table, and the rooms of the TUI keep their walls."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from textual.screen import Screen

from tests.tui_pilot import app, arrive, settle, store
from windowshift.tui.app import WindowshiftApp
from windowshift.tui.read.places import Places
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.services import SCREENS, screen_class
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text.actions import REGISTRY

TUI = Path(__file__).parents[2] / "tui"


def test_the_table_is_of_all_screens_with_keys() -> None:
    assert set(SCREENS) == set(REGISTRY)
    for name in SCREENS:
        kind = screen_class(name)
        assert issubclass(kind, Screen)
        if issubclass(kind, StoreScreen):
            assert name == kind.SCREEN_NAME


def test_every_screen_stands_in_the_table() -> None:
    """A screen that is not in it cannot be opened by name, nor again after a restart."""
    for name in SCREENS:
        screen_class(name)

    def below(kind: type) -> set[type]:
        return {kind, *(one for child in kind.__subclasses__() for one in below(child))}

    ours = {
        kind
        for kind in below(StoreScreen)
        if kind.__module__.startswith("windowshift.") and kind.__dict__.get("SCREEN_NAME")
    }
    assert ours == {kind for name in SCREENS if issubclass(kind := screen_class(name), StoreScreen)}


def test_actions_are_a_leaf() -> None:
    tree = ast.parse((TUI / "text" / "actions.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {module for module in modules if module and module.startswith("windowshift")}


async def test_a_screen_that_cannot_open_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8).close()
    async with app(tmp_path).run_test() as pilot:
        grid = await arrive(pilot, GridScreen)
        shift = pilot.app
        assert isinstance(shift, WindowshiftApp)
        shift.open("compare", "med-short")
        await settle(pilot)
        assert pilot.app.screen is grid
        assert "none is pinned" in next(iter(shift._notifications)).message
        await pilot.press("space", "down", "space")
        shift.open("compare", "med-short")
        await arrive(pilot, CompareScreen)
        assert not list(shift._notifications)


@pytest.mark.parametrize(
    "kept",
    [
        ["completion", "x"],
        ["help", "grid"],
        ["nothing", "x"],
        ["experiments"],
        ["cell", "x", [1, 2]],
        [],
        [3],
        ["grid", "a", "b", "c"],
    ],
)
async def test_a_kept_place_that_is_none_is_forgotten(
    kept: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8).close()
    shown = app(tmp_path, None)
    shown.places = Places(stack=[kept])
    async with shown.run_test() as pilot:
        await arrive(pilot, ExperimentsScreen)
        await settle(pilot)
        assert isinstance(pilot.app.screen, ExperimentsScreen)
