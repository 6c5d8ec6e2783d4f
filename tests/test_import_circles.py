"""No file imports another one that leads back to it: imports within functions count, those for type checking in tui."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "windowshift"
ROOMS = ("core", "backends", "steering", "tui")

Imports = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the package by name. The rooms are links, which `rglob` does not follow."""
    found = {}
    for folder in (SOURCE, *(SOURCE / room for room in ROOMS)):
        for path in folder.resolve().rglob("*.py"):
            inside = path.relative_to(folder.resolve()).with_suffix("").parts
            parts = ("windowshift", *folder.relative_to(SOURCE).parts, *inside)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(tree: ast.AST, known: dict[str, Path], *, for_types: bool) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; those under `TYPE_CHECKING` only where they are asked for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            if for_types:
                yield from imported(node, known, for_types=True)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield from (name for name in (f"{node.module}.{alias.name}", node.module) if name in known)
        yield from imported(node, known, for_types=for_types)


def graph(known: dict[str, Path], *, for_types: bool) -> Imports:
    found: Imports = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # A package's __init__ is imported with each of its modules: counting it would make every room a circle.
        targets = set(imported(tree, known, for_types=for_types))
        found[name] = {target for target in targets if target != name and known[target].name != "__init__.py"}
    return found


def circle(imports: Imports) -> list[str]:
    """Names of a circle, its first one again at the end; nothing where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(imports.get(name, ())):
            if found := walk(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(imports) if (found := walk(name, []))), [])


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("for_types", [False, True])
def test_imports_of_every_kind_are_seen(for_types: bool) -> None:
    code = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from windowshift.only import types
def later():
    import windowshift.a
    from windowshift import b
"""
    known = {f"windowshift.{name}": Path(f"{name}.py") for name in ("a", "b", "only")}
    found = set(imported(ast.parse(code), known, for_types=for_types))
    assert found == {"windowshift.a", "windowshift.b"} | ({"windowshift.only"} if for_types else set())


def test_no_file_leads_back_to_itself() -> None:
    known = modules()
    assert len(known) > 250
    assert circle(graph(known, for_types=False)) == []


def test_no_screen_knows_the_app_not_even_its_type() -> None:
    known = {name: path for name, path in modules().items() if name.startswith("windowshift.tui")}
    assert circle(graph(known, for_types=True)) == []
