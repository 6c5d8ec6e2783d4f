"""Numbers, harmless text, order of the grid, faces: plain functions of the TUI."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.generated_store import CONDITIONS, generate_store
from windowshift.core.contract import sanitise
from windowshift.core.store.reader import Reader
from windowshift.tui.read import cell_labels
from windowshift.tui.read.snapshot import GridChoice, Page, read_grid
from windowshift.tui.text import actions, columns, formats
from windowshift.tui.text.columns import Column
from windowshift.tui.text.pieces import PLAIN, fit, length, spread
from windowshift.tui.text.theme import scale, step_of
from windowshift.tui.text.words import wrapped
from windowshift.tui.widgets.distribution import Ridge, axis, heights
from windowshift.tui.widgets.headline import difference
from windowshift.tui.widgets.loss_curve import curve


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (571.2, "571"),
        (61.7, "62"),
        (29.4, "29.4"),
        (9.44, "9.4"),
        (0.834, ".83"),
        (0.0, "0"),
        (-3.26, "−3.3"),
        (None, "·"),
    ],
)
def test_plain(value: float | None, text: str) -> None:
    assert formats.plain(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.891, "+.89"), (-1.02, "−1.02"), (0.001, ".00"), (-0.001, ".00"), (None, "·")]
)
def test_signed(value: float | None, text: str) -> None:
    assert formats.signed(value) == text


def test_times_and_bars() -> None:
    assert [formats.duration(s) for s in (52, 3723, 273600)] == ["0:52", "1:02:03", "3d 4h"]
    assert [formats.age(s) for s in (5, 300, 7300, 200000)] == ["just now", "5 min ago", "2 h ago", "2 d ago"]
    assert formats.bar(0.0, 4) == ("", "╌╌╌╌")
    assert formats.bar(0.01, 4) == ("━", "╌╌╌")
    assert formats.bar(0.999, 4) == ("━━━", "╌")
    assert formats.bar(1.0, 4) == ("━━━━", "")
    assert formats.money(None, local=False) == "no price"
    assert formats.money(0.5, local=False) == "$0.50"
    assert formats.spark([3, 2, 1], 3) == "█▄▁"


@given(st.text(max_size=300))
def test_no_text_moves_the_terminal(text: str) -> None:
    shown = sanitise.block(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cs") or c == "\n" for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u200b\ufeff")
    assert "\n" not in sanitise.line(text)


def test_long_text_is_cut_and_says_so() -> None:
    assert sanitise.block("x" * 30_000).endswith("… 10,000 more characters")
    assert len(sanitise.line("x" * 1_000_000)) == 401
    assert sanitise.line("a\nb") == "a⏎b"
    assert sanitise.line("\x1b[2J\x00") == "␛[2J␀"
    assert sanitise.line("\u202egnp.exe") == "‹U+202E›gnp.exe"


@given(st.text(max_size=40), st.integers(0, 60), st.sampled_from(["left", "right", "center"]))
def test_fit_is_exact(text: str, width: int, align: str) -> None:
    assert length([(fit(sanitise.line(text), width, align), PLAIN)]) == width


@given(st.text("abc日", max_size=40), st.text("xyz", max_size=20), st.integers(25, 60))
def test_spread_keeps_the_right_end(left: str, right: str, width: int) -> None:
    pieces = spread([(left, PLAIN)], [(right, PLAIN)], width)
    assert length(pieces) == width
    assert "".join(text for text, _ in pieces).endswith(right)


def test_columns_fit_every_width() -> None:
    shown = (Column("a", 0), Column("b", 5, "right"), Column("c", 9, above=50))
    for width in (30, 50, 90):
        assert length(columns.header(shown, width, PLAIN)) == width
        assert length(columns.row(shown, width, [("日本", PLAIN), ("1", PLAIN), ("c", PLAIN)])) == width


def test_the_footer_fits_and_keeps_help() -> None:
    for screen in actions.REGISTRY:
        for width in (40, 80, 160):
            shown = actions.footer(screen, width)
            assert sum(len(a.shown) + len(a.label) + 3 for a in shown) <= width
            assert width < 80 or screen in ("help", "confirm", "choice", "problem") or actions.HELP in shown


def test_the_scale_is_legible() -> None:
    assert step_of(0.01) == 0
    assert (step_of(1.0), step_of(-1.0)) == (8, -8)
    for dark in (True, False):
        for few in (True, False):
            assert len({str(scale(step, dark, few).bgcolor) for step in (-8, -4, 0, 4, 8)}) == 5


def test_distribution() -> None:
    low, high, step = axis([Ridge("this", (12.0, 130.0, 80.0), None, None, None)])
    assert (low, high, step) == (0.0, 150.0, 50.0)
    assert heights([0, 10, 149, 900], low, high, 3) == [2, 0, 2]
    assert axis([Ridge("this", (5.0, 5.0), None, None, None)])[:2] == (4.4, 5.6000000000000005)


def test_loss_curve() -> None:
    lines = curve(tuple((4 * i, 2.0 - i / 50) for i in range(50)), 40, 6)
    assert len(lines) == 6
    assert lines[-1][1].endswith("196 examples")
    assert curve(((0, 1.0),), 40, 6) == []


@pytest.mark.parametrize(
    ("name", "short"), [("very_long", "v_long"), ("no_prefix", "none"), ("medium", "medium"), ("mediumish", "mediu…")]
)
def test_short_labels(name: str, short: str) -> None:
    assert cell_labels.short_label(name, 6) == short


def test_labels_stay_apart() -> None:
    assert len(set(cell_labels.labels(["context_aaaa", "context_bbbb"], 6))) == 2


def test_grid_order_pages_seeds_and_steps(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=8, data_size=8, generate=("med_short", "long"))
    connection = writer.connection
    # A second seed, a checkpoint, and a mixed row with a label of its own.
    connection.execute(
        "INSERT INTO cells (experiment, arm, generate, train, evaluate, seed, step, final, job) "
        "SELECT experiment, arm, generate, train, evaluate, 1, step, final, job FROM cells WHERE train != 'base'"
    )
    connection.execute(
        "INSERT INTO cells (experiment, arm, generate, train, evaluate, seed, step, final, job) "
        "SELECT experiment, arm, generate, train, evaluate, 0, 4, 0, job FROM cells WHERE train = 'short' AND seed = 0"
    )
    connection.execute(
        "INSERT INTO cells (experiment, arm, generate, train, evaluate, seed, step, final, job) "
        "SELECT experiment, arm, 'med_short+long', 'mix', evaluate, 0, step, 1, job FROM cells "
        "WHERE train = 'short' AND generate = 'long' AND seed = 0 AND final = 1"
    )
    connection.execute(
        "INSERT INTO sources SELECT experiment, arm, 'med_short+long', 'mix', 0, part, 0.5, part_generate, part_train, "
        "job, first, last, reference FROM sources WHERE train = 'short' AND generate = 'long'"
    )
    writer.close()
    reader = Reader(tmp_path)
    grid = read_grid(reader, "med-short", GridChoice())
    assert grid is not None
    means = [cell.mean for cell in grid.base.cells if cell]
    assert means == sorted(means)
    assert set(grid.columns) == set(CONDITIONS)
    assert [row.train for row in grid.rows] == list(grid.columns)
    assert grid.pages == (Page("prefix", "med_short"), Page("prefix", "long"), Page("prefix", "med_short+long"))
    assert (grid.seeds, grid.steps) == ((0, 1), (4,))
    other = read_grid(reader, "med-short", GridChoice(page=grid.pages[1], seed=1, behaviour="length_words"))
    assert other is not None
    assert (other.page.generate, other.seed, other.behaviour.unit) == ("long", 1, "words")
    assert all(cell and cell.base for row in other.rows for cell in row.cells)
    course = read_grid(reader, "med-short", GridChoice(step=4))
    assert course is not None
    assert [row.train for row in course.rows] == ["short"]
    mixed = read_grid(reader, "med-short", GridChoice(page=grid.pages[2]))
    assert mixed is not None
    assert [row.train for row in mixed.rows] == ["mix"]
    assert mixed.rows[0].surprise(mixed.behaviour.scale) is not None
    assert read_grid(reader, "nope", GridChoice()) is None
    reader.close()
    assert len(cell_labels.model(grid, "uplift").rows) == 7


def test_columns_are_summed_up(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=8, data_size=8)
    writer.close()
    reader = Reader(tmp_path)
    grid = read_grid(reader, "med-short", GridChoice())
    reader.close()
    assert grid is not None
    for metric, label in (("uplift", "mean"), ("mean", "mean"), ("n", "total")):
        foot = cell_labels.model(grid, metric).foot  # type: ignore[arg-type]
        assert foot is not None
        assert foot.label == label
        assert len(foot.faces) == len(grid.columns)
    last = [row.cells[-1].effect(grid.behaviour.scale) for row in grid.rows]  # type: ignore[union-attr]
    shown = cell_labels.model(grid, "uplift").foot
    assert shown is not None
    assert shown.faces[-1].text == formats.signed(sum(last) / len(last))  # type: ignore[arg-type]
    assert cell_labels.model(grid, "n").foot.faces[0].text == str(7 * 8)  # type: ignore[union-attr]
    one = cell_labels.model(replace(grid, rows=grid.rows[:1]), "uplift")
    assert one.foot is None


def test_only_the_columns_that_differ() -> None:
    before = [("abc ", PLAIN), ("0:52", PLAIN), (" $0", PLAIN)]
    assert difference(before, [("abc ", PLAIN), ("0:53", PLAIN), (" $0", PLAIN)]) == (4, 8)
    assert difference(before, [("abc ", PLAIN), ("10:53", PLAIN), (" $0", PLAIN)]) == (4, 12)


def test_words_break_at_spaces_only() -> None:
    lines = wrapped([("one two", PLAIN), (" [1,\u00a02] three", PLAIN)], 9)
    assert ["".join(text for text, _ in line).strip() for line in lines] == ["one two", "[1, 2]", "three"]


def test_extremes_are_those_of_the_metric_that_is_shown(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=12, data_size=8).close()
    reader = Reader(tmp_path)
    grid = read_grid(reader, "med-short", GridChoice())
    reader.close()
    assert grid is not None
    for metric in ("uplift", "mean"):
        numbers = {
            (r, c): cell_labels.value(cell, metric, grid.behaviour)  # type: ignore[arg-type]  # a loop over literals
            for r, row in enumerate(grid.rows)
            for c, cell in enumerate(row.own_cells)
            if cell
        }
        low, high = cell_labels.extremes(grid, metric)  # type: ignore[arg-type]
        assert (low, high) == (min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__))  # type: ignore[arg-type]
        faces = [face.mark for row in cell_labels.model(grid, metric).rows for face in row.faces]  # type: ignore[arg-type]
        assert sorted(filter(None, faces)) == ["▴", "▾"]
    assert cell_labels.extremes(grid, "mean") != cell_labels.extremes(grid, "uplift")
    for other in ("width", "n", "truncated"):
        assert cell_labels.extremes(grid, other) == (None, None)  # type: ignore[arg-type]
