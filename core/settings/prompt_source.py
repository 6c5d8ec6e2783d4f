"""Prompt sources: the embedded world, a JSONL or CSV file, a hub data set."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings import world
from windowshift.core.spec.sections import PromptDataset, PromptFile
from windowshift.core.spec.spec import read_text

MICROWORLD = "microworld"
TEXT_COLUMNS = ("prompt", "instruction", "question", "text", "problem")
ID_COLUMNS = ("id", "prompt_id", "task_id")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Prompts for D and for evaluation, without overlap, and how many repeats of a text were left out.

    D's prompts are taken from the front of the shuffled source and the eval prompts from its end, so
    that neither set changes when a spec asks for more of the other: finished jobs stay finished.
    """

    data: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]
    repeats: int = 0


def draw(source: str | PromptFile | PromptDataset, data: int, evaluation: int, seed: int, folder: Path) -> Drawn:
    """Draw distinct prompts in an order that depends on the source and on `seed` only.

    A relative file is looked for next to the spec (`folder`), then in the working directory.

    Raises:
        SpecError: the source is missing, malformed, or has too few prompts.
    """
    if source == MICROWORLD:
        prompts = [Prompt(prompt.id, prompt.text) for prompt in world.prompts(world.world_size(), seed)]
        where, repeats = MICROWORLD, 0
    else:
        if isinstance(source, str):
            source = PromptFile(file=source)
        if isinstance(source, PromptFile):
            path = _find(source.file, folder)
            everything, where = read_prompts(path, source), str(path)
        else:
            everything, where = _read_dataset(source), source.dataset
        distinct: dict[str, Prompt] = {}
        for prompt in everything:
            distinct.setdefault(prompt.text, prompt)
        prompts, repeats = list(distinct.values()), len(everything) - len(distinct)
        random.Random(seed).shuffle(prompts)
    if len(prompts) < data + evaluation:
        raise SpecError(
            f"{where} has {len(prompts)} distinct prompts, but the spec needs {data + evaluation} "
            "(data.size + sampling.prompts, times the filter's candidates): lower one of them"
        )
    return Drawn(tuple(prompts[:data]), tuple(reversed(prompts[-evaluation:])), repeats)


def _find(file: str, folder: Path) -> Path:
    path = Path(file).expanduser()
    if path.is_absolute():
        return path
    beside = folder / path
    return beside if beside.exists() else path


def read_prompts(path: Path, source: PromptFile) -> list[Prompt]:
    """Read a JSONL or CSV file of prompts.

    Raises:
        SpecError: the line, the column or the id that is wrong, and what to do.
    """
    text = read_text(path, "prompt file")
    kind = path.suffix.lower()
    if kind in (".jsonl", ".json", ".ndjson"):
        rows: Iterable[tuple[int, Mapping[str, Any]]] = _jsonl(text, path)
    elif kind in (".csv", ".tsv"):
        rows = _csv(text, path, "\t" if kind == ".tsv" else ",")
    else:
        raise SpecError(f"{path}: prompt files end in .jsonl, .csv or .tsv")
    prompts = _prompts(rows, str(path), source.text, source.id)
    if not prompts:
        raise SpecError(f"{path} is empty: a prompt file needs one prompt or more")
    return prompts


def _jsonl(text: str, path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{path} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise SpecError(f'{path} line {number} must be an object like {{"prompt": "..."}}')
        yield number, row


def _csv(text: str, path: Path, delimiter: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise SpecError(f"{path} line {reader.line_num} has more values than the header has columns")
            yield reader.line_num, row
    except csv.Error as error:
        raise SpecError(f"{path} line {reader.line_num} is not valid CSV: {error}") from error


def _prompts(
    rows: Iterable[tuple[int, Mapping[str, Any]]], where: str, text_column: str | None, id_column: str | None
) -> list[Prompt]:
    prompts: list[Prompt] = []
    lines: dict[str, int] = {}
    for number, row in rows:
        column = text_column or next((name for name in TEXT_COLUMNS if name in row), None)
        if column is None or column not in row:
            wanted = f"no column '{text_column}'" if text_column else f"none of the columns {', '.join(TEXT_COLUMNS)}"
            found = ", ".join(map(str, row)) or "none"
            raise SpecError(f"{where} line {number} has {wanted} (it has {found}): name it as  prompts: {{text: ...}}")
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            raise SpecError(f"{where} line {number}: the prompt in '{column}' must be text that is not empty")
        extra = row.get("input")
        if column == "instruction" and isinstance(extra, str) and extra.strip():
            text = f"{text}\n\nInput: {extra}"  # as the published runs joined alpaca's two fields
        identifier = _identifier(row, id_column, number, where)
        if identifier in lines:
            raise SpecError(f"{where} line {number}: the id '{identifier}' stands at line {lines[identifier]} already")
        lines[identifier] = number
        prompts.append(Prompt(identifier, text))
    return prompts


def _identifier(row: Mapping[str, Any], id_column: str | None, number: int, where: str) -> str:
    column = id_column or next((name for name in ID_COLUMNS if name in row), None)
    if column is None:
        return f"line-{number}"
    if row.get(column) in (None, ""):
        raise SpecError(f"{where} line {number} has no value in the id column '{column}'")
    return str(row[column])


def _read_dataset(source: PromptDataset) -> list[Prompt]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the data set {source.dataset}", "hub", error.name or "datasets") from error
    try:
        rows = datasets.load_dataset(source.dataset, split=source.split, revision=source.revision)
    except Exception as error:  # whatever the hub client raises becomes one sentence
        reason = " ".join(str(error).split())[:200]
        raise SpecError(f"the data set {source.dataset} (split {source.split}) cannot be loaded: {reason}") from error
    return _prompts(enumerate(rows, start=1), source.dataset, source.text, None)
