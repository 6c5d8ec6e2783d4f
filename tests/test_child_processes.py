"""What lies in the working folder is not executed, by the command line or by any process that it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import windowshift

TRAP = "open({mark!r}, 'w').close()\nraise ImportError('taken from the working folder')\n"
NAMES = ("random", "json", "torch", "queue", "logging", "typing", "yaml", "numpy", "dataclasses", "windowshift_trap")
SPEC = """\
name: tiny
setting: length
model: microworld
conditions: {generate: [short], train: [short], evaluate: [short]}
data: {size: 2}
sft: {rank: 2, batch_size: 2}
sampling: {prompts: 2, max_tokens: 8}
scorers: [{name: own, python: "own.py:measure"}]
backend_options: {local: {workers: 2}}
"""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(TRAP.format(mark=str(tmp_path / f"executed-{name}")), encoding="utf-8")
    (folder / "spec.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "own.py").write_text(
        "def measure(prompt, completion):\n    return len(completion.text)\n", encoding="utf-8"
    )
    return folder


def test_a_run_executes_nothing_of_the_working_folder(trapped: Path, tmp_path: Path) -> None:
    start = [str(Path(sys.executable).parent / "windowshift")]
    done = subprocess.run(
        [*start, "run", "spec.yaml", "--workspace", "ws", "--quiet"], cwd=trapped, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("executed-*"))


@pytest.mark.parametrize("module", ["windowshift", "windowshift.__main__"])
@pytest.mark.parametrize("arguments", [["--version"], ["doctor"], ["plan", "spec.yaml"], ["tui", "nowhere"]])
def test_the_module_executes_nothing_of_the_working_folder(
    trapped: Path, tmp_path: Path, module: str, arguments: list[str]
) -> None:
    """Each module of the standard library that is imported for it, but for those that Python itself needs to begin."""
    begun = subprocess.run(
        [sys.executable, "-c", "import runpy, sys, importlib.util; print(' '.join(sys.modules))"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in sorted(sys.stdlib_module_names - {each.partition(".")[0] for each in begun}):
        (trapped / f"{name}.py").write_text(TRAP.format(mark=str(tmp_path / f"executed-{name}")), encoding="utf-8")
    for name in begun:
        (trapped / f"{name}.py").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=trapped, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert not list(tmp_path.glob("executed-*")), done.stderr
    assert "Traceback" not in done.stderr
    assert "taken from the working folder" not in done.stderr


def test_one_place_says_how_a_module_is_run() -> None:
    root = Path(windowshift.__file__).parent
    found = [
        f"{room.name}/{path.relative_to(room.resolve())}"
        for room in (root, *(room for room in root.iterdir() if room.is_symlink()))
        for path in room.resolve().rglob("*.py")
        if re.search(r"sys\.executable[^\n]*\n?[^\n]*\"-m\"", path.read_text(encoding="utf-8"))
    ]
    assert found == ["core/contract/child.py"]
