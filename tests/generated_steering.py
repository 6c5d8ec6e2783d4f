"""A steering arm for a generated workspace: vector files, layer sweep, dose curve, matches, and cells under doses.

The base model's mean under alpha is invented: 200 characters, times 2 ** (0.6 alpha). One match is out of
reach, with its cell failed; one vector could not be made; the random control moves a tenth as far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.vector_file import Provenance, VectorHeader, norms_of, write_vector
from windowshift.core.store.connection import to_json
from windowshift.core.store.writer import Writer

LAYERS, WIDTH, LAYER = 3, 8, 1
ALPHAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
UNPUSHED, SLOPE = 200.0, 0.6
TARGETS = {"short": 60.0, "medium": 190.0, "long": 370.0, "very_long": 570.0}
"""Base means of the prefix groups that doses are matched to; the curve ends at 459, below the last."""
OUT_OF_REACH = (
    "out of reach: the base model's mean under 'very_long' is 570 characters, and vector 'length' at layer 1 "
    "goes from 57.4 to 459; leave it out of match, or raise calibrate.reach"
)
NOT_MADE = "the two sides of vector 'tone' do not differ at any layer: use other conditions"


def mean_under(alpha: float) -> float:
    """The base model's mean."""
    return float(UNPUSHED * 2 ** (SLOPE * alpha))


def alpha_of(group: str) -> float:
    """The alpha whose mean is a group's."""
    return math.log2(TARGETS[group] / UNPUSHED) / SLOPE


def dose(name: str, match: str | None, vector: str = "length", **more: Any) -> dict[str, Any]:
    """A steering condition as an experiment's row holds it."""
    plain = {"alphas": [], "span": None, "unit": "alpha", "tokens": "all", "ablate": False, "prefix": None}
    return {"name": name, "arm": "steering", "kind": "steering", "vectors": [vector], "match": match, **plain, **more}


EVALUATES = [dose(f"length={group}", group) for group in ("short", "medium", "long")]
TRAINS = [*EVALUATES, {"name": "length+0", "arm": "steering", "kind": "none"}]
BASES = [dose("length=very_long", "very_long"), dose("random=short", "short", "random")]
"""What the base model alone is evaluated under: a dose that is out of reach, and a control."""


def fired(alpha: float, vector: str = "length") -> dict[str, Any]:
    """A job's proof."""
    counts = {"calls": 40, "calls_asked": 40, "tokens": 900, "tokens_asked": 900}
    size = abs(alpha) * 4.0
    ends = {"alpha_low": alpha, "alpha_high": alpha}
    return {"vector": vector, "layer": LAYER, "ablate": False, **ends, **counts, "change": size, "change_asked": size}


@dataclass
class Grid:
    """What a generated workspace is made of so far: (job, mean, prompts) to sample, cells and sources by job id."""

    sampling: list[tuple[str, float, list[Prompt]]]
    cells: list[Any]
    sources: list[Any]
    prompts: list[Prompt]
    data_size: int
    slope: float


