"""Grids with a known truth: prompts, phrases and training runs as random effects, as the store would have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.confidence import Floats
from windowshift.core.contract.records import Behaviour, CellRow, ExperimentRow, SourceRow
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import ols
from windowshift.core.measure.grid import Grid, Tally

MEANS = {"short": 60.0, "med_short": 115.0, "medium": 190.0, "long": 370.0, "very_long": 570.0, "no_prefix": 240.0}
CONDITIONS = tuple(MEANS)
DATA = "med_short"
PLAIN = "no_prefix"
DOSES = tuple(f"v~{name}" for name in CONDITIONS)
"""The steering arm's conditions: the dose that matches each prefix; that of no prefix pushes nowhere either."""
ROWS = (("short", PLAIN), ("long", "base"))
"""Train conditions that a simulated spec names contrasts of: under no prefix, and over all eval conditions."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_D_JOBS = 100_000


@dataclass(frozen=True, slots=True)
class World:
    """What chance there is; sizes are standard deviations of logarithms (of log-odds for rates).

    Attributes:
        kind: of the scale: lengths as ratios, rates, or differences (of what is normal on the link scale).
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
        rates: of the base model under each condition.
        samples: completions of a prompt.
        steered: whether there is a steering arm, of doses that match the prefixes, with a slope of its own.
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
    samples: int = 1
    steered: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A grid, and the means that infinitely many prompts, phrases, runs and completions would give it.

    `base` has (evals,), `cells` (trains, evals), in the order of `CONDITIONS`; `data` is the mean of D. `base_as_said`,
    `cells_as_said` and `data_as_said` are those with the phrases that the grid has. `slope` is that of endless rows.
    `steered` has the cells of the steering arm, in the order of `DOSES`, whose base means are those of the prefixes;
    None where there is none.
    """

    grid: Grid
    base: Floats
    cells: Floats
    data: float
    base_as_said: Floats
    cells_as_said: Floats
    data_as_said: float
    slope: float
    scale: Scale = field(default_factory=Scale.ratio)
    steered: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """Scores of one arm: `cells` (runs, 1 + trains, evals, prompts, samples), the base model first."""

    cells: Floats
    means: Floats
    as_said: Floats
    asked: NDArray[np.int64]


class _Chance:
    """Draws scores of a world from places on its link scale."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        # What is centred on the logarithm has a mean above 1: take it out, so that levels are logarithms of means.
        self.centre = (world.prompt**2 + world.apart**2 + world.completion**2 + world.phrase**2) / 2

    def scores(self, link: Floats) -> Floats:
        """Single completions at places (...,): (..., samples)."""
        world, shape = self.world, (*link.shape, self.world.samples)
        if world.kind == "rate":
            return (self.rng.random(shape) < _share(link)[..., None]).astype(np.float64)
        noisy = link[..., None] + self.rng.normal(0, world.completion, shape)
        return np.asarray(np.exp(noisy - self.centre) if world.kind == "ratio" else noisy)

    def means(self, level: Floats, run: float, *, spoken: bool = False) -> Floats:
        """Of infinitely many completions at levels; with `spoken` the level has its phrase's shift already."""
        world = self.world
        if world.kind == "difference":
            return level
        phrase = 0.0 if spoken else world.phrase
        if world.kind == "ratio":  # the phrases that there are do not have the mean of all
            return np.asarray(np.exp(level + run**2 / 2 - (world.phrase**2 / 2 if spoken else 0.0)))
        spread = np.sqrt(world.prompt**2 + world.apart**2 + phrase**2 + run**2)
        return np.asarray(_share(level[..., None] + spread * _NODES) @ _WEIGHTS / _WEIGHTS.sum())

    def arm(self, levels: Floats, ease: Floats, slope: float, phrase: float) -> _Scores:
        """One arm's cells: base means at `levels`, uplifts that fall along how surprising D is."""
        world, rng, count, n = self.world, self.rng, len(levels), self.world.prompts
        rows = slope * (levels - levels[CONDITIONS.index(DATA)]) + rng.normal(0, world.off_line[0], count)
        cells = rng.normal(0, world.off_line[1], (count, count))
        level = np.vstack([levels, levels + rows[:, None] + cells - cells.mean(axis=1, keepdims=True)])
        asked = np.arange(n) % world.phrases
        spoken = rng.normal(0, phrase, (count, world.phrases))
        fixed = level[:, :, None] + spoken[:, asked] + ease + rng.normal(0, world.apart, (1 + count, count, n))
        scores = np.empty((world.seeds, *fixed.shape, world.samples))
        for run in range(world.seeds):
            shift = np.zeros((1 + count, count, 1))
            shift[1:, :, 0] = rng.normal(0, world.row_run, (count, 1)) + rng.normal(0, world.cell_run, (count, count))
            scores[run] = self.scores(fixed + shift)
        noise = float(np.hypot(world.row_run, world.cell_run))
        means, said = (
            np.vstack([self.means(of[:1], 0.0, spoken=own), self.means(of[1:], noise, spoken=own)])
            for of, own in ((level, False), (level[:, :, None] + spoken[:, asked], True))
        )
        return _Scores(scores, means, said.mean(axis=-1), spoken[CONDITIONS.index(DATA), asked])


