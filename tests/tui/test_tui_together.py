"""Several behaviours in one grid: traits side by side, outcomes stacked, and one behaviour alone again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.rated_store import OUTCOMES, rate_store, verdict_store
from tests.tui_pilot import app, arrive, settle
from windowshift.core.report.behaviour_figures import behaviour_figures
from windowshift.core.store.reader import Reader
from windowshift.tui.read import places
from windowshift.tui.read.snapshot import GridChoice, read_grid
from windowshift.tui.read.together import togethers
from windowshift.tui.read.together_faces import grid_table, model, shares_of
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.fit_line import FitLine
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.text import share_bar
from windowshift.tui.text.theme import ink
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.plot_terminal import draw
from windowshift.tui.widgets.words import Words

TRAITS, VERDICT = "traits", "outcomes verdict"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together") / "ws"
    verdict_store(folder).close()
    return folder


async def look(pilot: Pilot[None], *keys: str) -> Any:
    screen = await arrive(pilot, GridScreen)
    for key in keys:
        await settle(pilot)
        await pilot.press(key)
    await settle(pilot)
    return screen


def said(pilot: Any) -> str:
    return "".join(text for text, _ in pilot.app.screen.query_one(Words)._pieces).replace("\u00a0", " ")


def test_traits_come_first_and_what_is_to_be_kept_before_what_is_not(workspace: Path) -> None:
    reader = Reader(workspace)
    row = reader.experiment("med-short")
    assert row is not None
    found = {one.name: (one.kind, [behaviour.name for behaviour in one.behaviours]) for one in togethers(row)}
    assert found == {
        TRAITS: ("traits", ["correct", "hack"]),
        VERDICT: ("outcomes", [behaviour.name for behaviour in OUTCOMES]),
    }
    reader.close()


async def test_the_key_leads_through_all_of_them_and_back(workspace: Path) -> None:
    async with app(workspace).run_test(size=(160, 50)) as pilot:
        screen = await look(pilot)
        for name in (TRAITS, VERDICT, None):
            await look(pilot, "t")
            assert (screen.snapshot.together and screen.snapshot.together.name) == name
        await look(pilot, "t", "b")
        assert screen.snapshot.together is None  # another behaviour is shown alone
        assert screen.snapshot.behaviour.name == "correct"


async def test_traits_stand_side_by_side_each_as_it_stands_alone(workspace: Path) -> None:
    async with app(workspace).run_test(size=(160, 50)) as pilot:
        screen = await look(pilot)
        alone = {}
        for name in ("hack", "correct"):
            alone[name] = {
                (row.label, column): (face.text, face.level)
                for row in (screen.matrix.model.base, *screen.matrix.model.rows)
                for column, face in zip(screen.matrix.model.columns, row.faces, strict=True)
            }
            await look(pilot, "b")
        await look(pilot, "b", "b", "t")
        assert screen.snapshot.together.name == TRAITS
        for row in (screen.matrix.model.base, *screen.matrix.model.rows):
            for column, face in zip(screen.matrix.model.columns, row.faces, strict=True):
                shown = [(part.text, part.level) for part in face.parts]
                assert shown == [alone[name][row.label, column] for name in ("correct", "hack")]
        text = said(pilot)
        assert re.search(r"n 36, 4 missing: correct [\d.]+% \[[\d.]+, [\d.]+\], vs base [+−][\d.]+ pp \[.*; hack", text)
        assert [line.split(":")[0] for line in screen.query_one(FitLine).text.splitlines()] == [" correct", " hack"]
        figure = screen.query_one(Picture).plot
        assert figure.behaviours == ("correct", "hack")
        assert any(one.name.startswith("no shift") for one in figure.series)


async def test_outcomes_are_stacked_to_the_whole(workspace: Path) -> None:
    async with app(workspace).run_test(size=(160, 50)) as pilot:
        screen = await look(pilot, "t", "t")
        for row in (screen.matrix.model.base, *screen.matrix.model.rows):
            for face in row.faces:
                assert sum(face.shares) == pytest.approx(1)
        text = said(pilot)
        for one in OUTCOMES:
            assert re.search(rf"{one.name} [\d.]+% \[[\d.]+, [\d.]+\]", text), text
        assert "none of these" not in text
        assert screen.query_one(Picture).plot.stacked
        for key in ("m", "y", "Y"):  # no other number, and all of a cell copied
            await pilot.press(key)
        assert "Outcomes are shares" in str([note.message for note in pilot.app._notifications])


def test_what_no_outcome_covers_is_the_rest_of_the_bar(tmp_path: Path) -> None:
    verdict_store(tmp_path, outcomes=2).close()
    reader = Reader(tmp_path)
    grid = read_grid(reader, "med-short", GridChoice(together=VERDICT))
    assert grid is not None
    shares = shares_of(grid, "short", "long")
    assert shares is not None
    hack, correct = (page.cell("short", "long") for page in grid.beside)
    assert hack is not None
    assert correct is not None
    assert shares == pytest.approx((hack.mean, correct.mean, 1 - (hack.mean or 0) - (correct.mean or 0)))
    assert shares[-1] > 0
    reader.close()


def test_outcomes_that_overlap_are_no_bar(tmp_path: Path) -> None:
    writer = verdict_store(tmp_path, outcomes=2)
    writer.connection.execute("UPDATE summaries SET mean = 0.8")
    writer.close()
    reader = Reader(tmp_path)
    grid = read_grid(reader, "med-short", GridChoice(together=VERDICT))
    assert grid is not None
    assert shares_of(grid, "short", "long") == ()
    faces = {face.text for row in model(grid, "mean", (), {}).rows for face in row.faces}
    assert faces == {"overlap"}
    reader.close()


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.5, 0.5, 0.0), (0.01, 0.97, 0.01, 0.01), (1 / 3,) * 3, (0.0, 1.0)])
@pytest.mark.parametrize("width", [1, 2, 8, 19])
def test_a_bar_fills_its_room_and_shows_what_is_there(shares: tuple[float, ...], width: int) -> None:
    pieces = share_bar.bar(shares, width, ink("windowshift-dark"))
    assert sum(len(text) for text, _ in pieces) == width
    if width >= 8:
        assert len(pieces) == sum(share > 0 for share in shares)


def test_a_cell_in_work_is_shown_as_such(tmp_path: Path) -> None:
    verdict_store(tmp_path, running=3).close()
    reader = Reader(tmp_path)
    for together in (TRAITS, VERDICT):
        grid = read_grid(reader, "med-short", GridChoice(together=together))
        assert grid is not None
        kinds = [face.kind for row in model(grid, "uplift", (), {}).rows for face in row.faces]
        assert kinds.count("live") == 1
        assert all(not face.parts and not face.shares for row in model(grid, "mean", (), {}).rows for face in row.faces
                   if face.kind != "done")  # fmt: skip
    reader.close()


def test_the_table_has_every_number_in_full(workspace: Path) -> None:
    reader = Reader(workspace)
    grid = read_grid(reader, "med-short", GridChoice(together=TRAITS))
    assert grid is not None
    lines = grid_table(grid, "mean", {}).tsv().splitlines()
    heads, base = lines[0].split("\t"), lines[1].split("\t")
    assert heads[1:3] == ["short: correct", "short: hack"]
    assert len(lines) == 9
    cell = grid.beside[0].cell("base", "short")
    assert cell is not None
    assert float(base[1]) == pytest.approx(cell.mean)
    reader.close()


async def test_it_says_so_where_nothing_belongs_together(tmp_path: Path) -> None:
    rate_store(tmp_path).close()
    async with app(tmp_path).run_test(size=(80, 24)) as pilot:
        await look(pilot, "t")
        assert "stand side by side" in str([note.message for note in pilot.app._notifications])


async def test_the_place_is_kept(workspace: Path, tmp_path: Path) -> None:
    state = tmp_path / "places.json"
    async with app(workspace, state=state).run_test(size=(80, 24)) as pilot:
        await look(pilot, "t", "t")
        pilot.app.keep_place()  # type: ignore[attr-defined]
    assert places.load(state).grids["med-short"].choice.together == VERDICT


def test_the_scatter_of_the_terminal_has_intervals_and_names(workspace: Path) -> None:
    reader = Reader(workspace)
    row = reader.experiment("med-short")
    assert row is not None
    plot = next(one for one in behaviour_figures(reader, row, "prefix", "med_short") if one.name.startswith("traits-"))
    text = "\n".join("".join(piece for piece, _ in line) for line in draw(plot, 120, 30, ink("windowshift-dark")))
    assert len(re.findall("[\u2801-\u28ff]", text)) > 100
    named = [name for one in plot.series for name in one.labels if name in text]
    assert len(named) >= 6
    assert "★ no shift" in text
    reader.close()


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=["80x24", "160x50"])
@pytest.mark.parametrize("keys", ["t", "tt"], ids=["traits", "outcomes"])
def test_picture(
    keys: str, size: tuple[int, int], workspace: Path, monkeypatch: pytest.MonkeyPatch, snap_compare: Any
) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.chdir(workspace.parent)

    async def go(pilot: Any) -> None:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press("enter")
        await look(pilot, *keys, "down", "right")
        pilot.app.clear_notifications()
        await settle(pilot)

    assert snap_compare(app(Path("ws"), None), terminal_size=size, run_before=go)
