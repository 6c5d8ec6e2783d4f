"""`windowshift status`: how far a workspace's experiments are, once or as they go on."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windowshift.core.contract.errors import SpecError
from windowshift.options import DEFAULT_WORKSPACE, Json, Workspace
from windowshift.say import say, say_json

if TYPE_CHECKING:
    from windowshift.core.contract.records import ExperimentRow
    from windowshift.core.store.reader import Reader

STATES = ("done", "running", "pending", "failed", "cancelled")
AT_WORK = ("running", "paused")
POLL_SECONDS = 1.0


def status(
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until no run is under way; a line whenever something changes.")
    ] = False,
    every: Annotated[float, typer.Option("--every", help="With --watch: seconds between two looks.")] = POLL_SECONDS,
) -> None:
    """List a workspace's experiments and how far they are."""
    from windowshift.core.store.reader import Reader

    if not 0.05 <= every <= 86_400:
        raise SpecError("--every is a number of seconds from 0.05 to 86,400")
    with closing(Reader(workspace)) as reader:
        if not watch:
            _show(_rows(reader), as_json)
            return
        shown: list[str] = []
        while True:
            rows = _rows(reader)
            if (said := _lines(rows)) != shown:
                if as_json:
                    say_json(_json(rows))  # one document a change
                else:
                    stamp = time.strftime("%H:%M:%S")
                    for line in (line for line in said if line not in shown):
                        say(f"{stamp}  {line}")
                shown = said
            if not any(state in AT_WORK for _, state in rows):
                if not as_json:
                    say("no run is under way")
                return
            time.sleep(every)


def _rows(reader: Reader) -> list[tuple[ExperimentRow, str]]:
    from windowshift.core.store.liveness import live_state

    return [(row, live_state(row, reader.run(row.id))) for row in reader.experiments()]


def _show(rows: list[tuple[ExperimentRow, str]], as_json: bool) -> None:
    if as_json:
        say_json(_json(rows))
        return
    for line in _lines(rows):
        say(line)
    if not rows:
        say("no experiments yet: windowshift run SPEC starts one")


def _json(rows: list[tuple[ExperimentRow, str]]) -> dict[str, Any]:
    return {
        "experiments": [
            {
                "name": row.name,
                "state": state,
                "model": row.model,
                "rehearsal": row.rehearsal,
                "jobs": {name: row.jobs.get(name, 0) for name in STATES},
                "cells": {"done": row.cells_done, "total": row.cells_total},
                "usd": row.usd,
            }
            for row, state in rows
        ]
    }


def _lines(rows: list[tuple[ExperimentRow, str]]) -> list[str]:
    found = []
    for row, state in rows:
        label = f"{row.model}{' (rehearsal)' if row.rehearsal else ''}"
        jobs = ", ".join(f"{row.jobs[name]} {name}" for name in STATES if row.jobs.get(name))
        found.append(f"{row.name:24} {state:12} {row.cells_done}/{row.cells_total} cells; jobs: {jobs}; {label}")
    return found
