"""What must be whole on narrow screens: the metric that is shown, and intervals."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from textual.widgets import Static

from tests.tui_pilot import app, arrive, screen_text, settle, store, until
from windowshift.core.spec.template import templates
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.plots import PlotsScreen
from windowshift.tui.screens.steering.screen import SteeringScreen
from windowshift.tui.text.columns import LEAST, Column, fitted, widths
from windowshift.tui.text.theme import ink
from windowshift.tui.widgets.choice import ChoiceScreen
from windowshift.tui.widgets.distribution import Ridge, axis, lines_of
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
            numbers = cell.query_one("#numbers", Headline).region
            shown = "\n".join(screen_text(pilot).splitlines()[numbers.y : numbers.bottom])
            # Mean, base and uplift, and both restricted means.
            assert shown.count("[") == shown.count("]") == 5, (width, shown)
            for words in (" mean ", "base ", "uplift log2 ", "n 120", "Kaplan-Meier"):
                assert words in shown, width


@pytest.mark.parametrize("top", [560.0, 1000.0, 95_000.0, 0.9])
@pytest.mark.parametrize("width", [24, 36, 40, 60, 110])
def test_every_number_of_the_axis_stands_at_its_place(top: float, width: int) -> None:
    rng = random.Random(1)
    scores = tuple(rng.uniform(top * 0.1, top) for _ in range(90))
    ridges = tuple(Ridge(name, scores, top / 2, top / 3, top * 0.6) for name in ("this", "base"))
    low, high, _ = axis(ridges)
    *ridge, line = ("".join(text for text, _ in pieces) for pieces in lines_of(ridges, "chars", width, 8, ink("")))
    assert line.rstrip().endswith(" chars")
    numbers = [(found.start() + (len(found[0]) - 1) / 2, float(found[0])) for found in re.finditer(r"[\d.]+", line)]
    assert numbers[0][1] == low
    assert numbers[-1][1] == pytest.approx(high)
    # Two numbers fix the axis: those between lie on it, and the ridges end where it ends.
    (left, first), (right, last) = numbers[0], numbers[-1]
    for place, value in numbers:
        assert abs(place - (left + (value - first) / (last - first) * (right - left))) <= 1.5, (line, value)
    assert max(len(one.rstrip()) for one in ridge) <= right + 1.5


@pytest.mark.parametrize("width", [60, 80, 100, 160])
async def test_intervals_of_a_pinned_cell_are_whole(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, prompts=120, data_size=8, steering=True).close()
    shown = app(tmp_path, "med-short/med_short/very_long/very_long")
    async with shown.run_test(size=(width, 30)) as pilot:
        cell = await arrive(pilot, CellScreen)
        other = cell.key._replace(arm="steering", train="length=medium", evaluate="length=short")
        pilot.app.places.pins.replace("med-short", [other])
        cell.choose()
        await until(pilot, lambda: cell.snapshot.pinned is not None, "the pinned cell")
        await settle(pilot)
        numbers = cell.query_one("#numbers", Headline).region
        said = "\n".join(screen_text(pilot).splitlines()[numbers.y : numbers.bottom])
        assert len(re.findall(r"\[[^\[\]\n…]+, [^\[\]\n…]+\]", said)) == said.count("[") == 7, said
        assert "length=medium → length=short" in " ".join(said.split())


@pytest.mark.parametrize("width", range(80, 161, 10))
async def test_names_of_experiments_are_told_apart(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tone-of-voice-1", "tone-of-voice-2"):
        store(tmp_path, monkeypatch, prompts=4, data_size=4, name=name).close()
    async with app(tmp_path, None).run_test(size=(width, 30)) as pilot:
        await arrive(pilot, ExperimentsScreen)
        await settle(pilot)
        said = screen_text(pilot)
        assert "tone-of-voice-1 " in said
        assert "tone-of-voice-2 " in said
        assert "microworld (rehearsal)" in said


def test_columns_give_way_before_a_name_does() -> None:
    wide = (Column("b", 20, above=100), Column("c", 30, above=100))
    table = (Column("name", 0), Column("a", 10, above=40), *wide, Column("d", 5))
    for width in range(20, 240):
        sizes = widths(table, width)
        assert sum(sizes) + sum(size > 0 for size in sizes) + 1 <= max(width, 12)
        assert sizes[0] >= min(LEAST, width - 8)
        assert sizes[4] == 5
        assert not (sizes[3] and not sizes[2])
    assert all(widths(table, 120))
    assert [one.width for one in fitted(table, [3, 2, 7, 99, 0])] == [0, 2, 7, 30, 1]


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (160, 50)])
async def test_every_screen_marks_a_rehearsal(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8, steering=True).close()
    async with app(tmp_path).run_test(size=size) as pilot:
        await arrive(pilot, GridScreen)
        routes = [
            ([], GridScreen), (["J"], JobsScreen), (["escape", "p"], PlotsScreen), (["escape", "s"], SteeringScreen),
            (["escape", "space", "down", "space", "c"], CompareScreen), (["escape", "enter"], CellScreen),
            (["enter"], CompletionScreen),
        ]  # fmt: skip
        for keys, kind in routes:
            for key in keys:
                await pilot.press(key)
                await settle(pilot)
            await arrive(pilot, kind)
            await settle(pilot)
            assert "(rehearsal)" in "\n".join(screen_text(pilot).splitlines()[:3]), (kind, screen_text(pilot))


async def test_the_title_of_a_figure_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8).close()
    async with app(tmp_path).run_test(size=(80, 24)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("p")
        plots = await arrive(pilot, PlotsScreen)
        for width in (80, 60, 160, 100):
            await pilot.resize_terminal(width, 24)
            await settle(pilot)
            assert plots.plot.title in " ".join(screen_text(pilot).split()), width


@pytest.mark.parametrize("width", [48, 80, 160])
async def test_no_explanation_of_a_template_is_cut_off(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8).close()
    async with app(tmp_path, None).run_test(size=(width, 24)) as pilot:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press("n")
        choice = await arrive(pilot, ChoiceScreen)
        await settle(pilot)
        shown = choice.query_one("#choice-text", Static)
        text = str(shown.content)
        assert max(map(len, text.splitlines())) <= shown.size.width
        assert shown.size.height == len(text.splitlines())
        for template in templates():
            assert f" {template.name} {template.summary} " in " ".join(text.split()) + " "
        for _ in templates():
            (place,) = [y for y, line in enumerate(str(shown.content).splitlines()) if "▸" in line]
            panel = choice.query_one("#choice")
            assert panel.scroll_offset.y <= place < panel.scroll_offset.y + panel.scrollable_content_region.height
            await pilot.press("down")
            await settle(pilot)
