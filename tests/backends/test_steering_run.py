"""The steering arm from the spec to the comparison, on the embedded model with very small settings."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.runs import completions, spec_of, start, tables, wait_until, windowshift
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import JobRow
from windowshift.core.contract.vector_file import (
    Provenance,
    VectorHeader,
    norms_of,
    read_header,
    read_vector,
    write_vector,
)
from windowshift.core.report.report import report
from windowshift.core.store.reader import Reader

SPEC = """\
name: {name}
model: microworld
backend_options: {{workers: 1}}
prompts: microworld
conditions:
  generate: [med_short]
  train: [long, {{steer: length, match: [long]}}, {{steer: noise, match: [long]}}]
  evaluate: [long, no_prefix, {{steer: length, match: [long]}}, {{steer: length, alpha: 0}}]
  base: [{{steer: noise, match: [long]}}, {{steer: length, match: [long], prefix: short}}]
vectors:
  length:
    positive: long
    negative: short
    prompts: 8
    layer: {layer}
    calibrate: {{layers: [1, 2], doses: {doses}, prompts: 4, points: 2, reach: {reach}}}
  noise: {{control: random, of: length}}
data: {{size: 8}}
sft: {{rank: 2, learning_rate: 1e-3, batch_size: 4}}
sampling: {{prompts: 6, max_tokens: 80, coherence: 2}}
"""


def write(folder: Path, name: str = "steer", doses: str = "[-0.5, 0.5]", layer: str = "auto", reach: float = 2) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, doses=doses, layer=layer, reach=reach), encoding="utf-8")
    return path


def jobs(workspace: Path, name: str = "steer") -> list[JobRow]:
    with closing(Reader(workspace)) as reader:
        experiment = reader.experiment(name)
        assert experiment is not None
        return list(reader.jobs(experiment.id))


def results(workspace: Path, name: str = "steer") -> dict[str, Any]:
    """What vector jobs found out; proofs aside, which count the passes of each start."""
    return {
        job.id: {key: value for key, value in job.result.items() if key != "fired"}
        for job in jobs(workspace, name)
        if job.kind in ("extract", "sweep", "dose", "match")
    }


@dataclass(frozen=True)
class Made:
    """A workspace as `windowshift vectors make` left it: what it said, and (kind, state) of every job."""

    workspace: Path
    said: str
    states: frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("steering")
    said = windowshift("vectors", "make", write(folder), "--workspace", folder / "w", "--quiet").stdout
    return Made(folder / "w", said, frozenset((job.kind, job.state) for job in jobs(folder / "w")))


@pytest.fixture(scope="module")
def finished(made: Made) -> Path:
    """The workspace after the whole experiment has run."""
    windowshift("run", made.workspace.parent / "steer.yaml", "--workspace", made.workspace, "--quiet")
    return made.workspace


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "w"))


def cli(*arguments: str | Path) -> str:
    """Run a command in this process; what it printed."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


# -- the run ----------------------------------------------------------------------------------------


def test_every_job_is_done_in_the_order_of_what_it_needs(finished: Path) -> None:
    found = jobs(finished)
    assert {job.state for job in found} == {"done"}
    kinds = [job.kind for job in found]
    assert {kind: kinds.count(kind) for kind in ("extract", "sweep", "dose", "match", "train")} == {
        "extract": 2, "sweep": 1, "dose": 1, "match": 1, "train": 3,
    }  # fmt: skip
    ended = {job.id: job.ended or 0 for job in found}
    # What a sweep or a dose curve comes to needs its scores, so those end first.
    later = [job for job in found if job.kind != "score"]
    assert all(ended[parent] <= ended[job.id] for job in later for parent in job.parents)


def test_the_sweep_the_curve_and_the_match_are_kept(finished: Path) -> None:
    by_kind = {job.kind: job.result for job in jobs(finished)}
    sweep, curve, match = by_kind["sweep"], by_kind["dose"], by_kind["match"]
    assert sweep["layer"] in (1, 2)
    assert set(sweep["curves"]) == {"1", "2"}
    assert [point["dose"] for point in sweep["curves"]["1"]] == pytest.approx([-0.5, 0, 0.5])
    assert all(point["n"] == 4 and point["coherence"] < 0 for point in sweep["curves"]["1"])
    assert curve["layer"] == sweep["layer"]
    alphas = [point["alpha"] for point in curve["points"]]
    assert alphas == sorted(alphas)
    assert alphas[2] == 0
    assert alphas[-1] == pytest.approx(2 * sweep["alpha_high"])
    means = [point["mean"] for point in curve["points"]]
    assert means[0] < means[-1]
    assert alphas[0] < match["alpha"] < alphas[-1]
    header = read_header(finished / next(job for job in jobs(finished) if job.kind == "extract").result["vector"])
    assert match["dose"] == pytest.approx(header.dose_of(match["alpha"], sweep["layer"]))


