"""Drift: how far a fine-tune moved the residual stream along a vector, layer by layer, against the base model.

For a prompt i, layer l and vector v, p_l(i) is the mean over tokens of <h_l, v_l> / |v_l|, h_l the residual stream at
the output of the layer. The drift is the mean over prompts of p_l in the fine-tune minus p_l in the base model, on the
same prompts under the same condition: the "finetuning shift" of Chen et al. 2025 (Persona Vectors, arXiv:2507.21509),
projected. In units of the residual stream it is divided by the RMS norm of the base model's stream there, over the same
tokens and with the same weight of each prompt, which is the unit of a dose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.generation import pushed_order
from windowshift.core.contract.inside import Projection
from windowshift.core.contract.records import BASE, Arm, CellRow, ExperimentRow, JobRow
from windowshift.core.contract.stats import RESAMPLES, Floats
from windowshift.core.measure.sampled import Sampled, mean_of_runs
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class DriftAtLayer:
    """The drift at one layer.

    `base` and `tuned` are mean projections, `shift` the second minus the first, all in the units of activations;
    `relative` is the shift over `rms`, the RMS norm of the base model's residual stream there. All are None where the
    vector has no direction at the layer.
    """

    layer: int
    base: Estimate | None
    tuned: Estimate | None
    shift: Estimate | None
    relative: Estimate | None
    rms: float


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of one fine-tune along one vector under one eval condition, seeds pooled.

    Attributes:
        arm, generate, train: the row of the grid.
        evaluate: the eval condition.
        vector: its name.
        tokens: that are averaged over: response, last_prompt or prompt.
        layer: the vector's layer in use; None where none is chosen.
        layers: by layer; empty where nothing was read yet.
        prompts: read in both models.
        unread: that could not be read in one of them.
        seeds: training runs.
        reason: why nothing is there.
        apart: whether the prompts are the spec's `inside.prompts`; else they are those of the evaluation.
    """

    arm: Arm
    generate: str
    train: str
    evaluate: str
    vector: str
    tokens: str
    layer: int | None
    layers: tuple[DriftAtLayer, ...] = ()
    prompts: int = 0
    unread: int = 0
    seeds: int = 0
    reason: str = ""
    apart: bool = False

    def at(self, layer: int | None) -> DriftAtLayer | None:
        """The drift at a layer; None where it is not there."""
        return next((one for one in self.layers if one.layer == layer), None)


