"""The site: built by mkdocs, its reference complete, and every command and spec on it as it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from bench.reference import commands, options, pages, sections, variables
from typer.testing import CliRunner

from windowshift.cli import app
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> Iterator[tuple[str, str, str]]:
    """(language, file name, text) of every fenced block."""
    for found in _FENCE.finditer(path.read_text(encoding="utf-8")):
        yield found.group(1), found.group(2) or "", found.group(3)


def lines(path: Path) -> list[list[str]]:
    """The words of every command of windowshift on a page."""
    shell = [text for language, _, text in blocks(path) if language in ("", "sh", "bash")]
    each = [line for text in shell for line in text.replace("\\\n", " ").split("\n")]
    return [shlex.split(line, comments=True)[1:] for line in each if line.startswith("windowshift ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one(page: Path) -> None:
    for words in lines(page):
        command = commands().get(f"windowshift {words[0]}")
        rest = words[1:]
        if command is None:
            command, rest = commands()[f"windowshift {words[0]} {words[1]}"], words[2:]
        command.make_context(words[0], list(rest), resilient_parsing=False)  # raises on what it does not know


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_spec_on_a_page_is_one(page: Path) -> None:
    for language, _, text in blocks(page):
        if language == "yaml" and text.startswith("name:"):
            assert parse_spec(text, page.name).name


def test_the_reference_has_everything() -> None:
    found = pages()
    for model in sections():
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in found["reference/spec.md"], (model, name)
    assert {"Spec", "PromptFile", "SftSection", "ScorerSection", "AxolotlData", "InspectPrompts"} <= {
        model.__name__ for model in sections()
    }
    for words, command in commands().items():
        assert f"## {words}\n" in found["reference/commands.md"]
        for one in command.params:
            for name in one.opts:
                assert f"`{name}`" in found["reference/commands.md"] or not name.startswith("-") or one.name == "help"
    assert {"windowshift run", "windowshift vectors make"} <= set(commands())
    for backend, model in options().items():
        assert f"## {backend}\n" in found["reference/backend-options.md"]
        assert all(f"| `{name}` |" in found["reference/backend-options.md"] for name in model.model_fields)
    known = variables()
    assert {"WINDOWSHIFT_WORKSPACE", "WINDOWSHIFT_NOTIFY", "OPENAI_BASE_URL", "TINKER_BASE_URL"} <= set(known)
    assert all(f"| `{name}` |" in found["reference/environment.md"] for name in known)


def test_every_page_of_the_site_is_there() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w/-]+\.md", config)
    assert {name for name in named if name.startswith("reference/")} == set(pages())
    assert all((ROOT / "docs" / name).is_file() for name in named if not name.startswith("reference/"))


@pytest.mark.slow
def test_mkdocs_builds_the_site(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "spec.html").read_text(encoding="utf-8")
    assert "learning_rate" in page
    assert 'href="#sftsection"' in page
    assert (tmp_path / "site" / "grid.svg").is_file()


def test_every_behaviour_that_the_first_page_offers_is_one() -> None:
    page = ROOT / "docs" / "first-figure.md"
    spec = next(text for _, title, text in blocks(page) if title == "first.yaml")
    own = next(line for line in spec.splitlines() if "tells_a_tale" in line)
    offered = re.findall(r"`(\{name: .*?\})`", page.read_text(encoding="utf-8"))
    assert len(offered) >= 5
    for line in offered:
        (scorer,) = parse_spec(spec.replace(own, f"  - {line}"), page.name).scorers
        assert scorer.role == "primary"


@pytest.mark.slow
def test_the_first_figure_is_made_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("first-figure", "sharing"):
        page = ROOT / "docs" / f"{name}.md"
        for _, title, text in blocks(page):
            if title:
                (tmp_path / title).write_text(text, encoding="utf-8")
        for words in lines(page):
            told = CliRunner().invoke(app, words)
            assert told.exit_code == 0, (words, told.output, told.exception)
    assert list((tmp_path / "figures").glob("*.pdf"))
    assert (tmp_path / "figures" / "prefix-short-heatmap.png").is_file()
    with closing(Reader(tmp_path / "first")) as reader:
        found = reader.find_experiment("first")
        assert found.behaviours[0].name == "tells_a_tale"
        means = [cell.summary.mean for cell in reader.cells(found.id, "tells_a_tale") if cell.summary is not None]
    assert len(set(means)) > 2  # a figure that shows something
    assert (tmp_path / "first.zip").is_file()
    assert list((tmp_path / "first" / "wandb").glob("offline-run-*/run-*.wandb"))
