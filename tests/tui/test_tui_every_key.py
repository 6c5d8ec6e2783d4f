"""Every key of every screen, from the registry: a command that is not in this table fails the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.generated_store import generate_store
from tests.tui_pilot import app, arrive, settle, store, until
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.help import HelpScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.microscope import MicroscopeScreen
from windowshift.tui.screens.plots import PlotsScreen
from windowshift.tui.screens.steering.screen import SteeringScreen
from windowshift.tui.text import actions
from windowshift.tui.widgets.choice import ChoiceScreen, ProblemScreen
from windowshift.tui.widgets.confirm import ConfirmScreen
from windowshift.tui.widgets.pane import Pane
from windowshift.tui.widgets.sheet import Sheet

Seen = Callable[[Any], Any]
Effect = tuple[Sequence[str], Seen, Sequence[str]]
"""Keys before, what must read differently after the key, keys that lead back."""

GRID = [(ExperimentsScreen, ["down", "enter"]), (GridScreen, [])]
CELL = [*GRID[:1], (GridScreen, ["enter"]), (CellScreen, [])]
ROUTES: dict[str, list[tuple[type[Any], list[str]]]] = {
    "experiments": [(ExperimentsScreen, ["down"])],
    "grid": GRID,
    "cell": CELL,
    "completion": [*CELL[:2], (CellScreen, ["s", "S"]), (CellScreen, ["enter"]), (CompletionScreen, [])],
    "compare": [*GRID[:1], (GridScreen, ["space", "down", "space", "c"]), (CompareScreen, [])],
    "plots": [*GRID[:1], (GridScreen, ["p"]), (PlotsScreen, [])],
    "steering": [*GRID[:1], (GridScreen, ["s"]), (SteeringScreen, ["left"])],
    "microscope": [*GRID[:1], (GridScreen, ["M"]), (MicroscopeScreen, [])],
    "jobs": [*GRID[:1], (GridScreen, ["J"]), (JobsScreen, [])],
    "help": [*GRID[:1], (GridScreen, ["question_mark"]), (HelpScreen, [])],
    "confirm": [*GRID[:1], (GridScreen, ["X"]), (ConfirmScreen, [])],
    "choice": [(ExperimentsScreen, ["n"]), (ChoiceScreen, [])],
}


def screen(pilot: Pilot[None]) -> Any:
    return pilot.app.screen


def said(pilot: Pilot[None]) -> float:
    """When the last note appeared; one that goes away does not count."""
    said.latest = max([said.latest, *(note.raised_at for note in pilot.app._notifications)])  # type: ignore[attr-defined]
    return float(said.latest)  # type: ignore[attr-defined]


said.latest = 0.0  # type: ignore[attr-defined]


def of(attribute: str) -> Seen:
    def look(pilot: Pilot[None]) -> Any:
        found: Any = pilot.app.screen
        for name in attribute.split("."):
            found = getattr(found, name, None)
        return found

    return look


def scrolled(pilot: Pilot[None]) -> float:
    return float(sum(pane.scroll_offset.y for pane in pilot.app.screen.query(Pane)))


def paged(pilot: Pilot[None]) -> float:
    return float(sum(sheet.scroll_offset.y for sheet in pilot.app.screen.query(Sheet)))


def typing(pilot: Pilot[None]) -> bool:
    return isinstance(pilot.app.focused, Input)


ROW, COLUMN, CURSOR = of("matrix.row"), of("matrix.column"), of("lines.cursor")
LEAVE: Effect = ([], screen, [])
COMMON: dict[str, Effect] = {
    "help": ([], screen, ["escape"]),
    "palette": ([], screen, ["escape"]),
    "theme": ([], lambda pilot: pilot.app.theme, []),
}
COPYING: dict[str, Effect] = {name: ([], said, []) for name in ("copy", "copy_table", "copy_tsv")}
LIST: dict[str, Effect] = {
    "cursor_up": (["end"], CURSOR, []),
    "cursor_down": (["home"], CURSOR, []),
    "page_up": (["end"], CURSOR, []),
    "page_down": (["home"], CURSOR, []),
    "cursor_first": (["end"], CURSOR, []),
    "cursor_last": (["home"], CURSOR, []),
}
PANES: dict[str, Effect] = {
    "scroll_up": (["pagedown", "pagedown"], scrolled, []),
    "scroll_down": (["pageup", "pageup", "pageup"], scrolled, []),
    "page_up": (["pagedown", "pagedown"], scrolled, []),
    "page_down": (["pageup", "pageup", "pageup"], scrolled, []),
}
OPENS: Effect = ([], screen, ["escape"])
EFFECTS: dict[str, dict[str, Effect]] = {
    "experiments": {
        "open": OPENS,
        "new": OPENS,
        "start": ([], said, []),
        "jobs": OPENS,
        "filter": ([], typing, ["escape"]),
        "pause": ([], said, []),
        "cancel": ([], screen, ["n"]),
        "delete": ([], screen, ["n"]),
        "back": (["slash", "s", "e", "c", "enter"], of("lines.count"), []),
        **LIST,
        **COPYING,
        **COMMON,
    },
    "grid": {
        "open": OPENS,
        "metric": ([], of("metric"), []),
        "next_page": ([], of("snapshot.page"), []),
        "previous_page": ([], of("snapshot.page"), []),
        "pin": ([], lambda pilot: pilot.app.screen.matrix.model.rows[0].pin, []),
        "compare": (["u", "space", "down", "space", "up"], screen, ["escape"]),
        "unpin": (["space"], lambda pilot: len(pilot.app.places.pins.of("med-short")), []),
        "plots": OPENS,
        "steering": OPENS,
        "microscope": OPENS,
        "arm": ([], of("snapshot.page"), []),
        "behaviour": ([], of("snapshot.behaviour"), []),
        "together": ([], said, []),  # lengths have no roles; test_tui_together
        "jobs": OPENS,
        "extreme": ([], lambda pilot: (ROW(pilot), COLUMN(pilot)), []),
        "next_seed": ([], of("snapshot.seed"), []),
        "previous_seed": ([], of("snapshot.seed"), []),
        "previous_step": ([], of("snapshot.step"), ["greater_than_sign"]),
        "next_step": (["less_than_sign"], of("snapshot.step"), []),
        "pause": ([], said, []),
        "cancel": ([], screen, ["n"]),
        "cursor_up": (["down"], ROW, []),
        "cursor_down": (["up", "up"], ROW, []),
        "cursor_left": (["end"], COLUMN, []),
        "cursor_right": (["home"], COLUMN, []),
        "cursor_first": (["end"], COLUMN, []),
        "cursor_last": (["home"], COLUMN, []),
        "back": ([], screen, ["enter"]),
        **COPYING,
        **COMMON,
    },
    "cell": {
        "open": OPENS,
        "sort": ([], of("wanted.sort"), []),
        "turn": ([], of("wanted.backwards"), []),
        "pin": ([], lambda pilot: pilot.app.places.pins.of("med-short"), []),
        "behaviour": ([], of("snapshot.behaviour"), []),
        "filter": ([], typing, ["escape"]),
        "compare": ([], said, []),
        "jobs": OPENS,
        "back": ([], screen, ["enter"]),
        "rerun": ([], said, []),
        **LIST,
        **COPYING,
        **COMMON,
    },
    "completion": {
        "next": (["p"], of("snapshot.completion.row"), []),
        "previous": (["n", "n"], of("snapshot.completion.row"), []),
        "diff": ([], of("snapshot.new"), []),
        "roles": ([], lambda pilot: str(pilot.app.screen.query_one("#prompt-text").content), []),
        "template": ([], lambda pilot: str(pilot.app.screen.query_one("#prompt-text").content), []),
        "evidence": ([], said, []),
        "reasoning": ([], of("reasoning"), []),
        "copy": ([], said, []),
        "cursor_first": (["end"], scrolled, []),
        "cursor_last": (["home"], scrolled, []),
        "back": ([], screen, ["enter"]),
        **PANES,
        **COMMON,
    },
    "compare": {
        "next": ([], of("snapshot.position"), []),
        "previous": (["n"], of("snapshot.position"), []),
        "next_condition": ([], of("snapshot.evaluate"), []),
        "previous_condition": ([], of("snapshot.evaluate"), []),
        "view": ([], of("view"), ["v", "v"]),
        "swap": ([], lambda pilot: pilot.app.screen.snapshot.columns[0].key.train, []),
        "diff": ([], lambda pilot: pilot.app.screen.snapshot.columns[1].marked, []),
        "behaviour": ([], of("snapshot.behaviour"), []),
        "back": ([], screen, ["c"]),
        **PANES,
        **COPYING,
        **COMMON,
    },
    "plots": {
        "next": ([], of("plot.name"), []),
        "previous": ([], of("plot.name"), []),
        "next_page": ([], of("page"), []),
        "previous_page": ([], of("page"), []),
        "export": ([], said, []),
        "behaviour": ([], of("snapshot.behaviour"), []),
        "back": ([], screen, ["p"]),
        **COPYING,
        **COMMON,
    },
    "steering": {
        "next": ([], of("part"), []),
        "previous": ([], of("part"), []),
        "vector": ([], of("vector"), []),
        "next_pair": ([], of("pair"), []),
        "previous_pair": ([], of("pair"), []),
        "compare": OPENS,
        "export": ([], said, []),
        "jobs": OPENS,
        "scroll_up": (["end"], paged, []),
        "scroll_down": (["home"], paged, []),
        "page_up": (["end"], paged, []),
        "page_down": (["home"], paged, []),
        "cursor_first": (["end"], paged, []),
        "cursor_last": (["home"], paged, []),
        "back": ([], screen, ["s"]),
        **COPYING,
        **COMMON,
    },
    "microscope": {
        "next": ([], of("position"), []),
        "previous": ([], of("position"), []),
        "behaviour": ([], of("snapshot.behaviour"), []),
        "export": ([], said, []),
        "jobs": OPENS,
        "scroll_up": (["end"], paged, []),
        "scroll_down": (["home"], paged, []),
        "page_up": (["end"], paged, []),
        "page_down": (["home"], paged, []),
        "cursor_first": (["end"], paged, []),
        "cursor_last": (["home"], paged, []),
        "back": ([], screen, ["M"]),
        **COPYING,
        **COMMON,
    },
    "jobs": {
        "open": ([], screen, ["escape"]),
        "filter": ([], typing, ["escape"]),
        "first": (["end"], said, []),
        "last": (["end"], said, []),
        "fold": ([], of("fold"), []),
        "only": ([], of("only"), ["o", "o"]),
        "pause": ([], said, []),
        "cancel": (["end"], screen, ["n"]),
        "retry": ([], said, []),
        "back": ([], screen, ["J"]),
        **LIST,
        **COPYING,
        **COMMON,
    },
    "help": {
        "back": ([], screen, ["question_mark"]),
        "cursor_up": (["down", "down"], lambda pilot: pilot.app.screen.query_one("#help").scroll_offset.y, []),
        "cursor_down": (["up", "up"], lambda pilot: pilot.app.screen.query_one("#help").scroll_offset.y, []),
    },
    "confirm": {"yes": ([], screen, ["X"]), "no": ([], screen, ["X"])},
    "choice": {
        "open": ([], screen, ["escape", "n"]),
        "back": ([], screen, ["n"]),
        "cursor_up": (["end"], of("cursor"), []),
        "cursor_down": (["home"], of("cursor"), []),
        "cursor_first": (["end"], of("cursor"), []),
        "cursor_last": (["home"], of("cursor"), []),
    },
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two experiments; the one that is visited runs, and has both arms, two pages each, seeds and a checkpoint."""
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.setattr("windowshift.tui.widgets.clipboard.system_clipboard", lambda text: False)
    writer = store(tmp_path, monkeypatch, running=10, generate=("med_short", "long"), prompts=30, steering=True)
    columns = "experiment, arm, generate, train, evaluate"
    for seed, step, final, only in [
        (1, "step", "final", "train != 'base'"),
        (0, "4", "0", "train != 'base' AND seed = 0"),
    ]:
        writer.connection.execute(
            f"INSERT INTO cells ({columns}, seed, step, final, job) SELECT {columns}, {seed}, {step}, {final}, job "
            f"FROM cells WHERE {only}"
        )
    # Long enough to scroll in the smallest pane.
    writer.connection.execute(
        "UPDATE completions SET text = text || char(10) || replace(hex(zeroblob(40)), '00', text || char(10))"
    )
    # Two conditions with controls, for the microscope.
    (text,) = writer.connection.execute("SELECT conditions FROM experiments").fetchone()
    conditions = json.loads(text)
    for entry in conditions["train"]:
        owner = {"medium": "short", "med_long": "very_long"}.get(entry["name"])
        if owner is not None:
            entry |= {"control": "irrelevant", "of": owner}
    writer.connection.execute("UPDATE experiments SET conditions = ?", (json.dumps(conditions),))
    writer.close()
    generate_store(tmp_path, name="second", prompts=6, data_size=6).close()
    return tmp_path


