"""A dagger stands behind every number that rests on completions which were cut off: of D, of pairs, of spreads."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.generated_store import generate_store
from tests.report_text import report_text
from windowshift.core.measure.arm_comparison import ArmsComparison, compare_arms
from windowshift.core.report.arm_comparison_page import arms_blocks, arms_json
from windowshift.core.report.report import report
from windowshift.core.report.text import draw
from windowshift.core.settings.length import CHARS
from windowshift.core.store.reader import Reader
from windowshift.tui.read import cell_labels
from windowshift.tui.read.snapshot import GridChoice, GridSnapshot, Page, read_grid


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An experiment of which nothing was cut off."""
    writer = generate_store(tmp_path, prompts=16, data_size=16, steering=True)
    with closing(writer), writer.batch() as store:
        store.execute("UPDATE completions SET finish = 'stop' WHERE finish = 'length'")
        store.execute("UPDATE summaries SET truncated = 0")
        store.execute("DELETE FROM checksums")
    return tmp_path


def cut(workspace: Path, label: str, rows: int) -> None:
    """The first completions of a job were cut off after all."""
    from windowshift.core.store.writer import Writer

    with closing(Writer(workspace)) as writer, writer.batch() as store:
        ((job,),) = store.execute("SELECT n FROM jobs WHERE label = ?", (label,)).fetchall()
        store.execute("UPDATE completions SET finish = 'length' WHERE job = ? AND row < ?", (job, rows))
        store.execute("UPDATE summaries SET truncated = ? WHERE job = ?", (rows, job))


def page(workspace: Path, arm: str) -> GridSnapshot:
    with closing(Reader(workspace)) as reader:
        found = read_grid(reader, "med-short", GridChoice(Page(arm, "med_short")))  # type: ignore[arg-type] - an arm
    assert found is not None
    return found


def summaries(workspace: Path, arm: str) -> dict[str, tuple[str, str]]:
    """The daggers of a row's spread and of train_mean_ratio on screen."""
    grid = page(workspace, arm)
    labels = {row.train: cell_labels._summary(grid, row, "mean", None, None) for row in grid.rows}
    return {train: (faces[1].dagger, faces[3].dagger) for train, faces in labels.items()}


def compared(workspace: Path) -> ArmsComparison:
    return compare_arms(workspace, "med-short", resamples=100)


def test_nothing_that_was_cut_off_leaves_no_dagger(workspace: Path) -> None:
    assert "†" not in report_text(report(workspace, "med-short", resamples=100), 200)
    assert "†" not in draw(list(arms_blocks(compared(workspace))), 200)
    assert set(summaries(workspace, "prefix").values()) == {("", "")}


def test_d_that_was_cut_off_marks_how_surprising_it_is(workspace: Path) -> None:
    cut(workspace, "data med_short", 3)
    found = report(workspace, "med-short", resamples=100)
    points = [point for arm in found.measures.arms.values() for point in arm.whole.points if point.x]
    assert {point.truncated for point in points} == {3}
    text = report_text(found, 200)
    fit = text[text.index("Grouped fit") :].splitlines()
    assert any(line.startswith("short") and line.count("†") == 1 for line in fit)
    row = next(row for row in compared(workspace).rows if row.pair.prefix == "short")
    assert (row.truncated, row.data_truncated) == ((0, 0), (3, 3))
    assert set(summaries(workspace, "prefix").values()) == {("", "†")}
    (data,) = {row.data_cut for row in page(workspace, "prefix").rows}
    assert data == 3


def test_a_cell_that_was_cut_off_marks_its_row_s_spread_and_its_pair(workspace: Path) -> None:
    cut(workspace, "med_short: short → long", 2)
    assert summaries(workspace, "prefix")["short"] == ("†", "")
    assert summaries(workspace, "prefix")["medium"] == ("", "")
    arms = compared(workspace)
    rows = {row.pair.prefix: row for row in arms.rows}
    assert rows["short"].truncated == (2, 0)
    assert rows["medium"].truncated == (0, 0)
    text = draw(list(arms_blocks(arms)), 220)
    pair = text[text.index("Trained under short") : text.index("Trained under medium")]
    uplift = next(line for line in pair.splitlines() if line.startswith("uplift"))
    assert uplift.count("†") == 2  # the prefix row's value, and the difference
    assert "†" not in next(line for line in pair.splitlines() if line.startswith("train_mean_ratio"))
    assert "completions that were truncated at the token limit" in pair
    average = text[text.index("Average over") : text.index("Trained under")]
    assert "†" in average
    told = {one["prefix"]: one for one in arms_json(arms)["pairs"]}
    assert told["short"]["truncated"] == {"prefix": 2, "steering": 0}
    assert CHARS.scale.words.truncated in pair
