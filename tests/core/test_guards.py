"""Guards: other prompts beside the grid, scored by their own scorers, each fine-tune paired with the base model."""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.report_text import report_text
from tests.scripted_backend import ScriptedBackend, ScriptedRun
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.records import BASE
from windowshift.core.measure.microscope import microscope
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.report.export import export
from windowshift.core.report.figures import write_figures
from windowshift.core.report.report import report
from windowshift.core.report.text import markdown
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.connection import store_path
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer
from windowshift.tui.read.cell_snapshot import read_cell, read_completion
from windowshift.tui.read.job_snapshot import read_jobs
from windowshift.tui.read.snapshot import CellKey, GridChoice, read_grid

SPEC = """\
name: guarded
model: scripted
prompts: microworld
conditions: {generate: [med_short], train: [short, no_prefix], evaluate: [short, no_prefix]}
data: {size: 4}
sampling: {prompts: 30, max_tokens: 2}
seeds: [0, 1]
"""
GUARD = "guards: [instruction_following]\n"
FORM = """\
guards:
  - setting: instruction_following
    evaluate: [short, no_prefix]
    sampling: {prompts: 20, max_tokens: 99}
"""
PROMPTS = [
    {"prompt": f"Say {n}.", "instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    for n in range(12)
]


class Answering(ScriptedBackend):
    """The base model follows both instructions; a fine-tune says a comma to every other prompt."""

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        for request in requests:
            asked = request.messages[-1].content
            comma = request.model.adapter is not None and asked.endswith(("0.", "2.", "4.", "6.", "8."))
            yield Completion(request.key, '"One, two."' if comma else '"One."', "stop", 4, 5)


def plan(more: str, folder: Path, backend: Any = None) -> Plan:
    text = SPEC + more
    return make_plan(parse_spec(text), text, folder, {"local": backend or Answering()})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, backend = tmp_path_factory.mktemp("guarded"), Answering()
    rows = "".join(json.dumps(row) + "\n" for row in PROMPTS)
    (folder / "own.jsonl").write_text(rows, encoding="utf-8")
    guarded = plan("guards: [{setting: instruction_following, prompts: own.jsonl}]\n", folder, backend)
    assert asyncio.run(ScriptedRun(guarded, folder, backend).go()) == "done"
    return folder


class TestPlan:
    def test_the_grid_keeps_its_jobs_and_a_guard_adds_some(self, tmp_path: Path) -> None:
        plain, guarded = plan("", tmp_path), plan(GUARD, tmp_path)
        more = {job.id for job in guarded.jobs} - {job.id for job in plain.jobs}
        assert {job.id for job in plain.jobs} < {job.id for job in guarded.jobs}
        # Base and two fine-tunes, two seeds: sampled and scored.
        assert len(more) == 2 * 2 * 3
        assert plain.cells == guarded.cells
        assert [one.cell.train for one in guarded.guard_cells] == [BASE, "short", "no_prefix"] * 2
        sampled = [job for job in guarded.jobs if job.id in more and job.kind == "evaluate"]
        assert {job.inputs["sampling"]["max_tokens"] for job in sampled} == {512}  # what the setting needs
        assert {tuple(job.inputs["rows"]) for job in sampled} == {(0, 30)}

    def test_its_form(self, tmp_path: Path) -> None:
        (guard,) = plan(FORM, tmp_path).guards
        assert [one.name for one in guard.conditions] == ["short", "no_prefix"]
        assert (len(guard.prompts), guard.sampling.max_tokens, guard.sampling.temperature) == (20, 99, 1.0)
        assert {one.role for one in guard.behaviours} == {"guard"}
        assert {one.guard for one in guard.behaviours} == {"instruction_following"}

    def test_as_many_prompts_as_there_are_unless_more_are_asked_for(self, tmp_path: Path) -> None:
        text = SPEC.replace("prompts: 30", "prompts: 400") + GUARD
        found = make_plan(parse_spec(text), text, tmp_path, {"local": Answering()})
        assert len(found.guards[0].prompts) == 300
        with pytest.raises(SpecError, match=r"guards\[0\]: .* has 300 distinct prompts"):
            plan("guards: [{setting: instruction_following, sampling: {prompts: 400}}]\n", tmp_path)

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            (
                "guards: [instruction_folowing]",
                r"guards\[0\]: there is no setting .* did you mean 'instruction_following'",
            ),
            ("guards: [length]", r"guards\[0\]: 'length_chars' is measured already"),
            ("guards: [honesty, honesty]", r"guards\[1\]: '\w+' is measured already"),
            ("guards: [{setting: honesty, evaluate: [lon]}]", r"guards\[0\].evaluate: 'lon' is not among"),
            ("guards: [{setting: honesty, evaluate: []}]", "guards"),
            ("guards: [{setting: {name: honesty, x: 1}}]", r"guards\[0\]: setting: 'honesty' takes no options"),
            ("guards: [{setting: honesty, prompts: none.jsonl}]", r"guards\[0\]: .*none.jsonl"),
            ("guards: [{setting: honesty, sampling: {prompt: 3}}]", "prompts"),
            ("guards: honesty", "guards"),
            ("guards: [3]", "guards"),
        ],
    )
    def test_a_guard_that_cannot_be_is_told(self, more: str, says: str, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=says):
            plan(more + "\n", tmp_path)

    def test_a_row_without_instructions_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "bad.jsonl").write_text('{"prompt": "Say a."}\n', encoding="utf-8")
        with pytest.raises(SpecError, match=r"guards\[0\]: .*bad.jsonl.* has no 'instruction_id_list'"):
            plan("guards: [{setting: instruction_following, prompts: bad.jsonl}]\n", tmp_path)

    def test_any_setting_can_be_one(self, tmp_path: Path) -> None:
        (guard,) = plan("guards: [honesty]\n", tmp_path).guards
        assert guard.sampling.max_tokens == 2  # as the experiment's: the setting needs no other


