"""Plans: hashes, reuse, mixes, checkpoints, filters."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.stats import Summary
from windowshift.core.plan.jobs import job_hash, row_seed
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.plan.truncation import truncation_notes
from windowshift.core.run.register import register
from windowshift.core.run.run import plan_spec, preview
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.spec.template import templates
from windowshift.core.store.writer import Writer

SPEC = """\
name: x
model: some-org/some-model
prompts: microworld
conditions:
  generate: [med_short]
  train: [short, no_prefix]
  evaluate: [short, no_prefix]
data: {size: 10}
sampling: {prompts: 4}
"""


def planned(text: str) -> Plan:
    return plan_spec(parse_spec(text), text, Path())


def test_every_parent_comes_before_its_children() -> None:
    seen: set[str] = set()
    for job in planned(SPEC).jobs:
        assert set(job.parents) <= seen
        seen.add(job.id)


def test_a_job_is_the_same_job_in_another_experiment() -> None:
    first, second = (
        planned(SPEC),
        planned(SPEC.replace("name: x", "name: y").replace("[short, no_prefix]", "[no_prefix]", 1)),
    )
    assert {job.id for job in second.jobs} < {job.id for job in first.jobs}


@pytest.mark.parametrize(
    "change",
    [
        ("size: 10", "size: 11"),
        ("size: 10", "size: 10, seed: 1"),
        ("prompts: 4", "prompts: 4, temperature: 0.5"),
        ("prompts: 4", "prompts: 4, max_tokens: 7"),
        ("some-model", "other-model"),
        ("model: some-org", "revision: v2\nmodel: some-org"),
        ("prompts: microworld", "prompts: microworld\nseeds: [1]"),
    ],
)
def test_what_changes_the_data_changes_every_job(change: tuple[str, str]) -> None:
    before = {job.id for job in planned(SPEC).jobs if job.kind in ("generate", "train")}
    after = {job.id for job in planned(SPEC.replace(*change)).jobs if job.kind in ("generate", "train")}
    assert not before & after


def test_sft_settings_change_training_and_not_the_data_or_the_base_cells() -> None:
    changed = planned(SPEC + "sft: {rank: 4}\n")
    same = {job.id for job in planned(SPEC).jobs} & {job.id for job in changed.jobs}
    kinds = {(job.kind, job.label.startswith(("base", "score length: base"))) for job in changed.jobs if job.id in same}
    assert ("generate", False) in kinds
    assert ("evaluate", True) in kinds
    assert "train" not in {kind for kind, _ in kinds}


def test_the_train_channel_does_not_touch_no_prefix() -> None:
    text = SPEC.replace("some-org/some-model", "microworld")
    changed = planned(text + "channel: {train: system, generate: user}\n")
    same = {job.id for job in planned(text).jobs} & {job.id for job in changed.jobs}
    assert "train med_short under no_prefix" in {job.label for job in changed.jobs if job.id in same}
    assert "train med_short under short" not in {job.label for job in changed.jobs if job.id in same}


def test_published_mixes() -> None:
    text = next(item.text for item in templates() if item.name == "mixes")
    plan = planned(text)
    rows = {(source.generate, source.train): [] for source in plan.sources}
    for source in plan.sources:
        rows[source.generate, source.train].append(
            (source.part_generate, source.part_train, source.last - source.first)
        )
    assert rows["med_short", "halves_same_source"] == [("med_short", "med_long", 250), ("med_short", "long", 250)]
    assert rows["med_short+medium", "halves_different_source"] == [
        ("med_short", "med_long", 250),
        ("medium", "long", 250),
    ]
    thirds = rows["med_short+medium+med_long", "thirds_different_source"]
    assert [part[:2] for part in thirds] == [("med_short", "med_long"), ("medium", "long"), ("med_long", "very_long")]
    assert sum(part[2] for part in thirds) == 500
    data = {job.label: job.total for job in plan.jobs if job.kind == "generate"}
    assert data["data med_short"] == 500
    assert data["data medium"] < 500  # only the prompts that a mix trains on are paid for
    assert len(plan.cells) == 6 * 7


def test_checkpoints_are_cells_of_their_own() -> None:
    plan = planned(SPEC + "checkpoints: {every: 4, evaluate: [no_prefix]}\n")
    steps = {(cell.step, cell.final, cell.evaluate) for cell in plan.cells if cell.train == "short"}
    assert steps == {
        (4, False, "no_prefix"),
        (8, False, "no_prefix"),
        (10, True, "no_prefix"),
        (10, True, "short"),
    }


@pytest.mark.parametrize("how", ["{candidates: 2}", "{candidates: 2, judge: {model: some-org/judge}}"])
def test_a_filter_is_a_parent_of_everything_sampled(how: str) -> None:
    plan = planned(SPEC.replace("size: 10", f"size: 10, filter: {how}"))
    data, evaluation = (job for job in plan.jobs if job.kind == "filter")
    assert (data.total, evaluation.total) == ((20, 8) if "judge" in how else (40, 16))
    assert all(data.id in job.parents for job in plan.jobs if job.kind == "generate")
    assert all(evaluation.id in job.parents for job in plan.jobs if job.kind == "evaluate")


def test_train_and_eval_prompts_are_disjoint() -> None:
    data, evaluation = planned(SPEC).prompts.values()
    assert (len(data), len(evaluation)) == (10, 4)
    assert not {prompt.id for prompt in data} & {prompt.id for prompt in evaluation}


def test_more_of_one_kind_of_prompt_leaves_the_other_jobs_as_they_are() -> None:
    before = {job.id for job in planned(SPEC).jobs}
    more_eval = {job.id for job in planned(SPEC.replace("prompts: 4", "prompts: 5")).jobs if job.kind == "train"}
    assert more_eval <= before
    more_data = planned(SPEC.replace("size: 10", "size: 11"))
    assert {job.id for job in more_data.jobs if job.label.startswith("base")} <= before


@pytest.mark.parametrize("template", ["NO_SYSTEM", "DROPS_SYSTEM"])
def test_a_template_without_a_system_role_is_refused(tmp_path: Path, template: str) -> None:
    from tests import tiny_models

    model = tiny_models.build(tmp_path / "model", template=getattr(tiny_models, template), max_position_embeddings=4096)
    text = SPEC.replace("some-org/some-model", str(model))
    assert planned(text).jobs
    with pytest.raises(SpecError, match="refuses or drops system messages"):
        planned(text + "channel: {train: system}\n")


def test_a_model_folder_is_the_same_model_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import tiny_models

    model = tiny_models.build(tmp_path / "model", max_position_embeddings=4096)
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, moved)
    absolute = planned(SPEC.replace("some-org/some-model", str(model)))
    elsewhere = planned(SPEC.replace("some-org/some-model", str(moved)))
    text = SPEC.replace("some-org/some-model", "./model")
    monkeypatch.chdir("/")
    beside = plan_spec(parse_spec(text), text, tmp_path)
    assert [job.id for job in absolute.jobs] == [job.id for job in elsewhere.jobs] == [job.id for job in beside.jobs]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.randoms())
def test_the_hash_does_not_depend_on_the_order_of_keys(inputs: dict[str, object], random: object) -> None:
    keys = list(inputs)
    random.shuffle(keys)  # type: ignore[attr-defined]
    assert job_hash("train", inputs, ()) == job_hash("train", {key: inputs[key] for key in keys}, ())


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.dictionaries(st.text(), VALUES, max_size=5))
def test_different_inputs_hash_differently(one: dict[str, object], other: dict[str, object]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (job_hash("train", one, ()) == job_hash("train", other, ())) == same


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_rows_have_seeds_of_their_own(one: int, other: int) -> None:
    assert (row_seed("job", one) == row_seed("job", other)) == (one == other)
    assert 0 <= row_seed("job", one) < 2**63
    assert row_seed("job", one) != row_seed("other", one)


def test_checkpoints_may_be_named_one_by_one() -> None:
    every, at = (planned(SPEC + f"checkpoints: {how}\n") for how in ("{every: 4}", "{at: [8, 4, 10]}"))
    assert {job.id for job in at.jobs} == {job.id for job in every.jobs}


@pytest.mark.parametrize("how", ["{}", "{every: 4, at: [4]}", "{at: [11]}", "{at: []}"])
def test_checkpoints_that_make_no_sense(how: str) -> None:
    with pytest.raises(SpecError, match="checkpoints"):
        planned(SPEC + f"checkpoints: {how}\n")


@pytest.mark.parametrize(
    ("options", "here", "there"),
    [
        ({"threads": 1}, {"threads": 1}, {"threads": 1}),
        ({"local": {"threads": 1}, "openai": {"batch": True}}, {"threads": 1}, {"batch": True}),
        ({"openai": {"batch": True}}, {}, {"batch": True}),
    ],
)
def test_options_belong_to_all_backends_or_to_one(
    options: dict[str, object], here: dict[str, object], there: dict[str, object]
) -> None:
    text = f"{SPEC}backend: {{train: local, generate: openai}}\nbackend_options: {json.dumps(options)}\n"
    spec = parse_spec(text)
    assert (spec.options_of("local"), spec.options_of("openai")) == (here, there)


@pytest.mark.parametrize(
    ("train", "generate", "says"),
    [
        ("local", "openai", "'openai' does not load the adapters of another backend"),
        ("openai", "local", "'openai' leaves no adapters that another backend could load"),
    ],
)
def test_two_backends_need_adapters_in_common(train: str, generate: str, says: str) -> None:
    spec = parse_spec(f"{SPEC}backend: {{train: {train}, generate: {generate}}}\n")
    backends = {
        name: registry.backend(name, {"base_url": "http://127.0.0.1:9"} if name == "openai" else {})
        for name in (train, generate)
    }
    with pytest.raises(SpecError, match=says):
        make_plan(spec, "", Path(), backends)


def test_a_plan_says_where_the_model_was_cut_off_before(tmp_path: Path) -> None:
    """At the same limit or at a higher one; a plan with more tokens is warned of nothing."""
    text = SPEC.replace("prompts: 4", "prompts: 4, max_tokens: 64")
    spec = parse_spec(text)
    plan = plan_spec(spec, text, Path())
    with closing(Writer(tmp_path)) as writer:
        _, numbers = register(plan, writer)
        for job in plan.jobs:
            if job.kind == "evaluate":
                cut = {"base → short": 1, "med_short: short → short": 30}.get(job.label, 0)
                writer.set_job(numbers[job.id], "done")
                writer.put_summary(numbers[job.id], "length_chars", Summary(100, 0, cut, 5.0, 1.0, 4.0, 6.0))
    (note,) = truncation_notes(plan, tmp_path)
    assert note == (
        "1 cell has more than 5% of completions of this model cut off at 64 tokens or more, most of them "
        "'med_short: short → short' (30 of 100): differences between cells shrink; raise sampling.max_tokens, which "
        "makes new jobs"
    )
    assert note in preview(spec, text, Path(), tmp_path).notes
    fewer, more = (planned(SPEC.replace("prompts: 4", f"prompts: 4, max_tokens: {limit}")) for limit in (32, 128))
    assert len(truncation_notes(fewer, tmp_path)) == 1
    assert truncation_notes(more, tmp_path) == []
    assert truncation_notes(plan, tmp_path / "none") == []
