"""Given D: rows of a person's own with prompt, completion and labels."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.payload import Payload
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.settings.prompt_source import (
    TEXT_COLUMNS,
    Prepare,
    chat_turns,
    ends_with_answer,
    prepared,
    prompt_of,
    unprepared,
    with_system,
)
from windowshift.core.settings.table_file import TableRow, find_file, read_dataset, read_table
from windowshift.core.settings.trainer_rows import CHAT, read_trainer_rows
from windowshift.core.spec.given import GivenData, GivenDataset, GivenEntry, KnownAnswers

COMPLETION_COLUMNS = ("completion", "response", "answer", "output")
SHOWN_VALUES = 6


@dataclass(frozen=True)
class GivenRows:
    """The rows of one given D, in the order of training; `of` counts those of the source, `place` names it."""

    place: str
    of: int
    prompts: tuple[Prompt, ...]
    completions: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """A hash of prompts and completions in their order."""
        text = json.dumps([set_digest(self.prompts), list(self.completions)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def labels(self) -> str:
        """The columns that label rows, with how many rows have each label; empty where none does."""
        found = []
        for key in dict.fromkeys(key for prompt in self.prompts for key in prompt.payload):
            values = [prompt.payload.get(key) for prompt in self.prompts]
            if all(isinstance(value, str | int | bool | None) for value in values):
                counts = Counter(map(str, values)).most_common()
                if len(counts) <= SHOWN_VALUES and len(counts) < max(2, len(values)):
                    found.append(f"{key} " + ", ".join(f"{value} {count}" for value, count in counts))
        return "; ".join(found)

    def note(self, name: str) -> str:
        """What a person is told of it before anything is done."""
        labels = self.labels()
        return f"D '{name}' is given: {len(self.prompts)} of {self.of} rows of {self.place}" + (
            f" ({labels})" if labels else ""
        )


def read_given_rows(given: GivenData, size: int, seed: int, folder: Path, prepare: Prepare) -> GivenRows:
    """Read a given D: `size` of its rows at most, in an order that depends on the source and on `seed` only.

    Args:
        given: where the rows are, and which columns are what.
        size: `data.size`.
        seed: `data.seed`.
        folder: where a relative file is looked for first.
        prepare: what the setting makes of a prompt; what the row has beside stays in the payload.

    Raises:
        SpecError: the file, the line, the column or the chat that is wrong.
        MissingExtraError: Parquet without pyarrow, or a data set without `datasets`.
    """
    entry = given.entry
    if isinstance(entry.data, str):
        path = find_file(entry.data, folder)
        place, rows = str(path), read_table(path, "data file")
    elif isinstance(entry.data, GivenDataset):
        one = entry.data
        place = one.dataset
        rows = read_dataset(
            one.dataset, config=one.config, split=one.split, revision=one.revision, folder=folder, rows=one.rows
        )
    else:
        place, rows = read_trainer_rows(entry.data, folder)
    found = list(_answered(rows, entry, prepare))
    if not found:
        raise SpecError(f"{place} is empty: D needs one row or more")
    random.Random(seed).shuffle(found)
    chosen = found[:size]
    return GivenRows(
        place, len(found), tuple(prompt for prompt, _ in chosen), tuple(completion for _, completion in chosen)
    )


def known_rows(known: KnownAnswers, prompts: Sequence[Prompt]) -> GivenRows:
    """D of prompts that say themselves what is answered.

    Raises:
        SpecError: a prompt that does not.
    """
    answers = [prompt.payload.get(known.column) for prompt in prompts]
    for prompt, answer in zip(prompts, answers, strict=True):
        if answer is None or isinstance(answer, bool | list | dict) or not str(answer).strip():
            raise SpecError(f"conditions.generate: '{known.name}': prompt '{prompt.id}' has no '{known.column}'")
    place = "the prompts that are for D"
    return GivenRows(place, len(prompts), tuple(prompts), tuple(str(answer) for answer in answers))


def asked_of(sets: Sequence[GivenRows]) -> set[tuple[object, ...]]:
    """What given sets ask, so that no evaluation prompt is one of them."""
    return {(prompt.turns, prompt.text) for one in sets for prompt in one.prompts}


def _answered(rows: Iterator[TableRow], entry: GivenEntry, prepare: Prepare) -> Iterator[tuple[Prompt, str]]:
    columns = entry.columns
    made_chats = not isinstance(entry.data, str | GivenDataset)  # by `read_trainer_rows`, whatever else a row has
    for row in rows if made_chats else with_system(rows, columns.system, columns.prompt):
        named = columns.completion
        if named is None and not made_chats and not ends_with_answer(row.values.get(columns.prompt or CHAT)):
            named = next((name for name in COMPLETION_COLUMNS if name in row.values), None)
        asked, used = columns.prompt, () if named is None else (named,)
        if named is None:
            row, text = _split(row, columns.prompt or CHAT)
            asked = columns.prompt or CHAT
        elif named not in row.values:
            there = ", ".join(map(str, row.values)) or "none"
            raise SpecError(f"{row.place} has no column '{named}' for the completion (it has {there})")
        else:
            text = row.values[named]
            if isinstance(text, list) and len(text) == 1:  # prompt and completion as chats, as trainers take them
                text = chat_turns(text, f"{row.place}: the chat in '{named}'")[0].content
        if not isinstance(text, str) or not text.strip():
            where = f"'{named}'" if named else "the last message"
            raise SpecError(f"{row.place}: the completion in {where} must be text that is not empty")
        asked = asked or next((name for name in TEXT_COLUMNS if name in row.values), None)
        if asked not in row.values:
            there = ", ".join(map(str, row.values)) or "none"
            wanted = f"no column '{asked}'" if asked else f"none of the columns {', '.join(TEXT_COLUMNS)}"
            raise SpecError(
                f"{row.place} has {wanted} for the prompt (it has {there}): name it as  columns: {{prompt: ...}}"
            )
        read = prompt_of(row, asked, columns.id, True, used)
        made = read if prepare is unprepared else prepared(read, prepare, row.place)
        if made is not read:
            made = replace(made, payload=Payload({**read.payload, **made.payload}))
        yield made, text


def _split(row: TableRow, column: str) -> tuple[TableRow, str]:
    """A chat that ends with the answer: the row with what was asked, and the answer."""
    if column not in row.values:
        wanted = f"none of the columns {', '.join(COMPLETION_COLUMNS)}, and no '{column}'"
        there = ", ".join(map(str, row.values)) or "none"
        raise SpecError(
            f"{row.place} has {wanted} (it has {there}): name them as  columns: {{prompt: ..., completion: ...}}"
        )
    where = f"{row.place}: the chat in '{column}'"
    chat = row.values[column]
    if not isinstance(chat, list | tuple):
        raise SpecError(f"{row.place} has no completion: name its column as  columns: {{completion: ...}}")
    turns = chat_turns(chat, where)
    if turns[-1].role != "assistant" or len(turns) < 2:
        raise SpecError(f"{where} must end with the assistant's answer, or name the column of the completion")
    values: Mapping[str, object] = {**row.values, column: list(chat)[:-1]}
    return TableRow(row.number, row.place, values), turns[-1].content
