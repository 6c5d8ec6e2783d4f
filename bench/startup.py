"""Process start: what a person waits for before the first line appears."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from bench.measurement import Measurement, median, milliseconds

_HEAVY = ("torch", "transformers", "pandas", "matplotlib", "openai", "tinker", "scipy")


def measure_startup(runs: int = 7) -> Iterator[Measurement]:
    """Start `--help` and import the screens in fresh processes, beside an interpreter that does nothing."""
    commands = {
        "python -m windowshift --help": (["-m", "windowshift", "--help"], 300.0, "windowshift.cli"),
        "import windowshift.tui.app": (["-c", "import windowshift.tui.app"], None, "windowshift.tui.app"),
    }
    bare: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):  # in turns, so that a busy machine slows all of them
        bare.append(milliseconds(partial(_python, "-c", "pass")))
        for name, (arguments, _, _) in commands.items():
            times[name].append(milliseconds(partial(_python, *arguments)))
    for name, (_, target, module) in commands.items():
        yield Measurement(
            name,
            median(times[name]),
            "ms",
            target=target,
            baseline=median(bare),
            against="python -c pass",
            note=_modules(module),
        )


def _python(*arguments: str) -> str:
    # An installed package has its bytecode.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def _modules(module: str) -> str:
    found = set(_python("-c", f"import sys, {module}; print(*sys.modules)").split())
    heavy = [name for name in _HEAVY if name in found]
    return f"{len(found):,} modules" + (f", among them {', '.join(heavy)}" if heavy else "")
