"""Alignment: whether training on D pushes the residual stream along a vector, from the gradient before any step.

With G_e the gradient of the summed loss of example e on a shift of the residual stream that is the same at all
positions that write its completion (`contract.inside.Gradient`), and G the sum over examples, the alignment is
cos(-G, v): by the chain rule -<G, v> is how fast the loss of these examples falls as the stream is moved along v,
which is what a steering dose does, and the cosine is that over the steepest fall there is. Beside it stand the same
cosines of random unit directions. With K of them, p is (1 + those as far from 0 as the vector's) / (1 + K), two-sided.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.inside import Gradient
from windowshift.core.contract.records import BASE, Arm, ExperimentRow, JobRow
from windowshift.core.contract.stats import DATA, RESAMPLES, Floats, weight_blocks
from windowshift.core.measure.drift import reading_state, trainer
from windowshift.core.measure.sampled import Sampled
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Alignment:
    """The alignment of one row of the grid with one vector, the mean over seeds.

    Attributes:
        arm, generate, train: the row; of stages, the last one.
        vector: its name.
        layer: at whose output the gradient is taken; None where nothing was read yet.
        cosine: cos(-G, v), with its interval over examples; its `n` counts them.
        null: the ends of the middle 95 % of the cosines of random directions.
        directions: how many of them there are.
        p: of the vector's cosine among them.
        unread: examples that have no gradient.
        reason: why nothing is there.
    """

    arm: Arm
    generate: str
    train: str
    vector: str
    layer: int | None = None
    cosine: Estimate | None = None
    null: tuple[float, float] | None = None
    directions: int = 0
    p: float | None = None
    unread: int = 0
    reason: str = ""


def alignments(
    reader: Reader,
    experiment: ExperimentRow,
    resamples: int = RESAMPLES,
    measured: MutableMapping[Hashable, Alignment] | None = None,
) -> tuple[Alignment, ...]:
    """Measure the alignments of an experiment, in the order of its grid; empty where it takes no gradients.

    `measured` is as in `drift.drifts`.
    """
    before = dict(measured or {})
    kept: MutableMapping[Hashable, Alignment] = {} if measured is None else measured
    kept.clear()
    jobs = {job.id: job for job in reader.jobs(experiment.id)}
    taken: dict[str, list[JobRow]] = {}
    for job in jobs.values():
        if job.kind == "gradient":
            taken.setdefault(training_key(job.inputs), []).append(job)
    if not taken:
        return ()
    by_number = {job.n: job for job in jobs.values()}
    rows: dict[tuple[Arm, str, str], dict[int, list[JobRow]]] = {}
    for cell in reader.cells(experiment.id, ""):
        if cell.train == BASE or not cell.final:
            continue
        trained = trainer(by_number[cell.job], jobs)
        if trained is not None and (own := taken.get(training_key(jobs[trained].inputs))):
            rows.setdefault((cell.arm, cell.generate, cell.train), {})[cell.seed] = own
    found = []
    for row, seeds in rows.items():
        for place in range(len(next(iter(seeds.values())))):
            runs = [each[place] for each in seeds.values()]
            key = (row, resamples, *map(reading_state, runs))
            kept[key] = before.get(key) or _alignment(reader, row, runs, jobs, resamples)
            found.append(kept[key])
    return tuple(found)


def training_key(inputs: Mapping[str, object]) -> str:
    """What a training and the gradients of its D have in common."""
    return json.dumps([inputs.get(key) for key in ("parts", "seed", "sft", "weights", "start")], sort_keys=True)


def gradient_layer(job: JobRow, jobs: Mapping[str, JobRow]) -> int | None:
    """The layer at whose output a job takes gradients; None where a sweep has yet to choose it."""
    layer = job.inputs["layer"]
    if not isinstance(layer, int):
        layer = jobs[layer["sweep"]].result.get("layer")
    return None if layer is None else int(layer)


def _alignment(
    reader: Reader,
    row: tuple[Arm, str, str],
    runs: Sequence[JobRow],
    jobs: Mapping[str, JobRow],
    resamples: int,
) -> Alignment:
    name = str(jobs[runs[0].inputs["vector"]].inputs["name"])
    missing = next((job for job in runs if job.state != "done"), None)
    if missing is not None:
        why = missing.error or ("not read yet" if missing.state in ("pending", "running") else missing.state)
        return Alignment(*row, name, reason=f"{missing.label}: {why}")
    layer = gradient_layer(runs[0], jobs)
    assert layer is not None  # what is done had its layer
    read = [reader.gradients(job.n) for job in runs]
    return alignment(row, name, layer, read, resamples)


def alignment(
    row: tuple[Arm, str, str],
    vector: str,
    layer: int,
    runs: Sequence[Sequence[Gradient]],
    resamples: int = RESAMPLES,
) -> Alignment:
    """Measure one alignment.

    Args:
        row: arm, generation and train condition.
        vector: its name.
        layer: at whose output the gradients are taken.
        runs: the gradients of each seed.
        resamples: of the bootstrap over examples.
    """
    unread = sum(one.problem is not None for run in runs for one in run)
    each = [_cosines(run, resamples, seed) for seed, run in enumerate(runs)]
    if any(one is None for one in each):
        return Alignment(*row, vector, layer, unread=unread, reason="the gradient is 0: nothing is to be learned")
    found = [one for one in each if one is not None]
    values = np.array([one.value for one, _ in found])
    nulls = np.stack([null for _, null in found]).mean(axis=0)
    draws = np.stack([one.draws for one, _ in found if one.draws is not None]).mean(axis=0)
    n = sum(one.n for one, _ in found)
    several = tuple(one for one, _ in found) if len(found) > 1 else ()
    whole = Sampled(float(values.mean()), draws, n, None, runs=several)
    low, high = np.percentile(nulls, [2.5, 97.5])
    beyond = int((np.abs(nulls) >= abs(whole.value)).sum())
    p = (1 + beyond) / (1 + len(nulls))
    return Alignment(*row, vector, layer, whole.estimate, (float(low), float(high)), len(nulls), p, unread)


def _cosines(rows: Sequence[Gradient], resamples: int, seed: int) -> tuple[Sampled, Floats] | None:
    """The cosine of one run with its draws, and those of the random directions; None where the gradient is 0.

    An example that is drawn twice is no second example with the same gradient: in the norm of a resample its product
    with itself counts once for each time that it is drawn, and not by the square of that. So resampled norms have the
    mean of the norm itself, where the plain bootstrap's are too long, and its cosines too small.
    """
    there = [place for place, one in enumerate(rows) if one.problem is None]
    along = np.array([rows[place].along for place in there], dtype=np.float64)
    random = np.array([rows[place].random for place in there], dtype=np.float64)
    products = np.zeros((len(there), len(there)))
    for row, place in enumerate(there):
        products[row, : row + 1] = [rows[place].inner[other] for other in there[: row + 1]]
    own = products.diagonal().copy()
    products += np.tril(products, -1).T
    norm = products.sum()
    if not norm > 0:
        return None
    apart = products - np.diag(own)
    draws = np.empty(resamples)
    start = 0
    for weights in weight_blocks(len(there), resamples, seed, DATA):
        norms = np.einsum("re,ef,rf->r", weights, apart, weights) + weights @ own
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (weights @ along) / np.sqrt(norms)
        # A corrected norm may be shorter than what lies along the vector; no cosine is beyond 1.
        draws[start : start + len(weights)] = np.where(norms > 0, np.clip(found, -1.0, 1.0), np.nan)
        start += len(weights)
    size = float(np.sqrt(norm))
    return Sampled(float(along.sum()) / size, draws, len(there)), random.sum(0) / size
