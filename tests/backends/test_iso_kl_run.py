"""Iso-KL and a refined match from the spec to the report, on the embedded model with very small settings."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.report_text import report_text
from windowshift.core.contract.reading import KL_TOLERANCE
from windowshift.core.contract.records import JobRow
from windowshift.core.report import frames
from windowshift.core.report.report import Report, report
from windowshift.core.run.run import Outcome, run_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

pytestmark = pytest.mark.slow

SPEC = """\
name: kl
model: microworld
backend_options: {workers: 1}
prompts: microworld
conditions:
  generate: [med_short]
  train: [no_prefix]
  evaluate: [medium, no_prefix, {steer: length, match: [medium]}, {steer: length, iso_kl: 1}]
  base: [{steer: length, iso_kl: 1, control: random}, {steer: length, iso_kl: 90}]
vectors:
  length:
    positive: long
    negative: short
    prompts: 6
    layer: 2
    calibrate: {doses: [-0.5, 0.5], prompts: 4, points: 2, reach: 2, matching: refined, development: 8}
data: {size: 6}
sft: {rank: 2, batch_size: 4}
sampling: {prompts: 12, max_tokens: 64, coherence: 0}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kl")
    outcome = run_spec(parse_spec(SPEC), SPEC, folder, folder / "w")
    assert isinstance(outcome, Outcome)
    (failure,) = outcome.failures  # 90 nats are more than this push can do
    assert "out of reach: at alpha" in failure
    assert "nats, below 90" in failure
    return folder / "w"


@pytest.fixture(scope="module")
def found(workspace: Path) -> Report:
    return report(workspace, "kl", resamples=100)


def jobs(workspace: Path, kind: str) -> list[JobRow]:
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment("kl")
        return [job for job in reader.jobs(experiment.id) if job.kind == kind]


def test_the_push_of_every_cell_is_the_alpha_that_was_solved_for(workspace: Path) -> None:
    solved = {job.result["vector"]: job.result["alpha"] for job in jobs(workspace, "iso_kl") if job.state == "done"}
    assert set(solved) == {"length", "length~random0"}
    fired = {
        one["vector"]: (one["alpha_low"], one["alpha_high"])
        for job in jobs(workspace, "evaluate")
        if "kl" in job.label and "med_short" not in job.label
        for one in job.result.get("fired", ())
    }
    assert fired.keys() == {"length", "norm-matched random direction"} or fired.keys() == solved.keys()
    assert sorted(fired.values()) == [pytest.approx((alpha, alpha)) for alpha in sorted(solved.values())]


def test_the_report_shows_all_units_of_a_dose(found: Report) -> None:
    own = {(one.vector, one.nats): one for one in found.steering.iso_kl}
    real, control, far = own["length", 1.0], own["length~random0", 1.0], own["length", 90.0]
    for one in (real, control):
        assert one.kl is not None
        assert one.kl.value == pytest.approx(1.0, rel=KL_TOLERANCE)
        assert one.prompts == 8
        assert one.dose is not None
        assert one.reached is not None
        assert one.reached.n == 12
    assert far.alpha is None
    assert far.problem is not None
    assert "out of reach" in far.problem
    (match,) = found.steering.matches
    assert match.refined_on == 8
    assert match.curve_alpha != match.alpha
    text = report_text(found, width=200)
    assert "Doses of equal KL" in text
    assert "95th percentile over tokens of KL(steered ‖ base), nats a token" in text
    assert "on 8 prompts that neither D nor the evaluation has" in text
    told = json.loads(json.dumps(found.to_json()))["steering"]
    assert {one["nats"] for one in told["iso_kl"]} == {1.0, 90.0}
    assert told["matches"][0]["refined_on"] == 8


def test_a_frame_has_every_dose_that_was_solved_for(found: Report) -> None:
    table = frames.doses(found)
    assert list(table["unit"]) == ["match", "iso_kl", "iso_kl", "iso_kl"]
    kl = table[(table["vector"] == "length") & (table["asked"] == "+1")].iloc[0]
    assert kl["kl"] == pytest.approx(1.0, rel=KL_TOLERANCE)
    assert kl["kl_low"] <= kl["kl"] <= kl["kl_high"]
    assert kl["alpha"] == pytest.approx(found.steering.iso_kl[0].alpha)
