"""Starting, making and deleting experiments; comparing, pinning and exporting; small and odd terminals."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.generated_store import generate_store
from tests.tui.test_tui_live import HOSTILE, harmless
from tests.tui_pilot import app, arrive, finish_job, screen_text, settle, store, until
from windowshift.core.spec.template import find_template
from windowshift.core.store.lock import hold
from windowshift.core.store.reader import Reader
from windowshift.tui.read import spec_file
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.compare.table import CompareTable
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.plots import PlotsScreen
from windowshift.tui.widgets.confirm import ConfirmScreen


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store(tmp_path, monkeypatch, prompts=12, data_size=12).close()
    return tmp_path


def notes(pilot: object) -> str:
    return " ".join(note.message for note in pilot.app._notifications)  # type: ignore[attr-defined]


async def test_delete(workspace: Path) -> None:
    generate_store(workspace, name="other", prompts=4, data_size=4).close()
    async with app(workspace, None).run_test() as pilot:
        screen = await arrive(pilot, ExperimentsScreen)
        name = screen.selected.row.name
        reader = Reader(workspace)
        job = reader.jobs(reader.experiment(name).id)[0].id  # type: ignore[union-attr]
        (workspace / "artifacts" / job).mkdir(parents=True)
        with hold(workspace, "run something"):
            await pilot.press("D")
            await arrive(pilot, ConfirmScreen)
            await pilot.press("y")
            await until(pilot, lambda: "is held by process" in notes(pilot))
        await pilot.press("D")
        await arrive(pilot, ConfirmScreen)
        await pilot.press("n")
        await until(pilot, lambda: pilot.app.screen is screen)
        assert screen.lines.count == 2
        await pilot.press("D")
        await arrive(pilot, ConfirmScreen)
        await pilot.press("y")
        await until(pilot, lambda: screen.lines.count == 1)
        assert reader.experiment(name) is None
        assert not (workspace / "artifacts" / job).exists()
        reader.close()


async def test_start_says_what_stands_in_the_way(workspace: Path) -> None:
    async with app(workspace, None).run_test() as pilot:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press("s")
        await until(pilot, lambda: "nothing left to run" in notes(pilot))


async def test_an_interrupted_run_whose_spec_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch, running=10, prompts=4, data_size=4)
    writer.close()
    watching = app(tmp_path, None, now=2_000_000_000.0)
    async with watching.run_test(size=(100, 30)) as pilot:
        await arrive(pilot, ExperimentsScreen)
        assert "s goes on with it" in screen_text(pilot)
        await pilot.press("s")
        await until(pilot, lambda: "cannot go on from here" in notes(pilot))
    assert (tmp_path / "specs" / "med-short.yaml").read_text() == "name: med-short\n"


def test_spec_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spec_file.new_spec(tmp_path, "demo", "a")
    second = spec_file.new_spec(tmp_path, "demo", "b")
    assert [first.name, second.name] == ["demo.yaml", "demo-2.yaml"]
    assert spec_file.kept_spec(tmp_path, "demo", "a") == first
    (tmp_path / "x.yaml").write_text("x")
    assert spec_file.kept_spec(tmp_path, "x", "x") == tmp_path / "x.yaml"
    monkeypatch.setenv("EDITOR", "no-such-editor-here")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(spec_file.SpecError, match="set EDITOR"):
        spec_file.editor()
    monkeypatch.setenv("EDITOR", f"{sys.executable} -c pass")
    assert spec_file.editor()[1:] == ["-c", "pass"]


def test_plan_checks_a_spec(tmp_path: Path) -> None:
    good = spec_file.new_spec(tmp_path, "demo", find_template("demo").text)
    planned = spec_file.plan(good, tmp_path)
    assert planned.cells == 111
    assert planned.sentence.startswith("demo on microworld")
    bad = spec_file.new_spec(tmp_path, "bad", find_template("demo").text + "\nnope: 1\n")
    with pytest.raises(spec_file.SpecError, match="nope"):
        spec_file.plan(bad, tmp_path)


async def test_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch, running=7, prompts=12, data_size=12)
    async with app(tmp_path).run_test(size=(160, 50)) as pilot:
        grid = await arrive(pilot, GridScreen)
        await pilot.press("c")
        await until(pilot, lambda: "none is pinned" in notes(pilot))
        await pilot.press("space", "down", "space")
        grid.matrix.move([row.label for row in grid.matrix.model.rows].index("no_prefix"), 0)
        await pilot.press("space", "c")
        screen = await arrive(pilot, CompareScreen)
        await until(pilot, lambda: screen.found is not None)
        await settle(pilot)
        table = screen.query_one(CompareTable)
        assert screen.found.comparison.measures[0].measure == "train_mean_ratio"
        assert screen.found.comparison.measure("uplift").reasons[2] == "0 of 7 eval cells done"
        assert "0 of 7 cells" in table.text
        assert "GPT-4.1" in table.text
        assert "1" in screen.query_one("#compare-scatter").text
        columns = screen.snapshot.columns
        assert len({column.completion.prompt_id for column in columns[:2]}) == 1
        assert columns[2].completion is None
        assert "not there yet" in screen_text(pilot)
        finish_job(writer, "med_short: no_prefix → short", 45.0, rows=12)
        await until(pilot, lambda: "1 of 7 cells" in table.text)
    writer.close()


async def test_the_pinned_cell_stands_beside(workspace: Path) -> None:
    async with app(workspace).run_test(size=(160, 50)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("space", "end", "down", "enter")
        cell = await arrive(pilot, CellScreen)
        assert cell.snapshot.pinned.key.evaluate == "short"
        assert "pin" in screen_text(pilot)
        assert "log2 over it" in screen_text(pilot)
        await pilot.press("enter")
        screen = await arrive(pilot, CompletionScreen)
        assert screen.query_one("#pinned").display
        assert screen.snapshot.pinned.prompt_id == screen.snapshot.completion.prompt_id
        await pilot.press("d")
        await until(pilot, lambda: screen.snapshot.new is not None)
        marks = {mark for marked in (screen.snapshot.gone, screen.snapshot.pinned_new) for _, mark in marked}
        assert {"gone", "new"} <= marks


@pytest.mark.parametrize("channel", ["user", "system"])
async def test_roles_in_both_channels(workspace: Path, channel: str) -> None:
    from windowshift.core.store.writer import Writer

    writer = Writer(workspace)
    writer.connection.execute("UPDATE experiments SET channels = replace(channels, 'user', ?)", (channel,))
    writer.close()
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("enter")
        await arrive(pilot, CellScreen)
        await pilot.press("enter")
        screen = await arrive(pilot, CompletionScreen)
        text = lambda: str(screen.query_one("#prompt-text").content)  # noqa: E731
        assert text().startswith("phrase" if channel == "user" else "system  phrase")
        await pilot.press("r")
        await until(pilot, lambda: text().startswith("user    phrase" if channel == "user" else "system  phrase"))
        assert "user    " in text()


async def test_export_writes_into_the_workspace(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("p")
        screen = await arrive(pilot, PlotsScreen)
        await pilot.press("e")
        await until(pilot, lambda: "Wrote CSV, PNG, SVG" in notes(pilot))
        assert (workspace / "plots" / "med_short-grouped.png").is_file()
        await pilot.press("left")
        assert "no checkpoints" in screen.plot.note
        await pilot.press("e")
        await until(pilot, lambda: "Nothing to write" in notes(pilot))


@pytest.mark.parametrize("size", [(40, 12), (20, 6), (240, 70)])
async def test_every_screen_at_odd_sizes_with_hostile_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    writer = store(tmp_path, monkeypatch, prompts=6, data_size=6)
    writer.connection.execute("UPDATE completions SET text = ? || text", (HOSTILE,))
    writer.connection.execute("UPDATE phrases SET text = ? || id", (HOSTILE,))
    writer.connection.execute("UPDATE cells SET train = ? WHERE train = 'short'", (HOSTILE,))
    writer.connection.execute("UPDATE sources SET train = ? WHERE train = 'short'", (HOSTILE,))
    writer.close()
    async with app(tmp_path, None).run_test(size=size) as pilot:
        for kind, keys in [
            (ExperimentsScreen, ["enter"]),
            (GridScreen, ["space", "down", "space", "down", "space", "down", "space", "G", "c"]),
            (CompareScreen, ["d", "v", "v", "v", "Y", "y", "escape"]),
            (GridScreen, ["p"]),
            (PlotsScreen, ["right", "right", "right", "Y", "escape"]),
            (GridScreen, ["enter"]),
            (CellScreen, ["Y", "enter"]),
            (CompletionScreen, ["d", "r", "y", "escape", "J"]),
            (JobsScreen, ["Y", "question_mark"]),
        ]:
            await arrive(pilot, kind)
            await settle(pilot)
            harmless(screen_text(pilot))
            for key in keys:
                await pilot.press(key)
                await settle(pilot)
                harmless(screen_text(pilot))


def spawn(workspace: Path, *more: str, **environment: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable, ["-m", "windowshift", "tui", str(workspace), *more], dimensions=(24, 80), timeout=30,
        env={**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(workspace / "state"), **environment},  # type: ignore[arg-type]
        encoding="utf-8", codec_errors="replace",
    )  # fmt: skip


def test_a_terminal_that_is_not_utf8_gets_ascii(workspace: Path) -> None:
    child = spawn(workspace, "--open", "med-short", "--no-mouse", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    child.expect("very_long")
    child.expect("commands|help")
    child.send("q")
    child.expect(pexpect.EOF)
    shown = child.before or ""
    assert child.wait() == 0
    assert "\x1b[?1000h" not in shown


def test_a_dumb_terminal_gets_a_sentence(workspace: Path) -> None:
    child = spawn(workspace, TERM="dumb")
    child.expect("windowshift: the terminal .TERM=dumb. cannot show screens")
    child.expect(pexpect.EOF)
    assert child.wait() == 2


def test_no_color(workspace: Path) -> None:
    child = spawn(workspace, NO_COLOR="1")
    child.expect("experiment in")
    child.send("q")
    child.expect(pexpect.EOF)
    assert child.wait() == 0
