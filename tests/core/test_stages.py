"""Training in stages: a row that is trained on from what an earlier training left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.backend_contract import gather
from tests.runs import spec_of, windowshift
from windowshift.backends.local.backend import LocalBackend
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message, Model
from windowshift.core.contract.training import Example, Sft, Trained, TrainEvent, TrainFailed, TrainJob
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

SEALED = "{name: sealed, stages: [{train: short}, {train: no_prefix, generate: long}]}"


def planned(folder: Path, train: str, *, model: Path | str = "microworld", more: str = "") -> Plan:
    text = spec_of(model, train) + more
    return plan_spec(parse_spec(text), text, folder)


def trainings(plan: Plan) -> list[Job]:
    return [job for job in plan.jobs if job.kind == "train"]


def test_a_stage_is_the_training_that_another_row_has(tmp_path: Path) -> None:
    plan = planned(tmp_path, f"[short, {SEALED}]")
    first, last = trainings(plan)
    assert "start" not in first.inputs
    assert last.inputs["start"] == first.id
    assert first.id in last.parents
    (data,) = [job.id for job in plan.jobs if job.label == "data long"]
    assert [part["data"] for part in last.inputs["parts"]] == [data]
    # The row has D's name of its first stage, cells of its own, and no place on the line.
    cells = {(cell.generate, cell.train) for cell in plan.cells}
    assert cells == {("", "base"), ("med_short", "short"), ("med_short", "sealed")}
    assert {source.train for source in plan.sources} == {"short"}
    assert {job.id for job in trainings(planned(tmp_path, "[short]"))} == {first.id}


def test_every_generation_condition_has_a_row_unless_all_stages_name_theirs(tmp_path: Path) -> None:
    plan = planned(tmp_path, "[{name: twice, stages: [{train: short}, {train: long}, {train: short}]}]")
    assert len(trainings(plan)) == 3
    assert [job.inputs.get("start") for job in trainings(plan)] == [None, *[j.id for j in trainings(plan)[:2]]]
    text = spec_of("microworld", f"[{SEALED}]").replace("[med_short]", "[med_short, long]")
    both = plan_spec(parse_spec(text), text, tmp_path)
    assert {cell.generate for cell in both.cells} == {"", "med_short", "long"}
    named = text.replace("{train: short}", "{train: short, generate: medium}")
    assert {cell.generate for cell in plan_spec(parse_spec(named), named, tmp_path).cells} == {"", "medium"}


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("[{name: x, stages: [{train: short}]}]", "stages"),
        ("[{name: x, stages: [{train: short}, {train: lng}]}]", r"stages\[1\].train: there is no condition 'lng'"),
        ("[{name: x, stages: [{train: short}, {train: long, generate: y}]}]", r"stages\[1\].generate"),
        ("[{name: x, stages: [{train: short}, {under: long}]}]", "under"),
        ("[{stages: [{train: short}, {train: long}]}]", "name"),
        (f"[{SEALED}, {SEALED}]", "stands there twice"),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(tmp_path: Path, train: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        planned(tmp_path, train)


def test_a_backend_that_cannot_train_on_is_refused_in_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalBackend, "capabilities", replace(LocalBackend.capabilities, continues=False))
    with pytest.raises(SpecError, match="cannot train on from an adapter, which 'stages' needs"):
        planned(tmp_path, f"[{SEALED}]")


def job(model: Path, output: Path, adapter: str | None = None, **sft: int) -> TrainJob:
    examples = [Example((Message("user", f"say {n}"),), f"{n}{n}") for n in range(6)]
    settings = Sft(rank=2, batch_size=2, learning_rate=1e-2)
    return TrainJob("j", Model(str(model), adapter=adapter), examples, replace(settings, **sft), 0, output)


def train(jobs: list[TrainJob]) -> Iterator[TrainEvent]:
    async def run() -> list[TrainEvent]:
        backend = LocalBackend()
        try:
            return [event for one in jobs for event in await gather(backend.train([one]))]
        finally:
            await backend.aclose()

    yield from asyncio.run(run())


def test_training_goes_on_from_the_weights_and_from_other_weights_elsewhere(tiny_llama: Path, tmp_path: Path) -> None:
    first, second = job(tiny_llama, tmp_path / "first"), str(tmp_path / "first" / "adapter")
    # At a rate of (almost) nothing what is trained on is what it was.
    still = replace(job(tiny_llama, tmp_path / "still", second), sft=replace(first.sft, learning_rate=1e-12))
    ends = [event for event in train([first, still]) if isinstance(event, Trained | TrainFailed)]
    assert all(isinstance(event, Trained) for event in ends)
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("first", "still"))
    assert one.keys() == two.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-6
    assert any(float(value.abs().max()) > 1e-3 for key, value in two.items() if "lora_B" in key)
    # The same place, from another adapter: it is trained anew.
    again = replace(still, model=replace(still.model, adapter=None))
    (end,) = [event for event in train([again]) if isinstance(event, Trained | TrainFailed)]
    assert isinstance(end, Trained)
    three = load_file(tmp_path / "still" / "adapter" / "adapter_model.safetensors")
    assert any(float((two[key] - three[key]).abs().max()) > 1e-3 for key in two)


def test_another_rank_is_refused_by_a_sentence(tiny_llama: Path, tmp_path: Path) -> None:
    start = str(tmp_path / "first" / "adapter")
    other = job(tiny_llama, tmp_path / "other", start, rank=4)
    ends = [event for event in train([job(tiny_llama, tmp_path / "first"), other]) if isinstance(event, TrainFailed)]
    assert [("another rank" in end.error, "sft.rank" in end.error) for end in ends] == [(True, True)]


def test_a_run_in_stages_end_to_end(tiny_llama: Path, tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(spec_of(tiny_llama, f"[short, {SEALED}]"), encoding="utf-8")
    workspace = tmp_path / "ws"
    windowshift("run", spec, "--workspace", workspace)
    reader = Reader(workspace)
    experiment = reader.experiment("small")
    assert experiment is not None
    assert experiment.state == "done"
    (entry,) = [one for one in experiment.conditions["train"] if one["name"] == "sealed"]
    assert (entry["kind"], entry["generate"]) == ("stages", "med_short")
    assert entry["stages"] == [
        {"generate": "med_short", "train": "short"},
        {"generate": "long", "train": "no_prefix"},
    ]
    adapters = [one.result["adapter"] for one in reader.jobs(experiment.id) if one.kind == "train"]
    assert len(set(adapters)) == 2
    text = CliRunner().invoke(app, ["report", "small", "--workspace", str(workspace)]).output
    assert "\nsealed " in text
    assert "of 1 are" in text  # the staged row is none of those that a line waits for
    reader.close()
