"""What CONTRIBUTING says of conditions, scorers and screens is done here as it stands there, and seen to work."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from textual.widgets import Static

from tests.runs import windowshift
from tests.scripted_backend import ScriptedBackend, scripted
from tests.tui_pilot import app, arrive, screen_text, store, until
from tests.walk_throughs.condition import read_small_talk, talk
from tests.walk_throughs.keys import REGISTRY
from tests.walk_throughs.scorer import ASKS, AskingScorer
from windowshift.core.contract.conditions import AGAIN, asked_again
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import GenerateRequest
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import TrainJob
from windowshift.core.spec.condition_kinds import KINDS
from windowshift.core.store.reader import Reader
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.help import HelpScreen
from windowshift.tui.screens.services import SCREENS
from windowshift.tui.text import actions

ROOT = Path(__file__).parents[1]
MORNING = "{small_talk: Good morning., name: morning}"


def blocks(entry: str) -> Iterator[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    own = text[text.index(f"**... a {entry}.**") :]
    own = own[: own.index("\n**... ", 1)]
    for block in re.findall(r"^   ```python\n(.*?)^   ```$", own, re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(block).strip()


def squeezed(code: str) -> str:
    """Without blank lines: ruff formats those of a page otherwise than within a class."""
    return "\n".join(line for line in code.splitlines() if line.strip())


@pytest.mark.parametrize(("entry", "count"), [("condition", 1), ("scorer", 1), ("screen", 2)])
def test_what_is_shown_is_what_is_done_here(entry: str, count: int) -> None:
    shown = list(blocks(entry))
    assert len(shown) == count
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/walk_throughs").glob("*.py"))
    for block in shown:
        assert any(squeezed(textwrap.indent(block, " " * depth)) in squeezed(code) for depth in (0, 4)), block


@pytest.fixture
def small_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "small_talk", read_small_talk)
    monkeypatch.setitem(AGAIN, "small_talk", talk)


async def test_a_condition(small_talk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GenerateRequest | TrainJob] = []

    async def see(kind: str, one: GenerateRequest | TrainJob) -> None:
        seen.append(one)

    generate, train = f"[{MORNING}]", f"[no_prefix, {MORNING}]"
    backend = ScriptedBackend(see)
    run = scripted(monkeypatch, tmp_path, (AskingScorer(),), backend, generate=generate, train=train)
    assert await run.go() == "done"
    turns = ("Good morning.", "Hello!")
    asked = [one for one in seen if isinstance(one, GenerateRequest)]
    assert any(tuple(turn.content for turn in one.messages)[:2] == turns for one in asked)
    plain, pushed = (one for one in seen if isinstance(one, TrainJob))
    assert [len(one.examples[0].messages) for one in (plain, pushed)] == [1, 3]
    with closing(Reader(tmp_path)) as reader:
        cells = reader.cells(1, ASKS.name)
        assert {cell.train for cell in cells} == {"base", "no_prefix", "morning"}
        job = next(job for job in reader.jobs(1) if job.kind == "generate")
        row = next(iter(reader.completions(job.n, ASKS.name)))
        chat = asked_again(job.inputs["condition"], row.phrase, row.asked, "user")
        assert tuple(turn.content for turn in chat) == (*turns, row.asked.text)
    done = windowshift("export", "scripted", "--dataset", "morning/morning", "-w", tmp_path, "-o", "d.jsonl", check=2)
    assert "trains under a small_talk, which chat JSONL cannot hold" in done.stderr


def test_a_condition_that_cannot_be_read_is_named(
    small_talk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match=r"conditions\.train.*small_talk needs a text"):
        scripted(monkeypatch, tmp_path, train="[{small_talk: 3}]")
    with pytest.raises(SpecError, match="unknown key 'nmae': did you mean 'name'"):
        scripted(monkeypatch, tmp_path, train="[{small_talk: Hi., nmae: x}]")


def test_an_identity_makes_the_same_chat_again(small_talk: None) -> None:
    (condition,) = read_small_talk({"small_talk": "Hi."}, "here")
    prompt = Prompt("p", "Why?")
    assert condition.push(prompt, 0, "user").messages == asked_again(condition.identity(), None, prompt, "user")


async def test_a_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await scripted(monkeypatch, tmp_path, (AskingScorer(),)).go() == "done"
    with closing(Reader(tmp_path)) as reader:
        assert {cell.summary.mean for cell in reader.cells(1, ASKS.name) if cell.summary} == {0.0}


async def test_a_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCREENS, "counts", "tests.walk_throughs.screen:CountsScreen")
    monkeypatch.setitem(actions.REGISTRY, "counts", REGISTRY["counts"])
    from tests.walk_throughs.screen import CountsScreen

    store(tmp_path, monkeypatch, prompts=4, data_size=4, running=10).close()
    for size in ((80, 24), (160, 50)):
        async with app(tmp_path).run_test(size=size) as pilot:
            grid = await arrive(pilot, GridScreen)
            grid.shift.open("counts", "med-short")
            await arrive(pilot, CountsScreen)
            await until(pilot, lambda: "running" in screen_text(pilot))
            text = screen_text(pilot)
            assert "med-short ▸ counts" in text
            assert "done" in text
            assert "u unfinished" in text
            await pilot.press("u")
            await until(pilot, lambda: " done" not in screen_text(pilot))
            await pilot.press("question_mark")
            panel = await arrive(pilot, HelpScreen)
            assert panel.query_one("#help").border_title == "Keys · Counts"
            assert "leave out what is done" in str(panel.query_one("#help-text", Static).render())
