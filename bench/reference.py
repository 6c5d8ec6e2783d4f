"""The reference pages of the site, generated from the models and docstrings that the program itself is made of."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from windowshift.backends.shared.options import BackendOptions
from windowshift.cli import app
from windowshift.core.spec.given import GivenEntry, Keep
from windowshift.core.spec.sections import Mix, Stages, Where
from windowshift.core.spec.spec import Spec

ROOT = Path(__file__).parents[1]
ROOMS = ("core", "backends", "steering", "tui", "src/windowshift")
BACKENDS = ("local", "openai", "tinker", "vllm")
INLINE = (GivenEntry, Keep, Mix, Stages, Where)
"""Sections that stand in lists of conditions, which the spec's own model holds as mappings."""

_READ = re.compile(r"(?:environ(?:\.get)?[\[(]\s*|getenv\(\s*|envvar=)\"([A-Z][A-Z0-9_]+)\"")
_NAMED = re.compile(r"\"((?:WINDOWSHIFT|OPENAI|TINKER|VLLM|HF)_[A-Z0-9_]+)\"")


def pages() -> dict[str, str]:
    """Every generated page by its path in the site."""
    return {
        "reference/spec.md": spec_page(),
        "reference/commands.md": commands_page(),
        "reference/backend-options.md": options_page(),
        "reference/environment.md": environment_page(),
    }


# -- the spec ---------------------------------------------------------------------------------------


def sections() -> list[type[BaseModel]]:
    """The spec and every section that can stand in it, in the order in which they are met."""
    found: list[type[BaseModel]] = []
    waiting: list[type[BaseModel]] = [Spec, *INLINE]
    while waiting:
        model = waiting.pop(0)
        if model in found:
            continue
        found.append(model)
        for field in model.model_fields.values():
            waiting += [one for one in _models(field.annotation) if one not in found]
    return found


def spec_page() -> str:
    """Every key of a spec, section by section."""
    parts = [
        "# The spec\n\nEvery key that a spec may have. A key that is not here is an error with a suggestion. How "
        "conditions are written is a page of its own: [conditions](../conditions.md).\n"
    ]
    for model in sections():
        title = "The whole" if model is Spec else model.__name__
        parts.append(f"## {title}\n\n{_docstring(model)}\n\n{_table(model)}\n")
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> str:
    lines = ["| key | holds | default |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = "**needed**" if field.is_required() else f"`{_default(field)}`"
        lines.append(f"| `{field.alias or name}` | {_said(field.annotation, field.metadata)} | {default} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    return _cell(str(value).lower() if isinstance(value, bool) else str(value))


def _said(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """What a key holds, in words."""
    bounds = _bounds(metadata)
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _said(inner, [each for one in more for each in (getattr(one, "metadata", None) or [one])]) + bounds
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_said(one) for one in get_args(annotation) if one is not type(None))) + bounds
    if origin is Literal:
        return " or ".join(f"`{str(one).lower() if isinstance(one, bool) else one}`" for one in get_args(annotation))
    if origin is list:
        return f"a list of {_said(get_args(annotation)[0])}{bounds}"
    if origin is dict:
        return f"a mapping of names to {_said(get_args(annotation)[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Any: "anything"}
    return names.get(annotation, _cell(getattr(annotation, "__name__", str(annotation)))) + bounds


def _bounds(metadata: list[Any] | tuple[Any, ...]) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [
        f"{word} {value:,}" if isinstance(value, int) else f"{word} {value:g}"
        for one in metadata
        for key, word in words.items()
        if (value := getattr(one, key, None)) is not None and abs(value) < 1e12  # what any number here is within
    ]
    return f" ({', '.join(found)})" if found else ""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models(one)


# -- commands ---------------------------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    """Every command by its words, those of groups too."""
    root: Any = typer.main.get_command(app)
    found: dict[str, click.Command] = {}

    def walk(command: Any, words: str) -> None:
        for name, one in getattr(command, "commands", {}).items():
            if hasattr(one, "commands"):
                walk(one, f"{words} {name}")
            else:
                found[f"{words} {name}"] = one

    walk(root, "windowshift")
    return found


def commands_page() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Commands\n\n`--debug` with any of them shows tracebacks. Exit codes: 0 done, 1 some jobs failed, 2 the spec "
        "or an argument is wrong, 130 interrupted.\n"
    ]
    for words, command in commands().items():
        lines = ["| argument or option | what | default | environment |", "| --- | --- | --- | --- |"]
        for one in command.params:
            if one.name == "help":
                continue
            shown = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts) if name.startswith("-"))
            shown = shown or f"`{one.metavar or str(one.name).upper()}`"
            default = "" if one.default is None or callable(one.default) else f"`{_cell(str(one.default))}`"
            variable = f"`{one.envvar}`" if one.envvar else ""
            lines.append(f"| {shown} | {_cell(getattr(one, 'help', None) or '')} | {default} | {variable} |")
        said = inspect.cleandoc(command.help or "").replace("<", "&lt;")
        parts.append(f"## {words}\n\n{said}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


# -- options of backends ----------------------------------------------------------------------------


def options() -> dict[str, type[BaseModel]]:
    """The options of every backend, by its name."""
    found: dict[str, type[BaseModel]] = {}
    for name in BACKENDS:
        module = importlib.import_module(f"windowshift.backends.{name}.options")
        own = [
            one
            for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, BackendOptions) and one is not BackendOptions
        ]
        found[name] = next(one for one in own if one.__module__ == module.__name__)
    return found


