"""What must be whole on narrow screens: the metric that is shown, and intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tui_pilot import app, arrive, screen_text, settle, store
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.widgets.headline import Headline


async def test_the_metric_is_whole_with_two_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8, steering=True).close()
    async with app(tmp_path).run_test(size=(80, 24)) as pilot:
        grid = await arrive(pilot, GridScreen)
        assert "metric uplift log2 " in screen_text(pilot)
        unit = grid.snapshot.behaviour.unit
        line = next(line for line in screen_text(pilot).splitlines() if "metric" in line)
        assert unit not in line
        await pilot.resize_terminal(160, 50)
        await settle(pilot)
        line = next(line for line in screen_text(pilot).splitlines() if "metric" in line)
        assert unit in line


async def test_no_interval_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, prompts=120, data_size=8).close()
    async with app(tmp_path, "med-short/med_short/very_long/very_long").run_test(size=(160, 24)) as pilot:
        cell = await arrive(pilot, CellScreen)
        for width in (160, 70, 80, 119, 120):
            await pilot.resize_terminal(width, 24)
            await settle(pilot)
            height = cell.query_one("#numbers", Headline).size.height
            shown = "\n".join(screen_text(pilot).splitlines()[1 : 1 + height])
            assert shown.count("[") == shown.count("]") == 3, (width, shown)
            for words in (" mean ", "base ", "uplift log2 ", "n 120"):
                assert words in shown, width
