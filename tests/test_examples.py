"""What lies in examples/: specs of the published experiments, and tasks of other tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from windowshift import load_spec

NOTEBOOKS = ("length", "own_data", "steering")
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


def test_notebooks_are_kept_without_outputs() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(NOTEBOOKS)
    page = (EXAMPLES.parent / "docs/notebook.md").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
        assert f"examples/{name}.ipynb" in page
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        assert cells
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_shows_what_it_says(name: str, tmp_path: Path) -> None:
    """In a kernel of its own, as Jupyter runs it; each is meant to take less than a minute of CPU."""
    import nbformat
    from nbclient import NotebookClient

    found = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    NotebookClient(found, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [dict(out.data) for cell in found.cells for out in cell.get("outputs", ()) if "data" in out]
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert any("<table" in table for table in tables)
    assert any("rehearsal" in table for table in tables)
    assert any("image/png" in data or "<img" in data.get("text/html", "") for data in shown)
