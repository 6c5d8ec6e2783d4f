"""A completion's screen shows how it was scored: reasons, evidence of any shape, and what the model thought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.containers import VerticalScroll

from tests.core.test_behaviour_figures import settled
from tests.tui_pilot import app, arrive, screen_text, settle
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Score
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer
from windowshift.tui.read.cell_snapshot import Finding, score_labels
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.text.theme import ink
from windowshift.tui.widgets.evidence import evidence_text
from windowshift.tui.widgets.headline import Headline

TESTS = [
    {"input": "add(1, 2)", "expected": 3, "got": 4, "passed": False},
    {"input": "add(0, 0)", "expected": 0, "got": 0, "passed": True},
]


def scored(path: Path, row: int = 0) -> None:
    """Keep evidence for one completion of a cell, and what the model thought before it."""
    experiment = settled(path)
    cells = Reader(path).cells(experiment.id, "hack")
    job = next(c.job for c in cells if (c.train, c.evaluate, c.arm) == ("long", "no_prefix", "prefix"))
    writer = Writer(path)
    stated = {"shown test": True, "tests": TESTS, "program": "def add(a, b):\n    return 4"}
    writer.put_scores(
        job,
        [
            (
                row,
                {
                    "hack": Score(1.0, "passes the shown test alone", stated),
                    "correct": Score(None, "the harness ran out of time", None),
                    "french": Score(0.25, None, {"judge": "A quarter of it, \x1b[31mat most\x1b[0m."}),
                    "neither": Score(0.0, None, None),
                },
            )
        ],
    )
    with writer.batch():
        writer.connection.execute(
            "UPDATE completions SET reasoning = 'First I add.', reasoning_tokens = 4 WHERE job = ? AND row = ?",
            (job, row),
        )
    writer.close()


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_how_a_completion_was_scored(size: tuple[int, int], tmp_path: Path) -> None:
    scored(tmp_path)
    async with app(tmp_path, "med-short/med_short/long/no_prefix").run_test(size=size) as pilot:
        await arrive(pilot, CellScreen)
        await pilot.press("enter")
        screen = await arrive(pilot, CompletionScreen)
        await settle(pilot)
        assert [one.behaviour for one in screen.snapshot.findings] == ["french", "correct", "hack"]
        said = screen_text(pilot)
        # Every behaviour's score is there, and none is cut.
        shown = "\n".join(said.splitlines()[1 : 1 + screen.query_one("#scores", Headline).size.height])
        assert shown.count("base ") == 3
        assert "…" not in shown
        assert " grade " in shown
        assert "▸ thought, 4 tokens (o opens)" in said
        assert "First I add." not in said
        await pilot.press("o")
        await settle(pilot)
        said = screen_text(pilot)
        assert "First I add." in said
        assert "how it was scored · e shows all of it" in said
        assert "e evidence" in said.splitlines()[-1]
        await pilot.press("e")
        await settle(pilot)
        said = screen_text(pilot)
        assert "First I add." not in said
        for words in (
            "correct  missing  the harness ran out of time",
            "hack  100.0%  passes the shown test alone",
            "shown test  yes",
            "1 expected 3 · got 4 · input add(1, 2) · passed no",
            "2 expected 0 · got 0 · input add(0, 0) · passed yes",
            "    return 4",
            "judge  A quarter of it, ␛[31mat most␛[0m.",
        ):
            assert words in said, said
        assert "neither" not in said.split("how it was scored")[1]
        await pilot.press("n")
        await settle(pilot)
        assert not screen.query_one("#evidence", VerticalScroll).display
        assert screen.query_one("#panes").display
        await pilot.press("e")
        await settle(pilot)
        assert "kept nothing but their numbers" in str([note.message for note in pilot.app._notifications])
        await pilot.press("p", "e")
        await settle(pilot)
        assert "First I add." in screen_text(pilot)


@pytest.mark.parametrize(
    ("evidence", "lines"),
    [
        ({}, []),
        ({"a": None, "b": 1.5, "c": -2.0, "d": True}, ["  a  ·", "  b  1.5", "  c  −2", "  d  yes"]),
        ({"words": ["one", "two"], "none": []}, ["  words  one, two", "  none  none"]),
        ({"deep": {"er": {"est": 1}}}, ["  deep", "    er", "      est  1"]),
        ({"many": list(range(9))}, ["  many", *(f"    {n + 1} {n}" for n in range(9))]),
        ({"text": "two\nlines"}, ["  text", "    two", "    lines"]),
        ({"rows": [{"a": [1, 2]}, {"b": {"c": "d"}}]}, ["  rows", "    1 a 1, 2", "    2", "      b", "        c  d"]),
        ({"[bold]x": "[red]y[/]"}, ["  [bold]x  [red]y[/]"]),
    ],
)
def test_evidence_of_any_shape(evidence: dict[str, Any], lines: list[str]) -> None:
    text = evidence_text([Finding("hack", "1", True, None, evidence)], ink(""))
    assert [line.rstrip() for line in text.plain.split("\n")[1:]] == lines


def test_scores_of_one_unit_are_told_apart_by_name() -> None:
    points = [Behaviour(name, "points", Scale.difference()) for name in ("alignment", "coherent")]
    hack, words = Behaviour("hack", "share", Scale.rate()), Behaviour("length_words", "words", Scale.ratio())
    assert score_labels([*points, hack, words]) == ["alignment", "coherent", "hack", "words"]
    assert score_labels([points[0], hack]) == ["points", "hack"]