def test_every_steered_job_has_its_proof(finished: Path) -> None:
    for job in jobs(finished):
        condition = job.inputs.get("condition", {})
        steered = condition.get("kind") == "steering" or job.kind in ("sweep", "dose")
        if job.kind == "train":
            steered = any(part["condition"]["kind"] == "steering" for part in job.inputs["parts"])
        assert bool(job.result.get("fired")) == steered, job.label
        for fired in job.result.get("fired", ()):
            assert fired["tokens"] == fired["tokens_asked"] > 0
            assert fired["calls"] == fired["calls_asked"] > 0
            assert fired["change"] == pytest.approx(fired["change_asked"], rel=1e-3)


def test_the_cross_grid_is_there(finished: Path) -> None:
    cells = report(finished, "steer", resamples=50).to_json()["cells"]
    rows = {train: {cell["evaluate"] for cell in cells if cell["train"] == train} for train in ("long", "length=long")}
    assert rows["long"] == rows["length=long"] == {"long", "no_prefix", "length=long", "length+0"}
    assert {cell["train"] for cell in cells if cell["evaluate"] == "noise=long"} == {"base"}
    means = {(cell["train"], cell["evaluate"]): cell["mean"] for cell in cells}
    for train in ("base", "long", "length=long"):
        assert means[train, "length+0"] == means[train, "no_prefix"]


def test_the_report_has_the_steering_and_both_arms(finished: Path) -> None:
    found = json.loads(windowshift("report", "steer", "--workspace", finished, "--json").stdout)
    assert set(found["arms"]) == {"prefix", "steering"}
    steering = found["steering"]
    assert [one["name"] for one in steering["vectors"]] == ["length", "noise"]
    assert steering["vectors"][1]["of"] == "length"
    assert len(steering["sweeps"]) == len(steering["curves"]) == len(steering["matches"]) == 1
    (match,) = steering["matches"]
    assert match["group"] == "long"
    assert match["reached"]["n"] == 6
    assert match["ratio"]["value"] == pytest.approx(match["reached"]["value"] / match["target"]["value"])
    control, *of_fine_tunes = steering["controls"]
    assert control["generate"] is None
    assert [one["generate"] for one in of_fine_tunes] == ["med_short"]
    assert (control["condition"], control["control"], control["real"]) == ("noise=long", "random", "length=long")
    assert control["share"]["value"] == pytest.approx(abs(control["effect"]["value"] / control["real_effect"]["value"]))
    assert found["arms"]["steering"]["cross_cv"]
    text = windowshift("report", "steer", "--workspace", finished).stdout
    for words in ("Layer of length", "Dose-response of the base model", "Matched doses", "Controls on the base model"):
        assert words in text


