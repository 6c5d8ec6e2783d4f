"""A preflight: the grid's own first rows, gates on them, a stop before training, and a way on that is kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from tests.report_text import report_text
from tests.scripted_backend import ScriptedBackend, ScriptedSetting
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.proof import Fired, fired_to_json
from windowshift.core.contract.records import Behaviour, JobRow
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scorer
from windowshift.core.measure.preflight_gates import _hooks, alike
from windowshift.core.plan.pilot import pilot_of
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.report.report import report
from windowshift.core.run import run as running
from windowshift.core.run.plan_page import plan_json, plan_lines
from windowshift.core.run.power_page import power_lines, power_page
from windowshift.core.run.run import Outcome, preview, run_spec
from windowshift.core.settings.length import LengthSetting
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

GRID = """\
name: piloted
model: scripted
prompts: microworld
conditions: {generate: [med_short], train: [short, no_prefix], evaluate: [short, long, no_prefix]}
data: {size: 20}
sampling: {prompts: 16, max_tokens: 12}
seeds: [0, 1, 2]
"""
PREFLIGHT = "preflight: {prompts: 8}\n"
TRAINED = "preflight: {seeds: 2, prompts: 8}\n"


@dataclass
class Answering(ScriptedBackend):
    """Answers as long as the prompt is, with a part that its seed gives; or always the same."""

    alike: bool = False
    broken: bool = False

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        self.calls.append(("generate", tuple(request.key for request in requests)))
        for request in requests:
            asked = len(" ".join(message.content for message in request.messages))
            length = 5 + request.seed % 3 + (0 if self.alike else asked)
            if self.broken and request.seed % 2:
                yield Completion(request.key, "", "failed", 0, 0, error="no answer")
            else:
                yield Completion(request.key, "x" * length, "stop", 3, 5)


@dataclass(frozen=True)
class Verdict:
    """Says of every completion what it is told to; None: it cannot read it."""

    value: float | None
    name: str = "verdict"
    version: int = 1

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        return (Behaviour("verdict", "share", Scale.rate(), "primary"),)

    def identity(self) -> dict[str, object]:
        return {"scorer": self.name, "version": self.version, "value": self.value}

    def score(self, sample: Sample) -> Mapping[str, Score]:
        return {"verdict": Score(self.value, None if self.value is not None else "unreadable")}


def planned(text: str, backend: ScriptedBackend | None = None) -> Plan:
    return make_plan(parse_spec(text), text, Path(), {"local": backend or Answering()})


def ran(
    monkeypatch: pytest.MonkeyPatch,
    workspace: Path,
    backend: ScriptedBackend,
    text: str = GRID + PREFLIGHT,
    scorers: tuple[Scorer, ...] = LengthSetting().scorers,
    *,
    anyway: bool = False,
) -> Outcome:
    monkeypatch.setattr(registry, "setting", lambda *_: ScriptedSetting(scorers))
    monkeypatch.setattr(running, "open_backends", lambda _: {"local": backend})
    return run_spec(parse_spec(text), text, Path(), workspace, anyway=anyway)


def rows(workspace: Path) -> dict[tuple[str, int], tuple[str, int]]:
    """(state, rows) of the sampling and training jobs, by label and seed."""
    with closing(Reader(workspace)) as reader:
        jobs = reader.jobs(reader.find_experiment("piloted").id)
        return {
            (job.label, job.inputs["seed"]): (job.state, len(reader.rows_done(job.n)))
            for job in jobs
            if job.kind in ("generate", "evaluate", "train")
        }


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "setting", lambda *_: ScriptedSetting(LengthSetting().scorers))


def test_a_pilot_is_part_of_the_grid_and_changes_no_job() -> None:
    plain, piloted = planned(GRID), planned(GRID + PREFLIGHT)
    assert [job.id for job in plain.jobs] == [job.id for job in piloted.jobs]
    assert pilot_of(plain) is None
    pilot = pilot_of(piloted)
    assert pilot is not None
    jobs = {job.id: job for job in piloted.jobs}
    assert pilot.jobs <= set(jobs)
    # Base cells under three conditions and D, of two seeds, each with its score job; nothing is trained.
    assert sorted(jobs[one].kind for one in pilot.jobs) == ["evaluate"] * 6 + ["generate"] * 2 + ["score"] * 8
    assert {jobs[one].inputs["seed"] for one in pilot.jobs if "seed" in jobs[one].inputs} == {0, 1}
    assert set(pilot.rows.values()) == {8}


def test_a_pilot_that_says_its_seeds_trains_rows_of_the_grid() -> None:
    plain, piloted = planned(GRID), planned(GRID + TRAINED)
    assert [job.id for job in plain.jobs] == [job.id for job in piloted.jobs]
    pilot = pilot_of(piloted)
    assert pilot is not None
    assert pilot.rows == pilot_of(planned(GRID + PREFLIGHT)).rows  # type: ignore[union-attr] # it has one
    training = pilot.training
    assert training is not None
    assert training.trained == (("prefix", "med_short", "no_prefix"), ("prefix", "med_short", "short"))
    jobs = {job.id: job for job in piloted.jobs}
    kinds = [jobs[one].kind for one in training.jobs]
    assert [kinds.count(kind) for kind in ("generate", "train", "evaluate", "score")] == [2, 4, 12, 14]
    assert {jobs[one].inputs["seed"] for one in training.jobs if "seed" in jobs[one].inputs} == {0, 1}
    assert set(training.rows.values()) == {8}
    assert {jobs[one].kind for one in training.rows} == {"evaluate", "score"}  # D is whole
    one_seed = pilot_of(planned(GRID.replace("[0, 1, 2]", "[0]") + TRAINED))
    assert one_seed is not None
    assert one_seed.training is None


def test_a_pilot_trains_first_and_the_run_goes_on_and_nothing_is_done_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = Answering()
    text = GRID + TRAINED
    outcome = ran(monkeypatch, tmp_path, backend, text)
    assert (outcome.state, outcome.exit_code, outcome.stopped) == ("done", 0, False)
    for kind in ("generate", "train"):
        asked = [key for one, keys in backend.calls if one == kind for key in keys]
        assert len(asked) == len(set(asked))
    assert outcome.preflight is not None
    assert [gate.name for gate in outcome.preflight.gates] == [
        "jobs", "answers", "base rates", "conditions", "training", "power",
    ]  # fmt: skip
    assert outcome.preflight.rows == (("prefix", "med_short", "no_prefix"), ("prefix", "med_short", "short"))
    first = next(keys for kind, keys in backend.calls if kind == "train")
    plan = planned(text)
    pilot = pilot_of(plan)
    assert pilot is not None
    assert pilot.training is not None
    assert set(first) <= pilot.training.jobs
    plain = tmp_path / "plain"
    ran(monkeypatch, plain, Answering(), GRID)
    assert rows(tmp_path) == rows(plain)
    assert ran(monkeypatch, tmp_path, Answering(), text).exit_code == 0
    with closing(Reader(tmp_path)) as reader:  # what the rest of the grid came to has no part in it
        assert len(reader.preflights(reader.find_experiment("piloted").id)) == 1
    assert "power: passed: training runs differ by" in report_text(report(tmp_path, "piloted", resamples=50), width=300)


def test_power_is_known_from_a_pilot_that_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = GRID + "preflight: {seeds: 2, prompts: 8, effect: 0.000001}\n"
    backend = Answering()
    outcome = ran(monkeypatch, tmp_path, backend, text)
    assert (outcome.exit_code, outcome.stopped) == (3, True)
    assert outcome.preflight is not None
    (gate,) = outcome.preflight.failed
    assert gate.name == "power"
    assert "an effect of 1e-06 takes more than 64 seeds × 16 prompts" in gate.said
    assert sum(len(keys) for kind, keys in backend.calls if kind == "train") == 4
    there = rows(tmp_path)
    assert there["med_short: short → long", 0] == ("pending", 8)
    assert there["med_short: short → long", 2] == ("pending", 0)
    with closing(Reader(tmp_path)) as reader:
        error = reader.find_experiment("piloted").error or ""
        assert "before the rest was trained" in error
    page = power_page(planned(text), tmp_path)
    assert page.found.source == "piloted"
    assert page.found.run is not None
    assert page.found.degrees == 2
    assert page.found.upper is not None
    assert page.found.upper >= page.found.run
    assert len(page.rows) == 2
    said = "\n".join(power_lines(page))
    assert "below which it is at 80 % (2 degrees of freedom)" in said
    again = Answering()
    assert ran(monkeypatch, tmp_path, again, text).exit_code == 3
    assert sum(len(keys) for _, keys in again.calls) == 0
    assert ran(monkeypatch, tmp_path, Answering(), text, anyway=True).exit_code == 0


DOSE = {"vectors": [{"vector": "length"}]}


@pytest.mark.parametrize("condition", [DOSE, {"kind": "selective", "then": DOSE, "else": {"kind": "none"}}])
@pytest.mark.parametrize(("calls", "passed"), [((8,), True), ((7,), False), ((), False)])
def test_a_steered_training_without_a_proof_fails(
    calls: tuple[int, ...], passed: bool, condition: dict[str, Any]
) -> None:
    fired = [Fired("length", 1, False, 2.0, 2.0, one, 8, 64, 64, 1.0, 1.0) for one in calls]
    parts = [{"condition": condition}]
    job = JobRow(
        1, "x", "train", "train med_short under length+2", "done", 8, 8, None, None, None, None, None, None,
        {"parts": parts}, (), {"fired": fired_to_json(fired)},
    )  # fmt: skip
    gate = _hooks(Reader.__new__(Reader), (), [job])
    assert gate is not None
    assert gate.passed == passed
    assert ("train med_short under length+2" in gate.said) != passed
    plain = replace(job, inputs={"parts": [{"condition": {"kind": "none"}}]})
    assert _hooks(Reader.__new__(Reader), (), [plain]) is None


def test_gates_on_the_base_model_stop_before_a_pilot_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = Answering(alike=True)
    outcome = ran(monkeypatch, tmp_path, backend, GRID + TRAINED)
    assert outcome.exit_code == 3
    assert not any(kind == "train" for kind, _ in backend.calls)
    assert outcome.preflight is not None
    assert outcome.preflight.rows == ()


def test_samples_and_small_grids_have_as_many_rows_as_they_have() -> None:
    pilot = pilot_of(planned(GRID.replace("max_tokens: 12", "max_tokens: 12, samples: 2") + PREFLIGHT))
    assert pilot is not None
    assert sorted(set(pilot.rows.values())) == [8, 16]
    whole = pilot_of(planned(GRID + "preflight: {seeds: 9, prompts: 400}\n"))
    assert whole is not None
    assert (whole.rows, whole.seeds) == ({}, (0, 1, 2))


def test_where_the_gates_pass_the_run_goes_on_and_nothing_is_done_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = Answering()
    outcome = ran(monkeypatch, tmp_path, backend)
    assert (outcome.state, outcome.exit_code, outcome.stopped) == ("done", 0, False)
    asked = [key for kind, keys in backend.calls if kind == "generate" for key in keys]
    assert len(asked) == len(set(asked))  # of every row once
    first = next(keys for kind, keys in backend.calls if kind == "generate")
    assert len(first) == 8 * 8
    assert next(index for index, (kind, _) in enumerate(backend.calls) if kind == "train") > 0
    plain = tmp_path / "plain"
    ran(monkeypatch, plain, Answering(), GRID)
    assert rows(tmp_path) == rows(plain)
    with closing(Reader(tmp_path)) as reader, closing(Reader(plain)) as other:
        one, two = (each.find_experiment("piloted") for each in (reader, other))
        cells = [each.cells(row.id, "length_chars") for each, row in ((reader, one), (other, two))]
        assert [cell.summary for cell in cells[0]] == [cell.summary for cell in cells[1]]
        (flown,) = reader.preflights(one.id)
    assert [gate.name for gate in flown.gates] == ["jobs", "answers", "base rates", "conditions"]
    assert not flown.failed
    assert (flown.seeds, flown.prompts) == (2, 8)
    assert "conditions: passed" in report_text(report(tmp_path, "piloted", resamples=50), width=300)


def test_a_failing_gate_stops_it_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = Answering(alike=True)
    outcome = ran(monkeypatch, tmp_path, backend)
    assert (outcome.exit_code, outcome.stopped, outcome.failures) == (3, True, ())
    assert outcome.preflight is not None
    (gate,) = outcome.preflight.failed
    assert gate.name == "conditions"
    assert "Friedman" in gate.said
    assert "\n" not in gate.said
    assert not any(kind == "train" for kind, _ in backend.calls)
    there = rows(tmp_path)
    assert {state for state, _ in there.values()} == {"pending"}
    assert there["base → long", 0] == ("pending", 8)
    assert there["base → long", 2] == ("pending", 0)
    with closing(Reader(tmp_path)) as reader:
        row = reader.find_experiment("piloted")
        assert row.state == "failed"
        assert row.error is not None
        assert "conditions" in row.error
        assert "--anyway" in row.error
    # Again: nothing is asked twice, and it says the same.
    again = Answering(alike=True)
    assert ran(monkeypatch, tmp_path, again).exit_code == 3
    assert sum(len(keys) for _, keys in again.calls) == 0
    with closing(Reader(tmp_path)) as reader:
        assert len(reader.preflights(row.id)) == 1


def test_going_on_anyway_is_kept_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ran(monkeypatch, tmp_path, Answering(alike=True)).exit_code == 3
    outcome = ran(monkeypatch, tmp_path, Answering(alike=True), anyway=True)
    assert (outcome.state, outcome.exit_code) == ("done", 0)
    with closing(Reader(tmp_path)) as reader:
        flown = reader.preflights(reader.find_experiment("piloted").id)
    assert [one.anyway for one in flown] == [False, True]
    found = report(tmp_path, "piloted", resamples=50)
    assert "went on all the same" in report_text(found, width=300)
    assert found.to_json()["preflights"][-1]["anyway"] is True
    # What a person passed over once is passed over when the run goes on; another gate is not.
    assert ran(monkeypatch, tmp_path, Answering(alike=True)).exit_code == 0
    more = GRID.replace("prompts: 16", "prompts: 20") + "preflight: {seeds: 1, prompts: 4}\n"
    stopped = ran(monkeypatch, tmp_path, Answering(alike=True, broken=True), more)
    assert stopped.exit_code == 3
    assert stopped.preflight is not None
    assert {gate.name for gate in stopped.preflight.failed} >= {"jobs", "answers"}


@pytest.mark.parametrize(
    ("value", "gate", "said"),
    [
        (None, "answers", "8 of 8 completions of 'base → short' have no score of verdict (unreadable)"),
        (0.0, "base rates", "under 3 of 3 conditions (short: 0, long: 0, no_prefix: 0)"),
        (1.0, "base rates", "a rate of 0 or 1 of verdict"),
    ],
)
def test_answers_that_cannot_be_read_and_rates_without_room_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: float | None, gate: str, said: str
) -> None:
    outcome = ran(monkeypatch, tmp_path, Answering(), scorers=(Verdict(value),))
    assert outcome.exit_code == 3
    assert outcome.preflight is not None
    found = {one.name: one for one in outcome.preflight.failed}
    assert said in found[gate].said


def test_anyway_without_a_preflight_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--anyway passes over a preflight"):
        ran(monkeypatch, tmp_path, Answering(), GRID, anyway=True)


def test_a_plan_says_what_the_pilot_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = GRID + PREFLIGHT
    monkeypatch.setattr(running, "open_backends", lambda _: {"local": Answering(alike=True)})
    found = preview(parse_spec(text), text, Path(), tmp_path)
    (line,) = [line for line in plan_lines(found) if "preflight" in line]
    assert "2 seeds × 8 prompts" in line
    assert "64 completions" in line
    shown = plan_json(found)["preflight"]
    assert (shown["seeds"], shown["completions"], shown["usd"]) == (2, 64, 0.0)
    assert plan_json(preview(parse_spec(GRID), GRID, Path(), tmp_path))["preflight"] is None
    trained = preview(parse_spec(GRID + TRAINED), GRID + TRAINED, Path(), tmp_path)
    (line,) = [line for line in plan_lines(trained) if "preflight" in line]
    assert "4 trainings of the grid (no_prefix, short), 80 examples in all" in line
    assert plan_json(trained)["preflight"] | {"usd": 0, "seconds": 0} == {
        "seeds": 2, "prompts": 8, "rows": [["prefix", "med_short", one] for one in ("no_prefix", "short")],
        "trainings": 4, "completions": 184, "examples": 80, "usd": 0, "seconds": 0,
    }  # fmt: skip
    one = GRID.replace("[0, 1, 2]", "[0]") + TRAINED
    assert any(
        "its pilot trains nothing" in line for line in plan_lines(preview(parse_spec(one), one, Path(), tmp_path))
    )
    ran(monkeypatch, tmp_path, Answering(alike=True))
    left = preview(parse_spec(text), text, Path(), tmp_path)
    assert left.pilot is not None
    assert left.pilot.completions == 0


@pytest.mark.parametrize(
    "entry", ["{seeds: 0}", "{prompts: 0}", "{seed: 1}", "3", "{effect: 0.1}", "{seeds: 2, effect: 0}"]
)
def test_a_preflight_that_cannot_be_is_one_sentence(entry: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(f"{GRID}preflight: {entry}\n")
    assert "preflight" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conditions_are_told_apart_as_often_as_the_level_says() -> None:
    random = np.random.default_rng(0)
    for conditions in (2, 5):
        same = [alike(random.normal(size=(32, conditions))) < 0.05 for _ in range(300)]
        assert 0.01 < np.mean(same) < 0.09
        moved = [alike(random.normal(size=(32, conditions)) + 2 * np.arange(conditions)) < 0.05 for _ in range(20)]
        assert all(moved)
    assert alike(np.ones((8, 3))) == 1.0
    assert alike(np.ones((8, 2))) == 1.0
    # Of scores of 0 and 1 it is Cochran's Q, by its formula.
    table = (random.random((32, 3)) < [0.3, 0.5, 0.6]).astype(float)
    columns, rows_, k = table.sum(axis=0), table.sum(axis=1), 3
    q = (k - 1) * (k * (columns**2).sum() - table.sum() ** 2) / (k * table.sum() - (rows_**2).sum())
    assert alike(table) == pytest.approx(chi2.sf(q, k - 1))


def test_an_interrupted_pilot_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Stopping(Answering):
        async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
            count = 0
            async for completion in super().generate(requests):
                count += 1
                if count > 20:
                    raise StoreError("the disk is full")
                yield completion

    text = GRID + PREFLIGHT
    monkeypatch.setattr(running, "open_backends", lambda _: {"local": Stopping()})
    with pytest.raises(StoreError):
        run_spec(parse_spec(text), text, Path(), tmp_path)
    backend = Answering()
    assert ran(monkeypatch, tmp_path, backend).exit_code == 0
    with closing(Reader(tmp_path)) as reader:
        assert len(reader.preflights(reader.find_experiment("piloted").id)) == 1
