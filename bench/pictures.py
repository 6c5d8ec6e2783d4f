"""The pictures in the README: real screens over a real workspace. `make pictures` renews them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.tui_pilot import arrive, settle
from textual.pilot import Pilot

from windowshift.tui.app import WindowshiftApp
from windowshift.tui.read.deep_link import parse_link
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.steering.screen import SteeringScreen

ROUTES: dict[str, list[tuple[type[Any], list[str]]]] = {
    "grid": [(GridScreen, ["down", "down", "down", "right", "right"])],
    "cell": [(GridScreen, ["down", "down", "down", "right", "right", "enter"]), (CellScreen, [])],
    "completion": [
        (GridScreen, ["down", "down", "down", "right", "right", "enter"]),
        (CellScreen, ["enter"]),
        (CompletionScreen, []),
    ],
    "steering": [(GridScreen, ["s"]), (SteeringScreen, ["right", "right", "right"])],
}


async def picture(workspace: Path, experiment: str, route: str, out: Path) -> None:
    """Walk to a screen and write it as SVG, 150 columns by 34 lines."""
    app = WindowshiftApp(workspace, link=parse_link(experiment), clock=time.time)
    async with app.run_test(size=(150, 34)) as pilot:
        await walk(pilot, ROUTES[route])
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{route}.svg").write_text(app.export_screenshot(title="windowshift"), encoding="utf-8")


async def walk(pilot: Pilot[Any], steps: list[tuple[type[Any], list[str]]]) -> None:
    """Press the keys of every step once its screen is there."""
    for kind, keys in steps:
        await arrive(pilot, kind)
        await pilot.press(*keys)
    await settle(pilot)


def main() -> None:
    """``python -m bench.pictures WORKSPACE EXPERIMENT OUT``."""
    os.environ["COLORTERM"] = "truecolor"  # the same picture, whatever terminal it is made in
    workspace, experiment, out = sys.argv[1:4]
    for route in ROUTES:
        asyncio.run(picture(Path(workspace), experiment, route, Path(out)))


if __name__ == "__main__":
    main()