class TestResults:
    def test_the_difference_is_paired_by_prompt(self, workspace: Path) -> None:
        found = report(workspace, "guarded")
        assert found.behaviour.name == "length_chars"
        assert len(found.guards) == 4 + 9
        strict = next(one for one in found.guards if one.behaviour.name == "follows_prompt_strict")
        (base,) = strict.base
        assert base.mean is not None
        assert (base.mean.value, base.mean.n) == (1.0, 24)  # two seeds pooled
        assert [cell.key.train for cell in strict.tuned] == ["short", "no_prefix"]
        for cell in strict.tuned:
            assert cell.effect is not None
            # Numbers that end in 0, 2, ... among 0 to 11: six of twelve.
            assert cell.effect.value == pytest.approx(-0.5)
            assert cell.effect.n == 24
            assert cell.effect.low is not None
            assert cell.effect.low < -0.5 < cell.effect.high < 0  # type: ignore[operator]
        comma = next(one for one in found.guards if one.behaviour.name == "follows_punctuation")
        kept = next(one for one in found.guards if one.behaviour.name == "follows_startend")
        by_instruction = next(one for one in found.guards if one.behaviour.name == "follows_instruction_strict")
        assert [one.tuned[0].effect.value for one in (comma, kept, by_instruction) if one.tuned[0].effect] == [
            pytest.approx(-0.5),
            pytest.approx(0.0),
            pytest.approx(-0.25),
        ]
        assert by_instruction.tuned[0].effect is not None
        assert by_instruction.tuned[0].effect.n == 48  # two instructions a prompt
        none = next(one for one in found.guards if one.behaviour.name == "follows_language")
        assert none.tuned[0].effect is None
        assert none.tuned[0].tally.missing == 24

    def test_the_report_says_it(self, workspace: Path) -> None:
        found = report(workspace, "guarded")
        for text in (report_text(found, 80), report_text(found, 160), markdown(found)):
            words = " ".join(text.replace("\\", "").split())
            assert "Guard instruction_following, evaluated under no_prefix" in words
            assert "follows_prompt_strict (24)" in words
            assert "n counts completions or instructions" in words
            assert "0 of 72 scored answers were cut off at the token limit; 0 have no score, 0 of them failed" in words
        assert "−50.0 [" in report_text(found, 160)
        (first, *_) = found.to_json()["guards"]
        assert (first["guard"], first["counts"]) == ("instruction_following", "completions")
        assert {cell["train"] for cell in first["cells"]} == {BASE, "short", "no_prefix"}
        json.dumps(found.to_json())
        assert report(workspace, "guarded", "follows_prompt_loose").guards == ()

    def test_the_grid_has_no_cell_of_a_guard(self, workspace: Path) -> None:
        with closing(Reader(workspace)) as reader:
            experiment = reader.find_experiment("guarded")
            assert experiment.cells_total == len(reader.cells(experiment.id, "length_chars")) == 2 * 2 * 3
            own = reader.cells(experiment.id, "follows_prompt_strict")
            assert len(own) == 2 * 3
            assert all(cell.summary is not None and cell.summary.n == 12 for cell in own)
            jobs = {cell.job for cell in own}
            assert not jobs & {cell.job for cell in reader.cells(experiment.id, "length_chars")}
            assert all(reader.summary(job, "length_chars") is None for job in jobs)

    def test_every_command_takes_its_behaviours(self, workspace: Path, tmp_path: Path) -> None:
        for name in ("follows_prompt_strict", "follows_language"):
            found = report(workspace, "guarded", name)
            assert report_text(found)
            assert found.to_json()["arms"]
            write_figures(workspace, "guarded", tmp_path / name, name, ("csv",))

    def test_its_figure_is_written_with_those_of_the_primary_behaviour(self, workspace: Path, tmp_path: Path) -> None:
        write_figures(workspace, "guarded", tmp_path / "all", None, ("csv",))
        path = tmp_path / "all" / "guard_instruction_following_under_no_prefix.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["series"] == "short"]
        found = {row["label"]: float(row["difference, pp"]) for row in rows}
        assert found["follows_prompt_strict"] == pytest.approx(-50)
        assert found["follows_startend"] == pytest.approx(0)
        assert "follows_language" not in found  # no such instruction was asked
        write_figures(workspace, "guarded", tmp_path / "own", "follows_prompt_strict", ("csv",))
        assert not list((tmp_path / "own").glob("guard_*"))

    def test_its_completions_are_exported(self, workspace: Path, tmp_path: Path) -> None:
        rows = export(workspace, "guarded", tmp_path / "all.csv")
        with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
            listed = list(csv.DictReader(file))
        assert rows == len(listed) == 12 * 30 + 6 * 12
        guarded = [row for row in listed if row["guard"]]
        assert {row["guard"] for row in guarded} == {"instruction_following"}
        assert all(row["length_chars"] == "" and row["follows_startend"] == "1.0" for row in guarded)
        assert all(json.loads(row["evidence"]) for row in guarded)
        assert all(row["follows_startend"] == "" for row in listed if not row["guard"])

    def test_a_cell_that_flips_is_found_and_all_goes_with_the_experiment(self, workspace: Path, tmp_path: Path) -> None:
        copied = shutil.copytree(workspace, tmp_path / "ws")
        assert check_store(copied) == []
        with closing(sqlite3.connect(store_path(copied))) as store, store:
            store.execute("UPDATE guard_cells SET train = 'short' WHERE train = 'base' AND seed = 0")
        assert any("the grid of experiment 'guarded'" in one for one in check_store(copied))
        with closing(Writer(copied)) as writer:
            writer.delete_experiment(1)
            assert writer.connection.execute("SELECT count(*) FROM guard_cells").fetchone() == (0,)
        assert check_store(copied) == []


