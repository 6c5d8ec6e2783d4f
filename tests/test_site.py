"""The site: built by mkdocs, its reference complete, and every command and spec on it as it says."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bench.reference import commands, options, pages, sections, variables
from typer.testing import CliRunner

from tests.chromium import page
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_mkdocs_builds_the_site(built: Path) -> None:
    text = (built / "reference" / "spec.html").read_text(encoding="utf-8")
    assert "learning_rate" in text
    assert 'href="#sftsection"' in text
    assert (built / "grid.svg").is_file()


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    """The address of the built site."""
    handler = partial(QuietHandler, directory=str(built))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
async def test_a_browser_finds_its_way_from_the_first_page_to_the_first_figure(site: str, tmp_path: Path) -> None:
    async with page(tmp_path / "profile") as shown:

        async def text(part: str = "document.body") -> str:
            return str(await shown.evaluate(f"({part} || {{}}).innerText || ''"))

        async def see(wanted: str, part: str = "document.body") -> None:
            for _ in range(600):
                if wanted in await text(part):
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(f"{wanted} did not come into view: {(await text(part))[:1000]}")

        await shown.command("Page.navigate", url=site)
        await see("What does supervised fine-tuning teach")
        assert await shown.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        link = "[...document.querySelectorAll('article a')].find(one => one.innerText == 'a figure of your own')"
        await shown.evaluate(f"{link}.click()")
        await see("tells_a_tale", "document.querySelector('article')")
        assert (await shown.evaluate("location.pathname")) == "/first-figure.html"
        # The search, which is the site's own: it finds a key of the spec in the reference.
        await shown.evaluate("document.querySelector('input.md-search__input').focus()")
        await shown.command("Input.insertText", text="learning_rate")
        await see("SftSection", "document.querySelector('.md-search-result__list')")
        addresses = set(shown.requested.values())
        assert addresses
        assert {
            one for one in addresses if not one.startswith((site, "data:", "blob:"))
        } == set()  # nothing from elsewhere


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
