"""A spec with two lines changed runs on vLLM, beside the local run: the length grid, and a steering grid."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.runs import windowshift, write_spec
from tests.vllm_server import VllmAddress
from windowshift.core.store.reader import Reader

pytestmark = pytest.mark.vllm

STEERING = """\
name: here
model: microworld
backend: local
prompts: microworld
conditions:
  generate: [med_short]
  train: [long, {steer: length, dose: [0.3]}]
  evaluate: [no_prefix, {steer: length, dose: [0.3]}]
vectors:
  length:
    positive: long
    negative: short
    prompts: 8
    layer: 2
data: {size: 8}
sft: {rank: 2, learning_rate: 1e-3, batch_size: 4}
sampling: {prompts: 6, max_tokens: 80, coherence: 2}
"""


def elsewhere(text: str, server: VllmAddress) -> str:
    """The same spec with the two lines of backend `vllm`, under another name."""
    options = f"backend_options: {{vllm: {{base_url: {server.base_url}}}}}"
    changed = text.replace("backend: local", f"backend: {{train: local, generate: vllm}}\n{options}")
    return changed.replace("name: here", "name: there")


def test_the_length_grid_beside_the_local_run(keyed: VllmAddress, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    local = write_spec(tmp_path, "microworld", name="here", more="backend: local\n")
    remote = tmp_path / "there.yaml"
    remote.write_text(elsewhere(local.read_text(encoding="utf-8"), keyed), encoding="utf-8")
    windowshift("run", local, "--workspace", workspace)
    done = windowshift("run", remote, "--workspace", workspace)
    assert "vllm: prefix cache hit rate" in done.stderr
    log = (workspace / "logs" / "there.log").read_text(encoding="utf-8")
    assert "prefix cache hit rate" in log
    found = json.loads(windowshift("report", "there", "--beside", "here", "--workspace", workspace, "--json").stdout)
    assert [one["rehearsal"] for one in found["experiments"]] == [True, True]
    assert all(None not in row["values"] for row in found["cells"])
    cells = {row["cell"]: row["values"] for row in found["cells"]}
    assert {"base → short", "base → no_prefix", "med_short: short → short"} <= cells.keys()
    shown = windowshift("report", "there", "--beside", "here", "--workspace", workspace).stdout
    assert "there beside here" in shown


def test_the_steering_grid_beside_the_local_run(keyed: VllmAddress, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    for name, text in (("here", STEERING), ("there", elsewhere(STEERING, keyed))):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        windowshift("run", path, "--workspace", workspace)
    with closing(Reader(workspace)) as reader:
        experiment = reader.experiment("there")
        assert experiment is not None
        jobs = list(reader.jobs(experiment.id))
        assert {job.state for job in jobs} == {"done"}
        fired = [job for job in jobs if job.kind == "evaluate" and (job.result or {}).get("fired")]
        assert len(fired) >= 2  # under the base model, and under the adapters
        for job in fired:
            for one in (job.result or {})["fired"]:
                assert one["calls"] == one["calls_asked"] > 0
                assert one["tokens"] == one["tokens_asked"] > 0
    found = json.loads(windowshift("report", "there", "--beside", "here", "--workspace", workspace, "--json").stdout)
    assert {row["arm"] for row in found["cells"]} == {"prefix", "steering"}
    assert all(None not in row["values"] for row in found["cells"])
