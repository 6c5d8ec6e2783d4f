"""Tables of rows: JSONL, JSON, CSV, TSV and Parquet files and data sets of the hub, each row with its place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.hub import cache_alone, offline
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.spec.spec import read_text

ENDINGS = ".json, .parquet, .jsonl, .csv or .tsv"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its columns, its number in the source (from 1), and its place as a person is told it."""

    number: int
    place: str
    values: Mapping[str, Any]


def find_file(file: str, folder: Path) -> Path:
    """A file that a spec names: beside the spec (`folder`) where it is there, else in the working directory."""
    path = Path(file).expanduser()
    if path.is_absolute():
        return path
    beside = folder / path
    return beside if beside.exists() else path


def read_table(path: Path, what: str) -> Iterator[TableRow]:
    """Read the rows of a file, by its ending.

    Args:
        path: the file. JSON is a list of objects, or one object a line.
        what: what a person calls it, e.g. ``prompt file``.

    Raises:
        SpecError: the file or a row of it is not what its ending says; the line is named.
        MissingExtraError: Parquet without pyarrow.
    """
    kind = path.suffix.lower()
    if kind in (".jsonl", ".json", ".ndjson"):
        text = read_text(path, what)
        whole = kind == ".json" and text.lstrip()[:1] == "["
        rows = _array(text, path) if whole else _jsonl(text, path)
    elif kind in (".csv", ".tsv"):
        rows = _csv(read_text(path, what), path, "\t" if kind == ".tsv" else ",")
    elif kind == ".parquet":
        rows = _parquet(path, what)
    elif path.is_dir():
        raise SpecError(f"{path} is a folder, not a {what}")
    else:
        raise SpecError(f"{path}: a {what} ends in {ENDINGS}")
    for row in rows:
        require_whole(row.values, row.place)
        yield row


def read_dataset(name: str, *, config: str | None, split: str, revision: str | None) -> Iterator[TableRow]:
    """Read a split of a data set of the hub, or of a folder of files.

    Raises:
        SpecError: it cannot be loaded.
        MissingExtraError: without the library `datasets`.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the data set {name}", "hub", error.name or "datasets") from error
    away = not Path(name).is_absolute() and not Path(name).exists() and offline()
    try:
        with cache_alone() if away else nullcontext():
            rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # whatever the hub client raises becomes one sentence
        if away:
            raise SpecError(
                f"the data set {name} is not in the cache on this machine, and the hub cannot be reached: connect, or "
                "name a file"
            ) from error
        of = f"split {split}" if config is None else f"config {config}, split {split}"
        reason = " ".join(str(error).split())[:200]
        hint = ": name one as  config: ..." if config is None and "config" in reason.lower() else ""
        raise SpecError(f"the data set {name} ({of}) cannot be loaded: {reason}{hint}") from error
    for number, values in enumerate(rows, 1):
        place = f"{name} row {number}"
        require_whole(values, place)
        yield TableRow(number, place, values)


def _jsonl(text: str, path: Path) -> Iterable[TableRow]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        if not line.strip():
            continue
        place = f"{path} line {number}"
        yield TableRow(number, place, _object(_json(line, place), place))


def _array(text: str, path: Path) -> Iterable[TableRow]:
    for number, value in enumerate(_json(text, str(path)), 1):
        place = f"{path} entry {number}"
        yield TableRow(number, place, _object(value, place))


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{place} is not JSON: {error}") from error


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f'{place} must be an object like {{"prompt": "..."}}')
    return value


def _csv(text: str, path: Path, delimiter: str) -> Iterable[TableRow]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise SpecError(f"{path} line {reader.line_num} has more values than the header has columns")
            yield TableRow(reader.line_num, f"{path} line {reader.line_num}", row)
    except csv.Error as error:
        raise SpecError(f"{path} line {reader.line_num} is not valid CSV: {error}") from error


def _parquet(path: Path, what: str) -> Iterable[TableRow]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"the {what} {path}", "export", "pyarrow") from error
    if not path.is_file():
        raise SpecError(f"there is no {what} at {path}")
    try:
        values = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SpecError(f"{path} is not a Parquet file: {' '.join(str(error).split())[:200]}") from error
    for number, row in enumerate(values, 1):
        yield TableRow(number, f"{path} row {number}", row)
