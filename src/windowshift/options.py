"""What commands share: arguments, options, and printing JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Workspace = Annotated[
    Path,
    typer.Option("--workspace", "-w", envvar="WINDOWSHIFT_WORKSPACE", help="Folder of the store and its artifacts."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]
DEFAULT_WORKSPACE = Path("workspace")


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
