"""`python -m bench.coverage [--json] [--simulations N] [--only NAME]`: how often 95 % intervals hold the truth.

Cases with a known truth go through the product's own analysis; what is counted is every interval that it prints: those
of grids by world and number of prompts, then those that are no part of a grid's tables.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bench.grid_intervals import Count, covered
from bench.number_intervals import SINGLES
from bench.simulated_grids import World

PROMPTS = (50, 100, 200)
RUNS = World(row_run=0.03, cell_run=0.04)
WORLDS: dict[str, World] = {
    "prompts alone": World(steered=True),
    "prompts × cells": World(apart=0.3),
    "phrases": World(phrase=0.15),
    "4 completions a prompt": World(samples=4),
    "2 runs, low noise": replace(RUNS, seeds=2),
    "3 runs, low noise": replace(RUNS, seeds=3),
    "3 runs, high noise": World(seeds=3, row_run=0.1, cell_run=0.1, steered=True),
    "3 runs, phrases, prompts × cells": World(seeds=3, row_run=0.1, cell_run=0.1, phrase=0.15, apart=0.3),
    "rates": World(kind="rate"),
    "rates near 0 and 1": World(kind="rate", rates=(0.01, 0.03, 0.3, 0.5, 0.97, 0.99)),
    "3 runs of rates": World(kind="rate", seeds=3, row_run=0.2, cell_run=0.2),
    "differences": World(kind="difference"),
}


@dataclass(frozen=True, slots=True)
class Share:
    """How many of `asked` intervals of `cases` simulated cases hold the truth.

    `error` is the standard error of the share, over cases: the intervals of one are alike.
    """

    held: int
    asked: int
    cases: int
    error: float

    @property
    def percent(self) -> float:
        """In %."""
        return 100 * self.held / self.asked


def together(counts: Iterable[Count]) -> dict[str, Share]:
    """The shares of several simulated cases."""
    found: dict[str, list[tuple[int, int]]] = {}
    for count in counts:
        for name, one in count.items():
            found.setdefault(name, []).append(one)
    return {name: _share(cases) for name, cases in found.items()}


def _share(cases: Sequence[tuple[int, int]]) -> Share:
    held, asked = np.array(cases, dtype=np.float64).T
    left = held - held.sum() / asked.sum() * asked
    error = float(np.sqrt((left**2).sum()) / asked.sum())
    return Share(int(held.sum()), int(asked.sum()), len(cases), error)


def coverage(case: Callable[[int], Count], name: str, simulations: int, workers: int = 1) -> Mapping[str, Share]:
    """Simulate one world: its cases are drawn apart from those of every other."""
    first = zlib.crc32(name.encode())
    seeds = range(first, first + simulations)
    if workers < 2:
        return together(case(seed) for seed in seeds)
    with ProcessPoolExecutor(workers) as pool:
        return together(pool.map(case, seeds, chunksize=5))


def _several(cases: Sequence[Callable[[int, int], Count]], n: int, seed: int) -> Count:
    """One draw of each of several cases, in one."""
    found: Count = {}
    for case in cases:
        for name, (held, asked) in case(n, seed).items():
            before = found.get(name, (0, 0))
            found[name] = (before[0] + held, before[1] + asked)
    return found


Row = tuple[str, int, Mapping[str, Share]]


def _grids(chosen: Sequence[str], simulations: int, workers: int) -> Iterator[Row]:
    for name, world in WORLDS.items():
        if not chosen or name in chosen:
            for n in PROMPTS:
                case = partial(covered, replace(world, prompts=n))
                yield name, n, coverage(case, f"{name} {n}", simulations, workers)


def _numbers(chosen: Sequence[str], simulations: int, workers: int) -> Iterator[Row]:
    for name, cases in SINGLES.items():
        if not chosen or name in chosen:
            for n in PROMPTS:
                case = partial(_several, cases, n)
                yield name, n, coverage(case, f"{name} {n}", simulations, workers)


TABLES = {
    "Cells and rows": ("base mean", "cell mean", "uplift", "effect", "mean uplift", "mean effect", "x", "mean of D",
                       "spread", "spread kept", "all uplifts at once", "extreme cell", "contrast"),
    "Lines": ("slope", "slope without attenuation", "slope by scatter", "intercept", "predicted R²",
              "slope under a condition"),
    "Two rows side by side": tuple(f"difference of two rows: {one}"
                                   for one in ("train_mean_ratio", "uplift", "link", "cv", "cv_kept", "extreme")),
}  # fmt: skip
"""The tables that are printed of grids, by what stands in their columns; that of the arms has what is left."""


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Tables in Markdown: worlds down, intervals across."""
    names = list(dict.fromkeys(name for *_, found in rows for name in found))
    printed = {one for some in TABLES.values() for one in some}
    parts = dict(TABLES) | {"Both arms": tuple(one for one in names if one not in printed)}
    for title, wanted in parts.items():
        some = [row for row in rows if any(one in row[2] for one in wanted)]
        columns = [one for one in wanted if any(one in found for *_, found in some)]
        if not some:
            continue
        heads = [one.removeprefix("difference of two rows: ").removeprefix("arms: ") for one in columns]
        yield f"{title} ({_precision(some, columns)})\n"
        yield f"| | n | {' | '.join(heads)} |\n|---|---:|{'---:|' * len(heads)}"
        for name, n, found in some:
            yield f"| {name} | {n} | {' | '.join(_shown(found, one) for one in columns)} |"
        yield ""


def turned(rows: Sequence[Row]) -> Iterator[str]:
    """A table of what is no part of a grid's: intervals down, numbers of prompts across."""
    names = list(dict.fromkeys(name for *_, found in rows for name in found))
    yield f"Numbers beside the grid ({_precision(rows, names)})\n"
    yield f"| | {' | '.join(f'n {n}' for n in PROMPTS)} |\n|---|{'---:|' * len(PROMPTS)}"
    for group in dict.fromkeys(name for name, *_ in rows):
        found = {n: one for name, n, one in rows if name == group}
        for number in next(iter(found.values())):
            label = number if group in ("single cells", "beside the grid") else f"{number} ({group.split(', ')[1]})"
            yield f"| {label} | {' | '.join(_shown(found[n], number) for n in PROMPTS)} |"


def _shown(found: Mapping[str, Share], name: str) -> str:
    return f"{found[name].percent:.1f}" if name in found else ""


def _precision(rows: Sequence[Row], names: Sequence[str]) -> str:
    errors = [found[name].error for *_, found in rows for name in names if name in found]
    cases = max(share.cases for *_, found in rows for share in found.values())
    low, high = (100 * 1.96 * one for one in (min(errors), max(errors))) if errors else (math.nan, math.nan)
    return f"{cases} cases a row, each number ± {low:.1f} to {high:.1f}"


def main() -> None:
    """Simulate, and print tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--simulations", type=int, default=400, help="cases a world and a number of prompts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], help="this world or group alone; may be repeated")
    chosen = parser.parse_args()
    grids = list(_grids(chosen.only, chosen.simulations, chosen.workers))
    numbers = list(_numbers(chosen.only, chosen.simulations, chosen.workers))
    if chosen.json:
        found = [
            {
                "world": name,
                "prompts": n,
                "coverage": {number: {"percent": one.percent, "error": 100 * one.error, "cases": one.cases}
                             for number, one in shares.items()},
            }
            for name, n, shares in (*grids, *numbers)
        ]  # fmt: skip
        print(json.dumps(found, indent=2))  # noqa: T201 - a program's output
        return
    for line in (*tables(grids), *(turned(numbers) if numbers else ())):
        print(line)  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