def options_page() -> str:
    """The options of every backend."""
    parts = ["# Backend options\n\nWhat stands under `backend_options`; with two backends under the name of each.\n"]
    for name, model in options().items():
        parts.append(f"## {name}\n\n{_options_table(model)}\n")
        within = [one for field in model.model_fields.values() for one in _models(field.annotation)]
        parts += [f"### {one.__name__}\n\n{_options_table(one)}\n" for one in within if _explained(one)]
    return "\n".join(parts)


def _explained(model: type[BaseModel]) -> bool:
    """Whether a part of the options says what its keys mean."""
    return "Attributes:" in _docstring(model)


def _options_table(model: type[BaseModel]) -> str:
    head, _, attributes = _docstring(model).partition("Attributes:")
    said = dict(re.findall(r"^\s*(\w+): (.*(?:\n(?!\s*\w+: ).*)*)", attributes, re.MULTILINE))
    lines = ["| option | holds | default | |", "| --- | --- | --- | --- |"]
    for key, field in model.model_fields.items():
        what = _cell(" ".join(said.get(key, field.description or "").split()))
        default = "**needed**" if field.is_required() else f"`{_default(field)}`"
        lines.append(f"| `{field.alias or key}` | {_said(field.annotation, field.metadata)} | {default} | {what} |")
    return f"{head.strip()}\n\n" + "\n".join(lines)


# -- the environment --------------------------------------------------------------------------------


def variables() -> dict[str, list[Path]]:
    """Every environment variable that the program reads or sets, and where."""
    found: dict[str, list[Path]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for name in dict.fromkeys([*_READ.findall(text), *_NAMED.findall(text)]):
                found.setdefault(name, []).append(path.relative_to(ROOT))
    return dict(sorted(found.items()))


def environment_page() -> str:
    """Every environment variable."""
    helps = {
        str(one.envvar): str(getattr(one, "help", "") or "")
        for command in commands().values()
        for one in command.params
        if one.envvar
    }
    lines = ["| variable | what | where |", "| --- | --- | --- |"]
    for name, paths in variables().items():
        first = (ROOT / paths[0]).read_text(encoding="utf-8")
        docstring = re.match(r'"""(.*?)(?:"""|\n)', first)
        said = helps.get(name) or (docstring.group(1) if docstring else "")
        lines.append(f"| `{name}` | {_cell(said)} | {', '.join(f'`{path}`' for path in paths[:3])} |")
    return (
        "# Environment variables\n\nWhat the program reads, and sets for its own processes. Keys stand here or in the "
        "OS keyring, never in a spec.\n\n" + "\n".join(lines) + "\n"
    )


def _docstring(model: type[BaseModel]) -> str:
    text = inspect.cleandoc(model.__doc__ or "")
    return text.replace("``", "`").replace("<", "&lt;")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("``", "`")