async def visit(pilot: Pilot[None], name: str) -> None:
    for kind, keys in ROUTES[name]:
        await arrive(pilot, kind)
        await pilot.press(*keys)
    await settle(pilot)


@pytest.mark.parametrize("name", ROUTES)
async def test_every_key(name: str, workspace: Path) -> None:
    async with app(workspace, None).run_test(size=(80, 24)) as pilot:
        await visit(pilot, name)
        for action in actions.REGISTRY[name]:
            if action.name == "quit":
                continue  # test_quit_leaves
            before, seen, back = EFFECTS[name][action.name]
            for key in action.keys.split(","):
                await press(pilot, before)
                now = seen(pilot)
                await pilot.press(key)
                await until(pilot, lambda seen=seen, now=now: seen(pilot) != now, f"{name}: {key} to {action.help}")
                await press(pilot, back)
        assert pilot.app.return_code is None


async def press(pilot: Pilot[None], keys: Sequence[str]) -> None:
    for key in keys:
        await settle(pilot)
        await pilot.press(key)
    await settle(pilot)


def test_the_table_is_complete() -> None:
    for name, known in actions.REGISTRY.items():
        if name == "problem":
            continue  # test_tui_commands: it opens an editor again
        assert {action.name for action in known} - {"quit"} == set(EFFECTS[name]), name
        keys = [key for action in known for key in action.keys.split(",")]
        assert len(keys) == len(set(keys)), name


@pytest.mark.parametrize("name", ["experiments", "plots"])
async def test_quit_leaves(name: str, workspace: Path) -> None:
    running = app(workspace, None)
    async with running.run_test() as pilot:
        await visit(pilot, name)
        await pilot.press("q")
        await until(pilot, lambda: running._exit)


async def test_a_problem_leads_back_to_the_editor(workspace: Path) -> None:
    async with app(workspace, None).run_test() as pilot:
        await arrive(pilot, ExperimentsScreen)
        for key, answer in [("e", True), ("enter", True), ("escape", False), ("q", False), ("n", False)]:
            answers: list[bool | None] = []
            pilot.app.push_screen(ProblemScreen("x.yaml is not right yet", "line 3: [nope]"), answers.append)
            await arrive(pilot, ProblemScreen)
            await pilot.press(key)
            await until(pilot, lambda answers=answers: answers)
            assert answers == [answer]
