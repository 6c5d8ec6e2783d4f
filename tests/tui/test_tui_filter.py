"""The filter and the orders of a cell's completions: the little language, its errors, expressions that never end."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tui_pilot import app, arrive, screen_text, settle, store, until
from windowshift.core.store.reader import Reader
from windowshift.tui.read.arrangement import SORTS, Arrangement, arrange
from windowshift.tui.read.cell_snapshot import IndexEntry
from windowshift.tui.read.pattern_search import find_rows
from windowshift.tui.read.row_filter import FilterError, Pattern, parse
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.grid.screen import GridScreen

ENDLESS = "(e+e*)+#"
"""On the generated texts' runs of e below: exponential."""


@pytest.mark.parametrize(
    ("text", "chips"),
    [
        ("", []),
        ("Number 7", ["“number 7”"]),
        ("  bees   make ", ["“bees make”"]),
        ("-bees", ["not “bees”"]),
        ("bees -honey pot", ["“bees”", "not “honey pot”"]),
        ('"len>2" x', ["“len>2”", "“x”"]),
        ('-"a b"', ["not “a b”"]),
        ("len>200", ["len>200"]),
        ("length >= 200 score<-.5", ["len>=200", "score<-0.5"]),
        ("tokens==5 row!=3", ["tokens=5", "row!=3"]),
        ("bees len<9 honey", ["“bees”", "len<9", "“honey”"]),
        ("end=cut end!=failed", ["end=cut", "end!=failed"]),
        (r"/^The/ /a\/b/i -/x y/", ["/^The/", "/a/b/i", "not /x y/"]),
        ("and/or 3 - 2", ["“and/or 3 - 2”"]),
        ('"open', ["“open”"]),
    ],
)
def test_parse(text: str, chips: list[str]) -> None:
    assert [term.shown for term in parse(text)] == chips


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("len>", "len> needs a number, as in len>20"),
        ("len>many", "len>many needs a number"),
        ("lenght>20", "there is no 'lenght' to compare: known are len, score, tokens, row, end"),
        ("end=finished", "write end=stop, end=cut or end=failed"),
        ("end<cut", "write end=stop, end=cut or end=failed"),
        ("/bees", "has no closing /"),
        ("//", "empty regular expression"),
        ("/bees/x", "the one flag is i"),
        ("/bees(/", "/bees(/ is no regular expression: missing ), unterminated subpattern at character 5"),
        ("/*/", "nothing to repeat at character 1"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_line_is_terms_or_a_sentence(text: str) -> None:
    with suppress(FilterError):
        assert all(term.shown for term in parse(text))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    writer = store(tmp_path, monkeypatch, prompts=60)
    # NULs and one very long text: lengths count characters, and no pattern may stop at them.
    writer.connection.execute("UPDATE completions SET text = text || char(0) || 'nul tail' WHERE row = 3")
    writer.connection.execute("UPDATE completions SET finish = 'length' WHERE row IN (4, 5)")
    writer.connection.execute("UPDATE scores SET value = NULL, reason = 'no answer' WHERE row = 6")
    writer.connection.execute("UPDATE completions SET text = replace(hex(zeroblob(4000)), '00', 'e') WHERE row = 7")
    writer.close()
    return tmp_path


def texts_and_entries(workspace: Path) -> tuple[Reader, int, dict[int, str], tuple[IndexEntry, ...]]:
    reader = Reader(workspace)
    job = reader.cells(1, "length_chars")[-1].job
    texts = {found.row: found.text for found in reader.iter_completions(job, "length_chars")}
    return reader, job, texts, tuple(IndexEntry(*row) for row in reader.score_index(job, "length_chars"))


def test_orders_and_filters_agree_with_python(workspace: Path) -> None:
    reader, job, texts, entries = texts_and_entries(workspace)
    scores = {entry.row: entry.score for entry in entries}

    def rows(text: str, **order: object) -> list[int]:
        return arrange(reader, job, entries, Arrangement(terms=parse(text), **order))  # type: ignore[arg-type]

    assert rows("len>200") == [row for row in texts if len(texts[row]) > 200]
    assert rows("nul tail") == rows("/nul tail$/") == [3]
    assert rows("end=cut row<6") == [4, 5]
    assert 6 not in rows("score>0")
    assert rows("-bees") == [row for row in texts if "bees" not in texts[row]]
    assert rows("/BEES.*honey/i -/honey slowly/ tokens>20") == [
        row
        for row, text in texts.items()
        if "honey" in text.partition("bees")[2] and "honey slowly" not in text and len(text) // 5 > 20
    ]
    # A prompt counts too.
    assert rows("/number 1[0-2]/") == [10, 11, 12]
    lengths = [len(texts[row]) for row in rows("", sort="length", backwards=True)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 4000
    by_score = rows("", sort="score")
    assert by_score[-1] == 6
    assert [scores[row] for row in by_score[:-1]] == sorted(value for value in scores.values() if value is not None)
    by_text = [texts[row] for row in rows("", sort="text")]
    assert by_text == sorted(by_text)
    for sort in SORTS:
        assert sorted(rows("bees", sort=sort)) == rows("bees")
    reader.close()


def test_an_expression_that_never_ends_is_stopped(workspace: Path) -> None:
    reader, job, _, _ = texts_and_entries(workspace)
    with pytest.raises(FilterError, match=r"takes more than 0\.3 s here and was stopped"):
        find_rows(workspace, job, Pattern(ENDLESS, False, False), patience=0.3)
    began = time.monotonic()
    assert find_rows(workspace, job, Pattern(ENDLESS, False, False), cancelled=lambda: True) == frozenset()
    assert time.monotonic() - began < 60.0  # without being told it never ends
    reader.close()


async def test_typing_a_filter(workspace: Path) -> None:
    async with app(workspace).run_test(size=(100, 30)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("enter")
        screen: CellScreen = await arrive(pilot, CellScreen)
        everything = list(range(60))
        await pilot.press("slash", *"end=cut row<6")
        await until(pilot, lambda: screen.completions.order == [4, 5])
        assert "end=cut · row<6 · 2 of 60" in screen_text(pilot)
        await pilot.press(*" len>")
        await settle(pilot)
        assert "✗ len> needs a number" in screen_text(pilot)
        await pilot.press(*"5")
        await until(pilot, lambda: screen.completions.order == [4, 5])
        assert "✗ len" not in screen_text(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: screen.completions.order == everything)
        assert "✗" not in screen_text(pilot).replace("✗ failed", "")
        # The list answers while an expression runs that never ends, and another filter ends it.
        await pilot.press("slash", *f"/{ENDLESS}/", "enter")
        await until(pilot, lambda: "looking …" in screen_text(pilot))
        before = screen.completions.cursor
        await pilot.press("down", "down")
        assert screen.completions.cursor == before + 2
        await pilot.press("slash", "escape")
        await until(pilot, lambda: screen.completions.order == everything)
        await settle(pilot)
        assert "looking" not in screen_text(pilot)
        await pilot.press("s", "s", "S")
        await until(pilot, lambda: screen.completions.order[0] == 7)
        assert "by length, long first" in screen_text(pilot)


async def test_a_sorted_list_follows_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows arrive and go away under an order, a filter and a stopped expression, and another behaviour is shown."""
    writer = store(tmp_path, monkeypatch, prompts=12)
    ((job,),) = writer.connection.execute("SELECT n FROM jobs WHERE label = 'med_short: short → short'").fetchall()
    async with app(tmp_path).run_test(size=(100, 30)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("enter")
        screen: CellScreen = await arrive(pilot, CellScreen)
        await pilot.press("s", "s", "slash", *"len>0", "enter")
        await until(pilot, lambda: "12 of 12" in screen_text(pilot))
        with writer.batch() as connection:
            connection.execute("DELETE FROM completions WHERE job = ? AND row > 8", (job,))
        await until(pilot, lambda: "9 of 9" in screen_text(pilot))
        with writer.batch() as connection:
            connection.execute("UPDATE completions SET row = row + 20 WHERE job = ? AND row > 5", (job,))
        await until(pilot, lambda: sorted(screen.completions.order) == [0, 1, 2, 3, 4, 5, 26, 27, 28])
        await pilot.press("b")
        await until(pilot, lambda: screen.completions.unit == "words" and "words" in screen_text(pilot))
        await settle(pilot)
        assert "9 of 9" in screen_text(pilot)
    writer.close()
