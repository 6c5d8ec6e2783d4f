"""Intervals of what is no table of a grid: single means, doses, losses, rankings, predictions, the microscope's parts.

Each function draws one case of `n` prompts with a known truth, and says how often its intervals hold that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import NormalDist

import numpy as np

from bench.grid_intervals import Asked, Count, counted
from bench.simulated_grids import CONDITIONS, World, draw
from bench.simulated_microscope import ONLY, TRAINS, Prevention, draw_trainings
from windowshift.core.contract.confidence import Floats
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import mean_summary, paired_means
from windowshift.core.measure.effect import effect_of
from windowshift.core.measure.grid import Grid, Lengths
from windowshift.core.measure.grid_measures import measure_cells
from windowshift.core.measure.loss_drop import loss_drop
from windowshift.core.measure.matching import match
from windowshift.core.measure.microscope import dissect
from windowshift.core.measure.missing_scores import missing_between
from windowshift.core.measure.prediction import predicted
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.restricted import restricted
from windowshift.core.measure.sampled import Sampled
from windowshift.core.measure.selection import rank_correlation, read_candidate

RESAMPLES = 600
QUESTIONS = 8
_NORMAL = NormalDist()
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
Single = Callable[[int, int], Count]
"""From a number of prompts and a seed to what held."""


def _share(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)))


def single_means(n: int, seed: int) -> Count:
    """One cell's mean, and two cells against each other, as the cell screen has them."""
    return counted(_single_means(n, np.random.default_rng([seed, n])))


def _single_means(n: int, rng: np.random.Generator) -> Iterator[Asked]:
    ratio, rate, prompts = Scale.ratio(), Scale.rate(), range(n)
    for spread, name in ((0.82, "a mean of lengths"), (1.2, "a mean of lengths, sd of log 1.2")):
        values = np.exp(rng.normal(0, spread, n))
        yield (
            name,
            mean_summary(values, prompts, np.zeros(n), scale=ratio, resamples=RESAMPLES).estimate,
            math.exp(spread**2 / 2),
        )
    ease = rng.normal(0, 0.65, n)
    own, other = (np.exp(ease + rng.normal(0, 0.5, n)) for _ in range(2))
    yield "two cells of lengths", _effect(ratio, own, other), 0.0
    for share in (0.01, 0.05, 0.5, 0.99):
        scores = (rng.random(n) < share).astype(np.float64)
        yield f"a rate of {share}", mean_summary(scores, prompts, np.zeros(n), scale=rate).estimate, share
    place = rng.random(n)  # a copula: what is hard for one model is hard for the other
    for share in (0.01, 0.05, 0.4):
        scores, base = ((0.6 * place + 0.4 * rng.random(n)) for _ in range(2))
        first, second = (_as_rate(one, of) for one, of in ((scores, share), (base, 0.5)))
        pair = paired_means(first, prompts, second, prompts, resamples=RESAMPLES)
        assert pair is not None
        found = effect_of(rate, pair)
        yield f"a rate of {share} against 0.5", found.effect, share - 0.5
        yield f"the same in log-odds, {share}", found.link, math.log(share / (1 - share))


def _effect(scale: Scale, own: Floats, other: Floats) -> Estimate | None:
    pair = paired_means(own, range(len(own)), other, range(len(own)), resamples=RESAMPLES)
    assert pair is not None
    return effect_of(scale, pair).link


def _as_rate(scores: Floats, share: float) -> Floats:
    """Whether a sum 0.6 u + 0.4 v of uniform numbers lies below its quantile: a rate of `share`."""

    def below(at: float) -> float:
        # The area of the unit square below the line 0.6 u + 0.4 v = at.
        u = np.linspace(0, 1, 2001)
        return float(np.clip((at - 0.6 * u) / 0.4, 0, 1).mean())

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < share else (low, middle)
    return (scores < low).astype(np.float64)


def few_questions(n: int, seed: int) -> Count:
    """Eight questions, answered n times each: intervals are over questions."""
    return counted(_few_questions(n, np.random.default_rng([seed, n, 2])))