@dataclass
class GeneratedSteering:
    """Collects jobs and cells while a workspace is generated; `finish` writes what the jobs came to.

    `bare` are the evaluations whose prompts have no phrase, `files` the places of the vectors.
    """

    job: Callable[..., str]
    name: str
    results: dict[str, tuple[str, dict[str, Any], str | None]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)

    def vectors(self) -> None:
        """Jobs that make vectors, and find layer and doses."""
        made = self.job("extract", "vector length", 1, inputs={"name": "length", "how": "difference"})
        random = self.job("extract", "vector random", 1, made, inputs={"name": "random", "how": "control"})
        tone = self.job("extract", "vector tone", 1, inputs={"name": "tone", "how": "difference"})
        sweep = self.job("sweep", "layers and doses of length", 15, made)
        curve = self.job("dose", "dose curve of length", 60, made, sweep)
        self.files = {
            "length": f"artifacts/{made}/length.safetensors",
            "random": f"artifacts/{random}/random.safetensors",
        }
        shape = {"layers": LAYERS, "width": WIDTH}
        self.results[made] = ("done", {"name": "length", "vector": self.files["length"], **shape}, None)
        control = {"name": "random", "vector": self.files["random"], "control": "random", "of": "length", **shape}
        self.results[random] = ("done", control, None)
        self.results[tone] = ("failed", {}, NOT_MADE)
        self.results[sweep] = ("done", _sweep(), None)
        points = [_point(alpha, LAYER, 40) for alpha in ALPHAS]
        found = {"vector": "length", "layer": LAYER, "tokens": "all", "points": points, "fired": [fired(2.0)]}
        self.results[curve] = ("done", found, None)
        for group, target in TARGETS.items():
            match = self.job("match", f"alpha of length that matches {group}", 1, curve)
            reached = group != "very_long"
            alpha = alpha_of(group) if reached else None
            ends = (None, None) if alpha is None else (alpha - 0.4, alpha + 0.4)
            result = {
                "vector": "length", "group": group, "tokens": "all", "layer": LAYER, "alpha": alpha,
                "alpha_low": ends[0], "alpha_high": ends[1], "dose": None if alpha is None else alpha / 10,
                "target": {"value": target, "low": target * 0.9, "high": target * 1.1, "n": 40},
                "curve_low": mean_under(-3), "curve_high": mean_under(2), "nearest": alpha or 2.0,
            }  # fmt: skip
            self.results[match] = ("done", result, None) if reached else ("failed", result, OUT_OF_REACH)

    def grid(self, grid: Grid, generate: tuple[str, ...], base_means: Mapping[str, float]) -> None:
        """Add the arm's cells, and one crossed eval condition to each arm."""
        data = {source: train[8] for source in generate for train in grid.sources if train[1] == source}
        for condition in [*EVALUATES, *BASES]:
            self._cell(grid, ("steering", "", "base", condition), UNPUSHED)
        base = {cell[3]: cell[7] for cell in grid.cells if cell[2] == "base"}
        for source in generate:
            for condition in TRAINS:
                train = condition["name"]
                trained = self.job("train", f"train {source} under {train}", grid.data_size, data[source])
                factor = self._pushed(trained, condition, {"adapter": f"artifacts/{trained}/adapter"})
                parts = (1.0, source, train, data[source], 0, grid.data_size, base.get(train, base["no_prefix"]))
                grid.sources.append(("steering", source, train, 0, 0, *parts))
                mean = UNPUSHED * 2 ** (grid.slope * math.log2(UNPUSHED * (factor or 1.0) / base_means[source]))
                for under in ({"name": "no_prefix"}, *EVALUATES):
                    self._cell(grid, ("steering", source, train, under), mean, trained)
                crossed = mean * base_means["short"] / UNPUSHED
                self._cell(grid, ("steering", source, train, {"name": "short"}), crossed, trained)
            for train in base_means:
                shift = 2 ** (grid.slope * math.log2(base_means[train] / base_means[source]))
                self._cell(grid, ("prefix", source, train, EVALUATES[0]), UNPUSHED * shift)

    def _cell(self, grid: Grid, place: tuple[str, str, str, dict[str, Any]], mean: float, *parents: str) -> None:
        arm, source, train, condition = place
        under = condition["name"]
        label = f"base → {under}" if train == "base" else f"{source}: {train} → {under}"
        identifier = self.job("evaluate", label, len(grid.prompts), *parents)
        factor = self._pushed(identifier, condition)
        if condition.get("kind") == "steering":
            self.bare.add(identifier)
        if factor is not None:
            grid.sampling.append((identifier, mean * factor, grid.prompts))
        step = 0 if train == "base" else grid.data_size
        grid.cells.append((arm, source, train, under, 0, step, 1, identifier))

    def _pushed(
        self, identifier: str, condition: dict[str, Any], result: Mapping[str, Any] | None = None
    ) -> float | None:
        """Note a job under a dose; return its factor on the base model's mean, None where it cannot run."""
        group = condition.get("match")
        if group == "very_long":
            self.failed.add(identifier)
            return None
        if group is None:
            return 1.0
        vector = condition["vectors"][0]
        self.results[identifier] = ("done", {**(result or {}), "fired": [fired(alpha_of(group), vector)]}, None)
        return float(2 ** (SLOPE * alpha_of(group) * (0.1 if vector == "random" else 1.0)))

    def finish(
        self, writer: Writer, workspace: Path, numbers: dict[str, int], experiment: int, unfinished: set[str]
    ) -> None:
        """Write the vectors' files, results and failures; jobs that are `unfinished` stay so."""
        rng = np.random.default_rng(0)
        origin = {"model": "microworld", "fingerprint": "f" * 16, "positive": "very_long", "negative": "short"}
        for name, how in (("length", "mean difference"), ("random", "random, seed 0, norm-matched")):
            directions = rng.normal(size=(LAYERS, WIDTH)).astype(np.float32) * np.array([[1], [2], [3]], np.float32)
            made = Provenance(**origin, how=how, tokens="response", positive_count=32, negative_count=32)
            rms = (10.0, 20.0, 30.0)
            header = VectorHeader(name, LAYERS, WIDTH, norms_of(directions), made, layer=LAYER, rms=rms)
            file = workspace / self.files[name]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_vector(file, header, directions)
        for identifier, (state, result, error) in self.results.items():
            if identifier in unfinished:
                continue
            writer.set_job(numbers[identifier], state, result=result, error=error, experiment=experiment)
        for identifier in self.failed:
            error = "needs the alpha of length that matches very_long, which failed"
            writer.set_job(numbers[identifier], "failed", error=error, experiment=experiment)


def _point(alpha: float, layer: int, n: int) -> dict[str, Any]:
    mean = float(UNPUSHED * 2 ** (SLOPE * alpha * (layer + 1) / (LAYER + 1)))
    sound = {"coherence": -0.5 - 0.1 * alpha**2, "repetition": 0.01 * abs(alpha)}
    return {"alpha": alpha, "mean": mean, "low": mean * 0.85, "high": mean * 1.2, "dose": alpha / 10, "n": n, **sound}


def _sweep() -> dict[str, Any]:
    swept = (-2.0, -1.0, 0.0, 1.0)
    curves = {str(layer): [_point(alpha, layer, 5) for alpha in swept] for layer in range(LAYERS)}
    ends = ["all alphas measured are sound", "all alphas measured are sound", "text falls apart at alpha 2"]
    ranges = [
        {"layer": n, "alpha_low": -2.0, "alpha_high": 1.0, "range": 0.9, "rising": True, "points": 4, "why": why}
        for n, why in enumerate(ends)
    ]
    rule = "largest ratio of means over alphas around 0 that keep the curve monotone"
    return {"vector": "length", "layer": LAYER, "rule": rule, "ranges": ranges, "curves": curves}


def conditions_json(prefixes: list[dict[str, Any]]) -> str:
    """The conditions of an experiment with both arms."""
    both = {"generate": prefixes[:1], "train": [*prefixes, *TRAINS], "evaluate": [*prefixes, *EVALUATES]}
    return to_json({**both, "base": BASES})
