"""What pushed the model, in words: vectors, alphas, layer, dose. Runs in a worker thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.proof import Fired, fired_from_json
from windowshift.core.contract.records import BASE, ExperimentRow, JobRow
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import CellKey
from windowshift.tui.text import formats


def pushes(reader: Reader, experiment: ExperimentRow, key: CellKey, job: int) -> tuple[str, str]:
    """Return what pushed the model in a cell's evaluation, and in the training before; nothing where nothing did."""
    evaluate = _entry(experiment, ("evaluate", "base"), key.evaluate)
    train = None if key.train == BASE else _entry(experiment, ("train",), key.train)
    if evaluate is None and train is None:
        return "", ""
    jobs = reader.jobs(experiment.id)
    own = next((one for one in jobs if one.n == job), None)
    trained = next((one for one in jobs if own is not None and one.kind == "train" and one.id in own.parents), None)
    return _words(reader, jobs, evaluate, own), _words(reader, jobs, train, trained)


def _entry(experiment: ExperimentRow, parts: Sequence[str], name: str) -> Mapping[str, Any] | None:
    """A steering condition by name; None for another kind."""
    entries = (entry for part in parts for entry in experiment.conditions.get(part, []))
    return next((entry for entry in entries if entry.get("name") == name and entry.get("kind") == "steering"), None)


def _words(reader: Reader, jobs: Sequence[JobRow], entry: Mapping[str, Any] | None, job: JobRow | None) -> str:
    if entry is None:
        return ""
    fired = {one.vector: one for one in fired_from_json(job.result.get("fired", ()))} if job else {}
    said = [_vector(reader, jobs, name, fired.get(name), entry) for name in entry.get("vectors", ())]
    tail = [f"{entry.get('tokens', 'all')} tokens"]
    tail += [f"matched to {entry['match']}"] if entry.get("match") else []
    tail += [f"KL {entry['iso_kl']:+g} nats"] if entry.get("iso_kl") else []
    tail += ["behind a prefix"] if entry.get("prefix") else []
    return f"{' and '.join(said)} · {', '.join(tail)}"


def _vector(reader: Reader, jobs: Sequence[JobRow], name: str, fired: Fired | None, entry: Mapping[str, Any]) -> str:
    if fired is None:
        alphas = ", ".join(f"{float(alpha):+g}" for alpha in entry.get("alphas", ()))
        amount = "projected out" if entry.get("ablate") else f"α {alphas}" if alphas else "α not known yet"
        return f"{name} {amount}".replace("-", formats.MINUS)
    if fired.ablate:
        return f"{name} projected out at layer {fired.layer}"
    ends = dict.fromkeys(_alpha(alpha) for alpha in (fired.alpha_low, fired.alpha_high))
    return f"{name} α {' … '.join(ends)} at layer {fired.layer}{_dose(reader, jobs, name, fired)}"


def _alpha(alpha: float) -> str:
    return f"{alpha:+.2f}".replace("-", formats.MINUS)


def _dose(reader: Reader, jobs: Sequence[JobRow], name: str, fired: Fired) -> str:
    """The dose in words, where the vector's file tells what alpha is worth and there is one alpha."""
    from windowshift.core.contract.vector_file import read_header
    from windowshift.core.store.artifact_folder import ArtifactFolder

    made = next((job for job in jobs if job.kind == "extract" and job.inputs.get("name") == name), None)
    if made is None or "vector" not in made.result or fired.alpha_low != fired.alpha_high:
        return ""
    try:
        file = ArtifactFolder(reader.workspace).get(made.result["vector"])
        dose = read_header(file).dose_of(fired.alpha_low, fired.layer)
    except (SpecError, StoreError):
        return ", dose unknown"  # no residual norms, or no file: the Steering screen says which
    return f", dose {formats.signed(dose)}"
