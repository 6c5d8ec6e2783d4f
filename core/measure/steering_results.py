"""What an experiment's steering came to: vectors, layer sweeps, dose curves, matched and iso-KL doses, controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.generation import pushed_order
from windowshift.core.contract.proof import Fired, fired_from_json
from windowshift.core.contract.records import ExperimentRow, JobRow
from windowshift.core.contract.stats import estimated
from windowshift.core.contract.vector_file import VectorHeader, read_header
from windowshift.core.measure.base_match import Verdict, base_match
from windowshift.core.measure.calibration import DosePoint, LayerRange
from windowshift.core.measure.iso_kl import KlPoint, kl_at
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.vector_controls import (
    ControlEffect,
    RandomDirections,
    control_effects,
    random_directions,
)
from windowshift.core.store.artifact_folder import ArtifactFolder
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class VectorLine:
    """One vector; `header` is None until it is made, and `problem` says why. `of` is what a control controls."""

    name: str
    file: str | None
    header: VectorHeader | None
    control: str | None
    of: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class LayerSweep:
    """The doses tried at several layers, and the layer picked."""

    vector: str
    layer: int
    rule: str
    ranges: tuple[LayerRange, ...]
    curves: Mapping[int, tuple[DosePoint, ...]]
    tokens: str = "all"


@dataclass(frozen=True, slots=True)
class DoseCurve:
    """The base model's dose-response at the layer in use."""

    vector: str
    layer: int
    tokens: str
    points: tuple[DosePoint, ...]


@dataclass(frozen=True, slots=True)
class MatchedDose:
    """The alpha that shows a prefix group's base mean; None where it is out of reach.

    `target` is the base mean under the group, `reached` the one measured under the matched dose (None where
    neither an eval nor a train condition has it), `ratio` the second over the first, or minus it where means do not
    compare by ratio; paired by prompt. `truncated` counts the completions behind `reached` that were cut off.
    `verdict` is that of the test of equivalence: whether both means differ by less than 10 % of the target.
    `refined_on` counts the development prompts on which `alpha` was solved anew; None: it is the dose curve's, as
    `curve_alpha` is.
    """

    vector: str
    tokens: str
    group: str
    layer: int
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    dose: float | None
    target: Estimate
    curve_low: float
    curve_high: float
    reached: Estimate | None
    ratio: Estimate | None
    truncated: int = 0
    verdict: Verdict | None = None
    refined_on: int | None = None
    curve_alpha: float | None = None


@dataclass(frozen=True, slots=True)
class IsoKlDose:
    """The alpha at which the 95th percentile of KL per token is `nats`; None where it is out of reach.

    `nats` has the sign of the push. `kl` is the percentile at `alpha`, over all tokens of `prompts` completions; its n
    counts tokens. `reached` is the base mean under the dose where a condition has it, of which `truncated`
    completions were cut off. `points` are all alphas that the search measured.
    """

    vector: str
    tokens: str
    nats: float
    layer: int
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    dose: float | None
    kl: Estimate | None
    prompts: int
    points: tuple[KlPoint, ...]
    problem: str | None = None
    reached: Estimate | None = None
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class SteeringResults:
    """Everything; empty where the experiment does not steer.

    `matches` go from the smallest base mean to the largest; `fired` are the proofs by job label.
    """

    vectors: tuple[VectorLine, ...] = ()
    sweeps: tuple[LayerSweep, ...] = ()
    curves: tuple[DoseCurve, ...] = ()
    matches: tuple[MatchedDose, ...] = ()
    iso_kl: tuple[IsoKlDose, ...] = ()
    controls: tuple[ControlEffect, ...] = ()
    random: tuple[RandomDirections, ...] = ()
    fired: tuple[tuple[str, Fired], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.vectors)

    def chosen_by(self, name: str) -> LayerSweep | None:
        """The sweep that chose a vector's layer; a control's is that of its vector. None where the spec sets it."""
        own = [one for one in self.sweeps if one.vector == name]
        found = min(own, key=lambda one: pushed_order(one.tokens), default=None)
        of = self._of(name)
        return self.chosen_by(of) if found is None and of is not None else found

    def kl_at(self, vector: str, tokens: str, alpha: float) -> float | None:
        """The 95th percentile of KL at an alpha, between those that a search measured; None: no search was there."""
        found = (kl_at(one.points, alpha) for one in self.iso_kl if (one.vector, one.tokens) == (vector, tokens))
        return 0.0 if alpha == 0 else next((one for one in found if one is not None), None)

    def layer(self, name: str) -> int | None:
        """The layer at which a vector is used; None until it is known. A control's is that of its vector.

        Where tokens of several kinds are pushed, each with a layer of its own, it is that of the first of `Tokens`.
        """
        for measured in (self.curves, self.sweeps):
            used = [one for one in measured if one.vector == name]
            if used:
                return min(used, key=lambda one: pushed_order(one.tokens)).layer
        of = self._of(name)
        if of is not None:
            return self.layer(of)
        return next((one.header.layer for one in self.vectors if one.name == name and one.header is not None), None)

    def _of(self, name: str) -> str | None:
        return next((one.of for one in self.vectors if one.name == name), None)


def vectors_made(reader: Reader, experiment: ExperimentRow) -> SteeringResults:
    """What the jobs of the vectors alone say: no scores are read, so there are no matches and no controls' effects."""
    jobs = reader.jobs(experiment.id)
    return SteeringResults(
        tuple(_vector(reader, job) for job in jobs if job.kind == "extract"),
        tuple(_sweep(job.result) for job in jobs if job.kind == "sweep" and "layer" in job.result),
        tuple(_curve(job.result) for job in jobs if job.kind == "dose" and "points" in job.result and _whole(job)),
        iso_kl=tuple(_iso_kl(job, [], None) for job in jobs if job.kind == "iso_kl" and job.result),
        fired=tuple((job.label, one) for job in jobs for one in fired_from_json(job.result.get("fired", ()))),
    )


