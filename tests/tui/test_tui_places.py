"""Deep links, and the place that is kept between two starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tui_pilot import app, arrive, screen_text, settle, store, until
from windowshift.core.contract.errors import SpecError
from windowshift.tui.read import places
from windowshift.tui.read.deep_link import DeepLink, parse_link
from windowshift.tui.read.pins import MOST, Pins
from windowshift.tui.read.places import GridPlace, Places
from windowshift.tui.read.snapshot import CellKey, GridChoice, Page
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store(tmp_path / "w", monkeypatch, generate=("med_short", "long"), prompts=12, data_size=12).close()
    return tmp_path / "w"


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("a", DeepLink("a")),
        ("a/b/", DeepLink("a", "b")),
        ("a/b/c/d", DeepLink("a", "b", "c", "d")),
        ("a/b%2Fc/d", DeepLink("a", "b/c", "d")),
    ],
)
def test_parse(text: str, link: DeepLink) -> None:
    assert parse_link(text) == link
    assert parse_link(link.text) == link


@pytest.mark.parametrize("text", ["", "/", "a//b", "a/b/c/d/e"])
def test_a_wrong_link_is_a_sentence(text: str) -> None:
    with pytest.raises(SpecError, match="--open takes EXPERIMENT"):
        parse_link(text)


async def test_a_link_leads_into_a_cell(workspace: Path) -> None:
    async with app(workspace, "med-short/long/medium/short").run_test() as pilot:
        cell = await arrive(pilot, CellScreen)
        assert cell.key == CellKey("prefix", "long", "medium", "short", 0, 12)
        await pilot.press("escape")
        grid = await arrive(pilot, GridScreen)
        assert grid.snapshot.page == Page("prefix", "long")
        assert grid.selected.key == cell.key


async def test_a_link_to_a_row_or_the_base(workspace: Path) -> None:
    async with app(workspace, "med-short/long/very_long").run_test() as pilot:
        grid = await arrive(pilot, GridScreen)
        await until(pilot, lambda: grid.selected and grid.selected.key.train == "very_long")
        assert grid.snapshot.page.generate == "long"
    async with app(workspace, "med-short/med_short/base/long").run_test() as pilot:
        assert (await arrive(pilot, CellScreen)).key.train == "base"


@pytest.mark.parametrize(
    ("link", "sentence"),
    [("med-short/nope", "no generation condition 'nope'"), ("med-short/long/nope/short", "no condition 'nope'")],
)
async def test_a_link_to_nothing_says_so(workspace: Path, link: str, sentence: str) -> None:
    async with app(workspace, link).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await until(pilot, lambda: any(sentence in note.message for note in pilot.app._notifications))


async def test_the_place_is_kept(workspace: Path, tmp_path: Path) -> None:
    state = tmp_path / "state" / "x.json"
    async with app(workspace, None, state=state).run_test() as pilot:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press("enter")
        grid = await arrive(pilot, GridScreen)
        await pilot.press("right_square_bracket", "m", "T")
        await until(pilot, lambda: grid.snapshot.page.generate == "long")
        await pilot.press("down", "right", "space", "down", "space")
        key = grid.selected.key
        await pilot.press("escape", "enter")
        again = await arrive(pilot, GridScreen)
        assert again is not grid
        await until(pilot, lambda: again.selected and again.selected.key == key)
        assert again.metric == "mean"
        await pilot.press("enter")
        await arrive(pilot, CellScreen)
        await pilot.press("q")
        await until(pilot, lambda: pilot.app._exit)
    async with app(workspace, None, state=state).run_test() as pilot:
        cell = await arrive(pilot, CellScreen)
        assert cell.key == key
        assert pilot.app.theme == "windowshift-light"
        await pilot.press("escape")
        grid = await arrive(pilot, GridScreen)
        await until(pilot, lambda: grid.selected and grid.selected.key == key)
        assert len(pilot.app.places.pins.of("med-short")) == 2
        await pilot.press("c")
        await arrive(pilot, CompareScreen)
        await settle(pilot)
        assert "train_mean_ratio" in screen_text(pilot)
        await pilot.press("q")
    async with app(workspace, None, state=state).run_test() as pilot:
        await arrive(pilot, CompareScreen)


async def test_a_place_that_is_gone_is_left_out(workspace: Path, tmp_path: Path) -> None:
    state = tmp_path / "x.json"
    kept = Places(experiment="gone", stack=[["grid", "gone"], ["nope", 1], ["cell", "gone", [1, 2], "x"], ["jobs"]])
    places.save(state, kept)
    async with app(workspace, None, state=state).run_test() as pilot:
        await arrive(pilot, ExperimentsScreen)
        await until(pilot, lambda: len(pilot.app.screen_stack) == 2)


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert places.state_file(tmp_path / "a").parent == tmp_path / "windowshift"
    assert places.state_file(tmp_path / "a") != places.state_file(tmp_path / "b")
    key = CellKey("steering", "g", "t", "e", 1, 2)
    kept = Places("windowshift-safe", "x", [["grid", "x"]], pins=Pins({"x": [key]}))
    kept.grids["x"] = GridPlace(GridChoice(Page("prefix", "g"), "b", 1, None), "mean", "t", "e")
    path = tmp_path / "deep" / "x.json"
    places.save(path, kept)
    assert places.load(path) == kept
    for wrong in ("", "[]", '{"pins": {"x": [["nope", 1, 2, 3, 4, 5]]}}', "\x00"):
        path.write_text(wrong)
        assert places.load(path) == Places()
    places.save(Path("/proc/nope/x.json"), kept)  # no folder: no error
    assert places.load(None) == Places()


def test_pins() -> None:
    pins = Pins()
    key = CellKey("prefix", "g", "a", "e", 0, 1)
    assert "base model needs no pin" in pins.toggle("x", key._replace(train="base"))
    assert "Pinned a as 1" in pins.toggle("x", key)
    assert "Pin 1 moved" in pins.toggle("x", key._replace(evaluate="f"))
    assert pins.against("x", key) == key._replace(evaluate="f")
    for train in "bcd":
        pins.toggle("x", key._replace(train=train))
    assert "4 rows are pinned" in pins.toggle("x", key._replace(train="e"))
    assert [pins.number("x", ("prefix", "g", train)) for train in "abcde"] == [1, 2, 3, 4, None]
    pins.turn("x")
    assert pins.number("x", ("prefix", "g", "d")) == 1
    assert "no longer pinned" in pins.toggle("x", key._replace(train="d"))
    assert len(pins.of("x")) == MOST - 1
    pins.clear("x")
    assert pins.of("x") == ()


def test_a_workspace_that_is_a_link_to_itself_has_a_state_file_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert places.state_file(tmp_path / "loop") != places.state_file(tmp_path / "there")
    assert places.state_file(tmp_path / "link") == places.state_file(tmp_path / "there")
