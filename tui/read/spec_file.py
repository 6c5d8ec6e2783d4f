"""Spec files of a workspace: made from a template, edited, checked by `windowshift plan`, and started."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from windowshift.core.contract.child import python_module
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.whole_file import within

PLAN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Planned:
    """What `windowshift plan` says of a spec."""

    experiment: str
    model: str
    cells: int
    completions: int
    examples: int
    seconds: float | None
    usd: float | None
    done: int
    jobs: int

    @property
    def sentence(self) -> str:
        """What a run would do, in one sentence."""
        cost = "cost unknown" if self.usd is None else f"${self.usd:.2f}"
        time = "time unknown yet" if self.seconds is None else f"about {max(1, round(self.seconds / 60))} min"
        return (
            f"{self.experiment} on {self.model}: {self.cells} cells, {self.jobs} jobs ({self.done} done), "
            f"{self.completions} completions and {self.examples} training examples to do, {time}, {cost}"
        )


def new_spec(workspace: Path, template: str, text: str) -> Path:
    """Write a template into the workspace's `specs` folder under a name that is free.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = within(workspace, "specs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = folder / (f"{template}.yaml" if number == 1 else f"{template}-{number}.yaml")
            try:
                with path.open("x", encoding="utf-8") as out:
                    out.write(text)
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    raise StoreError(f"{folder} is full of specs named {template}: remove some")


def kept_spec(workspace: Path, experiment: str, text: str) -> Path:
    """Return the file of an experiment's spec in the workspace: the one there, else written from the store's text.

    Raises:
        StoreError: it cannot be written, or the experiment's name could lead elsewhere as a file's.
    """
    if experiment != Path(experiment).name or experiment.startswith(".") or "\0" in experiment:
        raise StoreError(f"'{experiment}' is no name for a file: the store was changed by something else")
    for path in (within(workspace, f"{experiment}.yaml"), within(workspace, "specs", f"{experiment}.yaml")):
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
            return path
    try:
        (workspace / "specs").mkdir(parents=True, exist_ok=True)
        path = workspace / "specs" / f"{experiment}.yaml"
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write the spec of {experiment}: {error.strerror or error}") from error
    return path


def editor() -> list[str]:
    """Return the command of the user's editor.

    Raises:
        SpecError: there is none.
    """
    wanted = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    command = shlex.split(wanted) if wanted else []
    for one in (command, ["nano"], ["vi"]):
        if one and shutil.which(one[0]):
            return one
    named = f"'{wanted}' is not there" if wanted else "it is not set"
    raise SpecError(f"no editor: set EDITOR to one ({named})")


def plan(path: Path, workspace: Path) -> Planned:
    """Check a spec in a process of its own: backends load libraries that the screens must not.

    Raises:
        SpecError: the spec is wrong; the sentence is the one of `windowshift plan`.
    """
    command = python_module("windowshift", "plan", str(path), "--workspace", str(workspace), "--json")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PLAN_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SpecError(f"planning {path.name} took longer than {PLAN_SECONDS} s: try 'windowshift plan'") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"windowshift plan ended with {done.returncode}"]
        raise SpecError(said[-1].removeprefix("windowshift: "))
    found = json.loads(done.stdout)
    jobs = found["jobs"].values()
    return Planned(
        found["experiment"], found["model"], found["cells"], found["completions"], found["examples"],
        found["seconds"], found["usd"], sum(one["done"] for one in jobs), sum(one["total"] for one in jobs),
    )  # fmt: skip
