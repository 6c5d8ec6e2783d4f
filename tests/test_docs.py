"""The documents name what there is: every path of the repository in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from windowshift.core.spec import registry

ROOT = Path(__file__).parents[1]
ROOMS = ("assets", "backends", "core", "docs", "src", "steering", "tests", "tui")
CORE = {path.name for path in (ROOT / "core").iterdir() if path.is_dir()}


def named(text: str) -> set[str]:
    """Paths between backquotes, without those that stand for any (NAME, *)."""
    found = re.findall(r"`([\w.-]+(?:/[\w.-]*)+)`", text)
    return {path for path in found if "NAME" not in path}


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_in_documents_are_there(document: str) -> None:
    paths = [
        path for path in named((ROOT / document).read_text(encoding="utf-8")) if path.split("/")[0] in {*ROOMS, *CORE}
    ]
    assert len(paths) > 10
    missing = [path for path in paths if not any((ROOT / top / path).exists() for top in ("", "core"))]
    assert missing == []


def test_every_room_stands_in_the_architecture() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for top in ("core", "backends"):
        for room in (ROOT / top).iterdir():
            if (room / "__init__.py").exists():
                assert f"`{top}/{room.name}/`" in page, room


def test_no_reference_to_a_document_that_is_not_there() -> None:
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path != Path(__file__)]
    texts = [*sources, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert "design section" not in text, path
        for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|ipynb)\b", text):
            assert (ROOT / name).exists(), f"{path} names {name}"


RULES = "instruction_following"  # a guard: its rules differ from the published ones, which is a table of its own


@pytest.mark.parametrize("page", sorted((ROOT / "docs/settings").glob("*.md")), ids=lambda page: page.stem)
def test_the_page_of_a_setting_has_its_spec_figure_published_numbers_and_differences(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^```yaml\n(?:.*\n)*?(?:setting|guards):", text, re.MULTILINE), "a spec"
    drawn = re.findall(r"^!\[[^]]+\]\(([\w-]+\.svg)\)$", text, re.MULTILINE)
    assert drawn, "the figure of its rehearsal"
    assert [name for name in drawn if not (page.parent / name).is_file()] == []
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert "The rehearsal" in heads
    assert "Published" in heads
    differs = "Where the verifiers differ from the published ones" if page.stem == RULES else "What differs here"
    assert differs in heads
    rehearsal = text.split("## The rehearsal")[1].split("\n## ")[0]
    assert re.search(r"\[[^\]]*\d, [^\]]*\d\]|±", rehearsal), "numbers with intervals"
    assert re.search(r"\bn \d|prompts", rehearsal), "n"


def test_every_setting_that_ships_has_a_page() -> None:
    pages = {page.stem for page in (ROOT / "docs/settings").glob("*.md")}
    assert set(registry.names(registry.SETTINGS)) <= pages | {"plugin"}
