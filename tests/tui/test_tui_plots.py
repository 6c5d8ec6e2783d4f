"""The screen of figures: those of several behaviours stand beside those of one, on screen and as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.test_behaviour_figures import OUTCOMES, settled
from tests.tui_pilot import app, arrive, screen_text, settle, until
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.plots import PlotsScreen


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_figures_of_several_behaviours(size: tuple[int, int], tmp_path: Path) -> None:
    settled(tmp_path)
    async with app(tmp_path).run_test(size=size) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("p")
        plots = await arrive(pilot, PlotsScreen)
        assert "traits" in screen_text(pilot)
        await pilot.press("left")
        await settle(pilot)
        said = screen_text(pilot)
        assert "Outcomes (verdict) under no_prefix by train condition" in said
        assert all(f"█ {name}" in said for name in OUTCOMES)
        assert "chars" not in said.splitlines()[3]
        await pilot.press("left")
        await settle(pilot)
        said = screen_text(pilot)
        assert "★ no shift: train = data" in said
        assert "△ base model" in said
        await pilot.press("e")
        await until(pilot, lambda: any(tmp_path.joinpath("plots").glob("*traits*.pdf")), "the file")
        assert plots.plot is not None
        # A behaviour that is chosen changes the figures of one behaviour, and leaves these where they are.
        name = plots.plot.name
        await pilot.press("b")
        await until(pilot, lambda: plots.snapshot.behaviour.name == "length_words", "the other behaviour")
        await settle(pilot)
        assert plots.plot.name == name
