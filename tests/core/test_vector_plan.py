"""The plan of vectors: where they come from, what is refused before anything runs, and which jobs are shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import windowshift
from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.backend import Capabilities
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.vector_file import Provenance, VectorHeader, norms_of, write_vector
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec

LAYERS, WIDTH = 2, 32
LENGTH = "length: {positive: long, negative: short, prompts: 6}"


@pytest.fixture
def fingerprint(tiny_llama: Path) -> str:
    return LocalBackend().identify(str(tiny_llama)).fingerprint


def spec_text(model: Path, vectors: str, evaluate: str, train: str, more: str) -> str:
    own = "\n".join(f"  {line}" for line in vectors.splitlines())
    return (
        f"name: x\nmodel: {model}\nprompts: microworld\n"
        f"conditions:\n  generate: [med_short]\n  train: {train}\n  evaluate: {evaluate}\n"
        f"data: {{size: 8}}\nsampling: {{prompts: 4, max_tokens: 8}}\n"
        f"vectors:\n{own}\n{more}"
    )


def planned(
    model: Path,
    vectors: str = LENGTH,
    evaluate: str = "[short, no_prefix]",
    train: str = "[no_prefix]",
    more: str = "",
    folder: Path | None = None,
) -> Plan:
    text = spec_text(model, vectors, evaluate, train, more)
    return plan_spec(parse_spec(text), text, folder or Path())


def kinds(plan: Plan, kind: str) -> list[Job]:
    return [job for job in plan.jobs if job.kind == kind]


def extraction(plan: Plan, name: str = "length") -> Job:
    (found,) = (job for job in kinds(plan, "extract") if job.inputs["name"] == name)
    return found


def write(path: Path, fingerprint: str, **changes: Any) -> Path:
    """A vector file; `changes` are of its header, `directions` its numbers, `raw` skips the checks on writing."""
    numbers = np.asarray(changes.pop("directions", np.ones((LAYERS, WIDTH))), dtype=np.float32)
    header = VectorHeader(
        name="v",
        layers=numbers.shape[0],
        width=numbers.shape[1],
        norms=norms_of(numbers),
        provenance=Provenance("tiny", fingerprint, "test"),
        rms=(2.0,) * len(numbers),
    )
    write_vector(path, replace(header, **changes), numbers)
    return path


# -- where vectors come from ------------------------------------------------------------------------


def test_every_parent_comes_before_its_children(tiny_llama: Path) -> None:
    vectors = f"{LENGTH}\nnoise: {{control: random, of: length}}\nboth: {{combine: {{length: 1, noise: -0.5}}}}"
    steered = "[{steer: length, match: [short, long]}, {steer: both, alpha: 1}, {steer: noise, dose: 0.5}]"
    plan = planned(tiny_llama, vectors, "[short, no_prefix, {steer: noise, match: [short]}]", steered)
    seen: set[str] = set()
    for job in plan.jobs:
        assert set(job.parents) <= seen, job.label
        seen.add(job.id)


def test_a_difference_waits_for_the_completions_of_both_sides(tiny_llama: Path) -> None:
    plan = planned(tiny_llama)
    made = extraction(plan)
    sides = [job for job in kinds(plan, "generate") if job.id in made.parents]
    assert [job.label for job in sides] == [
        "vector length: positive, under long",
        "vector length: negative, under short",
    ]
    assert [job.total for job in sides] == [6, 6]
    assert made.inputs["tokens"] == "response"


@pytest.mark.parametrize("tokens", ["prompt", "last_prompt"])
def test_prompt_tokens_need_no_completions(tiny_llama: Path, tokens: str) -> None:
    plan = planned(tiny_llama, f"length: {{positive: long, negative: short, prompts: 6, tokens: {tokens}}}")
    assert extraction(plan).parents == ()
    filtered = f"length: {{positive: long, negative: short, prompts: 6, tokens: {tokens}, min_difference: 1}}"
    assert len(extraction(planned(tiny_llama, filtered)).parents) == 2


def test_no_more_prompts_than_there_are(tiny_llama: Path) -> None:
    assert extraction(planned(tiny_llama, "length: {positive: long, negative: short}"))
    with pytest.raises(SpecError, match=r"vectors\.length\.prompts is 9, but D has 8 prompts: lower it"):
        planned(tiny_llama, "length: {positive: long, negative: short, prompts: 9}")


def test_a_side_may_be_a_file_of_completions(tiny_llama: Path, tmp_path: Path) -> None:
    lines = [
        {"prompt": "Why?", "completion": "Because a line\u2028may be broken\x85so."},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    (tmp_path / "long.jsonl").write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n")
    (tmp_path / "short.jsonl").write_text('{"prompt": "Why?", "completion": "No."}\n')
    vectors = "length: {positive: {file: long.jsonl}, negative: {file: short.jsonl}}"
    plan = planned(tiny_llama, vectors, folder=tmp_path)
    made = extraction(plan)
    assert made.parents == ()
    rows = plan.answered[made.inputs["positive"]["file"]].rows
    assert [answer for _, answer in rows] == ["Because a line\u2028may be broken\x85so.", "b"]
    (tmp_path / "short.jsonl").write_text('{"prompt": "Why?", "completion": "Yes."}\n')
    assert extraction(planned(tiny_llama, vectors, folder=tmp_path)).id != made.id


def test_a_file_s_layer_is_used_and_the_spec_s_goes_first(tiny_llama: Path, tmp_path: Path, fingerprint: str) -> None:
    write(tmp_path / "v.safetensors", fingerprint, layer=1)

    def layer(entry: str) -> Any:
        plan = planned(tiny_llama, f"v: {{{entry}}}", "[{steer: v, alpha: 1}, no_prefix]", folder=tmp_path)
        (steered,) = (one for one in plan.conditions if "steering" in one)
        found = json.loads(steered)["vectors"][0]["layer"]
        assert bool(kinds(plan, "sweep")) == isinstance(found, dict)
        return found

    assert layer("file: v.safetensors") == 1
    assert layer("file: v.safetensors, layer: 0") == 0
    assert isinstance(layer("file: v.safetensors, layer: auto"), dict)


def test_a_control_uses_the_layer_and_the_match_of_what_it_controls(tiny_llama: Path) -> None:
    vectors = f"{LENGTH}\nnoise: {{control: random, of: length, seed: 3}}"
    steered = "[short, no_prefix, {steer: length, match: [short]}, {steer: noise, match: [short]}]"
    plan = planned(tiny_llama, vectors, steered)
    assert len(kinds(plan, "sweep")) == len(kinds(plan, "dose")) == len(kinds(plan, "match")) == 1
    identities = [json.loads(one) for one in plan.conditions if '"steering"' in one]
    assert len({one["match"] for one in identities}) == 1
    assert len({json.dumps(one["vectors"][0]["layer"]) for one in identities}) == 1
    assert len({one["vectors"][0]["vector"] for one in identities}) == 2
    own = planned(tiny_llama, vectors.replace("seed: 3", "layer: 0"), "[no_prefix, {steer: noise, alpha: 1}]")
    assert not kinds(own, "sweep")


# -- refusals ---------------------------------------------------------------------------------------

MISSING = "[no_prefix, {steer: VECTOR, WAY}]"


@pytest.mark.parametrize(
    ("vectors", "evaluate", "says"),
    [
        (LENGTH, "[no_prefix, {steer: lenght, alpha: 1}]", "there is no vector 'lenght': did you mean 'length'?"),
        (LENGTH, "[no_prefix, {steer: [length, x], alpha: 1}]", "there is no vector 'x'"),
        (LENGTH, "[no_prefix, {steer: length, match: [shrt]}]", "there is no condition 'shrt': did you mean 'short'?"),
        ("v: {positive: lng, negative: short}", "[no_prefix]", "vectors.v.positive: there is no condition 'lng': did"),
        ("v: {positive: long}", "[no_prefix]", "vectors.v: a vector needs both sides"),
        ("v: {negative: long}", "[no_prefix]", "both sides"),
        ("v: {}", "[no_prefix]", "vectors.v: give one of: positive and negative, file, control and of, combine"),
        ("v: {control: random}", "[no_prefix]", "control: random, of: NAME"),
        ("v: {control: random, of: w}", "[no_prefix]", "there is no vector 'w'"),
        ("v: {control: noise, of: w}", "[no_prefix]", "control must be 'random', 'orthogonal', 'flipped' or 'layer'"),
        (f"{LENGTH}\nv: {{control: layer, of: length}}", "[no_prefix]", "'source' is the layer"),
        (f"{LENGTH}\nv: {{control: layer, of: length, source: 2}}", "[no_prefix]", "vectors.v.source is 2, but the m"),
        ("v: {combine: {}}", "[no_prefix]", "vectors.v.combine must not be empty"),
        ("v: {combine: {w: 1}}", "[no_prefix]", "there is no vector 'w'"),
        ("v: {control: flipped, of: v}", "[no_prefix]", "vectors.v is made of itself: v → v"),
        (
            "a: {control: flipped, of: b}\nb: {combine: {c: 1}}\nc: {control: random, of: a}",
            "[no_prefix]",
            "vectors.a is made of itself: a → b → c → a",
        ),
        ("v: {positive: {file: x.jsonl}, negative: short}", "[no_prefix]", "must both be conditions, or both be files"),
        (f"{LENGTH[:-1]}, layer: 2}}", "[no_prefix, {steer: length, alpha: 1}]", "layers are 0 to 1"),
        (f"{LENGTH[:-1]}, layer: -1}}", "[no_prefix]", "vectors.length.layer"),
        (
            f"{LENGTH[:-1]}, calibrate: {{layers: [0, 7]}}}}",
            "[no_prefix, {steer: length, alpha: 1}]",
            "vectors.length.calibrate.layers is 7, but the model's layers are 0 to 1",
        ),
        (f"{LENGTH[:-1]}, calibrate: {{doses: [0, 1]}}}}", "[no_prefix]", "without 0"),
        (f"{LENGTH[:-1]}, calibrate: {{doses: [0.1, 0.2]}}}}", "[no_prefix]", "either side of 0"),
        ("v: {file: no.safetensors}", "[no_prefix]", "vectors.v.file: cannot read vector no.safetensors"),
        ("v: {positive: up, negative: short}", "[{steer: v, alpha: 1, name: up}, no_prefix]", "is a steering dose"),
        (LENGTH, "[{steer: length, alpha: 1, name: up}, {steer: length, match: [up]}]", "match a prefix group"),
        (f"{LENGTH[:-1]}, alpha: 1}}", "[no_prefix]", "unknown key 'alpha' in vectors.length"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tiny_llama: Path, vectors: str, evaluate: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        planned(tiny_llama, vectors, evaluate)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_condition_that_steers_needs_vectors(tiny_llama: Path) -> None:
    text = spec_text(tiny_llama, LENGTH, "[no_prefix, {steer: length, alpha: 1}]", "[no_prefix]", "")
    text = text[: text.index("vectors:")]
    with pytest.raises(SpecError, match="condition 'length\\+1' steers, but the spec has no 'vectors'"):
        plan_spec(parse_spec(text), text, Path())


def test_vector_files_that_do_not_fit_are_refused(tiny_llama: Path, tmp_path: Path, fingerprint: str) -> None:
    ones = np.ones((LAYERS, WIDTH))
    bent = np.stack([np.zeros(WIDTH), np.ones(WIDTH)])
    files: Mapping[str, tuple[dict[str, Any], str]] = {
        "wide": ({"directions": np.ones((LAYERS, 33))}, "width 33, but the model's hidden size is 32"),
        "deep": ({"directions": np.ones((3, WIDTH))}, "has 3 layers, but the model has 2"),
        "other": ({"provenance": Provenance("llama-9", "f" * 32, "test")}, "was made on 'llama-9' with other weights"),
        "flat": ({"directions": bent, "layer": 0}, "no direction at layer 0"),
        "zero": ({"directions": 0 * ones}, "no direction at layer 0"),
    }
    for name, (changes, says) in files.items():
        write(tmp_path / f"{name}.safetensors", fingerprint, **changes)
        with pytest.raises(SpecError) as caught:
            planned(tiny_llama, f"v: {{file: {name}.safetensors}}", folder=tmp_path)
        assert says in str(caught.value)
        assert str(caught.value).startswith("vectors.v.file: ")
    path = write(tmp_path / "nan.safetensors", fingerprint)
    path.write_bytes(path.read_bytes()[:-4] + np.float32("nan").tobytes())
    with pytest.raises(SpecError, match=r"vectors\.v\.file: vector 'v' holds NaN or infinity at layer 1"):
        planned(tiny_llama, "v: {file: nan.safetensors}", folder=tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SpecError, match="damaged"):
        planned(tiny_llama, "v: {file: nan.safetensors}", folder=tmp_path)
    path.write_bytes(b"no vector")
    with pytest.raises(SpecError, match="is not a steering vector made by windowshift"):
        planned(tiny_llama, "v: {file: nan.safetensors}", folder=tmp_path)


@pytest.mark.parametrize("name", ["v.pt", "v.gguf"])
def test_another_tool_s_file_is_to_be_imported(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SpecError, match=f"windowshift vectors import .*{name} --model .* --out v.safetensors"):
        planned(tiny_llama, f"v: {{file: {name}}}", folder=tmp_path)


def test_a_sweep_leaves_out_layers_at_which_a_file_has_no_direction(
    tiny_llama: Path, tmp_path: Path, fingerprint: str
) -> None:
    """As repeng's files have none at layer 0."""
    bent = np.stack([np.zeros(WIDTH), np.ones(WIDTH)])
    write(tmp_path / "v.safetensors", fingerprint, directions=bent)
    for vectors, steer in (
        ("v: {file: v.safetensors}", "v"),
        ("v: {file: v.safetensors}\nw: {control: random, of: v}", "w"),
    ):
        plan = planned(tiny_llama, vectors, f"[no_prefix, {{steer: {steer}, alpha: 1}}]", folder=tmp_path)
        assert [job.inputs["layers"] for job in kinds(plan, "sweep")] == [[1]]
        for wrong in ("layer: 0", "calibrate: {layers: [0, 1]}"):
            text = vectors.replace("safetensors}", f"safetensors, {wrong}}}")
            with pytest.raises(SpecError, match="has no direction at layer 0"):
                planned(tiny_llama, text, f"[no_prefix, {{steer: {steer}, alpha: 1}}]", folder=tmp_path)


