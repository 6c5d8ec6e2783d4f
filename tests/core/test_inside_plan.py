"""The plan of what a spec asks to be read inside the model: its jobs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.inside_spec import DRIFT, VECTORS, text_of
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prices import Price
from windowshift.core.plan.development import development_plan
from windowshift.core.plan.estimate import estimate
from windowshift.core.plan.plan import Plan
from windowshift.core.plan.rows import ArmRow, jobs_of_row, untrained_jobs
from windowshift.core.run.run import open_backends, plan_spec
from windowshift.core.spec.spec import parse_spec


def planned(model: Path | str, more: str = DRIFT, **changes: str) -> Plan:
    text = text_of(model, more, **changes)
    return plan_spec(parse_spec(text), text, Path())


def kinds(plan: Plan, kind: str) -> list[Any]:
    return [job for job in plan.jobs if job.kind == kind]


def test_jobs_beside_it_are_those_of_a_spec_without_it(tiny_llama: Path) -> None:
    without, beside = planned(tiny_llama, ""), planned(tiny_llama)
    assert {job.id for job in without.jobs} == {job.id for job in beside.jobs if job.kind != "project"}
    readings = kinds(beside, "project")
    assert len(readings) == 1 + 2 * 2  # the base model once for both seeds, and two fine-tunes of each
    assert not {job.id for job in readings}.intersection(parent for job in beside.jobs for parent in job.parents)


def test_what_is_read_determines_the_job(tiny_llama: Path) -> None:
    def ids(more: str) -> set[str]:
        return {job.id for job in kinds(planned(tiny_llama, f"inside: {more}"), "project")}

    plain = ids("{drift: {prompts: 4}}")
    for other in (
        "{drift: {prompts: 5}}",
        "{drift: {prompts: 4, tokens: prompt}}",
        "{vectors: [noise], drift: {prompts: 4}}",
        "{drift: {prompts: 4, conditions: [long]}}",
    ):
        assert not plain & ids(other), other
    # Answers are read after those who gave them.
    plan = planned(tiny_llama, "inside: {drift: {prompts: 4, tokens: response}}")
    order = {job.id: place for place, job in enumerate(plan.jobs)}
    for job in kinds(plan, "project"):
        assert job.inputs["answers"] in job.parents
        assert all(order[parent] < order[job.id] for parent in job.parents)


def test_drift_is_read_on_prompts_of_its_own(tiny_llama: Path, tmp_path: Path) -> None:
    plain = planned(tiny_llama, "")
    own = planned(tiny_llama, "inside: {prompts: {n: 5}, drift: {}}")
    readings = kinds(own, "project")
    assert {job.id for job in plain.jobs} == {job.id for job in own.jobs} - {job.id for job in readings}
    assert [job.total for job in readings] == [5] * 5
    (digest,) = {job.inputs["prompts"]["set"] for job in readings}
    taken = {prompt.text for one, prompts in own.prompts.items() if one != digest for prompt in prompts}
    assert len(taken) == 8 + 6
    assert len(own.prompts[digest]) == 5
    assert not taken & {prompt.text for prompt in own.prompts[digest]}
    # Doses that are solved on development prompts of theirs keep these, and share none with it.
    vectors = VECTORS.replace(", layer: 1", ", calibrate: {matching: refined, layers: [0, 1], development: 8}")

    def matching(more: str) -> Plan:
        text = text_of(tiny_llama, more, vectors=vectors)
        text = text.replace("train: [long, no_prefix]", "train: [long, {steer: length, match: [short]}]")
        return plan_spec(parse_spec(text), text, Path())

    before, after = matching(""), matching("inside: {prompts: {n: 5}, drift: {}}")
    assert {job.id for job in before.jobs} < {job.id for job in after.jobs}
    sets = [{prompt.text for prompt in prompts} for prompts in after.prompts.values()]
    assert sorted(map(len, sets)) == [5, 6, 8, 8]
    assert len(set().union(*sets)) == 27
    # A file's, without those that D and the evaluation have.
    file = tmp_path / "probes.jsonl"
    some = [*sorted(taken)[:3], "Why?", "Who are you?", "Why?", "Where?"]
    file.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in some), encoding="utf-8")
    for more, texts in (("", ["Why?", "Who are you?", "Where?"]), (", n: 2", ["Why?", "Who are you?"])):
        probed = planned(tiny_llama, f"inside: {{prompts: {{file: {file}{more}}}, drift: {{}}}}")
        (digest,) = {job.inputs["prompts"]["set"] for job in kinds(probed, "project")}
        assert [prompt.text for prompt in probed.prompts[digest]] == texts
    with pytest.raises(SpecError, match=r"inside.prompts: .*probes.jsonl has 3 distinct prompts besides those of D"):
        planned(tiny_llama, f"inside: {{prompts: {{file: {file}, n: 4}}, drift: {{}}}}")


def test_a_selection_of_a_spec_that_reads_inside_reads_nothing(tiny_llama: Path) -> None:
    text = text_of(tiny_llama, "inside: {prompts: {n: 5}, drift: {}, gradient: {}}")
    text = text.replace("train: [long, no_prefix]", "train: [long, short, no_prefix]")
    spec = parse_spec(text)
    whole = plan_spec(spec, text, Path())
    found = development_plan(spec, text, Path(), open_backends(spec), 4)
    looked = found.plan
    assert not {"project", "gradient", "train"} & {job.kind for job in looked.jobs}
    everything = [{prompt.text for prompt in one} for one in whole.prompts.values()]
    asked = [found.answers, *(job for _, job in found.candidates.values())]
    own = {prompt.text for job in asked for prompt in looked.prompts[job.inputs["prompts"]["set"]]}
    assert len(own) == 4
    assert not own & set().union(*everything)


def test_gradients_are_of_the_training_that_they_stand_before(tiny_llama: Path) -> None:
    plan = planned(tiny_llama, "inside: {gradient: {examples: 6}}")
    by_id = {job.id: job for job in plan.jobs}
    taken, trained = kinds(plan, "gradient"), kinds(plan, "train")
    assert len(taken) == len(trained) == 4  # two rows of two seeds; of controls only where they are named
    for job in taken:
        assert any(all(job.inputs[key] == one.inputs[key] for key in ("parts", "seed", "sft")) for one in trained)
        assert (job.inputs["layer"], job.inputs["examples"], job.total) == (1, 6, 6)
        assert not {"train", "evaluate"} & {by_id[parent].kind for parent in job.parents}
    named = planned(tiny_llama, "inside: {gradient: {}, vectors: [length, noise]}")
    assert len(kinds(named, "gradient")) == 8
    swept = planned(tiny_llama, "inside: {gradient: {}}", vectors=VECTORS.replace(", layer: 1", ""))
    for job in kinds(swept, "gradient"):
        assert job.inputs["layer"]["sweep"] in job.parents
    assert {job.id for job in planned(tiny_llama, "").jobs} == {job.id for job in plan.jobs} - {job.id for job in taken}


def test_the_layer_is_chosen_with_the_tokens_that_conditions_push(tiny_llama: Path) -> None:
    def sweeps(tokens: list[str], read: str = "length") -> list[tuple[str, bool]]:
        """The sweeps of a plan, and whether gradients are taken at the layer that each chose."""
        vectors = VECTORS.replace(", layer: 1", ", calibrate: {matching: refined, layers: [0, 1]}")
        doses = [f"{{steer: length, alpha: 1, tokens: {one}}}" for one in tokens]
        text = text_of(tiny_llama, f"inside: {{vectors: [{read}], gradient: {{examples: 4}}}}", vectors=vectors)
        text = text.replace("evaluate: [long, no_prefix]", f"evaluate: [{', '.join(['long', 'no_prefix', *doses])}]")
        plan = plan_spec(parse_spec(text), text, Path())
        used = {job.inputs["layer"]["sweep"] for job in kinds(plan, "gradient")}
        return [(job.inputs.get("tokens", "all"), job.id in used) for job in kinds(plan, "sweep")]

    assert sweeps([]) == [("all", True)]
    assert sweeps(["response"]) == [("response", True)]  # no other sweep for it
    assert sweeps(["response"], read="noise") == [("response", True)]  # a control has its layer of it
    assert sorted(sweeps(["response", "prompt"])) == [("prompt", True), ("response", False)]
    assert sorted(sweeps(["response", "all"])) == [("all", True), ("response", False)]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("inside: {gradient: {random: 9}}", "inside.gradient.random"),
        ("inside: {gradient: {examples: 1}}", "inside.gradient.examples"),
        ("inside: {}", "say what is to be read"),
        ("inside: {drift: {conditions: [longg]}}", "inside.drift.conditions: 'longg' is not among .* 'long'"),
        ("inside: {drift: {conditions: []}}", "inside.drift.conditions"),
        (
            "inside: {vectors: [lenght], drift: {}}",
            "inside.vectors: there is no vector 'lenght': did you mean 'length'",
        ),
        ("inside: {drift: {prompts: 7}}", "inside.drift.prompts is 7, but sampling.prompts is 6"),
        ("inside: {drift: {tokens: answer}}", "inside.drift.tokens"),
        ("inside: {prompts: {}, gradient: {}}", "'prompts' are for drift"),
        ("inside: {prompts: {n: 5}, drift: {prompts: 4}}", "'drift.prompts' counts evaluation prompts"),
        ("inside: {prompts: {n: 0}, drift: {}}", "inside.prompts.n"),
        ("inside: {prompts: {file: none.jsonl}, drift: {}}", "inside.prompts.*none.jsonl"),
        ("inside: {prompts: {n: 90000}, drift: {}}", r"the spec needs 90014 .*\+ inside.prompts, 90000"),
        ("inside: {drfit: {}}", "unknown key 'drfit' in inside: did you mean 'drift'"),
    ],
)
def test_a_bad_section_is_one_sentence(tiny_llama: Path, more: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        planned(tiny_llama, more)
    assert "\n" not in str(caught.value)


def test_without_vectors_there_is_nothing_to_read_along(tiny_llama: Path) -> None:
    with pytest.raises(SpecError, match="inside: there is no vector to read along: add  vectors:"):
        planned(tiny_llama, vectors="")


def test_a_backend_without_activations_is_refused_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(SpecError, match="inside: backend 'openai' reads no activations: write  backend: local"):
        planned("gpt-4.1", backend="openai", options="", vectors="")


def test_a_backend_that_watches_no_texts_is_refused_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    more = "inside: {watch: {texts: [{prompt: a, completion: b}]}}"
    with pytest.raises(SpecError, match="backend 'openai' reads no texts while it trains: train with backend local or"):
        planned("gpt-4.1", more, backend="openai", options="", vectors="")


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("texts: []", "inside.watch.texts"),
        ("texts: [{prompt: a}]", "give a prompt and its completion, or a file of them"),
        ("texts: [{prompt: a, completion: b, file: c}]", "give a prompt and its completion, or a file of them"),
        ("texts: [{file: none.jsonl}]", r"inside.watch.texts\[0\]: there is no completions file at none.jsonl"),
        ("texts: [{prompt: a, completion: ''}]", "inside.watch.texts"),
        (
            "every: 8, texts: [{prompt: a, completion: b}]",
            "inside.watch.every is 8, but training ends after 8 examples",
        ),
        ("texts: [{prompt: a, completion: b}]}, vectors: [length", "'vectors' are for drift and gradient"),
    ],
)
def test_bad_texts_to_watch_are_one_sentence(tiny_llama: Path, texts: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        planned(tiny_llama, f"inside: {{watch: {{{texts}}}}}".replace("[length}}", "[length]}"))
    assert "\n" not in str(caught.value)


def test_watched_texts_are_a_part_of_a_training_only_where_they_are_set(tiny_llama: Path) -> None:
    one = "inside: {watch: {texts: [{prompt: a, completion: b}]}}"
    without, beside = planned(tiny_llama, ""), planned(tiny_llama, one)
    assert all("watched" not in job.inputs for job in without.jobs)
    for job in kinds(beside, "train"):
        assert job.inputs["watched"]["at"] == [0, 4, 8]  # whole batches of four
    trains = [
        {job.id for job in kinds(planned(tiny_llama, more), "train")}
        for more in ("", one, one.replace("b}", "c}"), one.replace("watch: {", "watch: {every: 4, "))
    ]
    assert not trains[0] & trains[1]
    assert not trains[1] & trains[2]  # another text
    assert trains[1] == trains[3]  # every 4 are the same moments


def test_reading_texts_is_a_part_of_what_a_training_costs(tiny_llama: Path, tmp_path: Path) -> None:
    def usd(more: str) -> float:
        price = Price(0.0, 0.0, 1e6, 0.0, 0.0)
        found = estimate(planned(tiny_llama, more), tmp_path, prices={"local": lambda _: price})
        assert found.usd is not None
        return found.usd

    text = "{prompt: " + "a" * 400 + ", completion: " + "b" * 80 + "}"
    # Four trainings read each text three times, of (400 + 80) / 4 characters a token and 8 tokens a turn.
    assert usd(f"inside: {{watch: {{texts: [{text}]}}}}") - usd("") == pytest.approx(4 * 3 * (120 + 2 * 8))


def test_a_row_takes_what_is_read_inside_its_fine_tunes(tiny_llama: Path) -> None:
    plan = planned(tiny_llama)
    rows = jobs_of_row(plan, ArmRow("prefix", "med_short", "long"))
    read = {job.id: job.label for job in kinds(plan, "project")}
    assert {label for name, label in read.items() if name in rows} == {"inside med_short: long, under no_prefix"}
    assert {label for name, label in read.items() if name in untrained_jobs(plan)} == {"inside base, under no_prefix"}