def test_compare_as_text_json_and_picture(finished: Path, tmp_path: Path) -> None:
    text = cli("compare", "steer", "--workspace", finished, "--picture", tmp_path / "arms.png")
    assert "Average over 1 matched pair under a push" in text
    assert "Trained under long | length=long" in text
    assert "Trained under long | noise=long" in text
    assert (tmp_path / "arms.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(cli("compare", "steer", "--workspace", finished, "--json"))
    pair, control = found["pairs"]
    assert (pair["generate"], pair["prefix"], pair["steering"]) == ("med_short", "long", "length=long")
    assert control["steering"] == "noise=long"
    assert found["scale"] == "log2"
    for measure in ("uplift", "cv_kept", "cross_cv_kept", "extreme", "coherence", "leak"):
        both = found["average"][measure]
        difference = both["difference"]["value"]
        assert difference == pytest.approx(both["steering"]["value"] - both["prefix"]["value"], abs=1e-9), measure
        # The control is beside it, and in no average.
        assert both["steering"]["value"] == pytest.approx(pair["measures"][measure]["steering"]["value"])


def test_a_second_run_does_nothing(workspace: Path) -> None:
    before = {job.id: job.ended for job in jobs(workspace)}
    windowshift("run", write(workspace.parent), "--workspace", workspace, "--quiet")
    assert {job.id: job.ended for job in jobs(workspace)} == before


def test_a_vector_that_was_deleted_is_made_anew(workspace: Path) -> None:
    place = next(job for job in jobs(workspace) if job.kind == "extract").result["vector"]
    content, before = (workspace / place).read_bytes(), tables(workspace, "steer")
    (workspace / place).unlink()
    listed = json.loads(cli("vectors", "list", "--workspace", workspace, "--json"))["vectors"]
    assert {one["vector"]: bool(one.get("header")) for one in listed} == {"steer/length": False, "steer/noise": True}
    assert "cannot read vector" in cli("vectors", "list", "--workspace", workspace)
    windowshift("run", write(workspace.parent), "--workspace", workspace, "--quiet")
    assert (workspace / place).read_bytes() == content
    assert tables(workspace, "steer") == before


@pytest.mark.slow
def test_a_killed_run_comes_to_the_same(finished: Path, tmp_path: Path) -> None:
    spec, other = write(tmp_path), tmp_path / "w"
    total = completions(finished, "steer")

    def sampled() -> bool:
        return completions(other, "steer") >= total // 3

    def matched() -> bool:
        return completions(other, "steer") >= 1 and any(
            job.kind == "match" and job.state == "done" for job in jobs(other)
        )

    for reached in (lambda: completions(other, "steer") >= 10, matched, sampled):
        process = start("run", spec, "--workspace", other, "--quiet")
        wait_until(reached, seconds=240)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    windowshift("run", spec, "--workspace", other, "--quiet", "--wait")
    assert tables(other, "steer") == tables(finished, "steer")
    assert results(other) == results(finished)


# -- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_match_out_of_reach_fails_alone_and_the_spec_can_be_mended(workspace: Path) -> None:
    """The vector and the prefix arm are there already; its curve is too short for the group."""
    near = write(workspace.parent, "near", doses="[-0.01, 0.01]", layer="1", reach=1)
    done = windowshift("run", near, "--workspace", workspace, "--quiet", check=1)
    (failure,) = (line for line in done.stderr.splitlines() if line.startswith("failed: "))
    assert "alpha of length that matches long: out of reach: the base model's mean under 'long' is" in failure
    assert "raise calibrate.reach" in failure
    states = {job.label: job.state for job in jobs(workspace, "near")}
    assert states["alpha of length that matches long"] == "failed"
    assert states["train med_short under long"] == "done"
    assert states["train med_short under length=long"] == states["train med_short under noise=long"] == "pending"
    found = report(workspace, "near", resamples=50).to_json()
    (match,) = found["steering"]["matches"]
    assert match["alpha"] is None
    assert "out of reach" in cli("report", "near", "--workspace", workspace)
    assert [job["job"] for job in found["failed_jobs"]] == ["alpha of length that matches long"]
    windowshift("run", write(workspace.parent, "near", layer="1"), "--workspace", workspace, "--quiet")
    assert {job.state for job in jobs(workspace, "near")} == {"done"}


def test_a_dose_that_its_vector_cannot_be_given_in_fails_its_job_alone(tiny_llama: Path, tmp_path: Path) -> None:
    """Two files that cancel at one layer: only the run sees that nothing is left there."""
    from windowshift.backends.local.backend import LocalBackend

    fingerprint = LocalBackend().identify(str(tiny_llama)).fingerprint
    for name, sign in (("a", 1.0), ("b", -1.0)):
        numbers = np.ones((2, 32), dtype=np.float32)
        numbers[0] *= sign
        header = VectorHeader(name, 2, 32, norms_of(numbers), Provenance("tiny", fingerprint, "test"), rms=(2.0, 2.0))
        write_vector(tmp_path / f"{name}.safetensors", header, numbers)
    spec = spec_of(tiny_llama, "[short, {steer: none, dose: 0.5}, {steer: some, alpha: 1}]")
    spec += "vectors:\n  a: {file: a.safetensors}\n  b: {file: b.safetensors}\n"
    spec += "  none: {combine: {a: 1, b: 1}, layer: 0}\n  some: {combine: {a: 1, b: 1}, layer: 1}\n"
    (tmp_path / "small.yaml").write_text(spec, encoding="utf-8")
    done = windowshift("run", tmp_path / "small.yaml", "--workspace", tmp_path / "w", "--quiet", check=1, timeout=120)
    failures = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 2
    assert "base → none×+0.5, as in training: vector 'none' has no direction at layer 0" in failures[0]
    assert "train med_short under none×+0.5: vector 'none' has no direction at layer 0" in failures[1]
    states = {job.label: job.state for job in jobs(tmp_path / "w", "small")}
    assert states["train med_short under some+1"] == "done"
    assert states["base → some+1, as in training"] == "done"


# -- windowshift vectors ----------------------------------------------------------------------------


def test_vectors_make_does_the_vectors_and_nothing_else(made: Made, tmp_path: Path) -> None:
    assert "steer/length" in made.said
    assert "steer/noise" in made.said
    done = {kind for kind, state in made.states if state == "done"}
    assert done == {"extract", "generate", "sweep", "dose", "match", "evaluate", "score"}
    assert {("train", "pending"), ("evaluate", "pending")} <= made.states
    plain = tmp_path / "plain.yaml"
    plain.write_text(spec_of("microworld", "[short]", name="plain"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"plain\.yaml has no 'vectors'"):
        cli("vectors", "make", plain, "--workspace", tmp_path / "w")


def test_vectors_list_show_and_cosine(finished: Path) -> None:
    lines = cli("vectors", "list", "--workspace", finished)
    assert "long − short, response tokens; 4 layers × 128, layer " in lines
    listed = json.loads(cli("vectors", "list", "--workspace", finished, "--json"))["vectors"]
    assert [(one["vector"], one["state"]) for one in listed] == [("steer/length", "done"), ("steer/noise", "done")]
    shown = json.loads(cli("vectors", "show", "steer/length", "--workspace", finished, "--json"))
    assert shown["provenance"]["positive_count"] == 8
    similar = np.array(shown["cosine_across_layers"])
    assert np.allclose(np.diag(similar), 1)
    assert np.allclose(similar, similar.T)
    sweep = next(job.result for job in jobs(finished) if job.kind == "sweep")
    assert shown["layer"] is None  # `auto` chose it, and the file was written before
    assert shown["layer_in_use"] == sweep["layer"]
    assert shown["chosen_by"] == {"rule": sweep["rule"], "layers": [1, 2]}
    said = cli("vectors", "show", "steer/length", "-w", finished)
    assert f"layer in use: {sweep['layer']} (*), chosen among 1, 2: largest" in said
    (marked,) = [line for line in said.splitlines() if re.match(r"  +\d\*", line)]
    assert marked.split()[0] == f"{sweep['layer']}*"
    control = json.loads(cli("vectors", "show", "steer/noise", "--workspace", finished, "--json"))
    assert control["layer_in_use"] == sweep["layer"]  # its vector's
    assert [one["layer_in_use"] for one in listed] == [sweep["layer"]] * 2
    assert f"4 layers × 128, layer {sweep['layer']}; on microworld" in lines
    alone = cli("vectors", "show", listed[0]["file"])  # a file knows no experiment
    assert "no layer is chosen for it" in alone
    assert set(alone.splitlines()) - set(said.replace("*", " ").splitlines()) == {"  no layer is chosen for it"}
    alike = json.loads(
        cli("vectors", "cosine", "steer/length", "steer/noise", listed[0]["file"], "-w", finished, "--json")
    )["layers"]
    assert list(alike) == ["0", "1", "2", "3"]
    assert alike["2"][0][2] == pytest.approx(1)
    assert abs(alike["2"][0][1]) < 0.4
    table = cli("vectors", "cosine", "steer/length", "steer/noise", "-w", finished, "--layer", str(sweep["layer"]))
    first, head, *rows = table.splitlines()
    assert first == f"layer {sweep['layer']}, in use by steer/length, steer/noise"
    assert head.split() == ["cosine", "steer/length", "steer/noise"]
    assert [row.split()[0] for row in rows] == ["steer/length", "steer/noise"]
    for row in rows:  # each number ends below the end of its head
        for name, value in zip(("steer/length", "steer/noise"), row.split()[1:], strict=True):
            assert head.index(name, 10) + len(name) in [found.end() for found in re.finditer(re.escape(value), row)]


@pytest.mark.parametrize(("to", "ending"), [("persona", "pt"), ("steering-vectors", "pt"), ("gguf", "gguf")])
def test_vectors_export_and_import_come_round(finished: Path, tmp_path: Path, to: str, ending: str) -> None:
    if to == "gguf":
        pytest.importorskip("gguf")
    out, back = tmp_path / f"mine.{ending}", tmp_path / "back.safetensors"
    cli("vectors", "export", "steer/length", "--to", to, "--out", out, "-w", finished)
    cli("vectors", "import", out, "--model", "microworld", "--out", back, "--layer", "1", "--prompts", "4")
    (place,) = (job.result["vector"] for job in jobs(finished) if job.label == "vector length")
    (own, numbers), (header, found) = read_vector(finished / place), read_vector(back)
    first = 1 if to == "gguf" else 0  # llama.cpp knows no layer 0
    assert np.allclose(found[first:], numbers[first:], atol=1e-6)
    assert not found[:first].any()
    assert (header.name, header.layer) == ("mine", 1)
    assert header.provenance.fingerprint == own.provenance.fingerprint
    assert header.rms is not None
    assert header.rms[1] == pytest.approx((own.rms or (0, 0))[1], rel=0.5)
    with pytest.raises(SpecError, match="exists already"):
        cli("vectors", "import", out, "--model", "microworld", "--out", back, "--prompts", "4")
    # And the spec takes it as it is.
    spec = (
        "name: x\nmodel: microworld\nprompts: microworld\nconditions: {generate: [short], train: [short], "
        "evaluate: [short, {steer: v, dose: 0.5}]}\nvectors: {v: {file: back.safetensors}}\n"
    )
    (tmp_path / "x.yaml").write_text(spec, encoding="utf-8")
    cli("plan", tmp_path / "x.yaml", "-w", tmp_path / "w")


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ({"layer_activations": {1: torch.ones(64)}, "layer_type": "decoder_block"}, "width 64, but the hidden size"),
        ({"layer_activations": {9: torch.ones(128)}, "layer_type": "decoder_block"}, "a direction for layer 9"),
        (torch.ones(9, 128), "has 9 rows, and 'microworld' with 4 layers needs 5"),
        ({"weights": 1}, "is not a vector of the steering-vectors library"),
    ],
)
def test_an_import_is_refused_in_the_words_of_the_format_that_was_meant(tmp_path: Path, held: Any, says: str) -> None:
    torch.save(held, tmp_path / "v.pt")
    with pytest.raises(SpecError) as caught:
        cli("vectors", "import", tmp_path / "v.pt", "--model", "microworld", "--out", tmp_path / "v", "--prompts", "2")
    assert says in str(caught.value)
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "steer/lenght"], "has no vector 'lenght': did you mean 'length'?"),
        (["show", "ster/length"], "there is no experiment 'ster'"),
        (["show", "nothing.safetensors"], "there is no vector file nothing.safetensors"),
        (["cosine", "steer/length"], "cosine compares two vectors or more"),
        (["cosine", "steer/length", "steer/noise", "--layer", "9"], "layer 9"),
        (["export", "steer/length", "--out", "x", "--to", "tar"], "there is no format 'tar'"),
        (["import", "x.bin", "--model", "microworld", "--out", "y"], "neither a .pt nor a .gguf"),
    ],
)
def test_vectors_says_what_is_wrong(finished: Path, arguments: Sequence[str], says: str) -> None:
    more = [] if arguments[0] == "import" else ["--workspace", str(finished)]
    with pytest.raises(SpecError) as caught:
        CliRunner().invoke(app, ["vectors", *arguments, *more], catch_exceptions=False)
    assert says in str(caught.value)