@pytest.mark.parametrize("way", ["dose: 0.5", "match: [short]", "range: [0, 1], unit: dose"])
def test_doses_need_residual_norms(tiny_llama: Path, tmp_path: Path, fingerprint: str, way: str) -> None:
    write(tmp_path / "v.safetensors", fingerprint, rms=None)
    evaluate = f"[no_prefix, {{steer: v, {way}}}]"
    with pytest.raises(SpecError, match="carries no residual norms"):
        planned(tiny_llama, "v: {file: v.safetensors, layer: 1}", evaluate, folder=tmp_path)
    fine = planned(tiny_llama, "v: {file: v.safetensors, layer: 1}", "[no_prefix, {steer: v, alpha: 1}]",
                   folder=tmp_path)  # fmt: skip
    assert not kinds(fine, "sweep")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no completions"),
        ("{}", "line 1 needs"),
        ("[1]", "line 1 needs"),
        ('{"prompt": "a", "completion": "b"}\n\n{"prompt": "a"}', "line 3 needs"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": ', "line 2 is not JSON"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "line 1 needs"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "line 1 needs"),
        ('{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "a"}]}', "line 1 needs"),
        ('{"messages": "hello"}', "line 1 needs"),
    ],
)
def test_a_bad_line_of_a_completions_file_is_named(tiny_llama: Path, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "good.jsonl").write_text('{"prompt": "Why?", "completion": "No."}\n')
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(SpecError) as caught:
        planned(tiny_llama, "v: {positive: {file: bad.jsonl}, negative: {file: good.jsonl}}", folder=tmp_path)
    assert "bad.jsonl" in str(caught.value)
    assert says in str(caught.value)


