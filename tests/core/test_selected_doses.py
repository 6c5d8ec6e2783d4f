"""Selection among doses: which are candidates, on which prompts, how it is frozen, and the correlation after."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.generated_store import generate_store
from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.errors import SpecError
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.selected import selected
from windowshift.core.measure.selection import ranked
from windowshift.core.plan.development import development_plan
from windowshift.core.plan.plan import make_plan
from windowshift.core.report.selection_page import selection_blocks
from windowshift.core.report.text import draw
from windowshift.core.run.select import Selection, select
from windowshift.core.spec.frozen import frozen
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

SPEC = """\
name: chosen
model: {model}
backend_options: {{workers: 1}}
prompts: microworld
conditions:
  generate: [med_short]
  train:
    - short
    - {{steer: length, dose: [-0.2, 0.2]}}
    - {{steer: length, match: [short]}}
    - {{steer: length, iso_kl: -1}}
    - {{steer: length, alpha: [0, 1], tokens: response}}
    - {{steer: length, dose: -0.2, control: random, count: 2}}
    - {{steer: noise, dose: -0.2}}
    - name: both
      mix: [{{fraction: 0.5, generate: med_short, train: short}}, {{fraction: 0.5, generate: med_short, train: medium}}]
    - no_prefix
  evaluate: [short, no_prefix, {{steer: length, match: [short]}}]
vectors:
  length:
    positive: long
    negative: short
    prompts: 6
    layer: 1
    calibrate: {{doses: [-0.5, 0.5], prompts: 4, points: 2, reach: 3, matching: refined, development: 8}}
  noise: {{control: orthogonal, of: length}}
