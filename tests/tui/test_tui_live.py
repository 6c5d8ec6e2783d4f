"""The screens follow the store: cells that arrive, runs that die, stores that vanish, text that bites."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.generated_store import generate_store
from tests.tui_pilot import NOW, app, arrive, finish_job, freeze, screen_text, settle, store, until
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.records import Summary
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.jobs.screen import JobsScreen

HOSTILE = (
    "\x1b[31mred\x1b]52;c;cm0gLXJmIH4=\x07 \x00 [bold]markup[/] [/nope] \u202egnirts\u202c \u2066x\u2069 \x9b2J "
    "\r\x08\x7f 👩‍👩‍👧 שלום مرحبا e\u0301\u0302\u0303\u0304\u0305\u0306 \U000e0041 \u200b"
)


async def test_a_cell_that_arrives_is_shown_and_alone_repainted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store(tmp_path, monkeypatch, running=10)
    async with app(tmp_path).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        row = [r.label for r in screen.matrix.model.rows].index("no_prefix")
        column = screen.matrix.model.columns.index("short")
        assert screen.matrix.model.rows[row].faces[column].kind == "pending"
        repainted = screen.matrix.painted_cells
        finish_job(writer, "med_short: no_prefix → short", 45.0)
        await until(pilot, lambda: screen.matrix.model.rows[row].faces[column].kind == "done")
        assert screen.matrix.model.rows[row].faces[column].text.startswith("−")
        assert screen.matrix.painted_cells - repainted == 1
        await settle(pilot)
        assert "46/56 cells" in screen_text(pilot)
    writer.close()


async def test_a_run_that_falls_silent_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, running=10).close()
    now = [NOW + 4.0]
    watching = app(tmp_path)
    watching.now = lambda: now[0]
    async with watching.run_test() as pilot:
        await arrive(pilot, GridScreen)
        assert "● running" in screen_text(pilot)
        now[0] = NOW + 6.0
        await until(pilot, lambda: "! interrupted" in screen_text(pilot))
        assert "run the same command again to go on" in screen_text(pilot)
        await pilot.press("P")
        await until(pilot, lambda: "No run is alive to pause" in str([n.message for n in pilot.app._notifications]))


async def test_an_absent_workspace_says_what_to_do_and_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "new"
    async with app(place, None).run_test() as pilot:
        await until(pilot, lambda: "Nothing here yet." in screen_text(pilot))
        assert "windowshift demo" in screen_text(pilot)
        store(place, monkeypatch).close()
        await until(pilot, lambda: "med-short" in screen_text(pilot))
        await pilot.press("enter")
        await arrive(pilot, GridScreen)


async def test_an_experiment_that_is_not_there_yet_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch).close()
    async with app(tmp_path, "later").run_test() as pilot:
        await until(pilot, lambda: "no experiment 'later'" in screen_text(pilot))
        await pilot.press("enter", "m", "e", "b", "right", "P")  # nothing to do, and no crash
        generate_store(tmp_path, name="later").close()
        await arrive(pilot, GridScreen)


async def test_a_store_that_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, away = tmp_path / "here", tmp_path / "away"
    store(place, monkeypatch).close()
    async with app(place).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        place.rename(away)
        await until(pilot, lambda: "is gone" in screen_text(pilot))
        assert screen.matrix.model.rows  # what was read stays
        store(place, monkeypatch, slope=-0.2).close()  # another store in its place
        await until(pilot, lambda: "is gone" not in screen_text(pilot))
        await settle(pilot)
        assert screen.snapshot.rows


async def test_a_corrupt_store_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "windowshift.db").write_bytes(b"not a database, " * 1000)
    async with app(tmp_path, None).run_test() as pilot:
        await until(pilot, lambda: "is corrupt" in screen_text(pilot))
        await pilot.press("enter", "J", "P", "X", "escape")


async def test_a_view_that_fails_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch).close()

    def fail(*_: object) -> None:
        raise ValueError("a number that nobody [expected]")

    monkeypatch.setattr("windowshift.tui.screens.cell.screen.read_cell", fail)
    async with app(tmp_path).run_test(size=(120, 30)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("enter")
        await until(pilot, lambda: "This view failed" in screen_text(pilot))
        assert "ValueError: a number that nobody [expected]" in screen_text(pilot)
        assert "logs/tui.log" in screen_text(pilot)
        log = (tmp_path / "logs" / "tui.log").read_text()
        assert "Traceback" in log
        assert "a number that nobody" in log
        await pilot.press("escape")
        await arrive(pilot, GridScreen)


async def test_hostile_text_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch)
    ((job,),) = writer.connection.execute("SELECT n FROM jobs WHERE label = 'med_short: short → short'").fetchall()
    writer.connection.execute("UPDATE completions SET text = ? WHERE job = ?", (HOSTILE + "x" * 1_000_000, job))
    writer.connection.execute("UPDATE phrases SET text = ? || id", (HOSTILE,))
    writer.connection.execute("UPDATE prompts SET text = ? || text", (HOSTILE,))
    writer.connection.execute(
        "UPDATE jobs SET label = ? || n, error = ?, state = 'failed' WHERE kind = 'train'", (HOSTILE, HOSTILE)
    )
    writer.connection.execute("UPDATE experiments SET model = ?, error = ?", (HOSTILE, HOSTILE))
    writer.connection.execute("UPDATE cells SET train = ? WHERE train = 'medium'", (HOSTILE,))
    writer.close()
    async with app(tmp_path, None).run_test() as pilot:
        for kind, keys in [
            (ExperimentsScreen, ["enter"]),
            (GridScreen, ["enter"]),
            (CellScreen, ["enter"]),
            (CompletionScreen, []),
        ]:
            await arrive(pilot, kind)
            harmless(screen_text(pilot))
            await pilot.press(*keys)
        assert "more characters" in str(pilot.app.screen.query_one("#own Static").content)
        assert "[bold]markup[/]" in screen_text(pilot)
        await pilot.press("escape", "J")
        screen = await arrive(pilot, JobsScreen)
        await pilot.press("o", "o")
        await settle(pilot)
        assert screen.lines.count
        harmless(screen_text(pilot))


def harmless(text: str) -> None:
    bad = {character for character in text if ord(character) < 32 and character != "\n"}
    obeyed = [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    bad |= {character for character in text if ord(character) in obeyed}
    assert not bad, [hex(ord(c)) for c in bad]


async def test_an_untrained_plan_and_a_difference_behaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates compare by difference, and nothing is done yet."""
    writer = store(tmp_path, monkeypatch, prompts=6, data_size=8)
    connection = writer.connection
    behaviours = '[{"name":"length_chars","unit":"rate","scale":{"kind":"rate"}}]'
    connection.execute("UPDATE experiments SET behaviours = ?", (behaviours,))
    connection.execute("DELETE FROM summaries")
    connection.execute("DELETE FROM scores")
    connection.execute("DELETE FROM completions")
    connection.execute("UPDATE jobs SET state = 'pending', done = 0")
    writer.close()
    async with app(tmp_path).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        await settle(pilot)
        assert {face.kind for row in screen.matrix.model.rows for face in row.faces} == {"pending"}
        assert "difference, pp" in screen_text(pilot)
        await pilot.press("m", "m", "m", "m", "e", "enter")
        await arrive(pilot, CellScreen)
        await pilot.press("s", "enter", "end")
        assert "no scores yet" in screen_text(pilot)


