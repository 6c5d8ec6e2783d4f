"""What the command line writes: one place, so that no text of others reaches the terminal as it is."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import typer

from windowshift.core.contract import sanitise
from windowshift.core.contract.redaction import without_keys


def say(text: str = "", *, err: bool = False) -> None:
    """Print one line; a line end inside it is shown, so that a name cannot write lines of its own."""
    text = without_keys(text)
    typer.echo(sanitise.line(text, len(text)), err=err)


def say_block(text: str, *, err: bool = False) -> None:
    """Print text of several lines."""
    text = without_keys(text)
    typer.echo(sanitise.block(text, len(text)), err=err)


def say_listed(rows: Sequence[tuple[str, str]]) -> None:
    """Print names with what they are; in a terminal an explanation is broken to stay beside its column of names."""
    column = max((len(name) for name, _ in rows), default=0) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, words in rows:
        lines = textwrap.wrap(words, width - column) if width > 2 * column else [words]
        for number, line in enumerate(lines or [""]):
            say(f"{'' if number else name:{column}}{line}".rstrip())


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(without_keys(sanitise.json_text(value)))


def ring() -> None:
    """Ring the bell of a terminal that is there."""
    if sys.stderr.isatty():
        typer.echo("\a", err=True, nl=False)
