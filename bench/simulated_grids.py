"""Grids with a known truth: prompts, phrases and training runs as random effects, as the store would have them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from windowshift.core.contract.confidence import Floats
from windowshift.core.contract.records import Behaviour, CellRow, ExperimentRow, SourceRow
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.grid import Grid, Tally

MEANS = {"short": 60.0, "med_short": 115.0, "medium": 190.0, "long": 370.0, "very_long": 570.0, "no_prefix": 240.0}
CONDITIONS = tuple(MEANS)
DATA = "med_short"


@dataclass(frozen=True, slots=True)
class World:
    """What chance there is; sizes are standard deviations of logarithms (of log-odds for rates).

    Attributes:
        kind: of the scale: lengths as ratios, or rates.
        prompts: eval prompts, and prompts of D.
        seeds: training runs.
        prompt: prompts, the same in every cell.
        apart: prompts, anew for every cell and the same in all runs of it.
        completion: single completions.
        row_run: a training run, over all eval conditions.
        cell_run: a training run, anew for every eval condition.
        phrase: phrases of a group.
        phrases: how many a group has; prompt i has phrase i mod so many.
        slope: of the mean uplift on how surprising D is.
        off_line: how far rows lie off the line, and cells off their row.
        lacking: the share of prompts, the longest ones, without a score in one cell of the last row.
    """

    kind: str = "ratio"
    prompts: int = 100
    seeds: int = 1
    prompt: float = 0.65
    apart: float = 0.0
    completion: float = 0.5
    row_run: float = 0.0
    cell_run: float = 0.0
    phrase: float = 0.0
    phrases: int = 4
    slope: float = -0.4
    off_line: tuple[float, float] = (0.05, 0.1)
    lacking: float = 0.0
    rates: tuple[float, ...] = (0.02, 0.1, 0.3, 0.5, 0.8, 0.15)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A grid, and the means that infinitely many prompts, phrases and runs would give it.

    `base` has (evals,), `cells` (trains, evals), in the order of `CONDITIONS`; `data` is the mean of D. `base_as_said`
    and `cells_as_said` are those of infinitely many prompts and runs, with the phrases that the grid has.
    """

    grid: Grid
    base: Floats
    cells: Floats
    data: float
    base_as_said: Floats
    cells_as_said: Floats
    scale: Scale = field(default_factory=Scale.ratio)


def draw(world: World, seed: int) -> Drawn:
    """Draw a grid."""
    rng = np.random.default_rng(seed)
    count, n, runs = len(CONDITIONS), world.prompts, world.seeds
    rate = world.kind == "rate"
    scale = Scale.rate() if rate else Scale.ratio()
    levels = np.log([rate / (1 - rate) for rate in world.rates]) if rate else np.log(list(MEANS.values()))
    away = levels - levels[CONDITIONS.index(DATA)]
    rows = world.slope * away + rng.normal(0, world.off_line[0], count)
    cells = rng.normal(0, world.off_line[1], (count, count))
    uplift = rows[:, None] + cells - cells.mean(axis=1, keepdims=True)
    level = np.vstack([levels, levels + uplift])  # (1 + trains, evals)
    asked = np.arange(n) % world.phrases
    spoken = rng.normal(0, world.phrase, (count, world.phrases))
    ease = rng.normal(0, world.prompt, n) if not rate else np.zeros(n)
    own = rng.normal(0, world.apart, (1 + count, count, n))
    fixed = level[:, :, None] + spoken[:, asked] + ease + own
    # What is centred on the logarithm has a mean above 1: take it out, so that levels are logarithms of means.
    centre = 0.0 if rate else (world.prompt**2 + world.apart**2 + world.completion**2 + world.phrase**2) / 2
    scores = np.empty((runs, 1 + count, count, n))
    data_scores = np.empty((runs, n))
    ease_of_data = rng.normal(0, world.prompt, n) if not rate else np.zeros(n)
    for run in range(runs):
        shift = np.zeros((1 + count, count))
        shift[1:] = rng.normal(0, world.row_run, (count, 1)) + rng.normal(0, world.cell_run, (count, count))
        link = fixed + shift[:, :, None]
        written = levels[CONDITIONS.index(DATA)] + spoken[CONDITIONS.index(DATA), asked] + ease_of_data
        if rate:
            scores[run] = rng.random(link.shape) < 1 / (1 + np.exp(-link))
            data_scores[run] = rng.random(n) < 1 / (1 + np.exp(-written))
        else:
            scores[run] = np.exp(link - centre + rng.normal(0, world.completion, link.shape))
            data_scores[run] = np.exp(written - centre + world.apart**2 / 2 + rng.normal(0, world.completion, n))
    if world.lacking:
        last = np.argsort(-ease)[: round(world.lacking * n)]
        scores[:, -1, 0, last] = np.nan
    grid = _grid(scale, scores, data_scores, asked)
    means = 1 / (1 + np.exp(-level)) if rate else np.exp(level)
    said = level[:, :, None] + spoken
    # A centred phrase has a mean above 1 too, which the phrases that there are do not have.
    as_said = (1 / (1 + np.exp(-said)) if rate else np.exp(said - world.phrase**2 / 2)).mean(axis=-1)
    return Drawn(grid, means[0], means[1:], float(means[0, CONDITIONS.index(DATA)]), as_said[0], as_said[1:], scale)


def _grid(scale: Scale, scores: Floats, data: Floats, asked: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Grid:
    runs, _, _, n = scores.shape
    cells, table, phrases, sources = [], [], [], []
    for run in range(runs):
        for row, train in enumerate(("base", *CONDITIONS)):
            for column, evaluate in enumerate(CONDITIONS):
                base, number = train == "base", len(cells)
                cells.append(
                    CellRow(
                        number,
                        "prefix",
                        "" if base else DATA,
                        train,
                        evaluate,
                        run,
                        0 if base else n,
                        True,
                        number,
                        "done",
                        n,
                        n,
                        None,
                    )
                )
                table.append(scores[run, row, column])
                # A condition's phrases are its own.
                phrases.append(1 + column * 1000 + asked)
        sources += [
            SourceRow("prefix", DATA, train, run, 0, 1.0, DATA, train, 10_000 + run, 0, n) for train in CONDITIONS
        ]
    values = np.array(table)
    there = np.isfinite(values)
    own = np.repeat(data, len(CONDITIONS), axis=0)
    entries = [{"name": name, "kind": "none" if name == "no_prefix" else "prefix", "arm": "prefix"} for name in MEANS]
    behaviour = Behaviour("score", "", scale)
    experiment = ExperimentRow(
        1, "simulated", "done", "length", "none", False, "none", (behaviour,),
        {"generate": [{"name": DATA, "arm": "prefix"}], "train": entries, "evaluate": entries},
        {"train": "user", "evaluate": "user"}, n, 0.0, None, None, None,
    )  # fmt: skip
    return Grid(
        experiment,
        behaviour,
        tuple(cells),
        tuple(Tally(int(one.sum()), 0, int((~one).sum()), 0) for one in there),
        np.nanstd(values, axis=1, ddof=1),
        np.where(there, values, 0.0),
        there.astype(np.float64),
        tuple(sources),
        own,
        np.ones_like(own),
        phrases=np.array(phrases, dtype=np.int32),
    )