async def test_many_completions_are_read_a_page_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch, prompts=5, data_size=8)
    ((job,),) = writer.connection.execute("SELECT n FROM jobs WHERE label = 'med_short: short → short'").fetchall()
    prompts = [Prompt("p", "the one prompt")]
    ((number),) = writer.put_prompts(set_digest(prompts), prompts)
    rng = random.Random(0)
    rows = [(job, row, number, None, "stop", 3, 4, None, None, f"text {row}") for row in range(5, 20_000)]
    writer.add_completions(rows)
    writer.add_scores(job, [(row[1], "length_chars", rng.random() * 100, None) for row in rows])
    writer.put_summary(job, "length_chars", Summary(20_000, 0, 0, 50.0, 1.0, 49.0, 51.0))
    writer.close()
    async with app(tmp_path).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("enter")
        screen = await arrive(pilot, CellScreen)
        assert screen.lines.count == 20_000
        assert len(screen.completions._texts) < 100
        await pilot.press("end")
        await until(pilot, lambda: "text 19999" in screen_text(pilot))
        await pilot.press("s")
        await settle(pilot)
        assert "text " in screen_text(pilot)


def test_the_import_is_light() -> None:
    heavy = ["torch", "transformers", "openai", "tinker", "pandas", "scipy", "numpy", "peft", "matplotlib", "vllm"]
    code = f"import sys, windowshift.tui.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the app, no reader holds the store: the folder can be removed."""
    store(tmp_path / "w", monkeypatch).close()
    watching = app(tmp_path / "w")
    async with watching.run_test() as pilot:
        await arrive(pilot, GridScreen)
    assert watching.store._idle == []
    shutil.rmtree(tmp_path / "w")
    freeze(monkeypatch)


async def test_the_order_waits_for_the_base_model_and_says_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store(tmp_path, monkeypatch, running=10)
    ((number,),) = writer.connection.execute("SELECT n FROM jobs WHERE label = ?", ("base → short",)).fetchall()
    with writer.batch():
        writer.set_job(int(number), "running", experiment=1)
    async with app(tmp_path).run_test() as pilot:
        screen = await arrive(pilot, GridScreen)
        spec = [entry["name"] for entry in screen.snapshot.experiment.row.conditions["evaluate"]]
        assert screen.snapshot.names == (tuple(spec), tuple(spec))
        await pilot.press("end", *["down"] * 6)
        assert (screen.selected.key.train, screen.selected.key.evaluate) == ("no_prefix", "no_prefix")
        with writer.batch():
            writer.set_job(int(number), "done", experiment=1)
        await until(pilot, lambda: screen.snapshot.names != (tuple(spec), tuple(spec)))
        await settle(pilot)
        means = [cell.mean for cell in screen.snapshot.base.cells]
        assert means == sorted(means)
        assert (screen.selected.key.train, screen.selected.key.evaluate) == ("no_prefix", "no_prefix")
        assert "in the order of the base model's means" in str([n.message for n in pilot.app._notifications])
        pilot.app.clear_notifications()
        finish_job(writer, "med_short: no_prefix → short", 45.0)
        await until(pilot, lambda: screen.snapshot.experiment.row.cells_done == 46)
        assert not list(pilot.app._notifications)
    writer.close()
