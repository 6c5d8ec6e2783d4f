"""What a model thought before its answer: one line on the completion's screen, which opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui_pilot import app, arrive, screen_text, settle, store
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.grid.screen import GridScreen

SPENT = "the model spent its 64 tokens on reasoning before it answered: raise max_tokens"


async def completion(pilot: Pilot[None]) -> Any:
    for kind in (GridScreen, CellScreen):
        await arrive(pilot, kind)
        await pilot.press("enter")
    return await arrive(pilot, CompletionScreen)


async def test_a_thought_is_closed_until_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch, prompts=6, data_size=6)
    with writer.batch() as connection:
        connection.execute(
            "UPDATE completions SET text = 'The answer.', reasoning = 'Long [thoughts]\n\x1b[31mabout it', "
            "reasoning_tokens = 1234 WHERE row = 0"
        )
        connection.execute(
            "UPDATE completions SET text = '', finish = 'failed', error = ?, reasoning = 'Hm', reasoning_tokens = 64 "
            "WHERE row = 1",
            (SPENT,),
        )
        connection.execute("UPDATE completions SET reasoning = '', reasoning_tokens = 7 WHERE row = 2")
    writer.close()
    async with app(tmp_path).run_test(size=(120, 40)) as pilot:
        await completion(pilot)
        await settle(pilot)
        assert "▸ thought, 1,234 tokens (o opens)" in screen_text(pilot)
        assert "12+1234+" in screen_text(pilot)
        assert "Long [thoughts]" not in screen_text(pilot)
        await pilot.press("o")
        await settle(pilot)
        assert "▾ thought, 1,234 tokens (o closes)" in screen_text(pilot)
        assert "Long [thoughts]" in screen_text(pilot)
        assert "\x1b" not in screen_text(pilot)
        assert "The answer." in screen_text(pilot)
        await pilot.press("n")
        await settle(pilot)
        assert "no answer" in screen_text(pilot)
        assert "spent its 64 tokens on" in screen_text(pilot)
        assert "Hm" in screen_text(pilot)
        await pilot.press("o", "n")
        await settle(pilot)
        assert "thought, 7 tokens: nothing that is shown" in screen_text(pilot)
