"""What commands share: arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path,
    typer.Option("--workspace", "-w", envvar="WINDOWSHIFT_WORKSPACE", help="Folder of the store and its artifacts."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]
DEFAULT_WORKSPACE = Path("workspace")
