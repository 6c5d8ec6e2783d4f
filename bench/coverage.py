"""`python -m bench.coverage [--json] [--simulations N] [--only NAME]`: how often 95 % intervals hold the truth.

Grids with a known truth go through the product's own analysis; what is counted is every interval that it prints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from bench.simulated_grids import CONDITIONS, Drawn, World, draw
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.stats import ols
from windowshift.core.measure.grid_measures import measure
from windowshift.core.measure.line import predicted_share
from windowshift.core.measure.measures import Extreme, Measures

PROMPTS = (50, 100, 200)
RESAMPLES = 1000
RUNS = World(row_run=0.03, cell_run=0.04)
WORLDS: dict[str, World] = {
    "prompts alone": World(),
    "prompts × cells": World(apart=0.3),
    "phrases": World(phrase=0.15),
    "2 runs, low noise": replace(RUNS, seeds=2),
    "3 runs, low noise": replace(RUNS, seeds=3),
    "3 runs, high noise": World(seeds=3, row_run=0.1, cell_run=0.1),
    "3 runs, phrases, prompts × cells": World(seeds=3, row_run=0.1, cell_run=0.1, phrase=0.15, apart=0.3),
    "rates": World(kind="rate"),
    "3 runs of rates": World(kind="rate", seeds=3, row_run=0.2, cell_run=0.2),
}
Count = dict[str, tuple[int, int]]
"""By the name of an interval, how often it held the truth, and how often it was asked."""


def truths(drawn: Drawn) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """What infinitely many prompts, phrases and runs would give for every number, by its name."""
    scale, base, cells = drawn.scale, drawn.base, drawn.cells
    uplift = scale.linked(cells, np.inf, base, np.inf)
    x = scale.linked(base, np.inf, drawn.data, np.inf)
    y = uplift.mean(axis=1)
    slope, intercept, _ = ols(x, y)
    return {
        "base mean": drawn.base_as_said,
        "cell mean": drawn.cells_as_said,
        "uplift": uplift,
        "effect": cells - base if scale.kind == "rate" else uplift,
        "mean uplift": y,
        "x": x,
        "slope": slope[None],
        "slope without attenuation": slope[None],
        "intercept": intercept[None],
        "predicted R²": predicted_share(x[None], y[None]),
        "spread": scale.spread(cells),
        "spread kept": scale.spread(cells) / scale.spread(base),
    }


def _chosen(drawn: Drawn, extremes: tuple[Extreme, ...]) -> Iterator[tuple[Estimate | None, float]]:
    """Extreme cells against the base model and the no_prefix fine-tune, over the half that did not choose them."""
    for held in (one.held_out for one in extremes):
        if held is None:
            continue
        row, column = CONDITIONS.index(held.train), CONDITIONS.index(held.evaluate)
        cell = drawn.cells[row, column]
        for found, other in (
            (held.vs_base, drawn.base[column]),
            (held.vs_no_prefix, drawn.cells[CONDITIONS.index("no_prefix"), column]),
        ):
            yield found, float(cell - other if drawn.scale.kind == "rate" else 100 * (cell / other - 1))


def intervals_of(measures: Measures) -> dict[str, list[Estimate | None]]:
    """Every interval of a simulated grid, in the order of `truths`."""
    arm = measures.arms["prefix"]
    cells = {(cell.key.train, cell.key.evaluate): cell for cell in arm.cells}
    tuned = [cells[train, evaluate] for train in CONDITIONS for evaluate in CONDITIONS]
    points = {point.train: point for point in arm.whole.points}
    spreads = {one.train: one for one in arm.whole.spreads}
    fit = arm.whole.grouped
    return {
        "base mean": [cells["base", evaluate].mean for evaluate in CONDITIONS],
        "cell mean": [cell.mean for cell in tuned],
        "uplift": [cell.uplift for cell in tuned],
        "effect": [cell.effect for cell in tuned],
        "mean uplift": [points[train].y for train in CONDITIONS],
        "x": [points[train].x for train in CONDITIONS],
        "slope": [fit.slope],
        "slope without attenuation": [fit.corrected],
        "intercept": [fit.intercept],
        "predicted R²": [fit.predicted],
        "spread": [spreads[train].value for train in CONDITIONS],
        "spread kept": [spreads[train].kept for train in CONDITIONS],
    }


def covered(world: World, seed: int, resamples: int = RESAMPLES) -> Count:
    """How often the intervals of one simulated grid hold the truth."""
    drawn = draw(world, seed)
    measures = measure(drawn.grid, resamples=resamples)
    found, true = intervals_of(measures), truths(drawn)
    counts = {}
    for name, estimates in found.items():
        held = [_holds(one, value) for one, value in zip(estimates, true[name].ravel(), strict=True)]
        counts[name] = (sum(held), len(held))
    arm = measures.arms["prefix"]
    bands = [one.uplift for family in arm.families.values() for one in family]
    truth = true["uplift"].ravel()
    together = all(_holds(one, value) for one, value in zip(bands, truth, strict=True))
    counts["all uplifts at once"] = (int(together), 1)
    chosen = [_holds(one, value) for one, value in _chosen(drawn, arm.whole.extremes)]
    counts["extreme cell"] = (sum(chosen), len(chosen))
    return counts


def _holds(one: Estimate | None, value: float) -> bool:
    return one is not None and one.low is not None and one.high is not None and bool(one.low <= value <= one.high)


def together(counts: Iterator[Count] | list[Count]) -> Count:
    """Counts of several grids in one."""
    found: Count = {}
    for count in counts:
        for name, (held, asked) in count.items():
            before = found.get(name, (0, 0))
            found[name] = (before[0] + held, before[1] + asked)
    return found


def coverage(world: World, simulations: int, workers: int = 1, first: int = 0) -> Mapping[str, float]:
    """The share of intervals that hold the truth, in %, by name."""
    seeds = range(first, first + simulations)
    if workers < 2:
        found = together([covered(world, seed) for seed in seeds])
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = together(list(pool.map(partial(covered, world), seeds, chunksize=5)))
    return {name: 100 * held / asked for name, (held, asked) in found.items()}


def main() -> None:
    """Simulate, and print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--simulations", type=int, default=400, help="grids a world and a number of prompts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", help="this world alone; may be repeated")
    chosen = parser.parse_args()
    rows = []
    for name, world in WORLDS.items():
        if chosen.only and name not in chosen.only:
            continue
        rows += [(name, n, coverage(replace(world, prompts=n), chosen.simulations, chosen.workers)) for n in PROMPTS]
    if chosen.json:
        print(json.dumps([{"world": name, "prompts": n, "coverage": found} for name, n, found in rows], indent=2))  # noqa: T201 - a program's output
        return
    names = list(rows[0][2])
    print(f"| | n | {' | '.join(names)} |\n|---|---:|{'---:|' * len(names)}")  # noqa: T201 - likewise
    for name, n, found in rows:
        print(f"| {name} | {n} | {' | '.join(f'{found[one]:.1f}' for one in names)} |")  # noqa: T201 - likewise


if __name__ == "__main__":
    main()