def draw(world: World, seed: int) -> Drawn:
    """Draw a grid."""
    rng = np.random.default_rng(seed)
    chance = _Chance(world, rng)
    rate = world.kind == "rate"
    scale = {"rate": Scale.rate, "ratio": Scale.ratio, "difference": Scale.difference}[world.kind]()
    levels = np.log([rate / (1 - rate) for rate in world.rates]) if rate else np.log(list(MEANS.values()))
    ease = rng.normal(0, world.prompt, world.prompts)
    prefix = chance.arm(levels, ease, world.slope, world.phrase)
    arms = {"prefix": prefix}
    if world.steered:
        arms["steering"] = chance.arm(levels, ease, world.slope / 2, 0.0)
    place, away = levels[CONDITIONS.index(DATA)] + prefix.asked, rng.normal(0, world.prompt, world.prompts)
    # D is written under the same phrases, for prompts of its own.
    apart = rng.normal(0, world.apart, (world.seeds, world.prompts))
    data = replace(world, samples=1)
    written = _Chance(data, rng).scores(place + away + apart)[..., 0]
    if world.lacking:
        last = np.argsort(-ease)[: round(world.lacking * world.prompts)]
        prefix.cells[:, -1, 0, last] = np.nan
    grid = _grid(world, scale, arms, written)
    means, said = prefix.means, prefix.as_said
    steered = arms["steering"].means[1:] if world.steered else None
    own = float(means[0, CONDITIONS.index(DATA)])
    own_said = float(said[0, CONDITIONS.index(DATA)])
    slope = _slope(chance, scale, levels)
    return Drawn(grid, means[0], means[1:], own, said[0], said[1:], own_said, slope, scale, steered)


def _slope(chance: _Chance, scale: Scale, levels: Floats) -> float:
    """The slope of rows that lie on the line: where prompts differ, that of rates is not the one of single prompts."""
    world, base = chance.world, chance.means(levels, 0.0)
    away = levels - levels[CONDITIONS.index(DATA)]
    tuned = chance.means(levels + world.slope * away[:, None], float(np.hypot(world.row_run, world.cell_run)))
    uplift = scale.linked(tuned, np.inf, base, np.inf).mean(axis=1)
    surprise = scale.linked(base, np.inf, base[CONDITIONS.index(DATA)], np.inf)
    return float(ols(surprise, uplift)[0])


def _share(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)))


def _grid(world: World, scale: Scale, arms: Mapping[str, _Scores], data: Floats) -> Grid:
    n, asked = world.prompts, np.arange(world.prompts) % world.phrases
    cells, table, phrases, sources = [], [], [], []
    for arm, scores in arms.items():
        names = CONDITIONS if arm == "prefix" else DOSES
        for run in range(world.seeds):
            for row, train in enumerate(("base", *names)):
                for column, evaluate in enumerate(names):
                    base, number = train == "base", len(cells)
                    cells.append(
                        CellRow(
                            number, "prefix" if arm == "prefix" else "steering", "" if base else DATA, train, evaluate,
                            run, 0 if base else n, True, number, "done", n * world.samples, n * world.samples, None,
                        )
                    )  # fmt: skip
                    table.append(scores.cells[run, row, column])
                    # A condition's phrases are its own; a dose has none.
                    phrases.append(1 + column * 1000 + asked if arm == "prefix" else np.zeros_like(asked))
            sources += [
                SourceRow(cells[-1].arm, DATA, train, run, 0, 1.0, DATA, train, _D_JOBS + run, 0, n) for train in names
            ]
    values = np.array(table)
    there = np.isfinite(values)
    parts = np.array([source.seed for source in sources])
    conditions = [
        {"name": name, "kind": "none" if name == PLAIN else "prefix", "arm": "prefix", "match": None}
        for name in CONDITIONS
    ]
    if "steering" in arms:
        conditions += [
            {
                "name": name, "kind": "none" if of == PLAIN else "steering", "arm": "steering", "vectors": ["v"],
                "match": of, "prefix": None,
            }
            for name, of in zip(DOSES, CONDITIONS, strict=True)
        ]  # fmt: skip
    named = [
        {
            "behaviour": "score", "name": of, "hash": "", "registered": 0.0, "cells_done": 0, "arm": "prefix",
            "generate": DATA, "of": of, "against": against, "evaluate": [PLAIN] if against == PLAIN else [],
        }
        for of, against in ROWS
    ]  # fmt: skip
    behaviour = Behaviour("score", "", scale)
    written = [{"name": DATA, "arm": "prefix"}]
    experiment = ExperimentRow(
        1, "simulated", "done", "length", "none", False, "none", (behaviour,),
        {"generate": written, "train": conditions, "evaluate": conditions, "contrasts": named},
        {"train": "user", "evaluate": "user"}, n, 0.0, None, None, None,
    )  # fmt: skip
    counts = there.sum(axis=-1).astype(np.float64)
    return Grid(
        experiment,
        behaviour,
        tuple(cells),
        tuple(Tally(int(one.sum()), 0, int((~one).sum()), 0) for one in there),
        np.nanstd(values, axis=(1, 2), ddof=1),
        np.nansum(values, axis=-1),
        counts,
        tuple(sources),
        data[parts],
        np.ones((len(parts), n)),
        phrases=np.array(phrases, dtype=np.int32),
        asked=np.full_like(counts, world.samples),
    )
