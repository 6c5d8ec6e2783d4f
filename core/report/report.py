"""The report: an experiment's measures with everything needed to read them, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from windowshift.core.contract.estimate import Estimate, runs_note
from windowshift.core.contract.gates import Preflight
from windowshift.core.contract.looks import Look
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow, primary_of
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES
from windowshift.core.measure.contrasts import ContrastMeasure, contrasts
from windowshift.core.measure.family import Claim
from windowshift.core.measure.grid import Tally, load_grid
from windowshift.core.measure.grid_measures import measure_cells, measure_resampled
from windowshift.core.measure.guard_results import GuardResult, guard_results
from windowshift.core.measure.inside_results import InsideResults, inside_results
from windowshift.core.measure.kept_data import KeptCount, kept_counts
from windowshift.core.measure.measures import (
    ArmMeasures,
    CellMeasure,
    Extreme,
    Fit,
    GroupMeasures,
    HeldOut,
    Measures,
    Point,
)
from windowshift.core.measure.resampled import Key, Resampled
from windowshift.core.measure.restricted import restricted
from windowshift.core.measure.selected import Selected, selected
from windowshift.core.measure.solved_alone import SolvedAlone, solved_alone
from windowshift.core.measure.steering_results import SteeringResults, steering_results
from windowshift.core.report.inside_json import inside_json
from windowshift.core.report.missing_blocks import missing_json, missing_notes
from windowshift.core.report.report_html import report_html
from windowshift.core.report.solved_alone_blocks import solved_alone_json
from windowshift.core.report.steering_json import steering_json
from windowshift.core.settings.published import Published, published
from windowshift.core.store.reader import Reader

REHEARSAL = "microworld is a rehearsal model: these numbers are not evidence about language models"


@dataclass(frozen=True, slots=True)
class Report:
    """One experiment and behaviour: measures, published numbers of its setting, and notes on reading them.

    `tally` counts the completions of all cells; `failed_jobs` has (label, error). `guards` are there with the primary
    behaviour. `preflights` are what pilots came to, and `looks` those of runs that stop by rule, oldest first.
    `restricted` has the cells again in restricted means up to `limit`, where scores are lower bounds of what was cut
    off; nothing where nothing was. `alone` has wrong claims again, among the problems that a model solves alone;
    `kept` how much of a D that is chosen by scores is there; `inside` is what was read inside the model, of all
    behaviours the same.
    """

    experiment: ExperimentRow
    behaviour: Behaviour
    measures: Measures
    published: Published | None
    notes: tuple[str, ...]
    tally: Tally
    failed_jobs: tuple[tuple[str, str], ...]
    steering: SteeringResults
    contrasts: tuple[ContrastMeasure, ...] = ()
    guards: tuple[GuardResult, ...] = ()
    preflights: tuple[Preflight, ...] = ()
    selected: tuple[Selected, ...] = ()
    looks: tuple[Look, ...] = ()
    restricted: Mapping[Key, CellMeasure] = field(default_factory=dict)
    limit: float | None = None
    alone: tuple[SolvedAlone, ...] = ()
    kept: tuple[KeptCount, ...] = ()
    inside: InsideResults = field(default_factory=InsideResults)

    def __repr__(self) -> str:
        one = self.experiment
        arms = ", ".join(f"{name}: {len(arm.seed_cells)} cells" for name, arm in self.measures.arms.items())
        return f"<Report of {one.name!r} on {self.behaviour.name}: {one.state}, {arms or 'no cells yet'}>"

    def _repr_html_(self) -> str:
        return report_html(self)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values: what `windowshift report --json` prints. Keys are added, never taken away."""
        experiment = self.experiment
        return {
            "experiment": experiment.name,
            "setting": experiment.setting,
            "model": experiment.model,
            "rehearsal": experiment.rehearsal,
            "state": experiment.state,
            "behaviour": asdict(self.behaviour),
            "jobs": experiment.jobs,
            "cells_done": experiment.cells_done,
            "cells_total": experiment.cells_total,
            "usd": experiment.usd,
            "kept": [asdict(one) for one in self.kept],
            "completions": asdict(self.tally),
            "failed_jobs": [{"job": label, "error": error} for label, error in self.failed_jobs],
            "notes": list(self.notes),
            "preflights": [one.to_json() for one in self.preflights],
            "selections": [_selected(one) for one in self.selected],
            "looks": [one.to_json() for one in self.looks],
            "contrasts": [_contrast(one) for one in self.contrasts],
            "arms": {name: _arm(arm, self) for name, arm in self.measures.arms.items()},
            # What restricted means go up to; None where no score is the lower bound of a completion that was cut off.
            "restricted_to": self.limit if self.limit is None or math.isfinite(self.limit) else None,
            "cells": [_cell(cell, arm.scale, self) for arm in self.measures.arms.values() for cell in arm.seed_cells],
            "steering": steering_json(self.steering) if self.steering else None,
            "inside": inside_json(self.inside) if self.inside else None,
            "guards": [_guard(one) for one in self.guards],
            "solved_alone": [solved_alone_json(one) for one in self.alone],
            "published": None if self.published is None else asdict(self.published),
        }