_Rows = Sequence[tuple[str, Projection]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read of one model: the job, and its rows once it is done."""

    job: JobRow
    rows: _Rows


def drifts(
    reader: Reader,
    experiment: ExperimentRow,
    resamples: int = RESAMPLES,
    measured: MutableMapping[Hashable, Drift] | None = None,
) -> tuple[Drift, ...]:
    """Measure the drifts of an experiment, in the order of its grid; empty where it reads none.

    `measured` keeps what was measured, by what it depends on: who looks again measures only what is new.
    """
    before = dict(measured or {})
    kept: MutableMapping[Hashable, Drift] = {} if measured is None else measured
    kept.clear()  # what was measured of a state that is past is of no use
    jobs = {job.id: job for job in reader.jobs(experiment.id)}
    readings = {key: job for job in jobs.values() if job.kind == "project" for key in reading_keys(job)}
    if not readings:
        return ()
    known: dict[str, _Reading] = {}

    def read(job: JobRow) -> _Reading:
        if job.id not in known:
            known[job.id] = _Reading(job, reader.projections(job.n) if job.state == "done" else ())
        return known[job.id]

    by_number = {job.n: job for job in jobs.values()}
    layers = layers_in_use(reader, experiment, list(jobs.values()))
    pairs: dict[tuple[Arm, str, str, str], list[tuple[JobRow, JobRow]]] = {}
    for cell in reader.cells(experiment.id, ""):
        if cell.train == BASE or not cell.final:
            continue
        answers = by_number[cell.job]
        tuned = next((readings[key] for key in reading_keys(answers, trainer(answers, jobs)) if key in readings), None)
        base = next((readings[key] for key in reading_keys(answers, None) if key in readings), None)
        if tuned is not None and base is not None:
            pairs.setdefault(_row(cell), []).append((base, tuned))
    found = []
    for row, runs in pairs.items():
        for place, vector in enumerate(runs[0][1].inputs["vectors"]):
            name = str(jobs[vector].inputs["name"])
            key = (row, name, layers.get(name), resamples, *(reading_state(job) for run in runs for job in run))
            if (one := before.get(key)) is None:
                one = _drift(row, [(read(base), read(tuned)) for base, tuned in runs], place, name, layers, resamples)
                one = replace(one, apart=read_apart(runs[0][1]))
            kept[key] = one
            found.append(kept[key])
    return tuple(found)


def reading_state(job: JobRow) -> Hashable:
    """What the measures of a reading depend on: which one it is, and how far it is. One that is done never changes."""
    return job.n, job.id, job.state, job.ended, job.error


def _row(cell: CellRow) -> tuple[Arm, str, str, str]:
    return cell.arm, cell.generate, cell.train, cell.evaluate


def trainer(answers: JobRow, jobs: Mapping[str, JobRow]) -> str | None:
    """The training whose adapter gave some answers; None: the base model did."""
    return next((one for one in reversed(answers.parents) if jobs[one].kind == "train"), None)


def reading_keys(job: JobRow, trained: str | None = None) -> tuple[str, ...]:
    """What a reading and the answers of a cell may have in common.

    That is the model, the condition and the prompts; a reading on prompts of its own (`inside.prompts`) stands beside
    the cells of its model and condition.
    """
    inputs = job.inputs
    own = inputs.get("trained") if job.kind == "project" else trained
    found = [own, inputs.get("condition"), inputs.get("channel")]
    beside, alone = ([*found, inputs.get("prompts")], [*found, "inside"])
    if job.kind == "project":
        return (json.dumps(alone if read_apart(job) else beside, sort_keys=True),)
    return tuple(json.dumps(key, sort_keys=True) for key in (alone, beside))


def read_apart(job: JobRow) -> bool:
    """Whether a reading is on prompts of its own, which neither D nor the evaluation has."""
    return bool(job.inputs.get("for") == "inside")


def _drift(
    row: tuple[Arm, str, str, str],
    runs: Sequence[tuple[_Reading, _Reading]],
    place: int,
    vector: str,
    layers: Mapping[str, int],
    resamples: int,
) -> Drift:
    named = (*row, vector, str(runs[0][1].job.inputs["tokens"]), layers.get(vector))
    missing = next((one.job for run in runs for one in run if one.job.state != "done"), None)
    if missing is not None:
        why = missing.error or ("not read yet" if missing.state in ("pending", "running") else missing.state)
        return Drift(*named, reason=f"{missing.label}: {why}")
    base, tuned, prompts, unread = _arrays(runs, place)
    if not prompts:
        return Drift(*named, unread=unread, reason="no prompt could be read in both models")
    sizes = _rms(runs)
    found = [
        _at_layer(layer, base[:, :, layer], tuned[:, :, layer], sizes[layer], resamples) for layer in range(len(sizes))
    ]
    return Drift(*named, tuple(found), prompts, unread, len(runs))


def _arrays(runs: Sequence[tuple[_Reading, _Reading]], place: int) -> tuple[Floats, Floats, int, int]:
    """Projections (runs, prompts, layers) of both models, NaN where one lacks a prompt; prompts read, and unread."""
    prompts = list(dict.fromkeys(key for run in runs for key, _ in run[0].rows))
    at = {key: number for number, key in enumerate(prompts)}
    layers = max((len(one.rms) for run in runs for reading in run for _, one in reading.rows), default=0)
    found = np.full((2, len(runs), len(prompts), layers), np.nan)
    there = np.zeros(found.shape[:-1], dtype=bool)  # a vector may have no direction where a prompt was read
    for number, run in enumerate(runs):
        for side, reading in enumerate(run):
            for key, one in reading.rows:
                if one.problem is None and key in at:
                    there[side, number, at[key]] = True
                    found[side, number, at[key]] = [np.nan if value is None else value for value in one.along[place]]
    asked = sum(len(run[0].rows) for run in runs)
    read = there.all(axis=0)  # by run and prompt, in both models
    found[:, ~read] = np.nan
    return found[0], found[1], int(read.any(axis=0).sum()), asked - int(read.sum())


def _rms(runs: Sequence[tuple[_Reading, _Reading]]) -> list[float]:
    """The RMS norm of the base model's residual stream at each layer, over what the shift is a mean of.

    These are the prompts that were read in both models, each of which counts alike, however long it is.
    """
    there = [({key for key, one in tuned.rows if one.problem is None}, base.rows) for base, tuned in runs]
    rows = [one for keys, rows in there for key, one in rows if one.problem is None and key in keys]
    return [math.sqrt(value) for value in np.mean([np.square(one.rms) for one in rows], axis=0)]


def _at_layer(layer: int, base: Floats, tuned: Floats, rms: float, resamples: int) -> DriftAtLayer:
    why = "the vector has no direction here"
    before = mean_of_runs(base, why, resamples, trained=False)
    after, shift = (mean_of_runs(values, why, resamples) for values in (tuned, tuned - base))
    relative = shift.of(lambda values: values / rms) if rms > 0 else Sampled(reason="the stream is 0")
    return DriftAtLayer(layer, before.estimate, after.estimate, shift.estimate, relative.estimate, rms)


def layers_in_use(reader: Reader, experiment: ExperimentRow, jobs: Sequence[JobRow]) -> dict[str, int]:
    """The layer of each vector that its spec names or a sweep chose; a control's is that of what it controls."""
    found = [job.result for job in jobs if "ranges" in job.result]
    # Of several sweeps the one that gradients are taken by, see `VectorPlanner.layer_in_use`: it is the last here.
    found.sort(key=lambda one: pushed_order(one.get("tokens", "all")), reverse=True)
    swept = {str(one["vector"]): int(one["layer"]) for one in found}
    try:
        named = parse_spec(reader.spec_text(experiment.id)).vectors
    except SpecError:  # of another version
        named = {}
    return dict(_layers(named, swept))


def _layers(named: Mapping[str, object], swept: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name in named:
        at: str | None = name
        while at is not None:
            entry = named.get(at)
            layer = getattr(entry, "layer", None)
            if isinstance(layer, int) or at in swept:
                yield name, layer if isinstance(layer, int) else swept[at]
                break
            at = getattr(entry, "of", None)