def test_a_completions_file_that_is_not_there_or_not_text(tiny_llama: Path, tmp_path: Path) -> None:
    vectors = "v: {positive: {file: bad.jsonl}, negative: {file: bad.jsonl}}"
    with pytest.raises(SpecError, match=r"there is no completions file at bad\.jsonl"):
        planned(tiny_llama, vectors, folder=tmp_path)
    (tmp_path / "bad.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(SpecError, match="is not UTF-8"):
        planned(tiny_llama, vectors, folder=tmp_path)


class Deaf(LocalBackend):
    """Backend local without a way to the activations."""

    capabilities = Capabilities(trains=True, checkpoints=True, leaves_peft=True, loads_peft=True)


def test_a_backend_that_does_not_steer_is_refused(tiny_llama: Path) -> None:
    text = spec_text(tiny_llama, LENGTH, "[no_prefix]", "[no_prefix]", "")
    with pytest.raises(SpecError, match="vectors: backend 'local' does not read activations"):
        make_plan(parse_spec(text), text, Path(), {"local": Deaf()})
    for evaluate, train in (
        ("[no_prefix, {steer: length, alpha: 1}]", "[no_prefix]"),
        ("[no_prefix]", "[{steer: length, alpha: 1}]"),
    ):
        text = spec_text(tiny_llama, LENGTH, evaluate, train, "")
        with pytest.raises(SpecError, match=r"condition 'length\+1' is a steering dose, which backend 'local' cannot"):
            make_plan(parse_spec(text), text, Path(), {"local": Deaf()})
    # It may sample, where another one trains under the dose: but then its base cells cannot be measured.
    text = spec_text(tiny_llama, LENGTH, "[no_prefix]", "[{steer: length, alpha: 1}]", "")
    text += "backend: {train: local, generate: deaf}\n"
    with pytest.raises(SpecError, match="backend 'deaf'"):
        make_plan(parse_spec(text), text, Path(), {"local": LocalBackend(), "deaf": Deaf()})


def test_vectors_are_made_where_activations_are_read(tiny_llama: Path) -> None:
    """The backend that samples steers, but makes no vectors: the one that trains does."""

    class Sampler:
        """What backend `local` has, but for the members of a SteeringBackend."""

        capabilities = Capabilities(steers=True, loads_peft=True)

        def __init__(self) -> None:
            local = LocalBackend()
            self.identify, self.supports_system = local.identify, local.supports_system
            self.train, self.generate, self.aclose = local.train, local.generate, local.aclose

    text = spec_text(tiny_llama, LENGTH, "[no_prefix, {steer: length, alpha: 1}]", "[no_prefix]", "")
    text += "backend: {train: local, generate: sampler}\n"
    plan = make_plan(parse_spec(text), text, Path(), {"local": LocalBackend(), "sampler": Sampler()})
    made = {job.kind: job.inputs["backend"] for job in plan.jobs if "backend" in job.inputs}
    assert (made["extract"], made["train"], made["evaluate"]) == ("local", "local", "sampler")


def test_a_refusal_in_plan_writes_nothing_and_exits_2(tiny_llama: Path, tmp_path: Path) -> None:
    spec = tmp_path / "x.yaml"
    spec.write_text(spec_text(tiny_llama, LENGTH, "[no_prefix, {steer: lenght, alpha: 1}]", "[no_prefix]", ""))
    for command in ("plan", "run"):
        done = windowshift(command, spec, "--workspace", tmp_path / "w", check=2)
        assert "did you mean 'length'?" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_residual_norms_measured_anew_make_another_vector(tiny_llama: Path, tmp_path: Path, fingerprint: str) -> None:
    """They say which alpha a dose is, so nothing that was done with the others may be taken over."""
    found = set()
    for rms in ((2.0, 2.0), (2.0, 3.0), None):
        write(tmp_path / "v.safetensors", fingerprint, rms=rms)
        found.add(extraction(planned(tiny_llama, "v: {file: v.safetensors}", folder=tmp_path), "v").id)
        (tmp_path / "v.safetensors").unlink()
    assert len(found) == 3


# -- which jobs are shared --------------------------------------------------------------------------


def test_one_more_dose_or_match_leaves_the_other_jobs_alone(tiny_llama: Path) -> None:
    train = "[{steer: length, match: [short]}, {steer: length, alpha: [1]}]"
    evaluate = "[short, no_prefix, {steer: length, alpha: [-1]}, {steer: length, match: [short]}]"
    few = planned(tiny_llama, evaluate=evaluate, train=train)
    more = planned(
        tiny_llama,
        evaluate=evaluate.replace("[-1]", "[-1, 2]").replace("[short]}", "[short, long]}"),
        train=train.replace("[1]", "[1, 3]").replace("[short]", "[short, long]"),
    )
    before, after = ({job.id: job for job in plan.jobs} for plan in (few, more))
    assert before.keys() < after.keys()
    new = {job.kind for identifier, job in after.items() if identifier not in before}
    assert new == {"evaluate", "score", "train", "match"}


def test_another_calibration_leaves_vectors_and_the_prefix_arm_alone(tiny_llama: Path) -> None:
    evaluate = "[short, no_prefix, {steer: length, match: [short]}]"
    one = planned(tiny_llama, evaluate=evaluate)
    other = planned(tiny_llama, f"{LENGTH[:-1]}, calibrate: {{doses: [-1, 1]}}}}", evaluate)
    shared = {job.id for job in one.jobs} & {job.id for job in other.jobs}
    assert extraction(one).id in shared
    kept = [job for job in other.jobs if job.id not in shared]
    assert {job.kind for job in kept if job.kind != "score"} == {"sweep", "dose", "match", "evaluate"}
    assert {job.label for job in kept if job.kind == "evaluate"} == {
        "base → length=short",
        "med_short: no_prefix → length=short",
    }


def test_a_match_points_to_the_base_cell_of_its_group(tiny_llama: Path) -> None:
    plan = planned(tiny_llama, evaluate="[short, no_prefix]", train="[short, {steer: length, match: [short]}]")
    (match,) = kinds(plan, "match")
    (cell,) = (cell for cell in plan.cells if cell.train == "base" and cell.evaluate == "short")
    assert match.inputs["target"] == cell.job
    # In another channel the group is another condition, and the match another one.
    system = "channel: {train: system, evaluate: user}\n"
    apart = planned(Path("microworld"), evaluate="[short, no_prefix]", train="[{steer: length, match: [short]}]",
                    more=system)  # fmt: skip
    (match,) = kinds(apart, "match")
    (cell,) = (cell for cell in apart.cells if cell.train == "base" and cell.evaluate == "short")
    assert match.inputs["target"] != cell.job


def test_all_seeds_share_the_vector_and_its_doses(tiny_llama: Path) -> None:
    steered = "[{steer: length, match: [short]}]"
    plan = planned(tiny_llama, evaluate="[short, no_prefix]", train=steered, more="seeds: [0, 1, 2]\n")
    counts = plan.counts()
    assert (counts["extract"], counts["sweep"], counts["dose"], counts["match"], counts["train"]) == (1, 1, 1, 1, 3)


# -- the cross grid ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cross", "prefix_row", "steering_row"),
    [
        ("true", {"short", "no_prefix", "length+1", "length-1"}, {"short", "no_prefix", "length+1", "length-1"}),
        ("false", {"short", "no_prefix"}, {"no_prefix", "length+1", "length-1"}),
        ("[length-1]", {"short", "no_prefix", "length-1"}, {"no_prefix", "length+1", "length-1"}),
        ("[short]", {"short", "no_prefix"}, {"short", "no_prefix", "length+1", "length-1"}),
    ],
)
def test_cross_says_which_conditions_of_the_other_arm_are_evaluated(
    tiny_llama: Path, cross: str, prefix_row: set[str], steering_row: set[str]
) -> None:
    evaluate = f"[short, no_prefix, {{steer: length, alpha: [1, -1]}}]\n  cross: {cross}"
    plan = planned(tiny_llama, evaluate=evaluate, train="[long, {steer: length, alpha: 2}]")
    rows = {train: {cell.evaluate for cell in plan.cells if cell.train == train} for train in ("long", "length+2")}
    assert rows == {"long": prefix_row, "length+2": steering_row}
    base = {cell.evaluate for cell in plan.cells if cell.train == "base"}
    assert base == {"short", "no_prefix", "length+1", "length-1"}


