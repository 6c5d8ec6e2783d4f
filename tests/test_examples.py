"""What lies in examples/: specs of the published experiments, and tasks of other tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from windowshift import load_spec

EXAMPLES = Path(__file__).parents[1] / "examples"
SPECS = sorted(path for path in EXAMPLES.glob("*.yaml") if path.name != "skypilot.yaml")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_example_is_a_spec(path: Path) -> None:
    assert load_spec(path)[0].name


def test_the_task_of_skypilot_is_one(tmp_path: Path) -> None:
    task = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text(encoding="utf-8"))
    assert set(task) <= {"name", "num_nodes", "resources", "workdir", "envs", "file_mounts", "setup", "run"}
    assert (EXAMPLES.parent / task["envs"]["SPEC"]).is_file()
    for part in ("setup", "run"):
        script = tmp_path / part
        script.write_text(task[part], encoding="utf-8")
        assert subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False).returncode == 0
    assert "--executor ray" in task["run"]
