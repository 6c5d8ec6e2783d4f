"""A setting that the product does not know, on every screen: its behaviours, rates, payloads and missing scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.plugged import at_rest, plugged, sentence_run
from tests.tui_pilot import app, arrive, screen_text, settle
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.help import HelpScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.microscope import MicroscopeScreen
from windowshift.tui.screens.plots import PlotsScreen
from windowshift.tui.screens.steering.screen import SteeringScreen

SIZES = [(80, 24), (120, 40)]
GRID: list[tuple[type[Any], list[str]]] = [(ExperimentsScreen, ["enter"])]
CELL = [*GRID, (GridScreen, ["down", "right", "enter"])]  # trained under brief, evaluated under full
ROUTES: dict[str, list[tuple[type[Any], list[str]]]] = {
    "experiments": [(ExperimentsScreen, [])],
    "grid": [*GRID, (GridScreen, ["down", "right"])],
    "grid-slipped": [*GRID, (GridScreen, ["b", "m"])],
    "cell": [*CELL, (CellScreen, [])],
    "completion": [*CELL, (CellScreen, ["enter"]), (CompletionScreen, [])],
    "completion-stuck": [*CELL, (CellScreen, [*["down"] * 11, "enter"]), (CompletionScreen, [])],
    "evidence": [*CELL, (CellScreen, ["enter"]), (CompletionScreen, ["e"])],
    "compare": [*GRID, (GridScreen, ["down", "space", "down", "space", "c"]), (CompareScreen, [])],
    "plots": [*GRID, (GridScreen, ["p"]), (PlotsScreen, [])],
    "plots-bars": [*GRID, (GridScreen, ["p"]), (PlotsScreen, ["right", "right"])],
    "plots-traits": [*GRID, (GridScreen, ["p"]), (PlotsScreen, ["left"])],
    "jobs": [*GRID, (GridScreen, ["J"]), (JobsScreen, [])],
    "steering": [*GRID, (GridScreen, ["s"]), (SteeringScreen, [])],
    "microscope": [*GRID, (GridScreen, ["M"]), (MicroscopeScreen, [])],
    "help": [*GRID, (GridScreen, ["question_mark"]), (HelpScreen, [])],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    with plugged(folder / "site"):
        at_rest(sentence_run(folder))
    return folder  # the plugin is away: screens need the store alone


async def go(pilot: Pilot[None], route: str) -> None:
    for kind, keys in ROUTES[route]:
        await arrive(pilot, kind)
        for key in keys:
            await settle(pilot)
            await pilot.press(key)
            await settle(pilot)
    await settle(pilot)
    pilot.app.clear_notifications()
    await settle(pilot)


SAID = {
    "experiments": ("wording", "parrot", "12/12"),
    "grid": ("kept: difference, pp", "brief", "no_prefix"),
    "grid-slipped": ("slipped: difference, log-odds",),
    "cell": ("kept rate ", "difference", "missing"),
    "completion": ("kept", "slipped", "Tell me about", "wanted"),
    "completion-stuck": ("the look of honeybees", "the scorer failed: it took longer than 1 s"),
    "evidence": ("pattern", "found"),
    "compare": ("1 brief", "2 full", "kept · eval"),
    "plots": ("prefix · full · kept", "log-odds"),
    "plots-bars": ("percentage points",),
    "plots-traits": ("kept", "slipped"),
    "jobs": ("score", "done"),
    "steering": ("no vector",),
    "microscope": ("control", "conditions.train"),
    "help": ("next behaviour",),
}


@pytest.mark.parametrize("route", ROUTES)
async def test_what_a_screen_says(route: str, folder: Path) -> None:
    async with app(folder / "ws", None).run_test(size=(160, 50)) as pilot:
        await go(pilot, route)
        said = re.sub(r"[\s│▏▕]+", " ", screen_text(pilot))
        for word in SAID[route]:
            assert word in said, said
        # Nothing of another setting, and a rate has no CV.
        assert not re.search(r"\blength|characters|hack|\bCV\b", said), said


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("route", [route for route in ROUTES if route not in ("help", "experiments")])
def test_picture(
    route: str,
    size: tuple[int, int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    snap_compare: Callable[..., bool],
) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.chdir(folder)

    async def run(pilot: Pilot[None]) -> None:
        await go(pilot, route)

    assert snap_compare(app(Path("ws"), None), terminal_size=size, run_before=run)
