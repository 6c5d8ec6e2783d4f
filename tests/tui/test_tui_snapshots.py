"""Pictures of every screen, at three sizes in each theme.

`pytest tests/tui/test_tui_snapshots.py --snapshot-update` renews them; look before you commit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui_pilot import NOW, app, arrive, settle, store
from windowshift.core.store import liveness
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.help import HelpScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.plots import PlotsScreen
from windowshift.tui.widgets.choice import ChoiceScreen

SIZES = [(80, 24), (120, 40), (200, 60)]
PINNED = ["down", "down", "right", "space", "down", "down", "space"]
GRID: tuple[type[Any], list[str]] = (ExperimentsScreen, ["enter"])
ROUTES: dict[str, list[tuple[type[Any], list[str]]]] = {
    "experiments": [(ExperimentsScreen, [])],
    "grid": [GRID, (GridScreen, PINNED)],
    "grid-mean": [GRID, (GridScreen, ["m", "e"])],
    "cell": [GRID, (GridScreen, [*PINNED, "down", "enter"]), (CellScreen, ["s", "down"])],
    "completion": [
        GRID,
        (GridScreen, [*PINNED, "down", "enter"]),
        (CellScreen, ["enter"]),
        (CompletionScreen, ["n", "d"]),
    ],
    "compare": [GRID, (GridScreen, [*PINNED, "c"]), (CompareScreen, ["n", "d"])],
    "plots": [GRID, (GridScreen, ["p"]), (PlotsScreen, [])],
    "plots-heatmap": [GRID, (GridScreen, ["p"]), (PlotsScreen, ["right", "right", "right"])],
    "jobs": [(ExperimentsScreen, ["J"]), (JobsScreen, ["slash", *"train med_short", "enter", "down"])],
    "help": [GRID, (GridScreen, ["question_mark"]), (HelpScreen, [])],
    "new": [(ExperimentsScreen, ["n"]), (ChoiceScreen, ["down"])],
}
ONCE = ("grid-mean", "plots-heatmap", "help", "new")
"""Pictures that look alike at any size."""


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setattr("windowshift.core.store.writer.os.getpid", lambda: 4711)
    monkeypatch.setattr(liveness, "_exists", lambda pid: True)
    monkeypatch.setattr("windowshift.core.store.writer.socket.gethostname", lambda: "host")
    folder = tmp_path_factory.mktemp("snapshots") / "ws"
    store(folder, monkeypatch, running=10).close()
    monkeypatch.chdir(folder.parent)
    return Path("ws")  # a relative one: the picture must not show where the test ran


PICTURES = [(route, size) for route in ROUTES for size in SIZES if size[0] == 80 or route not in ONCE]


async def go(pilot: Pilot[None], route: str) -> None:
    for kind, keys in ROUTES[route]:
        await arrive(pilot, kind)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
    # A figure is drawn in a worker that begins when its size is known.
    await settle(pilot)
    pilot.app.clear_notifications()
    await settle(pilot)


@pytest.mark.parametrize(("route", "size"), PICTURES, ids=[f"{route}-{w}x{h}" for route, (w, h) in PICTURES])
def test_picture(route: str, size: tuple[int, int], workspace: Path, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(app(workspace, None, now=NOW), terminal_size=size, run_before=lambda pilot: go(pilot, route))


THEMED = [
    (route, theme, size) for route in ROUTES if route not in ONCE for theme in ("light", "safe") for size in SIZES
]


@pytest.mark.parametrize(
    ("route", "theme", "size"), THEMED, ids=[f"{route}-{theme}-{w}x{h}" for route, theme, (w, h) in THEMED]
)
def test_theme(
    route: str, theme: str, size: tuple[int, int], workspace: Path, snap_compare: Callable[..., bool]
) -> None:
    async def turn(pilot: Pilot[None]) -> None:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press(*["T"] * (1 + ("light", "safe").index(theme)))
        await go(pilot, route)

    assert snap_compare(app(workspace, None, now=NOW), terminal_size=size, run_before=turn)


def test_empty_workspace(workspace: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.pause(0.1)

    assert snap_compare(app(Path("empty"), None), run_before=go)
