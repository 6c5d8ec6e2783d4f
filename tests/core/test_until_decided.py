"""`run --until decided`: row by row, a look after each, and a stop once the contrasts of the spec are decided."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.core.test_plan import SPEC
from tests.report_text import report_text
from tests.scripted_backend import ScriptedBackend, ScriptedSetting
from windowshift.cli import app
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.looks import Look
from windowshift.core.contract.training import TrainEvent, TrainJob
from windowshift.core.measure.contrasts import ContrastMeasure
from windowshift.core.measure.resampled import Resampled
from windowshift.core.plan.plan import make_plan
from windowshift.core.plan.rows import ArmRow, jobs_of_row, rows_of_contrasts, untrained_jobs
from windowshift.core.report.report import report
from windowshift.core.run import run as running
from windowshift.core.run import until_decided
from windowshift.core.run.plan_page import look_line
from windowshift.core.run.run import Outcome, run_spec
from windowshift.core.settings.length import LengthSetting
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

GRID = """\
name: looked
model: scripted
prompts: microworld
conditions: {generate: [med_short], train: [short, medium, long, no_prefix], evaluate: [short, no_prefix]}
data: {size: 12}
sampling: {prompts: 14, max_tokens: 12}
seeds: [0, 1]
"""
INOCULATION = "contrasts:\n  - {name: inoculation, of: short, against: no_prefix, evaluate: no_prefix}\n"


@dataclass
class Learning(ScriptedBackend):
    """Answers as long as the prompt is, times what the train condition of its adapter makes of that."""

    labels: dict[str, str] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    fails: str = ""
    trained: list[str] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        self.calls.append(("generate", tuple(request.key for request in requests)))
        for request in requests:
            asked = 40 + len(" ".join(message.content for message in request.messages))
            factor = self.factors.get(self.adapters.get(request.model.adapter or "", ""), 1.0)
            yield Completion(request.key, "x" * round(factor * (asked + request.seed % 23)), "stop", 3, 5)

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        for job in jobs:
            train = self.labels[job.key]
            if train == self.fails:
                raise BackendError(f"no memory for {train}")
            self.trained.append(train)
            self.adapters[str(job.output / "adapter")] = train
        async for event in super().train(jobs):
            yield event


def ran(
    monkeypatch: pytest.MonkeyPatch, workspace: Path, backend: Learning, text: str, *, until: bool = True
) -> Outcome:
    monkeypatch.setattr(registry, "setting", lambda *_: ScriptedSetting(LengthSetting().scorers))
    monkeypatch.setattr(running, "open_backends", lambda _: {"local": backend})
    plan = make_plan(parse_spec(text), text, Path(), {"local": backend})
    for row in ("short", "medium", "long", "no_prefix"):
        jobs = jobs_of_row(plan, ArmRow("prefix", "med_short", row))
        backend.labels |= {job.id: row for job in plan.jobs if job.id in jobs and job.kind == "train"}
    return run_spec(parse_spec(text), text, Path(), workspace, until_decided=until)


def looks(workspace: Path) -> list[Look]:
    with closing(Reader(workspace)) as reader:
        return reader.looks(reader.find_experiment("looked").id)


def test_it_stops_once_the_contrasts_are_decided_and_says_what_that_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = Learning(factors={"short": 1.0, "no_prefix": 0.4})
    outcome = ran(monkeypatch, tmp_path, backend, GRID + INOCULATION)
    assert (outcome.state, outcome.exit_code) == ("planned", 0)
    assert sorted(backend.trained) == ["no_prefix", "no_prefix", "short", "short"]
    look = outcome.look
    assert look is not None
    assert (look.stopped, look.number, look.of, look.level) == (True, 2, 2, pytest.approx(0.025))
    assert (look.cells_left, look.undecided, look.usd) == (2 * 2 * 2, (), 0.0)
    assert "which saved 8 cells" in look_line(look)
    # The first row alone is a look, too, at which nothing could be decided.
    assert [(one.number, one.stopped, one.undecided) for one in looks(tmp_path)] == [
        (1, False, ("inoculation",)),
        (2, True, ()),
    ]
    made = report(tmp_path, "looked", resamples=200)
    text = report_text(made, 200)
    assert "STOPPED BY RULE" in text
    assert "after 2 looks of at most 2, with 8 cells left out" in text
    assert "AFTERWARDS" not in text
    assert made.to_json()["looks"][-1]["stopped"] is True
    # The same again trains nothing, and is no further look; without it, the rest is trained, and the report says so.
    assert ran(monkeypatch, tmp_path, backend, GRID + INOCULATION).state == "planned"
    assert len(backend.trained) == 4
    assert len(looks(tmp_path)) == 2
    whole = ran(monkeypatch, tmp_path, backend, GRID + INOCULATION, until=False)
    assert (whole.state, whole.look) == ("done", None)
    assert len(backend.trained) == 8
    assert "MORE WAS TRAINED AFTERWARDS" in report_text(report(tmp_path, "looked", resamples=200), 200)


def test_what_is_never_decided_trains_the_whole_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = Learning()
    outcome = ran(monkeypatch, tmp_path, backend, GRID + INOCULATION)
    assert outcome.state == "done"
    assert len(backend.trained) == 8
    assert outcome.look is not None
    assert (outcome.look.stopped, outcome.look.undecided) == (False, ("inoculation",))
    assert look_line(outcome.look).startswith("not decided: inoculation, at look 2 of at most 2")
    text = report_text(report(tmp_path, "looked", resamples=200), 200)
    assert "not decided at the last: inoculation" in text
    assert "STOPPED" not in text


def test_no_difference_is_a_decision_where_the_spec_has_a_margin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = Learning()
    text = GRID + INOCULATION.replace("evaluate: no_prefix", "evaluate: no_prefix, margin: 0.5")
    outcome = ran(monkeypatch, tmp_path, backend, text)
    assert outcome.look is not None
    assert outcome.look.stopped
    assert len(backend.trained) == 4
    shown = report_text(report(tmp_path, "looked", resamples=200), 200)
    assert "p, as good as none" in shown
    assert "(±0.5)" in shown


def test_first_comes_what_decides_most(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    more = "  - {of: medium, against: base}\n  - {of: medium, against: no_prefix}\n"
    backend = Learning(factors={"short": 1.0, "no_prefix": 0.5, "medium": 2.0})
    outcome = ran(monkeypatch, tmp_path, backend, GRID.replace("seeds: [0, 1]\n", "") + INOCULATION + more)
    # Medium is all that its contrast with the base model lacks; then no_prefix is the last of one, and one of another.
    assert backend.trained == ["medium", "no_prefix", "short"]
    assert outcome.look is not None
    assert (outcome.look.stopped, outcome.look.number, outcome.look.of) == (True, 3, 3)
    assert outcome.look.level == pytest.approx(0.05 / 3)


@pytest.mark.parametrize(("p", "stopped"), [(0.0249, True), (0.0251, False)])
def test_looks_share_the_five_percent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, p: float, *, stopped: bool
) -> None:
    text = GRID + INOCULATION
    backend = Learning()
    (entry,) = make_plan(parse_spec(text), text, Path(), {"local": backend}).contrasts
    one = ContrastMeasure("", str(entry["hash"]), 0.0, 0, None, None, p / 2, p, "")

    def measured(r: Resampled) -> tuple[ContrastMeasure, ...]:
        assert any(cell.state == "done" and cell.train != "base" for cell in r.grid.cells)  # else there is no look
        return (one,)

    monkeypatch.setattr(until_decided, "contrasts", measured)
    outcome = ran(monkeypatch, tmp_path, backend, text)
    assert outcome.look is not None
    assert outcome.look.stopped is stopped
    assert len(backend.trained) == (2 if stopped else 8)  # two seeds of one row


def test_a_row_that_fails_is_tried_once_and_ends_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend = Learning(factors={"no_prefix": 0.4}, fails="short")
    outcome = ran(monkeypatch, tmp_path, backend, GRID + INOCULATION)
    assert outcome.state == "failed"
    assert any("no memory for short" in one for one in outcome.failures)
    assert sorted(backend.trained) == ["long", "long", "medium", "medium", "no_prefix", "no_prefix"]
    assert outcome.look is not None
    assert (outcome.look.number, outcome.look.undecided) == (1, ("inoculation",))
    backend.fails = ""
    again = ran(monkeypatch, tmp_path, backend, GRID + INOCULATION)
    assert (again.state, again.look and again.look.number) == ("done", 2)


def test_rows_take_what_they_need_and_the_base_model_comes_first() -> None:
    plan = make_plan(parse_spec(GRID + INOCULATION), GRID, Path(), {"local": Learning()})
    kinds = {job.id: job.kind for job in plan.jobs}
    free = untrained_jobs(plan)
    assert "train" not in {kinds[one] for one in free}
    assert {cell.job for cell in plan.cells if cell.train == "base"} <= free
    assert rows_of_contrasts(plan) == (
        ArmRow("prefix", "med_short", "short"),
        ArmRow("prefix", "med_short", "no_prefix"),
    )
    short = jobs_of_row(plan, ArmRow("prefix", "med_short", "short"))
    assert [kinds[one] for one in short].count("train") == 2
    assert all(parent in short for job in plan.jobs if job.id in short for parent in job.parents)


def test_it_needs_contrasts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the spec has none: add  contrasts:"):
        run_spec(parse_spec(GRID), GRID, Path(), tmp_path, until_decided=True)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    for until, said in (("decided", "needs contrasts"), ("dawn", "--until is  decided , not 'dawn'")):
        error = CliRunner().invoke(app, ["run", str(spec), "-w", str(tmp_path / "ws"), "--until", until]).exception
        assert said in str(error)
    assert not (tmp_path / "ws").exists()
