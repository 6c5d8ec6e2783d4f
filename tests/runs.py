"""Small real runs for tests: a tiny model folder, a spec, and `windowshift run` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader

SPEC = """\
name: {name}
model: {model}
prompts: microworld
conditions:
  generate: [med_short]
  train: {train}
  evaluate: [short, no_prefix]
data: {{size: 12}}
sft: {{rank: 2, learning_rate: 1e-2, batch_size: 4}}
sampling: {{prompts: 6, max_tokens: 12}}
"""


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import build

    return build(tmp_path_factory.mktemp("models") / "tiny-llama", "llama", max_position_embeddings=1024)


def write_spec(
    folder: Path, model: Path | str, *, name: str = "small", train: str = "[short, long]", more: str = ""
) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(SPEC.format(name=name, model=model, train=train) + more, encoding="utf-8")
    return path


def spec_of(model: Path | str, train: str, *, name: str = "small") -> str:
    """The text of a small spec."""
    return SPEC.format(name=name, model=model, train=train)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "windowshift", *map(str, arguments)]


def windowshift(
    *arguments: str | Path, check: int | None = 0, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end and check its exit code."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout)
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(predicate: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll until the predicate holds."""
    deadline = monotonic() + seconds
    while not predicate():
        assert monotonic() < deadline, "what was waited for did not happen"
        sleep(0.02)


def completions(workspace: Path, name: str = "small") -> int:
    """How many completions an experiment has so far; 0 while there is no store."""
    if not store_path(workspace).is_file():
        return 0
    try:
        reader = Reader(workspace)
    except Exception:
        return 0  # not migrated yet
    try:
        experiment = reader.experiment(name)
        if experiment is None:
            return 0
        return sum(job.done for job in reader.jobs(experiment.id) if job.kind in ("generate", "evaluate"))
    finally:
        reader.close()


def tables(workspace: Path, name: str = "small") -> dict[str, list[tuple[object, ...]]]:
    """Everything that a run's result consists of: completions with scores and summaries by job id."""
    reader = Reader(workspace)
    try:
        experiment = reader.experiment(name)
        assert experiment is not None
        found: dict[str, list[tuple[object, ...]]] = {}
        for job in reader.jobs(experiment.id):
            rows: list[tuple[object, ...]] = [
                (row.row, row.prompt, row.phrase, row.text, row.finish, row.tokens, row.score)
                for row in reader.completions(job.n, "length_chars")
            ]
            rows.append(("summary", reader.summary(job.n, "length_chars")))
            rows.append(("state", job.state, job.done))
            found[job.id] = rows
        return found
    finally:
        reader.close()