def report(workspace: str | Path, name: str, behaviour: str | None = None, *, resamples: int = RESAMPLES) -> Report:
    """Measure an experiment as the store has it now.

    Args:
        workspace: the folder.
        name: of the experiment.
        behaviour: what to report on; None: the primary behaviour.
        resamples: of the bootstrap.

    Raises:
        SpecError: there is no such experiment or behaviour.
        StoreError: the workspace cannot be read.
    """
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment(name)
        chosen = experiment.find_behaviour(behaviour)
        grid = load_grid(reader, experiment, chosen)
        failed = [job for job in reader.jobs(experiment.id) if job.state == "failed"]
        resampled = Resampled(grid, resamples)
        steering = steering_results(reader, experiment, resampled)
        preflights = tuple(reader.preflights(experiment.id))
        looks = tuple(reader.looks(experiment.id))
        first = chosen == primary_of(experiment.behaviours)
        guards = guard_results(reader, experiment, resamples) if first else ()
        alone = solved_alone(reader, experiment, chosen, resamples)
        kept = kept_counts(reader, experiment)
        inside = inside_results(reader, experiment, resamples)
    # Several cells may share a job; its completions count once. The tallies go on with those of references.
    jobs = {cell.job: tally for cell, tally in zip(grid.cells, grid.tallies, strict=False)}
    measures = measure_resampled(resampled)
    bounded = restricted(grid)
    bounded_cells = measure_cells(Resampled(bounded.grid, resamples)) if bounded else ()
    return Report(
        experiment,
        chosen,
        measures,
        published(experiment.setting, chosen.name),
        tuple(_notes(experiment, measures)),
        sum(jobs.values(), Tally(0, 0, 0, 0)),
        tuple((job.label, job.error or "no reason was recorded") for job in failed),
        steering,
        contrasts(resampled),
        guards,
        preflights,
        selected(resampled),
        looks,
        {cell.key: cell for cell in bounded_cells if cell.mean is not None},
        bounded.limit if bounded else None,
        alone,
        kept,
        inside,
    )


def _notes(experiment: ExperimentRow, measures: Measures) -> list[str]:
    notes = [REHEARSAL] if experiment.rehearsal else []
    note = runs_note(max((len(arm.seeds) for arm in measures.arms.values() if arm.generates), default=0))
    uneven = [one for arm in measures.arms.values() for one in arm.uneven]
    return [*notes, *([note] if note else []), *dict.fromkeys(uneven), *missing_notes(measures)]


def _arm(arm: ArmMeasures, whole: Report) -> dict[str, Any]:
    found = {"scale": arm.scale.link, **_group(arm.whole, arm.scale), "by_generate": {}, "by_seed": {}, "course": []}
    found |= {"evaluates": list(arm.evaluates), "crossed": list(arm.crossed)}
    found["by_generate"] = {generate: _group(group, arm.scale) for generate, group in arm.by_generate.items()}
    found["by_seed"] = {str(seed): _group(group, arm.scale) for seed, group in arm.by_seed.items()}
    found["pooled"] = [_cell(cell, arm.scale, whole) for cell in arm.cells] if len(arm.seeds) > 1 else []
    found["families"] = {generate: [_claim(one) for one in family] for generate, family in arm.families.items()}
    # What is missing of a cell and of the base model beside it, where anything is.
    found["missing"] = [
        {"generate": key.generate, "train": key.train, "evaluate": key.evaluate} | (missing_json(one) or {})
        for key, one in arm.missing.items()
    ]
    found["course"] = [
        {
            "generate": point.generate,
            "train": point.train,
            "step": point.step,
            **_numbers("mean", point.mean),
            **_spread(arm.scale, point.cv),
            "means": {evaluate: _numbers("mean", one) for evaluate, one in point.means.items()},
        }
        for point in arm.course
    ]
    return found


