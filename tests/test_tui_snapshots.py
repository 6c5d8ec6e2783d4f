"""Pictures of every screen at 80×24 and 160×50: `pytest --snapshot-update` renews them, look before you commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui_pilot import NOW, app, arrive, settle, store
from windowshift.core import liveness
from windowshift.tui.cell import CellScreen
from windowshift.tui.completion import CompletionScreen
from windowshift.tui.experiments import ExperimentsScreen
from windowshift.tui.grid import GridScreen
from windowshift.tui.help import HelpScreen
from windowshift.tui.jobs import JobsScreen

SIZES = [(80, 24), (160, 50)]
ROUTES: dict[str, list[tuple[type[Any], list[str]]]] = {
    "experiments": [(ExperimentsScreen, [])],
    "grid": [(ExperimentsScreen, ["enter"]), (GridScreen, ["down", "down", "right"])],
    "grid-mean": [(ExperimentsScreen, ["enter"]), (GridScreen, ["m", "e"])],
    "cell": [(ExperimentsScreen, ["enter"]), (GridScreen, ["enter"]), (CellScreen, ["s", "down"])],
    "completion": [
        (ExperimentsScreen, ["enter"]),
        (GridScreen, ["right", "enter"]),
        (CellScreen, ["enter"]),
        (CompletionScreen, ["n"]),
    ],
    "jobs": [(ExperimentsScreen, ["J"]), (JobsScreen, ["slash", *"train med_short", "enter", "down"])],
    "help": [(ExperimentsScreen, ["enter"]), (GridScreen, ["question_mark"]), (HelpScreen, [])],
}


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setattr("windowshift.core.writer.os.getpid", lambda: 4711)
    monkeypatch.setattr(liveness, "_exists", lambda pid: True)
    monkeypatch.setattr("windowshift.core.writer.socket.gethostname", lambda: "host")
    folder = tmp_path_factory.mktemp("snapshots") / "ws"
    store(folder, monkeypatch, running=10).close()
    monkeypatch.chdir(folder.parent)
    return Path("ws")  # a relative one: the picture must not show where the test ran


# Metric and help look alike at any size.
PICTURES = [(route, size) for route in ROUTES for size in SIZES if size[0] == 80 or route not in ("grid-mean", "help")]


@pytest.mark.parametrize(("route", "size"), PICTURES, ids=[f"{route}-{w}x{h}" for route, (w, h) in PICTURES])
def test_picture(route: str, size: tuple[int, int], workspace: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[None]) -> None:
        for kind, keys in ROUTES[route]:
            await arrive(pilot, kind)
            await pilot.press(*keys)
        await settle(pilot)

    assert snap_compare(app(workspace, None, now=NOW), terminal_size=size, run_before=go)


def test_light_theme(workspace: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[None]) -> None:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press("enter")
        await arrive(pilot, GridScreen)
        await pilot.press("T")
        await settle(pilot)

    assert snap_compare(app(workspace, None, now=NOW), terminal_size=(100, 30), run_before=go)


def test_empty_workspace(workspace: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.pause(0.1)

    assert snap_compare(app(Path("empty"), None), run_before=go)