@pytest.mark.slow
def test_a_pilot_that_trains_proves_that_hooks_fired_in_training(tmp_path: Path) -> None:
    """On the embedded model: two seeds of a training without a push, under a prefix and under a dose, then the rest."""
    text = SPEC.format(name="piloted", doses="[-0.5, 0.5]", layer="1", reach=2)
    dose = "{steer: length, alpha: 2}"
    text = text.replace("train: [long, ", "train: [no_prefix, long, ").replace("prompts: 6,", "prompts: 8,")
    text = text.replace("{steer: length, match: [long]}", dose).replace(", {steer: noise, match: [long]}]", "]")
    text = re.sub(r"  base: .*\n", "", text)
    path = tmp_path / "piloted.yaml"
    path.write_text(f"{text}seeds: [0, 1]\npreflight: {{seeds: 2, prompts: 6}}\n", encoding="utf-8")
    run = CliRunner().invoke(app, ["run", str(path), "-w", str(tmp_path / "ws"), "--anyway"])
    assert run.exit_code == 0, run.output
    with closing(Reader(tmp_path / "ws")) as reader:
        experiment = reader.find_experiment("piloted")
        flown = reader.preflights(experiment.id)[-1]
        trained = [job for job in reader.jobs(experiment.id) if job.kind == "train"]
    assert [(arm, train) for arm, _, train in flown.rows] == [
        ("prefix", "no_prefix"), ("prefix", "long"), ("steering", "length+2"),
    ]  # fmt: skip
    gates = {gate.name: gate for gate in flown.gates}
    assert gates["hooks"].passed
    assert "and 2 steered trainings" in gates["hooks"].said
    assert "training runs differ by" in gates["power"].said
    assert {job.state for job in trained} == {"done"}
