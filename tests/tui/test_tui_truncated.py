"""The dagger on the screens: wherever a number rests on completions that were cut off, and nowhere else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generated_store import generate_store
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.truncation import DAGGER
from windowshift.core.measure.missing_scores import MissingScores, WorstCase
from windowshift.core.report.report import report
from windowshift.core.report.truncated_rows import cut_cells, row_dagger
from windowshift.core.store.reader import Reader
from windowshift.tui.read import cell_labels
from windowshift.tui.read.cell_snapshot import read_cell
from windowshift.tui.read.snapshot import GridChoice, GridSnapshot, read_grid
from windowshift.tui.screens.cell.cell_numbers import cell_numbers
from windowshift.tui.screens.compare.screen import measured
from windowshift.tui.screens.compare.table import lines_of
from windowshift.tui.screens.grid.matrix_view import MatrixLines, MatrixView, layout_of
from windowshift.tui.text.theme import DARK, ink


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truncated") / "ws"
    generate_store(folder, prompts=40, data_size=8).close()
    return folder


@pytest.fixture(scope="module")
def grid(workspace: Path) -> GridSnapshot:
    reader = Reader(workspace)
    found = read_grid(reader, "med-short", GridChoice())
    reader.close()
    assert found is not None
    return found


def test_the_grid_marks_the_cells_that_the_report_marks(workspace: Path, grid: GridSnapshot) -> None:
    arm = report(workspace, "med-short", resamples=20).measures.arms["prefix"]
    cut = cut_cells(arm, "med_short")
    model = cell_labels.model(grid, "uplift")
    shown = {
        (row.train, evaluate): bool(face.dagger)
        for row, drawn in zip(grid.rows, model.rows, strict=True)
        for evaluate, face in zip(grid.columns, drawn.faces, strict=True)
    }
    assert shown == {place: place in cut for place in shown}
    assert {True, False} <= set(shown.values())
    for row, drawn in zip(grid.rows, model.rows, strict=True):
        assert drawn.summary[0].dagger == row_dagger(arm, "med_short", row.train)


def test_a_mean_rests_on_its_own_completions_and_a_count_on_none(grid: GridSnapshot) -> None:
    for row, drawn in zip(grid.rows, cell_labels.model(grid, "mean").rows, strict=True):
        for cell, face in zip(row.cells, drawn.faces, strict=True):
            assert cell is not None
            assert cell.summary is not None
            assert bool(face.dagger) == (cell.summary.truncated > 0)
    assert not cell_labels.model(grid, "n").daggers
    assert not cell_labels.model(grid, "truncated").daggers
    assert cell_labels.model(grid, "width").daggers


@pytest.mark.parametrize("width", [76, 156])
def test_no_dagger_is_cut_off_where_there_is_little_room(grid: GridSnapshot, width: int) -> None:
    model = cell_labels.model(grid, "uplift")
    faces = [replace(face, dagger=DAGGER, mark="▾") for face in model.rows[0].faces]
    model = replace(model, rows=(replace(model.rows[0], faces=tuple(faces)), *model.rows[1:]))
    view = MatrixView(model, layout_of(model, width, 20), 0, 0, 0, 0)
    drawn = "".join(text for text, _ in MatrixLines(view, ink(DARK.name), few_colours=False)._row(0, 0))
    assert drawn.count(f"{DAGGER}▾") == len(view.window) > 1


def test_compared_rows_have_it_on_every_number(workspace: Path, grid: GridSnapshot) -> None:
    cells = [row.cells[0] for row in grid.rows[:2]]
    reader = Reader(workspace)
    found = measured(reader, "med-short", grid.behaviour.name, tuple(cell.key for cell in cells if cell))
    reader.close()
    assert found is not None
    assert all(found.comparison.truncated)
    surprise, *measures, counts = lines_of(found)
    assert all(value.endswith(DAGGER) for line in measures for value, _ in (*line.values, line.difference))
    assert all(DAGGER in truncated for _, truncated in counts.values)
    # How surprising D is rests on what was cut off of D and of the base model, not on the row's own.
    assert [value.endswith(DAGGER) for value, _ in surprise.values] == [False, True]
    assert found.comparison.data_truncated == (0, 1)
    whole = replace(found, comparison=replace(found.comparison, truncated=(0, 0), data_truncated=(0, 0)))
    assert not any(DAGGER in value for line in lines_of(whole)[:-1] for value, _ in (*line.values, line.difference))


def test_compared_rows_say_that_scores_are_missing_unequally(workspace: Path, grid: GridSnapshot) -> None:
    cells = [row.cells[0] for row in grid.rows[:2]]
    reader = Reader(workspace)
    found = measured(reader, "med-short", grid.behaviour.name, tuple(cell.key for cell in cells if cell))
    reader.close()
    assert found is not None
    assert lines_of(found)[-1].difference == ("", "")  # nothing is missing here
    missing = MissingScores(
        (70, 100), (100, 100), Estimate(-0.3, -0.4, -0.2, 100, 100), WorstCase(-0.1, 0.2, (-0.2, 0.3))
    )
    lines = lines_of(replace(found, comparison=replace(found.comparison, missing=missing)))
    assert lines[-1].difference == ("−30 % scored", "missing unequally")
    assert lines[-2].label == "means, worst case"
    assert lines[-2].difference[1].startswith("[")
    chance = replace(missing, difference=Estimate(-0.01, -0.04, 0.02, 100, 100))
    assert len(lines_of(replace(found, comparison=replace(found.comparison, missing=chance)))) == len(lines) - 1


def test_the_cell_has_restricted_means(workspace: Path, grid: GridSnapshot) -> None:
    reader = Reader(workspace)
    cut = {True: 0, False: 0}
    for row in grid.rows:
        for cell in row.cells[:3]:
            assert cell is not None
            found = read_cell(reader, "med-short", cell.key, grid.behaviour.name)
            assert found is not None
            text = "".join(text for line in cell_numbers(found, 160, ink(DARK.name)) for text, _ in line[0])
            marked = cell_labels.cut_of(cell, "uplift")
            cut[bool(marked)] += 1
            assert ("Kaplan-Meier" in text) == bool(marked)
            if found.restricted is not None:
                assert found.summary is not None
                assert found.restricted.own.mean is not None
                assert found.summary.mean is not None
                if math.isinf(found.restricted.limit):  # what was cut off can only have been longer
                    assert found.restricted.own.mean >= found.summary.mean - 1e-9
    reader.close()
    assert all(cut.values())