def _group(group: GroupMeasures, scale: Scale) -> dict[str, Any]:
    return {
        "grouped": _fit(group.grouped),
        "spread": scale.words.spread,
        **_spreads("cv", group if scale.words.spread == "CV" else replace(group, spreads=(), cross_spreads=())),
        **(_spreads(scale.words.spread, group) if scale.words.spread != "CV" else {}),
        "extreme": _extremes(group.extremes, scale),
        "fits_by_evaluate": {evaluate: _fit(fit) for evaluate, fit in group.by_evaluate.items()},
        "points": [_point(point) for point in group.points],
    }


def _spreads(word: str, group: GroupMeasures) -> dict[str, Any]:
    """The spreads of a group under their name; those of CV are always there, empty where the spread is another one."""
    spreads, crossed = group.spreads, group.cross_spreads
    return {
        word: {spread.train: _value(spread.value) for spread in spreads},
        f"{word}_ci95": {spread.train: _interval(spread.value) for spread in spreads},
        f"{word}_kept": {spread.train: _numbers("value", spread.kept) for spread in spreads},
        f"{word}_missing": {spread.train: spread.reason for spread in spreads if spread.reason},
        f"{word}_generate": spreads[0].generate if spreads else None,
        f"cross_{word}": {spread.train: _numbers("value", spread.value) for spread in crossed},
        f"cross_{word}_kept": {spread.train: _numbers("value", spread.kept) for spread in crossed},
    }


def _spread(scale: Scale, one: Estimate | None) -> dict[str, Any]:
    if scale.words.spread == "CV":
        return _numbers("cv", one)
    return _numbers("cv", None) | _numbers(scale.words.spread, one)


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "slope": _value(fit.slope),
        "ci95": _interval(fit.slope),
        # The same slope, with the interval that the scatter of the points gives it, never narrower than the one above.
        "scatter_ci95": _interval(fit.scatter),
        "slope_corrected": _value(fit.corrected),
        "slope_corrected_ci95": _interval(fit.corrected),
        "predicted_r2": _value(fit.predicted),
        "predicted_r2_ci95": _interval(fit.predicted),
        "seeds": fit.slope.seeds if fit.slope else None,
        "r2": _value(fit.r2),
        "r2_ci95": _interval(fit.r2),
        "intercept": _value(fit.intercept),
        "intercept_ci95": _interval(fit.intercept),
        "points": fit.points,
        "rows": fit.rows,
        "reason": fit.reason,
    }


def _extremes(extremes: tuple[Extreme, ...], scale: Scale) -> dict[str, Any]:
    if not extremes:
        reason = "it needs D, the base model without a prefix, and one finished cell of a prefixed row"
        return {"direction": None, "vs_base_pct": None, "vs_no_prefix_pct": None, "reason": reason}
    found = _extreme(extremes[0], scale)
    for one in extremes:
        found[one.direction] = _extreme(one, scale)
    return found


def _extreme(extreme: Extreme, scale: Scale) -> dict[str, Any]:
    unit = "_pct" if scale.kind == "ratio" else "_difference"
    return {
        "direction": extreme.direction,
        "train": extreme.train,
        "evaluate": extreme.evaluate,
        "mean": extreme.mean,
        "truncated": extreme.tally.truncated,
        # Keys that are always there; None where means do not compare by ratio.
        "vs_base_pct": None,
        "vs_no_prefix_pct": None,
        **_numbers(f"vs_base{unit}", extreme.vs_base, "vs_base"),
        **_numbers(f"vs_no_prefix{unit}", extreme.vs_no_prefix, "vs_no_prefix"),
        "cells": extreme.cells,
        "planned": extreme.planned,
        "held_out": _held_out(extreme.held_out, unit) if extreme.held_out else None,
        "reason": None,
    }