def test_cross_names_what_is_there(tiny_llama: Path) -> None:
    with pytest.raises(SpecError, match=r"conditions\.cross: there is no condition 'shrt': did you mean 'short'"):
        planned(tiny_llama, evaluate="[short, no_prefix]\n  cross: [shrt]")


def test_conditions_for_the_base_model_alone_have_base_cells_alone(tiny_llama: Path) -> None:
    vectors = f"{LENGTH}\nnoise: {{control: random, of: length}}"
    evaluate = "[short, no_prefix]\n  base: [{steer: noise, alpha: 1}]"
    plan = planned(tiny_llama, vectors, evaluate, "[short]")
    assert {cell.train for cell in plan.cells if cell.evaluate == "noise+1"} == {"base"}
    with pytest.raises(SpecError, match=r"conditions\.base: 'short' stands there twice"):
        planned(tiny_llama, vectors, "[short, no_prefix]\n  base: [short]")


def test_layers_and_doses_go_by_what_scores_them(tiny_llama: Path) -> None:
    """Of two primary behaviours on the same prompts, each has a layer, a curve and a match of its own."""
    vectors = "length: {positive: long, negative: short, prompts: 6, min_difference: 1}"
    train = "[{steer: length, match: [short]}]"
    own = "scorers: [{name: loud, characters: capitals, role: primary}]\n"
    by_length, by_capitals = (planned(tiny_llama, vectors, train=train, more=more) for more in ("", own))
    for kind in ("extract", "sweep", "dose", "match"):
        (one,), (other,) = kinds(by_length, kind), kinds(by_capitals, kind)
        assert one.id != other.id, kind
        assert "scored_by" not in one.inputs  # jobs of before there was another scorer keep their ids
    assert {job.id for job in kinds(by_length, "generate")} == {job.id for job in kinds(by_capitals, "generate")}


