"""Every command on the site is run: on a small spec in the place of the large one that a page speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_site import PAGES, lines
from windowshift.cli import app

ROOT = Path(__file__).parents[1]
SMALL = """\
name: {name}
model: microworld
prompts: microworld
conditions: {{generate: [med_short], train: [short, very_long, no_prefix], evaluate: [short, no_prefix]}}
contrasts: [{{name: inoculation, of: short, against: no_prefix, evaluate: no_prefix}}]
data: {{size: 8}}
sft: {{rank: 2, batch_size: 4}}
sampling: {{prompts: 8, max_tokens: 12}}
backend_options: {{local: {{workers: 1, threads: 1}}}}
"""
ELSEWHERE = {
    "tui": "tests/tui/test_tui_end_to_end.py",  # in a terminal
    "demo": "tests/test_demo.py",  # minutes each
    "run grid.yaml --executor ray": "tests/backends/test_ray_executor.py",  # on a cluster
    "vectors": "tests/backends/test_steering_run.py",  # vectors of a model; those of somebody else's file
    "compare": "tests/backends/test_steering_run.py",
    "microscope": "tests/core/test_microscope.py",  # a grid with controls
    "run micro.yaml": "tests/core/test_microscope.py",
}
"""Commands that other tests run, by their beginning, and where."""
RUN_BEFORE = {"validity.md": ["run grid.yaml --workspace ws"], "inspect.md": ["run grid.yaml --workspace ws"]}
"""What a page takes as done."""


def commands(page: Path) -> Iterator[str]:
    """The commands of a page that are run here."""
    yield from RUN_BEFORE.get(page.name, [])
    for words in lines(page):
        command = " ".join(words)
        if not any(command.startswith(one) for one in ELSEWHERE):
            yield command


TAKEN = [page for page in PAGES if page.name not in ("first-figure.md", "sharing.md") and list(commands(page))]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace `ws` of all pages: the same grid is run once."""
    return tmp_path_factory.mktemp("pages")


@pytest.mark.slow
@pytest.mark.parametrize("page", TAKEN, ids=lambda page: page.name)
def test_the_commands_of_a_page_do_what_they_say(
    page: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws").symlink_to(workspace)
    name = "arithmetic" if page.name == "inspect.md" else "med-short"
    small = SMALL.format(name=name)
    (tmp_path / "grid.yaml").write_text(small, encoding="utf-8")
    for command in commands(page):
        words = command.split()
        told = CliRunner().invoke(app, [*words, "--force"] if words[0] == "init" else words)
        assert told.exit_code == 0, (command, told.output, told.exception)
        if words[0] == "init":  # what it wrote is planned by another test of templates; here it is too large to run
            assert (tmp_path / words[1]).stat().st_size > 100
            (tmp_path / words[1]).write_text(small, encoding="utf-8")


def test_what_is_run_elsewhere_is_there() -> None:
    assert all((ROOT / place).is_file() for place in ELSEWHERE.values())
    every = [" ".join(words) for page in PAGES for words in lines(page)]
    assert all(any(command.startswith(one) for command in every) for one in ELSEWHERE)
