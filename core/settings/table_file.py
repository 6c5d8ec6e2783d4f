"""Tables of rows: JSONL, JSON, CSV, TSV and Parquet files and data sets of the hub, each row with its place."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.home import at_home
from windowshift.core.contract.hub import cache_alone, offline
from windowshift.core.contract.redaction import brief
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.spec.spec import read_text

MOST_FILES = 10_000
ENDINGS = ".json, .parquet, .jsonl, .csv or .tsv"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its columns, its number in the source (from 1), and its place as a person is told it."""

    number: int
    place: str
    values: Mapping[str, Any]


def find_file(file: str, folder: Path) -> Path:
    """A file that a spec names: beside the spec (`folder`) where it is there, else in the working directory."""
    path = at_home(file)
    if path.is_absolute():
        return path
    beside = folder / path
    return beside if beside.exists() else path


def read_table(path: Path, what: str, kind: str | None = None) -> Iterator[TableRow]:
    """Read the rows of a file, by its ending; of a folder, those of the data set in it.

    Args:
        path: the file. JSON is a list of objects, or one object a line.
        what: what a person calls it, e.g. ``prompt file``.
        kind: json, csv or parquet, whatever the ending is.

    Raises:
        SpecError: the file or a row of it is not what its ending says; the line is named.
        MissingExtraError: Parquet without pyarrow.
    """
    if path.is_dir():
        yield from read_dataset(str(path), config=None, split="train", revision=None)
        return
    kind = path.suffix.lower() if kind is None else f".{kind}"
    if kind in (".jsonl", ".json", ".ndjson"):
        text = read_text(path, what)
        whole = kind == ".json" and text.lstrip()[:1] == "["
        rows = _array(text, path) if whole else _jsonl(text, path)
    elif kind in (".csv", ".tsv"):
        rows = _csv(read_text(path, what), path, "\t" if kind == ".tsv" else ",")
    elif kind == ".parquet":
        rows = _parquet(path, what)
    else:
        raise SpecError(f"{path}: a {what} ends in {ENDINGS}")
    for row in rows:
        require_whole(row.values, row.place)
        yield row


def read_dataset(
    name: str,
    *,
    config: str | None,
    split: str,
    revision: str | None,
    folder: Path | None = None,
    rows: int | None = None,
    files: Sequence[str] | None = None,
    inside: str | None = None,
) -> Iterator[TableRow]:
    """Read a split of a data set of the hub, or of a folder: of data files, or saved by `datasets`.

    Args:
        name: of the data set, or the folder.
        config: the configuration, where it has several.
        split: train, test, ...
        revision: of the hub's repository.
        folder: where a relative folder is looked for first.
        rows: the first rows alone; a data set of the hub is streamed then, and not loaded whole.
        files: those of its files that are read.
        inside: the folder of the hub's repository that is read.

    Raises:
        SpecError: it cannot be loaded.
        MissingExtraError: without the library `datasets`.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the data set {name}", "hub", error.name or "datasets") from error
    local = find_file(name, folder or Path())
    if not local.exists() and (local.is_absolute() or name.startswith(".")):
        raise SpecError(f"the data set {name} cannot be loaded: there is no such folder")
    if local.is_dir() and _is_crowded(local):
        raise SpecError(
            f"the folder {name} holds more than {MOST_FILES:,} files: name the folder of the data set itself, or a file"
        )
    away = not local.exists() and offline()
    try:
        with cache_alone() if away else nullcontext():
            if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
                found = _saved(datasets, local, split)
            else:
                found = datasets.load_dataset(
                    str(local) if local.exists() else name,
                    config,
                    split=split,
                    revision=revision,
                    data_files=None if files is None else list(files),
                    data_dir=inside,
                    streaming=rows is not None and not local.exists(),
                )
            # Streamed rows are fetched one by one: what fails then is the data set's, too.
            for number, values in enumerate(islice(found, rows), 1):
                place = f"{name} row {number}"
                require_whole(values, place)
                yield TableRow(number, place, values)
    except (SpecError, GeneratorExit):
        raise
    except Exception as error:  # whatever the hub client raises becomes one sentence
        if away:
            raise SpecError(
                f"the data set {name} is not in the cache on this machine, and the hub cannot be reached: connect, or "
                "name a file"
            ) from error
        of = f"split {split}" if config is None else f"config {config}, split {split}"
        reason = brief(error.__cause__ or error, 200)
        hint = ": name one as  config: ..." if config is None and "config" in reason.lower() else ""
        what = "folder" if local.is_dir() else "data set"
        raise SpecError(f"the {what} {name} ({of}) cannot be loaded: {reason}{hint}") from error


def _is_crowded(folder: Path) -> bool:
    """Whether a folder has more files in it than any set of texts: `datasets` would look at each, for minutes."""
    files = (file for _, _, files in os.walk(folder) for file in files)
    return next(islice(files, MOST_FILES, None), None) is not None


def _saved(datasets: Any, folder: Path, split: str) -> Any:
    """A data set that `save_to_disk` wrote: one split, or several by name."""
    found = datasets.load_from_disk(str(folder))
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split not in found:
        raise SpecError(f"the data set {folder} has no split '{split}': it has {', '.join(found)}")
    return found[split]


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
        return json.loads(text, object_pairs_hook=lambda pairs: _columns(pairs, place))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{place} is not JSON: {error}") from error


def _columns(pairs: Sequence[tuple[str, Any]], place: str) -> dict[str, Any]:
    """An object of names that stand there once: of a name that stands there twice, one value would be lost."""
    columns = dict(pairs)
    if len(columns) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise SpecError(f"{place} has '{twice}' twice: give one of them another name")
    return columns


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f'{place} must be an object like {{"prompt": "..."}}')
    return value


def _csv(text: str, path: Path, delimiter: str) -> Iterable[TableRow]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        named = [(name, None) for name in reader.fieldnames or () if name]  # spreadsheets write empty columns, too
        _columns(named, f"the header of {path}")
        others = (sign for sign in (";", "\t", ",") if sign != delimiter)
        other = next((sign for sign in others if len(named) == 1 and sign in named[0][0]), None)
        if other is not None:
            told = {"\t": "tabs", ",": "commas", ";": "semicolons"}
            raise SpecError(
                f"the columns of {path} are separated by {told[other]}: a file that ends in {path.suffix} has "
                f"{told[delimiter]} there"
            )
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
        raise SpecError(f"{path} is not a Parquet file: {brief(error, 200)}") from error
    for number, row in enumerate(values, 1):
        yield TableRow(number, f"{path} row {number}", row)