# -- iso-KL, and matching that is refined -----------------------------------------------------------

REFINED = f"{LENGTH[:-1]}, calibrate: {{matching: refined, development: 9}}}}"


def of(plan: Plan, label: str) -> Job:
    (found,) = (job for job in plan.jobs if job.label == label)
    return found


def test_iso_kl_is_solved_on_development_prompts_and_changes_no_other_job(tiny_llama: Path) -> None:
    few = f"{LENGTH[:-1]}, calibrate: {{development: 9}}}}"
    steered = "[no_prefix, {steer: length, match: [short]}"
    without = planned(tiny_llama, few, f"{steered}]")
    plan = planned(
        tiny_llama, few, f"{steered}, {{steer: length, iso_kl: [-1, 0.5]}}]", "[no_prefix, {steer: length, iso_kl: 1}]"
    )
    assert {job.id for job in without.jobs} <= {job.id for job in plan.jobs}
    solved = kinds(plan, "iso_kl")
    assert [(job.inputs["nats"], job.total, job.inputs["backend"]) for job in solved] == [
        (-1, 1, "local"), (0.5, 1, "local"), (1, 1, "local"),
    ]  # fmt: skip
    (own,) = {job.inputs["completions"] for job in solved}
    made = of(plan, "base on development prompts, to measure KL on")
    assert made.id == own
    assert made.inputs["condition"] == {"kind": "none"}
    drawn = plan.prompts[made.inputs["prompts"]["set"]]
    assert len(drawn) == made.total == 9
    others = {
        prompt.id for key, prompts in plan.prompts.items() for prompt in prompts if key != made.inputs["prompts"]["set"]
    }
    assert not {prompt.id for prompt in drawn} & others
    names = [condition.name for condition in plan.grid.evaluate]
    assert names[-2:] == ["length:kl-1", "length:kl+0.5"]
    identities = [json.loads(one) for one in plan.conditions if '"iso_kl"' in one]
    assert {one["iso_kl"] for one in identities} == {job.id for job in solved}
    train = next(job for job in kinds(plan, "train") if "length" in job.label)
    assert {job.id for job in solved if job.inputs["nats"] == 1} <= set(train.parents)