class TestScreens:
    def test_the_grid_of_a_guard_and_its_cell(self, workspace: Path) -> None:
        with closing(Reader(workspace)) as reader:
            grid = read_grid(reader, "guarded", GridChoice(behaviour="follows_prompt_strict"))
            assert grid is not None
            assert [row.train for row in grid.rows] == ["no_prefix", "short"]
            assert [head.name for head in grid.heads] == ["no_prefix"]
            assert all(row.data_mean is None for row in grid.rows)  # D has other prompts
            key = CellKey("prefix", "med_short", "short", "no_prefix", 0, 4)
            cell = read_cell(reader, "guarded", key, "follows_prompt_strict")
            assert cell is not None
            assert cell.uplift is not None
            assert cell.uplift.effect is not None
            assert cell.uplift.effect.value == pytest.approx(-0.5)
            one = read_completion(reader, "guarded", key, "follows_prompt_strict", 0)
            assert one is not None
            assert {name for name, *_ in one.scores} == {b.name for b in cell.experiment.row.behaviours if b.guard}
            own = read_completion(reader, "guarded", key, "length_chars", 0)
            assert own is not None
            assert [name for name, *_ in own.scores] == ["length_chars", "length_words", "length_tokens"]

    def test_its_jobs_lead_to_its_cells(self, workspace: Path) -> None:
        with closing(Reader(workspace)) as reader:
            jobs = read_jobs(reader, "guarded", {}, frozenset(), None)
            assert jobs is not None
            of_guard = [job for job in jobs.jobs if job.kind == "evaluate" and job.label.startswith("guard ")]
            assert len(of_guard) == 6
            for job in of_guard:
                key, behaviour = jobs.cells[job.n]
                assert behaviour == "follows_prompt_strict"
                assert read_cell(reader, "guarded", key, behaviour) is not None


def test_a_guard_that_is_added_later_reuses_the_grid(tmp_path: Path) -> None:
    backend = Answering()
    assert asyncio.run(ScriptedRun(plan("", tmp_path, backend), tmp_path, backend).go()) == "done"
    before = len([call for call in backend.calls if call[0] == "train"])
    asyncio.run(ScriptedRun(plan(GUARD, tmp_path, backend), tmp_path, backend).go())
    assert len([call for call in backend.calls if call[0] == "train"]) == before  # nothing is trained anew
    assert report(tmp_path, "guarded").guards
    asyncio.run(ScriptedRun(plan("", tmp_path, backend), tmp_path, backend).go())
    assert report(tmp_path, "guarded").guards == ()


def test_the_microscope_looks_at_a_guard(tmp_path: Path) -> None:
    backend = Answering()
    text = SPEC.replace("[short, no_prefix], e", "[short, no_prefix, {control: irrelevant, of: short}], e") + GUARD
    made = make_plan(parse_spec(text), text, tmp_path, {"local": backend})
    asyncio.run(ScriptedRun(made, tmp_path, backend).go())
    seen = microscope(tmp_path, "guarded", "follows_prompt_loose", resamples=50)
    assert [one.train for one in seen.dissections] == ["short"]