def _held_out(held: HeldOut, unit: str) -> dict[str, Any]:
    """A cell that was chosen on one half of the prompts and is measured on the other."""
    return {
        "train": held.train,
        "evaluate": held.evaluate,
        "chosen_on_prompts": held.chosen_on,
        **_numbers(f"vs_base{unit}", held.vs_base, "vs_base"),
        **_numbers(f"vs_no_prefix{unit}", held.vs_no_prefix, "vs_no_prefix"),
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "generate": point.generate,
        "train": point.train,
        "seed": point.seed,
        **_numbers("train_mean_ratio", point.ratio),
        "data_truncated": point.truncated,
        **_numbers("x", point.x),
        **_numbers("y", point.y),
        **_numbers("effect", point.effect),
        **_numbers("data_mean", point.data),
        "reason": point.reason,
    }


def _guard(result: GuardResult) -> dict[str, Any]:
    scale = result.behaviour.scale
    return {
        "guard": result.guard,
        "behaviour": result.behaviour.name,
        "counts": result.behaviour.counts or "completions",
        "cells": [_cell(cell, scale) for cell in (*result.base, *result.tuned)],
    }


def _cell(cell: CellMeasure, scale: Scale, whole: Report | None = None) -> dict[str, Any]:
    key, tally = cell.key, cell.tally
    bounded = whole.restricted.get(key) if whole else None
    return {
        "arm": key.arm,
        "generate": None if key.train == BASE else key.generate,
        "train": key.train,
        "evaluate": key.evaluate,
        "seed": key.seed,
        "step": key.step,
        "final": key.final,
        "status": cell.status,
        "done": cell.progress[0],
        "total": cell.progress[1],
        "n": tally.n,
        "truncated": tally.truncated,
        "missing": tally.missing,
        "failed": tally.failed,
        "prompts": cell.mean.prompts if cell.mean else 0,
        "seeds": cell.mean.seeds if cell.mean else None,
        "mean": _value(cell.mean),
        "ci95": _interval(cell.mean),
        "sd": cell.sd,
        "base_mean": cell.base_mean,
        # `uplift` is on the link scale, `effect` as it is shown: for rates log-odds, and the difference.
        "uplift_log2": _value(cell.uplift) if scale.link == "log2" else None,
        "uplift": _value(cell.uplift),
        "uplift_ci95": _interval(cell.uplift),
        "effect": _value(cell.effect),
        "effect_ci95": _interval(cell.effect),
        "restricted_mean": _value(bounded.mean) if bounded else None,
        "restricted_mean_ci95": _interval(bounded.mean) if bounded else None,
        "restricted_uplift": _value(bounded.uplift) if bounded else None,
        "restricted_uplift_ci95": _interval(bounded.uplift) if bounded else None,
    }


def _contrast(one: ContrastMeasure) -> dict[str, Any]:
    return {
        "name": one.name,
        "hash": one.hash,
        "registered": one.registered,
        "cells_done_then": one.cells_done,
        "withdrawn": one.withdrawn,
        **_numbers("effect", one.effect),
        "p": one.p,
        "p_holm": one.holm,
        "margin": one.margin,
        "p_within_margin": one.same,
        "reason": one.reason or None,
    }


def _selected(one: Selected) -> dict[str, Any]:
    found = {key: value for key, value in asdict(one).items() if key != "correlation"}
    return found | _numbers("rank_correlation", one.correlation)


def _claim(one: Claim) -> dict[str, Any]:
    """A cell beside the others of its table: `uplift_all_ci95` is its simultaneous band, on the link scale."""
    return {
        "train": one.key.train,
        "evaluate": one.key.evaluate,
        "uplift": one.uplift.value,
        "uplift_all_ci95": _interval(one.uplift),
        "p": one.p,
        "p_holm": one.holm,
        "p_benjamini_hochberg": one.bh,
    }


def _numbers(name: str, one: Estimate | None, stem: str | None = None) -> dict[str, Any]:
    stem = name if stem is None else stem
    found = {name: _value(one), f"{stem}_ci95": _interval(one), f"{stem}_n": one.n if one else None}
    return found | {f"{stem}_prompts": one.prompts if one else None, f"{stem}_seeds": one.seeds if one else None}


def _value(one: Estimate | None) -> float | None:
    return None if one is None else one.value


def _interval(one: Estimate | None) -> list[float] | None:
    return None if one is None or one.interval is None else list(one.interval)