def test_a_control_has_a_kl_of_its_own_at_the_layer_of_what_it_controls(tiny_llama: Path) -> None:
    evaluate = "[no_prefix, {steer: length, iso_kl: 1}, {steer: length, iso_kl: 1, control: random, count: 2}]"
    plan = planned(tiny_llama, LENGTH, evaluate)
    solved = kinds(plan, "iso_kl")
    assert len({job.inputs["vector"] for job in solved}) == 3
    assert len({json.dumps(job.inputs["layer"]) for job in solved}) == 1
    assert len({job.inputs["completions"] for job in solved}) == 1


def test_a_refined_match_sweeps_the_tokens_that_are_pushed_and_is_solved_anew(tiny_llama: Path) -> None:
    evaluate = "[short, no_prefix, {steer: length, match: [short]}, {steer: length, match: [short], tokens: response}]"
    curve, plan = planned(tiny_llama, LENGTH, evaluate), planned(tiny_llama, REFINED, evaluate)
    assert len(kinds(curve, "sweep")) == 1  # as ever: on all tokens
    assert {job.id for job in kinds(curve, "match")} & {job.id for job in kinds(plan, "match")}
    assert [job.inputs.get("tokens") for job in kinds(plan, "sweep")] == [None, "response"]
    last = [job for job in kinds(plan, "match") if "refines" in job.inputs]
    assert [job.label for job in last] == [
        "alpha of length that matches short, refined", "alpha of length that matches short on response tokens, refined",
    ]  # fmt: skip
    used = {json.loads(one)["match"] for one in plan.conditions if '"steering"' in one}
    assert used == {job.id for job in last}
    taken = {
        prompt.id
        for prompts in (plan.prompts[key] for key in (place(plan, "evaluation"), place(plan, "data")))
        for prompt in prompts
    }
    for job in last:
        near, target = (next(one for one in plan.jobs if one.id == job.inputs[key]) for key in ("curve", "target"))
        assert (near.kind, near.total, near.inputs["for"]) == ("dose", 7 * 9, "refine")
        assert near.inputs["prompts"] == target.inputs["prompts"]
        assert not {prompt.id for prompt in plan.prompts[near.inputs["prompts"]["set"]]} & taken


