"""The microscope from a run to the screen, the command line and a figure."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from typer.testing import CliRunner

from tests.learning_backend import TRAIN, Learner
from tests.plugged import at_rest
from tests.scripted_backend import scripted
from tests.tui_pilot import app, arrive, screen_text, settle
from windowshift.cli import app as command_line
from windowshift.core.report.gallery import drawings
from windowshift.core.store.reader import Reader
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.microscope import MicroscopeScreen


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("microscope")
    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(scripted(patch, folder, backend=Learner(), train=TRAIN, size=20, prompts=40).go())
    at_rest(folder)
    return folder


def test_on_the_command_line_with_its_numbers(workspace: Path) -> None:
    asked = ["microscope", "scripted", "-w", str(workspace)]
    found = json.loads(CliRunner().invoke(command_line, [*asked, "--json"]).stdout)
    (one,) = found["conditions"]
    assert one["train"] == "very_long"
    assert one["acts"] == ["inoculation"]
    assert one["parts"]["effect"]["value"] == pytest.approx(2.0, abs=0.3)  # log2 of four
    assert one["parts"]["under_training"]["value"] == pytest.approx(0.0)
    assert (one["completions"], one["seeds"]) == (40, 1)
    assert {row["control"] for row in one["trained"]} == {None, "irrelevant", "delimiters", "negated"}
    assert {(cell["train"], cell["evaluate"]) for cell in found["leak"][0]["cells"]} >= {("very_long", "short")}
    page = CliRunner().invoke(command_line, asked).stdout
    assert "Verdict: inoculation." in page
    assert "run-to-run noise is not included" in page


def test_an_experiment_without_controls_is_told_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(scripted(monkeypatch, tmp_path).go())
    done = CliRunner().invoke(command_line, ["microscope", "scripted", "-w", str(tmp_path)])
    assert "no train condition with controls" in str(done.exception)


def test_it_is_among_the_figures(workspace: Path) -> None:
    with closing(Reader(workspace)) as reader:
        row = reader.find_experiment("scripted")
        made = {one.names: one.plot for one in drawings(reader, row, row.find_behaviour(None))}
    plot = made["prefix", "med_short", "microscope"]
    assert [one.name for one in plot.series] == ["effect", "conditionalization", "under-training", "inoculation"]
    assert plot.ticks == ((0.0, "very_long"),)


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=str)
async def test_the_screen(workspace: Path, size: tuple[int, int]) -> None:
    shift = app(workspace, "scripted")
    async with shift.run_test(size=size) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("M")
        await arrive(pilot, MicroscopeScreen)
        text = screen_text(pilot.app)
        for said in ("Verdict: inoculation.", "conditionalization", "~irrelevant", "loss fell", "very_long"):
            assert said in text
        assert ("Leak in the prefix arm" in text) == (size[0] >= 140)
        await pilot.press("b")
        await settle(pilot)
        assert "length_words" in screen_text(pilot.app)


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_its_picture(
    snap_compare: Any, workspace: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")

    async def before(pilot: Pilot[None]) -> None:
        await arrive(pilot, GridScreen)
        await pilot.press("M")
        await arrive(pilot, MicroscopeScreen)
        await settle(pilot)

    assert snap_compare(app(workspace, "scripted"), terminal_size=size, run_before=before)
