"""Export of what was read inside the model: one row a reading, before any mean is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE, ExperimentRow, JobRow
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.measure.alignment import gradient_layer, training_key
from windowshift.core.measure.drift import reading_keys, trainer
from windowshift.core.report.csv_text import quoted
from windowshift.core.report.export import refuse_changed, write_csv
from windowshift.core.store.reader import Reader

COLUMNS = (
    *("what", "job", "arm", "generate", "train", "evaluate", "seed", "vector", "layer", "step"),
    *("row", "prompt_id", "prompt", "completion", "group", "value", "rms", "tokens", "missing"),
)
"""`what` is `projection`, `gradient` or `watched`, and `value` what was read: the projection onto the unit vector at
`layer`, minus the product of the gradient with it, the log-probability in nats. `row` is the place of the prompt, of
the example in the order of training, or of the text; `rms` is the norm of the stream there. `train` is `base` for the
base model. `missing` says why there is no value.
"""
ReadingRow = tuple[Any, ...]


def export_inside(workspace: Path, name: str, out: Path, *, force: bool = False) -> int:
    """Write one row per reading of an experiment; return the rows.

    Args:
        workspace: the folder.
        name: of the experiment.
        out: a file that ends in .csv or .jsonl; written whole or not at all.
        force: overwrite a file that is there.

    Raises:
        SpecError: another ending, no such experiment, it reads nothing inside the model, or the file is there already.
        StoreError: what the store holds is not what was stored.
    """
    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise SpecError(f"readings are written as .csv or .jsonl: {out} must end so")
    with closing(Reader(workspace)) as reader, reader.snapshot():
        experiment = reader.find_experiment(name)
        refuse_changed(reader, experiment)
        jobs = reader.jobs(experiment.id)
        if not any(job.kind in ("project", "gradient") or "watched" in job.inputs for job in jobs):
            raise SpecError(f"experiment '{name}' reads nothing inside the model: its spec has no  inside:")
        rows = inside_rows(reader, experiment, jobs)
        with whole_file(out, force) as partial:
            if out.suffix.lower() == ".csv":
                return write_csv(partial, COLUMNS, rows, quoted)
            count = 0
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                for row in rows:
                    file.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n")
                    count += 1
            return count


def inside_rows(reader: Reader, experiment: ExperimentRow, jobs: list[JobRow]) -> Iterator[ReadingRow]:
    """The rows of an export, job by job: `COLUMNS`. What cells share is there once for each of them."""
    by_id = {job.id: job for job in jobs}
    places = _places(reader, experiment, by_id)
    by_number = {job.n: job for job in jobs}
    asked: dict[str, list[_Cell]] = {}
    for cell in reader.cells(experiment.id, ""):
        if cell.final:
            answers = by_number[cell.job]
            row = cell.arm, cell.generate, cell.train, cell.seed
            found: _Cell = ((None, None, BASE, None) if cell.train == BASE else row, cell.evaluate)
            for key in reading_keys(answers, trainer(answers, by_id)):
                if found not in asked.setdefault(key, []):
                    asked[key].append(found)
    for job in jobs:
        if job.kind == "project":
            cells = [cell for key in reading_keys(job) for cell in asked.get(key, [])]
            yield from _projections(reader, job, by_id, cells or [(_NOWHERE, None)])
        elif job.kind == "gradient":
            yield from _gradients(reader, job, by_id, places)
        elif "watched" in job.inputs:
            yield from _watched(reader, job, places)


_Place = tuple[str | None, str | None, str, int | None]
"""Arm, generation and train condition, and seed, of a training; of the base model its name alone."""
_Cell = tuple[_Place, str | None]
"""A row of the grid, or the base model, and the eval condition."""
_NOWHERE: _Place = (None, None, "", None)


def _places(reader: Reader, experiment: ExperimentRow, by_id: Mapping[str, JobRow]) -> dict[str, list[_Place]]:
    """Where each training stands in the grid, by the job's id: all rows that it made the model of.

    One that is nowhere the last stage stands where it is an earlier one.
    """
    by_number = {job.n: job for job in by_id.values()}
    last: dict[str, list[_Place]] = {}
    earlier: dict[str, list[_Place]] = {}
    for cell in reader.cells(experiment.id, ""):
        if cell.train == BASE:
            continue
        answers, row = by_number[cell.job], (cell.arm, cell.generate, cell.train, cell.seed)
        trained = trainer(answers, by_id)
        for parent in answers.parents:
            if by_id[parent].kind == "train":
                found = (last if parent == trained else earlier).setdefault(parent, [])
                if row not in found:
                    found.append(row)
    return {**earlier, **last}


def _named(job: JobRow, by_id: Mapping[str, JobRow]) -> str:
    return str(by_id[job.inputs["vector"]].inputs["name"])


def _projections(
    reader: Reader,
    job: JobRow,
    by_id: Mapping[str, JobRow],
    cells: Sequence[_Cell],
) -> Iterator[ReadingRow]:
    names = [str(by_id[vector].inputs["name"]) for vector in job.inputs["vectors"]]
    read = reader.projections(job.n)
    for place, evaluate in cells:
        for row, (key, one) in enumerate(read):
            told: tuple[Any, ...] = (row, key, None, None, None)
            if one.problem is not None:
                yield ("projection", job.id, *place[:3], evaluate, place[3], None, None, None, *told, None, None, 0,
                       one.problem)  # fmt: skip
                continue
            for name, values in zip(names, one.along, strict=True):
                for layer, (value, rms) in enumerate(zip(values, one.rms, strict=True)):
                    why = "the vector has no direction here" if value is None else None
                    yield ("projection", job.id, *place[:3], evaluate, place[3], name, layer, None, *told, value, rms,
                           one.tokens, why)  # fmt: skip


def _gradients(
    reader: Reader, job: JobRow, by_id: Mapping[str, JobRow], places: Mapping[str, Sequence[_Place]]
) -> Iterator[ReadingRow]:
    own, layer = training_key(job.inputs), gradient_layer(job, by_id)
    rows = [at for name, where in places.items() if training_key(by_id[name].inputs) == own for at in where]
    read = reader.gradients(job.n)
    for place in rows or [_NOWHERE]:
        for row, one in enumerate(read):
            yield ("gradient", job.id, *place[:3], None, place[3], _named(job, by_id), layer, 0, row, None, None, None,
                   None, one.along, None, one.tokens, one.problem)  # fmt: skip


def _watched(reader: Reader, job: JobRow, places: Mapping[str, Sequence[_Place]]) -> Iterator[ReadingRow]:
    texts = [prompt for _, prompt in reader.prompt_set(job.inputs["watched"]["set"])]
    read = reader.watched(job.n)
    for place in places.get(job.id, [_NOWHERE]):
        for step, found in read.items():
            for row, (text, one) in enumerate(zip(texts, found, strict=True)):
                told = (row, text.id, text.text, text.payload["completion"], text.payload.get("group"))
                yield ("watched", job.id, *place[:3], None, place[3], None, None, step, *told, one.logprob, None,
                       one.tokens, one.problem)  # fmt: skip