def _few_questions(n: int, rng: np.random.Generator) -> Iterator[Asked]:
    hard, which = rng.normal(0, 1.0, QUESTIONS), np.repeat(np.arange(QUESTIONS), n)
    level, moved = math.log(0.3 / 0.7), 1.0
    truth = [
        float(_share(np.asarray(place + 1.0 * _NODES)) @ _WEIGHTS / _WEIGHTS.sum()) for place in (level, level + moved)
    ]
    own, base = (
        (rng.random(len(which)) < _share(place + hard)[which]).astype(float) for place in (level + moved, level)
    )
    yield "a rate of 8 questions", mean_summary(own, which, np.zeros(len(which)), scale=Scale.rate()).estimate, truth[1]
    pair = paired_means(own, which, base, which, resamples=RESAMPLES)
    assert pair is not None
    yield "two rates of 8 questions", effect_of(Scale.rate(), pair).effect, truth[1] - truth[0]
    one = mean_summary(own[which == 0], range(n), np.zeros(n), scale=Scale.rate()).estimate
    yield "the bar of a question", one, float(_share(level + moved + hard)[0])


def restricted_means(n: int, seed: int) -> Count:
    """Lengths of which a third is cut off, at lengths that vary: restricted means and uplifts of a small grid."""
    world = World(prompts=n)
    drawn = draw(world, seed)
    grid, rng = drawn.grid, np.random.default_rng([seed, n, 3])
    own = []
    for row in grid.sums:
        ends = 260 * np.exp(rng.normal(0, 0.1, n))
        own.append(Lengths(np.arange(n, dtype=np.intp), np.minimum(row, ends), row > ends))
    found = restricted(replace(grid, lengths=tuple(own)))
    assert found is not None
    cells = measure_cells(Resampled(found.grid, RESAMPLES))
    spread = math.hypot(world.prompt, world.completion)

    def truth(mean: float) -> float:
        place, end = math.log(mean) - spread**2 / 2, math.log(found.limit)
        within = mean * _NORMAL.cdf((end - place - spread**2) / spread)
        return within + found.limit * (1 - _NORMAL.cdf((end - place) / spread))

    def asked() -> Iterator[Asked]:
        for cell in cells:
            column = CONDITIONS.index(cell.key.evaluate)
            base = truth(float(drawn.base[column]))
            if cell.key.train == "base":
                continue
            value = truth(float(drawn.cells[CONDITIONS.index(cell.key.train), column]))
            yield "restricted mean", cell.mean, value
            yield "restricted uplift", cell.uplift, math.log2(value / base)

    return counted(asked())


def missing(n: int, seed: int) -> Count:
    """Scores of a rate that are missing: the difference of the shares that have one, and the worst case."""
    world = World("rate", prompts=n)
    drawn = draw(world, seed)
    rng = np.random.default_rng([seed, n, 4])
    there = (
        rng.random(drawn.grid.sums.shape)
        < np.where(np.arange(len(drawn.grid.sums)) < len(CONDITIONS), 0.97, 0.8)[:, None]
    )
    grid = replace(drawn.grid, sums=np.where(there, drawn.grid.sums, 0.0), counts=drawn.grid.counts * there)
    r, arm = Resampled(grid, 50), "prefix"

    def asked() -> Iterator[Asked]:
        for key, column in r.column.items():
            if key.train == "base" or key.arm != arm or key.seed is not None:
                continue
            found = missing_between(r, [column], [int(r.bases[column])])
            if found is None:
                continue
            place = CONDITIONS.index(key.evaluate)
            yield "missing scores, difference of shares", found.difference, 0.8 - 0.97
            if found.worst is not None and found.worst.interval is not None:
                value = float(drawn.cells[CONDITIONS.index(key.train), place] - drawn.base[place])
                bracket = Estimate(found.worst.least, *found.worst.interval, 0)
                yield "missing scores, worst case", bracket, value

    return counted(asked())


