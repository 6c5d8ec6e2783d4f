"""A spec with two lines changed runs on a server, beside the local run; a course without checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import windowshift, write_spec
from tests.servers import KEY, Served, serving
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(tmp_path / "data", "--rank", 2, "--learning-rate", 0.01, "--jobs", 2) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield served


def test_the_same_spec_beside_the_local_run(server: Served, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    local = write_spec(tmp_path, "microworld", name="here", more="backend: local\n")
    text = local.read_text(encoding="utf-8")
    # The name says which run it is; of what is run, two lines change (this server's model is the same).
    remote = tmp_path / "there.yaml"
    remote.write_text(
        text.replace("backend: local", "backend: openai").replace("name: here", "name: there"), encoding="utf-8"
    )
    windowshift("run", local, "--workspace", workspace)
    windowshift("run", remote, "--workspace", workspace)
    found = json.loads(windowshift("report", "there", "--beside", "here", "--workspace", workspace, "--json").stdout)
    assert [one["backend"] for one in found["experiments"]] == ["openai", "local"]
    assert all(one["rehearsal"] for one in found["experiments"])
    assert all(None not in row["values"] for row in found["cells"])
    # The base model is the same, the draws are not: each within the other's interval, or near it.
    cells = {row["cell"]: row["values"] for row in found["cells"]}
    assert {"base → short", "base → no_prefix", "med_short: short → short"} <= cells.keys()
    shown = windowshift("report", "there", "--beside", "here", "--workspace", workspace).stdout
    assert "there beside here" in shown
    assert "grouped slope" in shown
    assert "rehearsal" in shown


def test_a_course_without_checkpoints_is_several_fine_tunes(server: Served, tmp_path: Path) -> None:
    more = "backend: openai\nbackend_options: {poll: 0.2}\ncheckpoints: {at: [4, 8]}\n"
    spec = write_spec(tmp_path, "microworld", train="[short]", more=more)
    text = spec.read_text(encoding="utf-8")
    plan = plan_spec(parse_spec(text), text, tmp_path)
    assert sorted(job.total for job in plan.jobs if job.kind == "train") == [4, 8, 12]
    assert {cell.step for cell in plan.cells if cell.train == "short"} == {4, 8, 12}
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    jobs = server.jobs()
    assert len(jobs) == 3
    report = json.loads(windowshift("report", "small", "--workspace", tmp_path / "ws", "--json").stdout)
    course = report["arms"]["prefix"]["course"]
    assert [point["step"] for point in course] == [0, 4, 8, 12]
    assert all(point["mean"] is not None for point in course)
    # Each is the beginning of the same course.
    reader = Reader(tmp_path / "ws")
    experiment = reader.experiment("small")
    assert experiment is not None
    data = {
        job.total: (tmp_path / "ws" / "artifacts" / job.id / "dataset.jsonl").read_text(encoding="utf-8").splitlines()
        for job in reader.jobs(experiment.id)
        if job.kind == "train"
    }
    reader.close()
    assert data[4] == data[12][:4]
    assert data[8] == data[12][:8]
