"""`make` on a machine where Python has another name, or is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKE = shutil.which("make") or "make"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make where nothing but `folder` is on the path."""
    environment = {"PATH": str(folder), "HOME": os.environ.get("HOME", "/")}
    command = [MAKE, "-C", str(ROOT), f"VENV={folder.parent / 'venv'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3"])
def test_any_new_enough_python_is_found(tmp_path: Path, name: str) -> None:
    script(tmp_path / "bin" / "python3.11", "exit 127")  # a name that leads nowhere, as pyenv leaves them
    script(tmp_path / "bin" / name, f'exec "{sys.executable}" "$@"')
    done = make(tmp_path / "bin", "--dry-run", "setup")
    assert f"{name} -m venv {tmp_path}/venv" in done.stdout
    assert "installing torch" in done.stdout
    assert done.stdout.index("installing torch") < done.stdout.index("constraints.txt torch")
    assert "installing windowshift" in done.stdout


@pytest.mark.parametrize("target", ["setup", "demo", "tinker-env", "vllm-env"])
def test_no_python_is_one_sentence(tmp_path: Path, target: str) -> None:
    script(tmp_path / "bin" / "python3", "exit 1")  # too old
    elsewhere = (f"TINKER_VENV={tmp_path}/t", f"VLLM_VENV={tmp_path}/v", f"DEMO={tmp_path}/d")
    done = make(tmp_path / "bin", *elsewhere, target)
    assert done.returncode == 2
    assert "no Python 3.11 or newer was found: install one, or name it" in done.stderr


def test_a_python_that_is_named_must_be_new_enough(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "old", "exit 1")
    done = make(tmp_path / "bin", "PYTHON=old", "setup")
    assert "no Python 3.11 or newer" in done.stderr
