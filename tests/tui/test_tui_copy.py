"""Copying: what, where to, and that it says so. Tables, plots, word diffs and terminals that cannot do everything."""

from __future__ import annotations

import base64
import csv
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.tui_pilot import app, arrive, settle, store, until
from windowshift.core.contract.errors import MissingExtraError, SpecError, StoreError
from windowshift.core.report.figure import Heat, Plot, Series
from windowshift.core.report.figure_file import write_plot
from windowshift.core.report.rerun_line import rerun_line
from windowshift.rerun_command import which
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.serve import loopback, serve
from windowshift.tui.text import terminal
from windowshift.tui.text.table import table
from windowshift.tui.text.theme import DARK, THEMES, ink
from windowshift.tui.text.word_diff import MOST_WORDS, word_diff
from windowshift.tui.widgets import clipboard
from windowshift.tui.widgets.plot_terminal import draw


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store(tmp_path, monkeypatch, prompts=8, data_size=8).close()
    return tmp_path


def without_clipboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipboard, "system_clipboard", lambda text: False)


async def test_number_table_and_completion(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_clipboard(monkeypatch)
    async with app(workspace).run_test() as pilot:
        grid = await arrive(pilot, GridScreen)
        copied = workspace / "copied"
        await pilot.press("y")
        await until(pilot, lambda: pilot.app._clipboard)
        change = grid.selected.effect(grid.snapshot.behaviour.scale)
        assert float(pilot.app._clipboard) == pytest.approx(change, abs=1e-5)
        assert float(next(copied.glob("*.txt")).read_text()) == pytest.approx(change, abs=1e-5)
        await until(pilot, lambda: any("OSC 52" in note.message for note in pilot.app._notifications))
        await pilot.press("Y")
        await until(pilot, lambda: pilot.app._clipboard.startswith("|"))
        lines = next(copied.glob("*.md")).read_text().splitlines()
        assert len(lines) == 2 + 1 + 7
        assert {line.count("|") for line in lines} == {1 + 1 + 7 + 1}
        await pilot.press("ctrl+y")
        await until(pilot, lambda: "\t" in pilot.app._clipboard)
        assert next(copied.glob("*.tsv")).read_text().splitlines()[1].startswith("base\t")
        await pilot.press("enter")
        cell = await arrive(pilot, CellScreen)
        await pilot.press("y")
        text = cell.completions.text_of(0)
        await until(pilot, lambda: pilot.app._clipboard == text)
        await pilot.press("enter")
        completion = await arrive(pilot, CompletionScreen)
        await pilot.press("n")
        await settle(pilot)
        await pilot.press("y")
        await until(pilot, lambda: pilot.app._clipboard == completion.snapshot.completion.text)


async def test_the_command_that_runs_a_cell_again(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_clipboard(monkeypatch)
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        found = []
        for keys in (("enter",), ("escape", "up", "enter")):
            await pilot.press(*keys)
            cell = await arrive(pilot, CellScreen)
            await settle(pilot)
            before = pilot.app._clipboard
            await pilot.press("r")
            await until(pilot, lambda before=before: pilot.app._clipboard != before)
            words = shlex.split(pilot.app._clipboard)
            assert words[:3] == ["windowshift", "rerun", "med-short"]
            generate = "" if cell.key.train == "base" else cell.key.generate
            assert which(words[3]) == (generate, cell.key.train, cell.key.evaluate)
            assert words[-4:] == ["--workspace", str(workspace), "--into", f"{workspace}-again"]
            found.append(words)
        trained, base = found
        assert trained[4:-4] == ["--seed", "0"]
        assert base[4:-4] == []  # a base model has no seed of a training
        assert base[3].startswith("base/")
        before = pilot.app._clipboard
        cell.snapshot = replace(cell.snapshot, cell=replace(cell.snapshot.cell, final=False))
        await pilot.press("r")
        await until(pilot, lambda: any("A checkpoint is not run" in note.message for note in pilot.app._notifications))
        assert pilot.app._clipboard == before


def test_the_command_is_quoted_for_a_shell() -> None:
    line = rerun_line("a b", Path("my ws"), ("it's", "x;y", "$(z)"), 2)
    named = ["windowshift", "rerun", "a b", "it's/x;y/$(z)", "--seed", "2"]
    assert shlex.split(line) == [*named, "--workspace", "my ws", "--into", "my ws-again"]
    assert "GENERATE/TRAIN/EVALUATE --workspace ws" in rerun_line("a", Path("ws"))


async def test_a_read_only_workspace_and_a_text_that_is_too_long(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_clipboard(monkeypatch)
    (workspace / "copied").write_text("in the way")
    async with app(workspace).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("y")
        await until(pilot, lambda: any("no file: " in note.message for note in pilot.app._notifications))
        (workspace / "copied").unlink()
        pilot.app.copy("long", ".txt", "x" * 100_000)
        await until(pilot, lambda: any("too long" in note.message for note in pilot.app._notifications))
        assert "x" * 100 not in pilot.app._clipboard


def test_osc52() -> None:
    payload = base64.b64encode("ä".encode()).decode()
    assert clipboard.osc52("ä", tmux=False) == f"\x1b]52;c;{payload}\x07"
    wrapped = clipboard.osc52("ä", tmux=True)
    assert wrapped.startswith("\x1bPtmux;\x1b\x1b]52;c;")
    assert wrapped.endswith(f"\x1b]52;c;{payload}\x07")


def test_the_system_clipboard_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    module = ModuleType("pyperclip")
    module.copy = taken.append  # type: ignore[attr-defined]
    module.__spec__ = __spec__
    monkeypatch.setitem(sys.modules, "pyperclip", module)
    assert clipboard.system_clipboard("a")
    assert taken == ["a"]
    module.copy = None  # type: ignore[attr-defined]
    assert not clipboard.system_clipboard("a")


def test_names_of_copies_stay_in_the_folder(tmp_path: Path) -> None:
    path = clipboard.write_copy(tmp_path, "../../etc/\x1bpass wd", ".txt", "\ud800", 0.0)
    assert path.parent == tmp_path / "copied"
    assert path.name.endswith("-etc-pass-wd.txt")


def test_tables_escape() -> None:
    found = table(("a", "b|c"), [("x\ty", "l1\nl2"), ("", '"q",')])
    assert found.markdown().splitlines() == ["| a | b\\|c |", "| --- | --- |", "| x y | l1 l2 |", '|  | "q", |']
    assert found.tsv().splitlines() == ["a\tb|c", "x y\tl1 l2", '\t"q",']
    assert list(csv.reader(found.csv().splitlines(keepends=True)))[2] == ["", '"q",']


def test_word_diff_by_hand() -> None:
    assert word_diff("the cat sat", "the dog sat down") == (
        (("the ", "same"), ("cat ", "gone"), ("sat", "same")),
        (("the ", "same"), ("dog ", "new"), ("sat ", "same"), ("down", "new")),
    )
    assert word_diff("", "") == ((), ())


@given(st.text(" ab\n", max_size=60), st.text(" ab\n", max_size=60))
def test_word_diff_loses_nothing(before: str, after: str) -> None:
    left, right = word_diff(before, after)
    assert ("".join(text for text, _ in left), "".join(text for text, _ in right)) == (before, after)
    assert not {mark for _, mark in left} - {"same", "gone"}
    assert not {mark for _, mark in right} - {"same", "new"}


def test_a_long_text_is_compared_in_part() -> None:
    left, right = word_diff("a " * 3000, "b " * 3000)
    assert [len(text) for text, _ in left] == [2 * MOST_WORDS, 2 * (3000 - MOST_WORDS)]
    assert right[1][1] == "same"


LINE = Series("line", "line", (0.0, 1.0, 2.0), (0.0, 1.0, 0.5), low=(0.0, None, 0.1), high=(0.1, None, 0.6))
POINTS = Series("po[i]nts", "points", (0.0, 1.0), (0.5, -0.5), ("a", "b"), glyph="▲", tone="blue")
BARS = Series("bars", "bars", (0.0, 1.0), (0.4, -0.2), ("a", "b"), (0.3, -0.3), (0.5, -0.1))
PLOTS = [
    Plot("lines", "t", "x", "y", (LINE, POINTS), marks=((1.0, 1.0, "1"),)),
    Plot("bars", "t", "", "y", (BARS,), ((0.0, "one"), (1.0, "two"))),
    Plot("heat", "t", heat=Heat(("r1", "r2"), ("c1", "c2"), ((0.5, None), (-1.0, 0.0)))),
    Plot("one", "t", "x", "y", (Series("p", "points", (1.0,), (1.0,)),)),
]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_figures_in_the_terminal_and_in_files(plot: Plot, tmp_path: Path) -> None:
    for theme in THEMES:
        for size in ((30, 8), (100, 30)):
            lines = draw(plot, *size, ink(theme.name), few_colours=size[0] == 30)
            assert 1 < len(lines) <= size[1]
            assert max(cell_len("".join(text for text, _ in line)) for line in lines) <= size[0]
    written = write_plot(plot, tmp_path / "plots", plot.name)
    assert [path.suffix for path in written] == [".csv", ".png", ".svg"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in written[2].read_text()
    assert len(written[0].read_text().splitlines()) == 1 + len(plot.rows()[1])


def test_a_figure_without_matplotlib_keeps_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"windowshift\[export\]"):
        write_plot(PLOTS[0], tmp_path, "x")
    assert (tmp_path / "x.csv").is_file()
    with pytest.raises(StoreError, match="cannot write"):
        write_plot(PLOTS[0], Path("/proc/nope"), "x")


def test_empty_and_tiny_figures() -> None:
    assert "no cell" in draw(Plot("x", "t", note="no cell"), 80, 20, ink(DARK.name))[0][0][0]
    assert "too small" in draw(PLOTS[0], 10, 3, ink(DARK.name))[0][0][0]


def test_plain_text_keeps_its_width() -> None:
    text = "●◔ ━╌ ▸ ▴ −.39 │ é 日本 ⣀⠤ ✓ ‖ ␛ 👩 “x”"
    assert terminal.plain(text).isascii()
    assert cell_len(terminal.plain(text)) == cell_len(text)
    assert terminal.plain("−.39 é") == "-.39 e"


@pytest.mark.parametrize(("term", "sentence"), [("dumb", "TERM=dumb"), ("", "unset"), ("xterm", "need a terminal")])
def test_a_terminal_that_cannot(monkeypatch: pytest.MonkeyPatch, term: str, sentence: str) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("TEXTUAL_DRIVER", raising=False)
    monkeypatch.setattr(sys, "__stdin__", None)
    with pytest.raises(SpecError, match=sentence):
        terminal.check()


def test_serve_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    with pytest.raises(MissingExtraError, match=r"windowshift\[serve\]"):
        serve(tmp_path)
    assert [loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")] == [
        True, True, True, False, False,
    ]  # fmt: skip
