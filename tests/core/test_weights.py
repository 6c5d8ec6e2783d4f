"""Weights of D's examples: columns of its rows, what plan refuses, what trains, and what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import windowshift
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import WeightedSpan
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.settings.example_weights import weights_of
from windowshift.core.spec.spec import parse_spec

SPEC = """\
name: small
model: {model}
prompts: p.jsonl
conditions: {{generate: [med_short], train: [short], evaluate: [no_prefix]}}
data: {{size: 4{weights}}}
sft: {{rank: 2, learning_rate: 1e-2, batch_size: 2}}
sampling: {{prompts: 2, max_tokens: 8}}
"""
BOTH = ", weight: w, spans: s"


def rows(folder: Path, **changes: Any) -> None:
    found = [{"id": f"p{i}", "prompt": f"What is number {i}?", "w": i / 2, "s": [[0, 1, 3.0]]} | changes
             for i in range(6)]  # fmt: skip
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")


def planned(folder: Path, weights: str, model: str = "microworld", more: str = "") -> Plan:
    text = SPEC.format(model=model, weights=weights) + more
    return plan_spec(parse_spec(text), text, folder)


def test_weights_are_read_from_columns() -> None:
    columns = {"weight": "w", "spans": "s"}
    prompt = Prompt("a", "b", {"w": "0.5", "s": '[[0, 2, 3], {"start": 3, "end": 4, "weight": 0}]'})
    assert weights_of(prompt, columns, "abcd") == (0.5, (WeightedSpan(0, 2, 3.0), WeightedSpan(3, 4, 0.0)))
    assert weights_of(prompt, {"weight": "w"}) == (0.5, ())
    assert weights_of(prompt, None) == (1.0, ())
    with pytest.raises(SpecError, match="prompt 'a' of D: 's\\[1\\]' ends at 4, but the completion has 3 characters"):
        weights_of(prompt, columns, "abc")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"w": -1}, "'w' must be a number that is not below 0, but it is -1"),
        ({"w": "much"}, "'w' must be a number"),
        ({"w": True}, "'w' must be a number"),
        ({"w": None}, "'w' must be a number"),
        ({"s": 3}, "'s' must be a list of [start, end, weight]"),
        ({"s": [[2, 2, 1]]}, "'s[0]' must begin before it ends"),
        ({"s": [[0, 1]]}, "'s[0]' must be [start, end, weight]"),
        ({"s": [[0, 1, -2]]}, "'s[0]' must be a number that is not below 0"),
    ],
)
def test_bad_weights_are_told_by_plan(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    rows(tmp_path, **changes)
    with pytest.raises(SpecError) as told:
        planned(tmp_path, BOTH)
    assert says in str(told.value)
    assert "prompt 'p" in str(told.value)


def test_a_column_that_is_not_there_and_a_backend_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(tmp_path)
    with pytest.raises(SpecError, match=r"has no 'weigth', which data\.weight names \(it has w, s\)"):
        planned(tmp_path, ", weight: weigth")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(SpecError, match=r"data\.spans: backend 'openai' cannot weigh examples or tokens"):
        planned(tmp_path, BOTH, "gpt-4.1-mini-2025-04-14", "backend: openai\n")


def test_weights_identify_trainings_and_nothing_else(tmp_path: Path) -> None:
    rows(tmp_path)
    plain, weighed = planned(tmp_path, ""), planned(tmp_path, BOTH)
    same = {job.id for job in plain.jobs} & {job.id for job in weighed.jobs}
    trains = {job.id for job in plain.jobs if job.kind == "train"}
    assert not trains & same
    assert {job.id for job in plain.jobs if job.kind == "generate"} <= same
    assert "weights" not in next(job for job in plain.jobs if job.kind == "train").inputs


def test_weights_end_to_end(tmp_path: Path, tiny_llama: Path) -> None:
    rows(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC.format(model=tiny_llama, weights=BOTH), encoding="utf-8")
    windowshift("run", tmp_path / "spec.yaml", "-w", tmp_path / "ws", "-q")
    (dataset,) = (tmp_path / "ws").glob("artifacts/*/dataset.jsonl")
    lines = [json.loads(line) for line in dataset.read_text(encoding="utf-8").splitlines()]
    assert all(line["spans"] == [[0, 1, 3.0]] for line in lines)
    assert all(line.get("weight", 1.0) == int(line["messages"][0]["content"][-2]) / 2 for line in lines)