def matched_alpha(n: int, seed: int) -> Count:
    """The alpha of a bending dose curve that shows a target's mean."""
    rng = np.random.default_rng([seed, n, 5])
    alphas = [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0]
    aim, own = (-1.5, 0.25, 0.75, 1.2)[seed % 4], np.exp(rng.normal(-0.08, 0.4, n))

    def drawn(alpha: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats]:
        mean = 30 + 400 / (1 + math.exp(-2.0 * (alpha - 0.5)))
        return np.arange(n), mean * own * np.exp(rng.normal(-0.125, 0.5, n))

    found = match(alphas, [drawn(alpha) for alpha in alphas], drawn(aim), scale=Scale.ratio())
    if found.alpha is None:
        return {}  # said to be out of reach
    # An end that is not there lies beyond what was measured.
    low, high = (
        edge if end is None else end for end, edge in ((found.alpha_low, -math.inf), (found.alpha_high, math.inf))
    )
    return counted([("matched alpha", Estimate(found.alpha, low, high, n), aim)])


def selection(n: int, seed: int) -> Count:
    """A candidate's numbers, and the rank correlation of twelve of them with what is measured on n prompts."""
    rng = np.random.default_rng([seed, n, 6])
    answer, spread = rng.normal(-2, 0.5, n), 0.3
    plain, own, written = answer, answer + rng.normal(0.1, spread, n), answer + rng.normal(0.6, spread, n)
    found = read_candidate("x", None, own, plain, written)
    x = rng.normal(size=12)
    effects = 0.6 * x + 0.8 * rng.normal(size=12)
    draws = rng.normal(0, 0.8 / math.sqrt(n), (RESAMPLES, 12))
    measured = effects + rng.normal(0, 0.8 / math.sqrt(n), 12)
    numbers = {str(k): Sampled(float(measured[k]), measured[k] + draws[:, k], n, n) for k in range(12)}
    correlation = rank_correlation({str(k): float(one) for k, one in enumerate(x)}, numbers, RESAMPLES)
    return counted(
        [
            ("log-probability uplift", found.uplift, 0.1),
            ("share of answers above 0", found.above, _NORMAL.cdf(0.1 / spread)),
            ("loss that is left", found.left, 0.5 / 0.6),
            ("rank correlation of a selection", correlation, 6 / math.pi * math.asin(0.6 / 2)),
        ]
    )


def prediction(n: int, seed: int) -> Count:
    """A row that is left out, from the others: what is measured of it later, on the same prompts."""
    grid = draw(World(prompts=n), seed).grid
    left = CONDITIONS[seed % len(CONDITIONS)]
    before = _without(grid, left)
    truth, (found,) = Resampled(grid, 4), predicted(Resampled(before, 40))
    column = {(key.train, key.evaluate): place for key, place in truth.column.items()}
    return counted(
        ("predicted uplift", one.uplift, float(truth.uplifts.values[column[one.train, one.evaluate]]))
        for one in found.cells
    )


def _without(grid: Grid, row: str) -> Grid:
    """A grid before one of its rows was trained."""
    return replace(grid, cells=tuple(replace(one, state="pending") if one.train == row else one for one in grid.cells))


def dissection(world: Prevention, n: int, seed: int) -> Count:
    """The microscope's parts, and the losses that they rest on."""
    drawn = draw_trainings(replace(world, prompts=n), seed)
    (found,) = dissect(Resampled(drawn.grid, RESAMPLES), drawn.losses).dissections
    counts = counted((f"microscope: {name}", found.parts[name], value) for name, value in drawn.parts.items())
    drops = [loss_drop(drawn.losses["prefix", "d", train], resamples=RESAMPLES) for train in TRAINS]
    return counts | counted(
        ("drop of a loss", None if drop is None else drop.drop, drawn.drops[train])
        for train, drop in zip(TRAINS, drops, strict=True)
    )


REAL = {"run": 0.2, "loss_run": 0.05}
"""Noise between training runs, in log-odds of the rate and as a share of the fall of the loss."""
SINGLES: Mapping[str, tuple[Single, ...]] = {
    "single cells": (single_means, few_questions),
    "beside the grid": (restricted_means, missing, matched_alpha, selection, prediction),
    "microscope, one run": tuple(partial(dissection, world) for world in ONLY.values()),
    "microscope, 3 runs that differ": tuple(
        partial(dissection, replace(world, seeds=3, **REAL))
        for world in ONLY.values()  # type: ignore[arg-type] # two numbers
    ),
}
"""What is drawn for each group of the second table."""