data: {{size: 12}}
sampling: {{prompts: 10, max_tokens: 12}}
"""
DOSES = ["length×-0.2", "length×+0.2", "length=short", "length:kl-1", "length+1@response"]


def text_of(model: Path | str) -> str:
    return SPEC.format(model=model)


def test_doses_are_looked_at_on_development_prompts_with_the_vectors_of_the_whole_spec(tiny_llama: Path) -> None:
    text, backends = text_of(tiny_llama), {"local": LocalBackend()}
    spec = parse_spec(text)
    whole = make_plan(spec, text, Path(), backends)
    found = development_plan(spec, text, Path(), backends, 9)
    assert list(found.candidates) == ["short", *DOSES]  # no control, no mix, and nothing that does not push
    own = {job.id for job in found.plan.jobs}
    there = {job.id: job for job in whole.jobs}
    assert {job.kind for job in found.plan.jobs if job.id in there} >= {"extract", "dose", "match", "iso_kl"}
    seen: set[str] = set()
    for job in found.plan.jobs:
        assert set(job.parents) <= seen, job.label
        seen.add(job.id)
    sets = {job.inputs["prompts"]["set"] for job in (found.answers, *(job for _, job in found.candidates.values()))}
    (drawn,) = (found.plan.prompts[one] for one in sets)
    assert len(drawn) == 9
    others = {prompt.id for prompts in whole.prompts.values() for prompt in prompts}
    assert len(others) == 12 + 10 + 8
    assert not {prompt.id for prompt in drawn} & others
    for name, (condition, job) in found.candidates.items():
        assert job.id not in there
        scored = [one for one in found.plan.jobs if one.kind == "score" and one.parents[0] == job.id]
        assert len(scored) == 1
        assert found.plan.condition_name(job) == condition.name == name
        # What it steers by is the whole spec's: the run that follows has it already.
        assert {parent for parent in job.parents if parent in there} == set(job.parents)
    assert not any(job.kind == "train" for job in found.plan.jobs)
    assert {cell.evaluate: cell.arm for cell in found.plan.cells}["length=short"] == "steering"
    assert own


def test_d_that_is_written_under_a_dose_is_refused(tiny_llama: Path) -> None:
    text = text_of(tiny_llama).replace("generate: [med_short]", "generate: [{steer: length, dose: 0.1}]")
    text = text.replace("generate: med_short", "generate: length×+0.1")
    with pytest.raises(SpecError, match="D is written under a dose"):
        development_plan(parse_spec(text), text, Path(), {"local": LocalBackend()}, 9)


def test_what_is_frozen_are_the_doses_that_were_chosen() -> None:
    text = text_of("microworld")
    scores = {name: -float(n) for n, name in enumerate(["short", *DOSES])}
    written = frozen(text, "uplift", "med_short", 9, scores, ["length×+0.2", "length:kl-1"], [])
    kept = yaml.safe_load(written)["conditions"]["train"]
    assert kept == [
        {"steer": "length", "dose": [0.2]},
        {"steer": "length", "iso_kl": -1},
        {"steer": "length", "alpha": [0], "tokens": "response"},
        *yaml.safe_load(text)["conditions"]["train"][5:],
    ]
    assert parse_spec(written).selection is not None
    whole = frozen(text, "uplift", "med_short", 9, scores, list(scores), [])
    assert yaml.safe_load(whole)["conditions"]["train"] == yaml.safe_load(text)["conditions"]["train"]


def test_the_rank_correlation_is_over_prefixes_and_doses(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=20, data_size=20, steering=True).close()
    with closing(Reader(tmp_path)) as reader:
        experiment = reader.find_experiment("med-short")
        grid = load_grid(reader, experiment, experiment.behaviours[0])
    names = ["short", "long", "length=medium", "length=long"]

    def correlation(scores: dict[str, float]) -> Any:
        entry = {
            "hash": "x", "by": "uplift", "generate": "med_short", "prompts": 8, "chosen": names, "marked": [],
            "scores": scores, "registered": 0.0, "cells_done": 0,
        }  # fmt: skip
        told = replace(experiment, conditions={**experiment.conditions, "selections": [entry]})
        (one,) = selected(Resampled(replace(grid, experiment=told), 100))
        return one

    both = correlation({name: float(n) for n, name in enumerate(names)})
    assert both.correlation is not None, both.reason
    assert both.correlation.n == 4
    turned = correlation({name: -float(n) for n, name in enumerate(names)})
    assert turned.correlation.value == pytest.approx(-both.correlation.value)
    few = correlation(dict.fromkeys(names[:3], 0.0))
    assert few.reason == "3 of its candidates are trained, done and scored; four are needed"


@pytest.mark.slow
def test_doses_are_ranked_by_what_they_do_and_by_how_likely_they_make_d(tmp_path: Path) -> None:
    text = text_of("microworld").replace("max_tokens: 12", "max_tokens: 64").replace("layer: 1", "layer: 2")
    text = text.replace("iso_kl: -1", "iso_kl: [-1, 90]").replace("match: [short]", "match: [medium]")
    spec = parse_spec(text)
    found = select(spec, text, Path(), tmp_path, 8)
    assert isinstance(found, Selection), found
    assert [one.name for one in found.candidates] == ["short", *DOSES[:2], "length=medium", *DOSES[3:]]
    ((name, why),) = found.out_of_reach  # the others are ranked all the same
    assert name == "length:kl+90"
    assert "out of reach: at alpha" in why
    assert f"Not ranked: {name}" in draw(list(selection_blocks(found, "uplift")), 200)
    written = frozen(text, "uplift", "med_short", 8, {"short": 1.0, "length=short": 0.0}, ["short"], [], [name])
    assert {"steer": "length", "iso_kl": [-1]} in yaml.safe_load(written)["conditions"]["train"]
    for one in found.candidates:
        assert one.uplift is not None
        assert one.above is not None
        assert one.signal is not None
        assert one.elicitation is not None
        assert one.uplift.n == one.elicitation.n == 8
    by_name = {one.name: one for one in found.candidates}
    # The two ways of one vector pull to both sides, as they should.
    shorter, longer = (by_name[name].elicitation for name in ("length×-0.2", "length×+0.2"))
    assert shorter is not None
    assert longer is not None
    assert shorter.value > longer.value
    assert len(ranked(found.candidates, "uplift")) == 6
    again = select(spec, text, Path(), tmp_path, 8)
    assert again == found
    assert len(ranked(found.candidates, "elicitation")) == 6
