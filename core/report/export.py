"""Export: an experiment's completions as CSV, Parquet or JSONL, streamed row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, SpecError, StoreError
from windowshift.core.contract.proof import fired_from_json
from windowshift.core.contract.records import BASE, ExperimentRow
from windowshift.core.contract.whole_file import whole_file
from windowshift.core.report.csv_text import quoted
from windowshift.core.report.dataset_export import export_dataset
from windowshift.core.store.checksums import compare
from windowshift.core.store.connection import naming
from windowshift.core.store.reader import Reader

__all__ = ["COLUMNS", "export", "export_dataset", "export_rows"]

COLUMNS = (
    "arm",
    "generate",
    "train",
    "evaluate",
    "seed",
    "step",
    "prompt_id",
    "phrase",
    "steering",
    "turns",
    "prompt",
    "payload",
    "completion",
    "truncated",
    "finish",
    "tokens",
    "reasoning",
    "reasoning_tokens",
    "missing",
    "missing_scores",
    "evidence",
    "guard",
)
"""The columns before those of the scores.

`generate` and `step` are empty and 0 for base cells; `turns` is what was said before the prompt, a list of
[role, content], and `payload` what the prompt carries beside its text: JSON, empty where there is none (an
object of its own in JSONL). `steering` says what was pushed in the activations, as
the proof of the cell's job has it. `reasoning` is what the model thought before its answer, which stands in
`completion`, and `missing` says why there is none. `missing_scores` says which scores there are not, and why
(`behaviour: reason; behaviour: reason`), `evidence` what each scorer kept of how it scored: JSON by behaviour.
`guard` is the guard whose prompt was answered; empty for those of the grid, which come first.
"""
_INTEGERS = ("seed", "step", "tokens", "reasoning_tokens")
_JSON = ("turns", "payload", "evidence")
_BATCH = 5000
_BEFORE_SCORES = 11  # columns of the query

ExportRow = tuple[Any, ...]


def export(workspace: Path, name: str, out: Path, *, force: bool = False, raw: bool = False) -> int:
    """Write one row per completion of an experiment's cells, with one column per score; return the rows.

    Args:
        workspace: the folder.
        name: of the experiment.
        out: a file that ends in .csv, .parquet or .jsonl; written whole or not at all.
        force: overwrite a file that is there.
        raw: leave CSV texts that a spreadsheet would run as formulas as they are; else they are quoted by `'`.

    Raises:
        SpecError: another ending, no such experiment, no such folder, or the file is there already.
        MissingExtraError: Parquet without pyarrow.
        StoreError: what the store holds is not what was stored.
    """
    write = _write_raw_csv if raw and out.suffix.lower() == ".csv" else _WRITERS.get(out.suffix.lower())
    if write is None:
        raise SpecError(f"cannot tell the format of {out}: its name must end in .csv, .parquet or .jsonl")
    with closing(Reader(workspace)) as reader, reader.snapshot():
        experiment = reader.find_experiment(name)
        columns = [*COLUMNS, *(behaviour.name for behaviour in experiment.behaviours)]
        refuse_changed(reader, experiment)
        with whole_file(out, force) as partial:
            return write(partial, columns, export_rows(reader, experiment))


def refuse_changed(reader: Reader, experiment: ExperimentRow) -> None:
    """Export nothing of an experiment that is not what was stored.

    Raises:
        StoreError: it is not.
    """
    with naming(reader.path):
        if changed := compare(reader.connection, experiment.id):
            others = f" ('windowshift doctor' lists {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise StoreError(f"nothing was exported from {reader.path}: {changed[0]}{others}")


def export_rows(reader: Reader, experiment: ExperimentRow) -> Iterator[ExportRow]:
    """The rows of an export, cell by cell: `COLUMNS`, then one score a behaviour (None: missing)."""
    with naming(reader.path):
        numbers = [
            (reader.connection.execute("SELECT id FROM behaviours WHERE name = ?", (b.name,)).fetchone() or (-1,))[0]
            for b in experiment.behaviours
        ]
        names = [behaviour.name for behaviour in experiment.behaviours]
        values = "".join(f", s{i}.value, s{i}.reason, s{i}.evidence" for i in range(len(numbers)))
        joins = "".join(
            f" LEFT JOIN scores s{i} ON s{i}.job = c.job AND s{i}.behaviour = ? AND s{i}.row = c.row"
            for i in range(len(numbers))
        )
        query = (
            "SELECT p.key, f.text, p.turns, p.text, p.payload, iif(c.finish = 'failed', NULL, c.text), c.finish, "
            f"nullif(c.tokens, -1), c.reasoning, c.reasoning_tokens, c.error{values} FROM completions c "
            f"JOIN prompts p ON p.id = c.prompt LEFT JOIN phrases f ON f.id = c.phrase{joins} "
            "WHERE c.job = ? ORDER BY c.row"
        )
        guards = {b.guard: b.name for b in reversed(experiment.behaviours) if b.guard}
        cells = [("", cell) for cell in reader.cells(experiment.id, "")]
        cells += [(guard, cell) for guard, name in guards.items() for cell in reader.cells(experiment.id, name)]
        for guard, cell in cells:
            generate = None if cell.train == BASE else cell.generate
            place = (cell.arm, generate, cell.train, cell.evaluate, cell.seed, cell.step)
            pushed = "; ".join(one.words() for one in fired_from_json(reader.job(cell.job).result.get("fired", ())))
            for row in reader.connection.execute(query, (*numbers, cell.job)):
                scores, reasons, kept = (row[_BEFORE_SCORES + at :: 3] for at in range(3))
                said = (*row[2:6], row[6] == "length", *row[6:_BEFORE_SCORES])
                how = (_reasons(names, scores, reasons), _evidence(names, kept), guard or None)
                yield (*place, *row[:2], pushed or None, *said, *how, *scores)


def _reasons(names: Sequence[str], scores: Sequence[float | None], reasons: Sequence[str | None]) -> str | None:
    """Why scores are missing; None where none is, or where none was due (the completion failed)."""
    found = [
        f"{name}: {reason}"
        for name, score, reason in zip(names, scores, reasons, strict=True)
        if score is None and reason is not None
    ]
    return "; ".join(found) or None


def _evidence(names: Sequence[str], kept: Sequence[str | None]) -> str | None:
    """What scorers kept, as one JSON object by behaviour; None where none kept anything."""
    found = [f"{json.dumps(name)}:{text}" for name, text in zip(names, kept, strict=True) if text is not None]
    return f"{{{','.join(found)}}}" if found else None


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[ExportRow]) -> int:
    return write_csv(path, columns, rows, quoted)


def _write_raw_csv(path: Path, columns: Sequence[str], rows: Iterable[ExportRow]) -> int:
    return write_csv(path, columns, rows, str)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[ExportRow], text: Callable[[str], str]) -> int:
    def cell(value: object) -> object:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        return text(value) if isinstance(value, str) else value

    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # RFC 4180: lines end in CRLF, fields with line ends are quoted
        writer.writerow(map(cell, columns))
        for row in rows:
            writer.writerow(map(cell, row))
            count += 1
    return count


def _write_jsonl(path: Path, columns: Sequence[str], rows: Iterable[ExportRow]) -> int:
    count = 0
    nested = [columns.index(name) for name in _JSON]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            values = list(row)
            for at in nested:
                values[at] = None if values[at] is None else json.loads(values[at])
            file.write(json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterable[ExportRow]) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("exporting to Parquet", "export", "pyarrow") from error
    kinds = {name: pa.string() for name in COLUMNS} | {name: pa.int64() for name in _INTEGERS}
    kinds["truncated"] = pa.bool_()
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    count, iterator = 0, iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(iterator, _BATCH)):
            columns_of = zip(zip(*batch, strict=True), schema, strict=True)
            arrays = [pa.array(values, field.type) for values, field in columns_of]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(batch)
    return count


_WRITERS: dict[str, Callable[[Path, Sequence[str], Iterable[ExportRow]], int]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
