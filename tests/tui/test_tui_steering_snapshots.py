"""Pictures of the steering arm: its grid page, the parts of its screen, a steered cell.

`pytest tests/tui/test_tui_steering_snapshots.py --snapshot-update` renews them; look before you commit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui_pilot import NOW, app, arrive, settle, store
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.steering.parts import PARTS
from windowshift.tui.screens.steering.screen import SteeringScreen

SIZES = [(80, 24), (160, 50)]
Route = list[tuple[type[Any], list[str]]]
GRID: Route = [(ExperimentsScreen, ["enter"])]


def part(name: str) -> Route:
    return [*GRID, (GridScreen, ["s"]), (SteeringScreen, ["right"] * [*PARTS].index(name))]  # type: ignore[arg-type]


ROUTES: dict[str, Route] = {
    "grid": [*GRID, (GridScreen, ["a", "down", "end"])],
    "cell": [*GRID, (GridScreen, ["a", "down", "right", "enter"]), (CellScreen, [])],
    **{name: part(name) for name in PARTS},
}
BESIDE = ("cosines", "layers", "matches", "controls", "arms")
"""Parts that stand beside another one on a wide screen."""
PICTURES = [(route, size) for route in ROUTES for size in SIZES if size[0] == 80 or route not in BESIDE]
THEMED = [(route, keys) for route in ("grid", "vectors", "doses") for keys in (1, 2)]


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORTERM", "truecolor")
    folder = tmp_path_factory.mktemp("snapshots") / "ws"
    store(folder, monkeypatch, steering=True).close()
    monkeypatch.chdir(folder.parent)
    return Path("ws")  # a relative one: the picture must not show where the test ran


async def go(pilot: Pilot[None], route: str) -> None:
    for kind, keys in ROUTES[route]:
        await arrive(pilot, kind)
        await settle(pilot)
        for key in keys:
            await pilot.press(key)
            await settle(pilot)
    # A figure is drawn in a worker that begins when its size is known.
    await settle(pilot)


@pytest.mark.parametrize(("route", "size"), PICTURES, ids=[f"{route}-{w}x{h}" for route, (w, h) in PICTURES])
def test_picture(route: str, size: tuple[int, int], workspace: Path, snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(app(workspace, None, now=NOW), terminal_size=size, run_before=lambda pilot: go(pilot, route))


@pytest.mark.parametrize(
    ("route", "presses"), THEMED, ids=[f"{route}-{('light', 'safe')[presses - 1]}" for route, presses in THEMED]
)
def test_theme(route: str, presses: int, workspace: Path, snap_compare: Callable[..., bool]) -> None:
    async def turn(pilot: Pilot[None]) -> None:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press(*["T"] * presses)
        await go(pilot, route)

    assert snap_compare(app(workspace, None, now=NOW), terminal_size=(100, 30), run_before=turn)
