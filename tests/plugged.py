"""The plugin package `tests/plugin_setting`, installed for the time of a test, and an experiment of its setting."""

from __future__ import annotations

import os
import sqlite3
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.runs import windowshift
from tests.tui_pilot import STARTED

PLUGIN = Path(__file__).with_name("plugin_setting")
SPEC = PLUGIN / "wording.yaml"


def installed(folder: Path, name: str, entries: dict[str, dict[str, str]]) -> None:
    """Write what installing a package leaves of it: its metadata, with its entry points by group."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [
        line
        for group, points in entries.items()
        for line in (f"[{group}]", *(f"{point} = {place}" for point, place in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def plugged(folder: Path) -> Iterator[None]:
    """Have the plugin, as its pyproject declares it, and backend `scripted`, here and in child processes."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder.mkdir()
    installed(folder, project["name"], project["entry-points"])
    sentences = {"windowshift.backends": {"scripted": "tests.sentence_backend:SentenceBackend"}}
    installed(folder, "sentence-backend", sentences)
    added = [str(folder), str(PLUGIN), str(PLUGIN.parents[1])]
    with pytest.MonkeyPatch.context() as patch:
        for place in added:
            patch.syspath_prepend(place)
        there = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join([*added, *([there] if there else [])]))
        yield
    sys.modules.pop("windowshift_wording.setting", None)
    sys.modules.pop("windowshift_wording", None)


def sentence_run(folder: Path) -> Path:
    """Run the plugin's spec on backend `scripted` in a process of its own; return the workspace."""
    text = SPEC.read_text(encoding="utf-8").replace("model: microworld", "model: parrot\nbackend: scripted")
    (folder / "wording.yaml").write_text(text, encoding="utf-8")
    windowshift("run", folder / "wording.yaml", "--workspace", folder / "ws", "--quiet")
    return folder / "ws"


def at_rest(workspace: Path) -> None:
    """Let everything in a store have happened at the same times, whenever it ran."""
    with closing(sqlite3.connect(workspace / "windowshift.db")) as store, store:
        store.execute("UPDATE experiments SET created = ?1, started = ?1, ended = ?1 + 40", (STARTED,))
        store.execute("UPDATE jobs SET started = ?1, ended = ?1 + 2, rate = 10", (STARTED,))
        store.execute("UPDATE runs SET started = ?1, heartbeat = ?1 + 40, ended = ?1 + 40", (STARTED,))
        store.execute("UPDATE events SET at = ?1", (STARTED,))
