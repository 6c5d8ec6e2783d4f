"""Every key of every screen does what the registry says."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from tests.tui_pilot import app, arrive, screen_text, settle, store, until
from windowshift.tui.read.cell_labels import METRICS
from windowshift.tui.screens.cell.completion import CompletionScreen, Pane
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.help import HelpScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.text import actions
from windowshift.tui.widgets.confirm import ConfirmScreen


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    writer = store(tmp_path, monkeypatch, running=10, generate=("med_short", "long"))
    ((number,),) = writer.connection.execute("SELECT n FROM jobs WHERE label = 'long: very_long → short'").fetchall()
    writer.set_job(number, "failed", error="the server said no [429]", experiment=1)
    writer.close()
    return tmp_path


async def test_experiments(workspace: Path) -> None:
    async with app(workspace, None).run_test() as pilot:
        screen = await arrive(pilot, ExperimentsScreen)
        assert "microworld (rehearsal)" in screen_text(pilot)
        await pilot.press("slash", *"nope", "enter")
        await until(pilot, lambda: screen.lines.count == 0)
        await pilot.press("slash", "escape")
        await until(pilot, lambda: screen.lines.count == 1)
        for key in ("down", "j", "up", "k", "pagedown", "pageup", "end", "G", "home", "g", "escape", "backspace"):
            await pilot.press(key)
        assert pilot.app.screen is screen
        await pilot.press("J")
        await arrive(pilot, JobsScreen)
        await pilot.press("escape", "enter")
        await arrive(pilot, GridScreen)
        await pilot.press("backspace")
        await until(pilot, lambda: pilot.app.screen is screen)


async def test_grid_cursor(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        at = lambda: (screen.matrix.row, screen.matrix.column)  # noqa: E731
        assert at() == (0, 0)
        for key, place in [
            ("down", (1, 0)),
            ("j", (2, 0)),
            ("k", (1, 0)),
            ("up", (0, 0)),
            ("right", (0, 1)),
            ("l", (0, 2)),
            ("h", (0, 1)),
            ("left", (0, 0)),
            ("end", (0, 6)),
            ("home", (0, 0)),
            ("G", (0, 6)),
            ("g", (0, 0)),
            ("up", (-1, 0)),
            ("up", (-1, 0)),
            ("left", (-1, 0)),
            ("down", (0, 0)),
        ]:
            await pilot.press(key)
            assert at() == place, key
        await pilot.press("e")
        low = at()
        assert "▾ lowest of this page" in screen_text(pilot)
        await pilot.press("e")
        assert at() != low
        assert "▴ highest of this page" in screen_text(pilot)


async def test_grid_switches(workspace: Path) -> None:
    async with app(workspace).run_test(size=(100, 30)) as pilot:
        screen = await arrive(pilot, GridScreen)
        metrics = [metric for metric in METRICS if metric != "link"]  # lengths are fitted as they are shown
        for metric in [*metrics[1:], metrics[0]]:
            await pilot.press("m")
            assert screen.metric == metric
        assert screen.snapshot.page.generate == "med_short"
        for key, generate in [("]", "long"), ("]", "med_short"), ("[", "long")]:
            await pilot.press({"]": "right_square_bracket", "[": "left_square_bracket"}[key])
            await until(pilot, lambda generate=generate: screen.snapshot.page.generate == generate)
        await pilot.press("b")
        await until(pilot, lambda: screen.snapshot.behaviour.name == "length_words")
        # One seed and no checkpoints: these keys have nothing to do, and say nothing.
        await pilot.press("left_curly_bracket", "right_curly_bracket", "less_than_sign", "greater_than_sign")
        await settle(pilot)
        assert (screen.snapshot.seed, screen.snapshot.step) == (0, None)
        assert "✗" in screen_text(pilot)
        assert "◑ 50%" in screen_text(pilot)


async def test_grid_leads_on(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        await pilot.press("J")
        await arrive(pilot, JobsScreen)
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is screen)
        await pilot.press("up", "enter")
        cell = await arrive(pilot, CellScreen)
        assert cell.key.train == "base"


async def test_cell(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("enter")
        screen = await arrive(pilot, CellScreen)
        assert screen.completions.order == list(range(40))
        scores = {entry.row: entry.score for entry in screen.snapshot.entries}
        await pilot.press("s")
        shown = lambda: [scores[row] for row in screen.completions.order]  # noqa: E731
        await until(pilot, lambda: shown() == sorted(scores.values()))
        await pilot.press("S")
        await until(pilot, lambda: shown() == sorted(scores.values(), reverse=True))
        await pilot.press("s", "s", "s")
        await until(pilot, lambda: screen.completions.order == list(range(40)))
        await pilot.press("down", "j")
        assert screen.lines.cursor == 2
        await pilot.press("up", "k")
        assert screen.lines.cursor == 0
        await pilot.press("pagedown")
        assert screen.lines.cursor > 4
        await pilot.press("pageup", "end")
        assert screen.lines.cursor == 39
        await settle(pilot)
        assert screen.completions._texts.get(39) is not None
        await pilot.press("g", "G", "home")
        assert screen.lines.cursor == 0
        await pilot.press("b")
        await until(pilot, lambda: screen.snapshot.behaviour.unit == "words")
        await pilot.press("slash", *"number 7", "enter")
        await until(pilot, lambda: screen.completions.order == [7])
        assert screen.lines.has_focus
        await pilot.press("enter")
        completion = await arrive(pilot, CompletionScreen)
        assert completion.snapshot.completion.row == 7
        await pilot.press("escape", "slash", "escape")
        await until(pilot, lambda: len(screen.completions.order) == 40)
        assert not screen.query_one(Input).display
        await pilot.press("J")
        await arrive(pilot, JobsScreen)


async def test_completion(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("end", "enter")
        cell = await arrive(pilot, CellScreen)
        await pilot.press("s", "S")
        await settle(pilot)
        await pilot.press("enter")
        screen = await arrive(pilot, CompletionScreen)
        order = cell.completions.order
        for key, place in [("n", 1), ("l", 2), ("right", 3), ("p", 2), ("h", 1), ("left", 0), ("p", 0)]:
            await pilot.press(key)
            await until(pilot, lambda place=place: screen.snapshot.completion.row == order[place])
        assert screen.snapshot.base.prompt_id == screen.snapshot.completion.prompt_id
        own = screen.query_one("#own", Pane)
        assert own.max_scroll_y > 0
        await pilot.press("down", "j")
        assert own.scroll_offset.y == 2
        await pilot.press("up", "k")
        assert own.scroll_offset.y == 0
        await pilot.press("pagedown")
        assert own.scroll_offset.y > 0
        await pilot.press("pageup", "space", "end")
        assert own.scroll_offset.y == own.max_scroll_y
        await pilot.press("home", "G", "g")
        assert own.scroll_offset.y == 0
        await pilot.press("n", "escape")
        await until(pilot, lambda: pilot.app.screen is cell)
        assert cell.lines.cursor == 1


async def test_jobs(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("J")
        screen = await arrive(pilot, JobsScreen)
        everything = screen.lines.count
        await pilot.press("o")
        assert 0 < screen.lines.count < everything
        await pilot.press("o")
        assert screen.lines.count == 1
        await settle(pilot)
        assert "the server said no [429]" in screen_text(pilot)
        await pilot.press("R")
        await until(pilot, lambda: len(screen.app._notifications))
        await pilot.press("o", "slash", *"train long", "enter")
        await until(pilot, lambda: screen.lines.count == 7)
        await settle(pilot)
        assert "examples" in screen_text(pilot)
        await pilot.press("enter", "slash", "escape")
        assert pilot.app.screen is screen
        await pilot.press("end", "pageup", "pagedown", "k", "up", "j", "down", "home", "g", "G", "home", "enter")
        cell = await arrive(pilot, CellScreen)
        assert cell.key.train == "base"


@pytest.mark.parametrize(("key", "action"), [("P", "pause"), ("X", "cancel")])
async def test_control_reaches_the_run(workspace: Path, key: str, action: str) -> None:
    from windowshift.core.store.writer import Writer

    async with app(workspace).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        await pilot.press(key)
        if action == "cancel":
            await arrive(pilot, ConfirmScreen)
            await pilot.press("n")
            await until(pilot, lambda: pilot.app.screen is screen)
            await pilot.press(key)
            await arrive(pilot, ConfirmScreen)
            await pilot.press("y")
        writer = Writer(workspace)
        await until(pilot, lambda: writer.connection.execute("SELECT count(*) FROM control").fetchone()[0] == 1)
        assert writer.take_controls(1) == [(action, None)]
        writer.close()


async def test_help_shows_every_key(workspace: Path) -> None:
    async with app(workspace).run_test(size=(100, 50)) as pilot:
        screen = await arrive(pilot, GridScreen)
        await pilot.press("question_mark")
        panel = await arrive(pilot, HelpScreen)
        shown = " ".join(panel.text().plain.split())
        for action in actions.REGISTRY["grid"]:
            assert action.help in shown
        await pilot.press("down", "up", "j", "k", "q")
        await until(pilot, lambda: pilot.app.screen is screen)


async def test_theme_and_palette(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        await pilot.press("T")
        await until(pilot, lambda: pilot.app.theme == "windowshift-light")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: pilot.app.screen is not screen)
        await pilot.press(*"metric")
        await until(pilot, lambda: "next number" in screen_text(pilot))
        await pilot.press("escape")


async def test_quit_says_that_the_run_goes_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = app(workspace)
    async with running.run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("q")
        await until(pilot, lambda: running._exit)
    assert "The run of med-short goes on" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["experiments", "grid", "cell", "completion", "jobs"])
def test_registry_names_existing_methods(name: str) -> None:
    kind = {
        "experiments": ExperimentsScreen,
        "grid": GridScreen,
        "cell": CellScreen,
        "completion": CompletionScreen,
        "jobs": JobsScreen,
    }[name]
    for action in actions.REGISTRY[name]:
        assert action is actions.PALETTE or hasattr(kind, f"action_{action.name}"), action
    keys = [key for action in actions.REGISTRY[name] for key in action.keys.split(",")]
    assert len(keys) == len(set(keys))


SIGNS = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "plus": "+",
    "minus": "-",
    "slash": "/",
    "question_mark": "?",
}


@pytest.mark.parametrize("screen", list(actions.REGISTRY))
def test_help_shows_each_action_its_own_keys(screen: str) -> None:
    shown: dict[str, str] = {}
    for action in actions.REGISTRY[screen]:
        own = {SIGNS[key] for key in action.keys.split(",") if key in SIGNS}
        signs = {sign for sign in action.shown.split() if sign in SIGNS.values()}
        assert signs == own, action
        for sign in signs:
            assert sign not in shown, f"{sign} is shown for {shown.get(sign)} and {action.name}"
            shown[sign] = action.name
    for action in actions.footer(screen, 400):
        # Beside its own key the footer may show that of the opposite, which stands there for both.
        assert set(action.shown.split()) <= set(action.footed.split()), action