def steering_results(reader: Reader, experiment: ExperimentRow, resampled: Resampled) -> SteeringResults:
    """Read an experiment's steering from the store; what is not there yet is left out."""
    made = vectors_made(reader, experiment)
    if not made:
        return SteeringResults()
    conditions = [
        entry
        for part in ("evaluate", "base", "train")
        for entry in experiment.conditions.get(part, [])
        if entry.get("kind") == "steering"
    ]
    jobs = reader.jobs(experiment.id)
    solved = {job.id: job for job in jobs if job.kind == "match" and job.result}
    for job in list(solved.values()):
        # One that was solved anew stands for the first solution, and is there only where that was within reach.
        solved.pop(job.inputs.get("refines", ""), None)
    refined = {job.inputs["refines"] for job in jobs if job.kind == "match" and "refines" in job.inputs}
    matches = [
        _match(job.result, conditions, resampled)
        for job in solved.values()
        if job.id not in refined or job.result["alpha"] is None
    ]
    doses = [_iso_kl(job, conditions, resampled) for job in jobs if job.kind == "iso_kl" and job.result]
    kinds = {one.name: (str(one.control), one.of) for one in made.vectors if one.of is not None}
    effects = tuple(control_effects(kinds, resampled))
    return replace(
        made,
        matches=tuple(sorted(matches, key=lambda one: (one.vector, one.tokens, one.target.value))),
        iso_kl=tuple(sorted(doses, key=lambda one: (one.vector, one.tokens, one.nats))),
        controls=effects,
        random=tuple(random_directions(effects)),
    )


def _vector(reader: Reader, job: JobRow) -> VectorLine:
    name = str(job.inputs["name"])
    if job.state != "done":
        return VectorLine(name, None, None, None, None, job.error or f"not made yet: {job.state}")
    control, of = job.result.get("control"), job.result.get("of")
    try:
        file = ArtifactFolder(reader.workspace).get(job.result["vector"])
        return VectorLine(name, file, read_header(file), control, of, None)
    except (SpecError, StoreError) as error:
        return VectorLine(name, None, None, control, of, str(error))


def _sweep(result: Mapping[str, Any]) -> LayerSweep:
    return LayerSweep(
        result["vector"],
        result["layer"],
        result["rule"],
        tuple(LayerRange(**one) for one in result["ranges"]),
        {int(layer): tuple(DosePoint(**point) for point in curve) for layer, curve in result["curves"].items()},
        result.get("tokens", "all"),
    )


def _curve(result: Mapping[str, Any]) -> DoseCurve:
    points = tuple(DosePoint(**point) for point in result["points"])
    return DoseCurve(result["vector"], result["layer"], result["tokens"], points)


def _whole(job: JobRow) -> bool:
    """Whether a dose job is a curve over all doses, and no refinement of one."""
    return job.inputs.get("for") != "refine"


def _iso_kl(job: JobRow, conditions: list[dict[str, Any]], r: Resampled | None) -> IsoKlDose:
    result = job.result
    wanted = [result["vector"]], result["nats"], result["push"], None
    reached, truncated = None, 0
    for entry in conditions:
        own = entry["vectors"], entry.get("iso_kl"), entry["tokens"], entry["prefix"]
        if r is not None and own == wanted:
            column = r.base_as_trained("steering", entry["name"])
            if column is not None and r.done(column):
                reached, truncated = _mean(r, column), r.tally(column).truncated
    keys = ("vector", "nats", "layer", "alpha", "alpha_low", "alpha_high", "dose", "prompts")
    return IsoKlDose(
        **{key: result[key] for key in keys},
        tokens=result["push"],
        kl=Estimate(**result["kl"]) if result["kl"] else None,
        points=tuple(KlPoint(**point) for point in result["points"]),
        problem=None if job.state == "done" else job.error,
        reached=reached,
        truncated=truncated,
    )


def _match(result: Mapping[str, Any], conditions: list[dict[str, Any]], r: Resampled) -> MatchedDose:
    target = Estimate(**result["target"])
    wanted = (result["vector"], result["group"], result["tokens"])
    reached = ratio = verdict = None
    truncated = 0
    group = r.base_as_trained("prefix", result["group"])
    if group is not None and r.done(group):
        # The same number as on every other page, where the experiment still has its cell.
        target = _mean(r, group) or target
    for entry in conditions:
        if (entry["vectors"], entry["match"], entry["tokens"], entry["prefix"]) == ([wanted[0]], *wanted[1:], None):
            column = r.base_as_trained("steering", entry["name"])
            if column is not None and r.done(column) and (both := base_match(r, wanted[1], entry["name"])):
                reached = _mean(r, column)
                truncated = r.tally(column).truncated
                ratio, verdict = both.against, both.verdict
    keys = ("layer", "alpha", "alpha_low", "alpha_high", "dose")
    found = {key: result[key] for key in keys}
    return MatchedDose(
        vector=wanted[0],
        group=wanted[1],
        tokens=wanted[2],
        **found,
        target=target,
        curve_low=result["curve_low"],
        curve_high=result["curve_high"],
        reached=reached,
        ratio=ratio,
        truncated=truncated,
        verdict=verdict,
        refined_on=result["prompts"] if result.get("refined") else None,
        curve_alpha=result.get("curve_alpha", result["alpha"]),
    )


def _mean(r: Resampled, column: int) -> Estimate | None:
    return estimated(r.means[column], r.low[column], r.high[column], int(r.n[column]), int(r.prompts[column]))
