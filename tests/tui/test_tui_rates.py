"""A rate on every screen, in the report, in comparisons and figures: one number, one interval, written alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.rated_store import HACK, rate_store
from tests.tui_pilot import app, arrive, screen_text, settle
from windowshift.core.contract.records import Summary
from windowshift.core.measure.arm_comparison import compare_arms
from windowshift.core.measure.measures import CellMeasure, Point
from windowshift.core.report import frames
from windowshift.core.report.report import Report, report
from windowshift.core.report.text import markdown
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import GridChoice, read_grid
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.fit_line import FitLine
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.plots import PlotsScreen
from windowshift.tui.screens.steering.screen import SteeringScreen
from windowshift.tui.text import formats
from windowshift.tui.widgets.words import Words

WORDS = HACK.scale.words
SIZE = (200, 60)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rates") / "ws"
    rate_store(folder, steering=True).close()
    return folder


@pytest.fixture(scope="module")
def found(workspace: Path) -> Report:
    return report(workspace, "med-short")


def bare(text: str) -> str:
    """Text without units, daggers, markup and the way that lines are broken."""
    text = text.replace("\\", "").replace("\u00a0", " ").replace(" pp", "").replace("%", "").replace("†", "")
    return re.sub(r"\s+", " ", text)


def cell_of(found: Report, train: str, evaluate: str) -> CellMeasure:
    cells = found.measures.arms["prefix"].cells
    return next(cell for cell in cells if (cell.key.train, cell.key.evaluate) == (train, evaluate))


def point_of(found: Report, train: str) -> Point:
    return next(point for point in found.measures.arms["prefix"].whole.points if point.train == train)


def words_of(pilot: Any) -> str:
    return bare("".join(text for text, _ in pilot.app.screen.query_one(Words)._pieces))


def test_the_report_has_value_and_interval_of_every_cell_on_one_scale(found: Report) -> None:
    text = bare(markdown(found))
    for arm in found.measures.arms.values():
        for cell in arm.cells:
            if cell.key.evaluate not in arm.columns:  # a dose or a control of the base model alone
                continue
            assert cell.mean is not None
            assert WORDS.value_format.whole(cell.mean) in text
            for one, form in ((cell.effect, WORDS.effect_format), (cell.uplift, WORDS.link_format)):
                if cell.key.train != "base":
                    assert one is not None
                    assert form.whole(one) in text
    rows: Any = frames.cells(found)
    for _, row in rows[rows.train != "base"].iterrows():
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["effect_low"] <= row["effect"] <= row["effect_high"]
        assert row["uplift_low"] <= row["uplift"] <= row["uplift_high"]
        assert -1 <= row["effect"] <= 1


def test_summaries_and_the_grid_have_the_same_intervals(workspace: Path, found: Report) -> None:
    reader = Reader(workspace)
    grid = read_grid(reader, "med-short", GridChoice())
    reader.close()
    assert grid is not None
    for row in grid.rows:
        for cell in row.own_cells:
            assert cell is not None
            own = cell_of(found, cell.key.train, cell.key.evaluate)
            summary = cell.summary
            assert isinstance(summary, Summary)
            assert summary.missing
            assert own.mean is not None
            assert (summary.low, summary.high) == pytest.approx((own.mean.low, own.mean.high))
            # Scores are missing: only what is paired knows the effect, never the difference of the two means.
            assert cell.effect(HACK.scale) is None


async def test_the_grid_and_the_cell(workspace: Path, found: Report) -> None:
    own = cell_of(found, "long", "long")
    value, effect, link = (
        form.whole(one)
        for form, one in (
            (WORDS.value_format, own.mean), (WORDS.effect_format, own.effect), (WORDS.link_format, own.uplift)
        )
    )  # fmt: skip
    async with app(workspace).run_test(size=SIZE) as pilot:
        screen = await arrive(pilot, GridScreen)
        await settle(pilot)
        grid = screen.snapshot
        screen.matrix.move([row.train for row in grid.rows].index("long"), grid.columns.index("long"))
        await settle(pilot)
        text = words_of(pilot)
        assert value in text
        assert f"difference {effect}" in text
        assert f"log-odds {link}" in text
        slope = found.measures.arms["prefix"].whole.grouped.slope
        assert slope is not None
        shown = formats.signed(slope.value)
        assert f"fit on log-odds: slope {shown} " in pilot.app.screen.query_one(FitLine).text
        number = WORDS.effect_format.text(own.effect.value if own.effect else None)
        faces = screen.matrix.model.rows[screen.matrix.row].faces
        assert faces[screen.matrix.column].text == number
        assert faces[screen.matrix.column].detail == value
        await pilot.press("m")
        await settle(pilot)
        assert screen.metric == "link"
        assert screen.matrix.model.rows[screen.matrix.row].faces[screen.matrix.column].text == link.split(" ")[0]
        assert "difference, log-odds" in screen_text(pilot)
        await pilot.press("m")
        await settle(pilot)
        assert "rate, %" in screen_text(pilot)
        await pilot.press("enter")
        await arrive(pilot, CellScreen)
        await settle(pilot)
        shown = bare(screen_text(pilot))
        assert f"rate {value}" in shown
        assert f"difference {effect} log-odds {link}" in shown


async def test_comparing_rows(workspace: Path, found: Report) -> None:
    async with app(workspace).run_test(size=SIZE) as pilot:
        screen = await arrive(pilot, GridScreen)
        await settle(pilot)
        trains = [row.train for row in screen.snapshot.rows]
        for train in ("short", "long"):
            screen.matrix.move(trains.index(train), 0)
            await pilot.press("space")
        await pilot.press("c")
        await arrive(pilot, CompareScreen)
        await settle(pilot)
        shown = bare(screen_text(pilot))
        spreads = {one.train: one for one in found.measures.arms["prefix"].by_generate["med_short"].spreads}
        for train in ("short", "long"):
            point, spread = point_of(found, train), spreads[train]
            for one, form in (
                (point.effect, WORDS.effect_format), (point.y, WORDS.link_format), (point.x, WORDS.surprise_format),
                (spread.value, WORDS.spread_format),
            ):  # fmt: skip
                assert form.whole(one) in shown
        assert "CV" not in shown


def test_the_arms_have_the_same_numbers(workspace: Path, found: Report) -> None:
    arms = compare_arms(workspace, "med-short")
    for row in arms.rows:
        point = point_of(found, row.pair.prefix)
        assert row.measures["uplift"].values[0] == point.effect
        assert row.measures["link"].values[0] == point.y


async def test_figures_and_steering(workspace: Path, found: Report) -> None:
    async with app(workspace).run_test(size=SIZE) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("p")
        plots = await arrive(pilot, PlotsScreen)
        await settle(pilot)
        bars = next(plot for plot in plots.plots if plot.name == "by-train")
        assert bars.y == "uplift, percentage points"
        effects = [point_of(found, name).effect for name in bars.series[0].labels]
        assert bars.series[0].ys == pytest.approx([100 * one.value for one in effects if one])
        scatter = plots.plots[0]
        assert (scatter.x, scatter.y) == ("distance of D, log-odds", "uplift, log-odds difference")
        await pilot.press("escape")
        await arrive(pilot, GridScreen)
        await pilot.press("s")
        steering = await arrive(pilot, SteeringScreen)
        await settle(pilot)
        for match in found.steering.matches:
            text = WORDS.value_format.whole(match.target)
            assert any(text in WORDS.value_format.whole(one.target) for one in steering.snapshot.results.matches)


async def test_nothing_is_shown_of_a_cell_in_work(tmp_path: Path) -> None:
    rate_store(tmp_path, running=3).close()
    live = report(tmp_path, "med-short")
    cells = [cell for cell in live.measures.arms["prefix"].cells if cell.status == "running"]
    assert [(cell.mean, cell.effect, cell.progress) for cell in cells] == [(None, None, (20, 40))]
    assert "20/40" in markdown(live)
    key = cells[0].key
    async with app(tmp_path).run_test(size=SIZE) as pilot:
        screen = await arrive(pilot, GridScreen)
        await settle(pilot)
        grid = screen.snapshot
        screen.matrix.move([row.train for row in grid.rows].index(key.train), grid.columns.index(key.evaluate))
        await settle(pilot)
        assert "20 of 40 completions; its numbers come when it is done" in words_of(pilot)
        await pilot.press("enter")
        await arrive(pilot, CellScreen)
        await settle(pilot)
        shown = screen_text(pilot)
        assert "20 of 40 completions; its numbers come when it is done" in shown
        assert "rate " not in shown.split("completions by row")[0]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("keys", [[], ["enter"], ["enter", "enter"]], ids=["grid", "cell", "completion"])
def test_picture(
    size: tuple[int, int], keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snap_compare: Any
) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    rate_store(tmp_path / "ws").close()
    monkeypatch.chdir(tmp_path)

    async def go(pilot: Any) -> None:
        await arrive(pilot, ExperimentsScreen)
        for key in ["enter", *keys]:
            await settle(pilot)
            await pilot.press(key)
            await settle(pilot)
        pilot.app.clear_notifications()
        await settle(pilot)

    assert snap_compare(app(Path("ws"), None), terminal_size=size, run_before=go)
