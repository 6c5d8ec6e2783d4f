"""Trainings with controls whose truth is known: what a train condition prevents, by what acts in the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from windowshift.core.contract.confidence import Floats
from windowshift.core.contract.records import Behaviour, CellRow, ExperimentRow, SourceRow
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.grid import Grid, Tally
from windowshift.core.measure.loss_drop import TrainingLosses
from windowshift.core.measure.microscope import PartName

CONTROLS = {"own~irrelevant": "irrelevant", "own~delimiters": "delimiters", "own~negated": "negated"}
TRAINS = ("no_prefix", "own", *CONTROLS)
BASE, PLAIN, HELD = 0.2, 0.6, 0.35
"""Rates: of the base model, after training without a push, and where something acts."""
STEPS, BATCH = 100, 2
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)


@dataclass(frozen=True, slots=True)
class Prevention:
    """A world of trainings on the same data.

    Attributes:
        rates: what each training ends at, in the order of `TRAINS`.
        drops: how far its loss falls, in nats.
        prompts: eval prompts.
        seeds: training runs.
        prompt: standard deviation of prompts, in log-odds, the same in every cell.
        run: that of training runs, in log-odds, anew for every training.
        loss: that of an example's loss; a run has the same examples in the same order under every condition.
        loss_run: that of a run's fall of the loss, as a share of it.
    """

    rates: tuple[float, ...] = (PLAIN,) * 5
    drops: tuple[float, ...] = (1.0,) * 5
    prompts: int = 200
    seeds: int = 1
    prompt: float = 1.0
    run: float = 0.0
    loss: float = 0.3
    loss_run: float = 0.0


ONLY: Mapping[PartName, Prevention] = {
    "conditionalization": Prevention((PLAIN, HELD, HELD, HELD, HELD)),
    "inoculation": Prevention((PLAIN, HELD, PLAIN, PLAIN, PLAIN)),
    "under_training": Prevention((PLAIN, BASE, PLAIN, PLAIN, PLAIN), (1.0, 0.02, 1.0, 1.0, 1.0)),
}
"""Worlds in which one thing alone acts."""


@dataclass(frozen=True, slots=True, eq=False)
class Trainings:
    """What was drawn, and the parts of the effect of `own` that are true; `drops` of the loss by train condition."""

    grid: Grid
    losses: dict[tuple[str, str, str], list[TrainingLosses]]
    parts: Mapping[PartName, float]
    drops: Mapping[str, float] = field(default_factory=dict)


def _level(rate: float, spread: float) -> float:
    """The log-odds whose mean rate over prompts and runs is this one."""
    levels = np.linspace(-8, 8, 3201)
    means = 1 / (1 + np.exp(-(levels[:, None] + spread * _NODES))) @ _WEIGHTS / _WEIGHTS.sum()
    return float(np.interp(rate, means, levels))


def draw_trainings(world: Prevention, seed: int) -> Trainings:
    """Draw cells under no push, and the losses of the trainings behind them."""
    rng = np.random.default_rng([seed, 4242])
    n = world.prompts
    ease = rng.normal(0, world.prompt, n)
    spread = float(np.hypot(world.prompt, world.run))
    table, cells = [], []
    for run in range(world.seeds):
        rates = (("", "base", BASE), *(("d", *pair) for pair in zip(TRAINS, world.rates, strict=True)))
        for generate, train, rate in rates:
            base = train == "base"
            link = _level(rate, world.prompt if base else spread) + ease + (0.0 if base else rng.normal(0, world.run))
            table.append((rng.random(n) < 1 / (1 + np.exp(-link))).astype(np.float64))
            cells.append(
                CellRow(
                    len(cells), "prefix", generate, train, "no_prefix", run, 0 if base else n, True, len(cells), "done",
                    n, n, None,
                )
            )  # fmt: skip
    losses, drops = _losses(world, rng)
    y = dict(zip(TRAINS, np.array(world.rates) - BASE, strict=True))
    without = [name for name, kind in CONTROLS.items() if kind != "negated"]
    mean = float(np.mean([y[name] for name in without]))
    under = (1 - drops["own"] / float(np.mean([drops[name] for name in without]))) * mean
    parts: dict[PartName, float] = {
        "effect": float(y["no_prefix"] - y["own"]),
        "conditionalization": float(y["no_prefix"] - mean),
        "under_training": under,
        "inoculation": float(mean - y["own"] - under),
    }
    return Trainings(_grid(world, tuple(cells), np.array(table)), losses, parts, drops)


def _losses(
    world: Prevention, rng: np.random.Generator
) -> tuple[dict[tuple[str, str, str], list[TrainingLosses]], dict[str, float]]:
    """The losses of every training, and how far that of endless runs falls from the first tenth to the last."""
    falls = 1 - np.exp(-np.arange(STEPS) / 10)
    examples = tuple(range(BATCH, BATCH * STEPS + 1, BATCH))
    found: dict[tuple[str, str, str], list[TrainingLosses]] = {("prefix", "d", train): [] for train in TRAINS}
    for _ in range(world.seeds):
        noise = rng.normal(0, world.loss, STEPS)
        for train, drop in zip(TRAINS, world.drops, strict=True):
            own = drop * (1 + rng.normal(0, world.loss_run))
            found["prefix", "d", train].append(
                TrainingLosses(examples, tuple(float(one) for one in 2 - own * falls + noise))
            )
    tenth = STEPS // 10
    fall = float(falls[-tenth:].mean() - falls[:tenth].mean())
    return found, {train: drop * fall for train, drop in zip(TRAINS, world.drops, strict=True)}


def _grid(world: Prevention, cells: tuple[CellRow, ...], table: Floats) -> Grid:
    n = world.prompts
    train = [
        {"name": name, "kind": "none" if name == "no_prefix" else "prefix", "arm": "prefix"}
        | ({"control": CONTROLS[name], "of": "own"} if name in CONTROLS else {})
        for name in TRAINS
    ]
    evaluate = [{"name": "no_prefix", "kind": "none", "arm": "prefix"}]
    behaviour = Behaviour("trait", "", Scale.rate())
    experiment = ExperimentRow(
        1, "simulated", "done", "traits", "none", False, "none", (behaviour,),
        {"generate": [{"name": "d", "arm": "prefix"}], "train": train, "evaluate": evaluate},
        {"train": "user", "evaluate": "user"}, n, 0.0, None, None, None,
    )  # fmt: skip
    sources = tuple(
        SourceRow("prefix", "d", name, run, 0, 1.0, "d", name, 100_000 + run, 0, n)
        for run in range(world.seeds)
        for name in TRAINS
    )
    return Grid(
        experiment, behaviour, cells, (Tally(n, 0, 0, 0),) * len(cells), table.std(axis=1, ddof=1), table,
        np.ones_like(table), sources, np.ones((len(sources), n)), np.ones((len(sources), n)),
    )  # fmt: skip
