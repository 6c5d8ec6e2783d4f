"""What `from windowshift import ...` gives to notebooks and to packages that add settings, scorers and backends."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import windowshift
from tests.generated_store import CONDITIONS, generate_store
from tests.runs import tiny_llama, write_spec
from windowshift import frames

__all__ = ["tiny_llama"]

STRANGER = """\
from windowshift import Behaviour, Completion, Prompt, RowScorer, Sample, Scale, Score, Scorer, Setting

SHOUTED = Behaviour("shouted", "share", Scale.rate(), "primary")


class Shouting:
    name = "shouting"
    behaviours = (SHOUTED,)

    def identity(self):
        return {"scorer": "shouting", "version": 1}

    def score(self, sample):
        return {"shouted": Score(float(sample.completion.text.isupper()))}


scorer = Shouting()
assert isinstance(scorer, Scorer) and isinstance(scorer, RowScorer)
print(scorer.score(Sample(Prompt("0", "Why?"), Completion("0", "BECAUSE", "stop", 1)))["shouted"].value)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    generate_store(folder, prompts=20, data_size=30, steering=True).close()
    return folder


def in_a_process_of_its_own(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", windowshift.__all__)
def test_a_name_can_be_imported_first_and_alone(name: str, tmp_path: Path) -> None:
    """Whatever was imported before it hides a circle of imports, or a name that has moved."""
    said = in_a_process_of_its_own(f"from windowshift import {name}\nprint({name} is not None)", tmp_path)
    assert said == "True\n"


def test_what_is_exported_says_what_it_is() -> None:
    for name in windowshift.__all__:
        if name == "__version__":
            continue
        found = getattr(windowshift, name)
        own = found.__doc__ or ""
        assert len(own) > 15, name
        assert not own.startswith(f"{name}("), f"{name} has the docstring that dataclass writes"
        if inspect.isclass(found):
            for member, value in vars(found).items():
                if inspect.isfunction(value) and not member.startswith("_"):
                    assert value.__doc__, f"{name}.{member}"
        assert name in (windowshift.__doc__ or ""), f"the docstring of windowshift does not name {name}"


def test_nothing_is_imported_that_is_not_asked_for(tmp_path: Path) -> None:
    code = "import sys, windowshift\nprint([m for m in sys.modules if m.startswith('windowshift.')])"
    assert in_a_process_of_its_own(code, tmp_path) == "[]\n"
    names = "Setting, Scorer, Scale, Backend, TrainJob"
    code = f"import sys\nfrom windowshift import {names}\nprint('torch' in sys.modules)"
    assert in_a_process_of_its_own(code, tmp_path) == "False\n"


def test_a_strangers_scorer(tmp_path: Path) -> None:
    assert in_a_process_of_its_own(STRANGER, tmp_path) == "1.0\n"


def test_reprs_are_short_and_say_what_it_is(workspace: Path, tmp_path: Path) -> None:
    from windowshift import Behaviour, Completion, Message, Prompt, Reader, Scale, compare_arms, load_spec, report

    with Reader(str(workspace)) as reader:
        assert repr(reader) == f"Reader({str(workspace)!r})"
        assert [one.name for one in reader.experiments()] == ["med-short"]
    path = write_spec(tmp_path, "microworld")
    spec, _ = load_spec(str(path))
    made: list[tuple[object, str]] = [
        (report(str(workspace), "med-short"), "<Report of 'med-short' on length_chars: "),
        (compare_arms(str(workspace), "med-short"), "<ArmsComparison of 'med-short' on length_chars: "),
        (spec, "Spec(name='small', model='microworld', conditions=Conditions(generate=['med_short'], "),
        (Scale.rate(), "Scale(kind='rate', "),
        (Behaviour("hack", "share", Scale.rate()), "Behaviour(name='hack', unit='share', scale=Scale("),
        (Prompt("0", "Why?", {"tests": [1]}), "Prompt(id='0', text='Why?', payload="),
        (Message("user", "Why?"), "Message(role='user', content='Why?')"),
        (Completion("0", "So.", "stop", 2), "Completion(key='0', text='So.', finish='stop', tokens=2, "),
    ]
    for one, begins in made:
        assert repr(one).startswith(begins), repr(one)
        assert len(repr(one)) < 700
        assert " at 0x" not in repr(one)


def test_a_closed_reader_was_closed_by_its_block(workspace: Path) -> None:
    import sqlite3

    with windowshift.Reader(workspace) as reader:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        reader.connection.execute("SELECT 1")


# -- frames -------------------------------------------------------------------------------------


def test_frames_say_their_columns(workspace: Path) -> None:
    found = windowshift.report(workspace, "med-short")
    for make, columns in (
        (frames.cells, frames.CELLS),
        (frames.rows, frames.ROWS),
        (frames.points, frames.POINTS),
        (frames.fits, frames.FITS),
        (frames.doses, frames.DOSES),
    ):
        made: Any = make(found)
        assert tuple(made.columns) == columns
        documented = set(re.findall(r"`(\w+)`", make.__doc__ or ""))
        lacking = {name for name in columns if not name.endswith(("_low", "_high"))} - documented
        assert not lacking, f"{make.__name__} does not document {lacking}"


def test_frames_have_the_numbers_of_the_report(workspace: Path) -> None:
    found = windowshift.report(workspace, "med-short")
    told = found.to_json()
    cells: Any = frames.cells(found)
    assert len(cells) == len(told["cells"])
    for (_, row), cell in zip(cells.iterrows(), told["cells"], strict=True):
        assert (row["train"], row["evaluate"], row["n"]) == (cell["train"], cell["evaluate"], cell["n"])
        if cell["ci95"] is None:
            assert math.isnan(row["low"])
            assert math.isnan(row["mean"])
        else:
            assert [row["low"], row["high"]] == cell["ci95"]
        if cell["uplift"] is not None:
            assert (row["uplift"], row["effect"]) == (cell["uplift"], cell["effect"])
    rows: Any = frames.rows(found).set_index(["arm", "train"])
    for arm, measures in told["arms"].items():
        for train, cv in measures["cv"].items():
            assert rows.loc[(arm, train), "spread"] == cv
            assert [rows.loc[(arm, train), "spread_low"], rows.loc[(arm, train), "spread_high"]] == measures["cv_ci95"][
                train
            ]
        for point in measures["points"]:
            row = rows.loc[(arm, point["train"])]
            assert (row["x"], row["y"], row["train_mean_ratio"]) == (point["x"], point["y"], point["train_mean_ratio"])
    prefix = rows.loc["prefix"]
    assert list(prefix.index) == ["base", *CONDITIONS]
    assert (prefix["cells_done"] == prefix["cells"]).all()
    assert (prefix["n"] == prefix["cells"] * 20).all()
    assert prefix.loc["base", "spread_kept"] == 1.0
    completions: Any = frames.completions(str(workspace), "med-short")
    means = completions.groupby(["arm", "train", "evaluate"])["length_chars"].mean()
    for _, row in cells[cells["n"] > 0].iterrows():
        assert means[row["arm"], row["train"], row["evaluate"]] == pytest.approx(row["mean"])


def test_frames_of_an_experiment_that_has_hardly_begun(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=10, data_size=10, running=56).close()
    found = windowshift.report(tmp_path, "med-short")
    rows: Any = frames.rows(found)
    assert rows["spread"].isna().all()
    assert rows["spread"].dtype == "float64"
    assert rows["reason"].notna().all()
    assert str(rows["cells_done"].dtype) == "Int64"
    cells: Any = frames.cells(found)
    assert (cells["done"] < cells["total"]).all()
    assert cells["mean"].isna().all()


# -- a run from a notebook ------------------------------------------------------------------------


async def test_a_spec_runs_where_an_event_loop_is_running(tiny_llama: Path, tmp_path: Path) -> None:
    """Notebooks have one; `asyncio.run` refuses there."""
    asyncio.get_running_loop()
    spec, text = windowshift.load_spec(write_spec(tmp_path, tiny_llama, train="[short]"))
    seen: list[int] = []
    outcome = windowshift.run_spec(
        spec, text, str(tmp_path), str(tmp_path / "ws"), observe=lambda progress: seen.append(progress.jobs_done)
    )
    assert outcome.state == "done", outcome.failures
    assert seen
    assert seen[-1] > 0
    assert not windowshift.frames.completions(tmp_path / "ws", "small").empty


def test_figures_are_drawn_where_a_notebook_shows_them(workspace: Path, tmp_path: Path) -> None:
    found = windowshift.figures(workspace, "med-short")
    assert len(found) > 2
    assert all("med-short" in one.plot.of for one in found)
    first = found[0]
    assert first._repr_png_().startswith(b"\x89PNG")
    assert found[:1]._repr_html_().count("<img") == 1
    assert all(why in found[:1]._repr_html_() for why in found.left_out.values())
    assert first.frame().shape == (len(first.plot.rows()[1]), len(first.plot.rows()[0]))
    assert [path.name for path in first.write(tmp_path, "csv")] == [f"{first.name}.csv"]
    assert first.figure().get_suptitle()
    with pytest.raises(windowshift.SpecError, match="there is no experiment 'nope'"):
        windowshift.figures(workspace, "nope")
    with pytest.raises(windowshift.SpecError, match="does not measure 'nope'"):
        windowshift.figures(workspace, "med-short", "nope")
