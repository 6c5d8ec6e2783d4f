"""`python -m bench [--json] [--only PART] [--small]`: measure, and print a table or JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from bench.api import measure_api
from bench.cluster import measure_cluster
from bench.engine import measure_engine
from bench.measurement import Measurement, table
from bench.plan import measure_plan
from bench.sampling import measure_sampling
from bench.scoring import measure_scoring
from bench.screens import measure_screens
from bench.serve import measure_serve
from bench.startup import measure_startup
from bench.steering import measure_steering
from bench.store import measure_inserts, measure_opening
from bench.tinker import measure_tinker
from bench.tui import measure_tui
from bench.vllm import measure_vllm

Part = Callable[[Path, bool], Iterator[Measurement]]

PARTS: dict[str, Part] = {
    "inserts": lambda folder, small: measure_inserts(folder, *((2, 5) if small else ())),
    "opening": lambda folder, small: measure_opening(folder, *((20, 10) if small else ())),
    "plan": lambda folder, small: measure_plan(folder, *((1,) if small else ())),
    "sampling": lambda folder, small: measure_sampling(folder, *((1, 4, 1) if small else ())),
    "scoring": lambda folder, small: measure_scoring(folder, *((80,) if small else ())),
    "serve": lambda folder, small: measure_serve(folder, *(((1, 4), 1, 1) if small else ())),
    "steering": measure_steering,
    "engine": measure_engine,
    "tui": lambda folder, small: measure_tui(folder, *((144, 5, 2.0, 1) if small else ())),
    "screens": lambda folder, small: measure_screens(folder, *((20, 100, 2) if small else ())),
    "api": measure_api,
    "startup": lambda _, small: measure_startup(*((1,) if small else ())),
}
# What needs servers in environments of their own (`make bench-servers`) or a cluster (`make bench-ray`), where named.
SERVERS: dict[str, Part] = {
    "ray": lambda folder, small: measure_cluster(folder, *((1, 2, 100) if small else ())),
    "tinker": measure_tinker,
    "vllm": measure_vllm,
}


def main() -> int:
    """Measure; return 1 where a part failed to run. A missed target is printed, and is no failure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument(
        "--only", choices=sorted({**PARTS, **SERVERS}), action="append", help="this part alone; may be repeated"
    )
    parser.add_argument("--small", action="store_true", help="a few rows only: shows that the bench works")
    chosen = parser.parse_args()
    console, errors = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 180  # a log or a pipe wraps nothing
    found: list[Measurement] = []
    failed = 0
    for name in chosen.only or PARTS:
        errors.print(f"measuring {name} …", style="dim")
        try:
            with tempfile.TemporaryDirectory(prefix="windowshift-bench-") as folder:
                found.extend({**PARTS, **SERVERS}[name](Path(folder), chosen.small))
        except Exception as error:  # one part that fails must not hide the others' numbers
            failed = 1
            errors.print(f"{name} failed: {type(error).__name__}: {error}", style="red", markup=False)
    if chosen.json:
        load = os.getloadavg()[0]
        machine = {"cpus": os.cpu_count(), "load": load, "python": platform.python_version()}
        record = {**machine, "sqlite": sqlite3.sqlite_version, "measurements": [one.record() for one in found]}
        console.print(json.dumps(record, indent=2), markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(table(found))
        console.print(
            f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}",
            style="dim",
        )
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