def place(plan: Plan, use: str) -> str:
    """The set of prompts that jobs for a use take."""
    (found,) = {job.inputs["prompts"]["set"] for job in plan.jobs if job.inputs.get("for") == use}
    return str(found)


@pytest.mark.parametrize(
    ("evaluate", "says"),
    [
        ("[no_prefix, {steer: length, iso_kl: 0}]", "no push at all is  alpha: 0"),
        ("[no_prefix, {steer: length, iso_kl: []}]", "'iso_kl' must not be empty"),
        ("[no_prefix, {steer: length, iso_kl: 1, alpha: 1}]", "give one of alpha, dose, match, iso_kl, sample, range"),
        ("[no_prefix, {steer: [length, length], iso_kl: 1}]", "iso_kl solves for the alpha of one vector"),
        ("[no_prefix, {steer: length, iso_kl: 1000}]", "iso_kl"),
        ("[no_prefix, {steer: length, iso_kl: much}]", "iso_kl"),
        ("[no_prefix, {steer: round, iso_kl: 1}]", "vectors.round is made of itself: round → round"),
        ("[no_prefix, {steer: lenght, iso_kl: 1}]", "there is no vector 'lenght': did you mean 'length'?"),
    ],
)
def test_an_iso_kl_that_cannot_be_is_refused_in_one_sentence(tiny_llama: Path, evaluate: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        planned(
            tiny_llama, f"{LENGTH}\nround: {{control: flipped, of: round}}" if "round" in evaluate else LENGTH, evaluate
        )
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_prompts_for_development_are_said(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text("\n".join(json.dumps({"prompt": f"Why {n}?"}) for n in range(20)))
    text = spec_text(tiny_llama, REFINED, "[no_prefix, {steer: length, iso_kl: 1}]", "[no_prefix]", "")
    text = text.replace("prompts: microworld", "prompts: few.jsonl")
    with pytest.raises(SpecError, match=r"has 20 distinct prompts, but the spec needs 21 .*calibrate\.development, 9"):
        plan_spec(parse_spec(text), text, tmp_path)


class Unmeasured(LocalBackend):
    """Backend local without KL."""

    diverge = None  # type: ignore[assignment] - as if it had none


def test_a_backend_that_measures_no_kl_is_refused(tiny_llama: Path) -> None:
    text = spec_text(tiny_llama, LENGTH, "[no_prefix, {steer: length, iso_kl: 1}]", "[no_prefix]", "")
    with pytest.raises(SpecError, match="iso_kl of vector 'length': backend 'local' does not tell how far"):
        make_plan(parse_spec(text), text, Path(), {"local": Unmeasured()})
