"""What the command line writes: one place, so that no text of others reaches the terminal as it is."""

from __future__ import annotations

from typing import Any

import typer

from windowshift.core.contract import sanitise


def say(text: str = "", *, err: bool = False) -> None:
    """Print one line; a line end inside it is shown, so that a name cannot write lines of its own."""
    typer.echo(sanitise.line(text, len(text)), err=err)


def say_block(text: str, *, err: bool = False) -> None:
    """Print text of several lines."""
    typer.echo(sanitise.block(text, len(text)), err=err)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(sanitise.json_text(value))
