"""Rows of other trainers' data sets as chats: one column `messages`, and what else a row has."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from windowshift.core.contract.errors import SpecError
from windowshift.core.settings.table_file import TableRow, find_file, read_dataset, read_table
from windowshift.core.spec.spec import read_text
from windowshift.core.spec.spec_errors import did_you_mean, sentence
from windowshift.core.spec.trainer_data import (
    AxolotlColumns,
    AxolotlData,
    FactoryFile,
    FactoryHub,
    FactoryListed,
    TrainerData,
)

CHAT = "messages"
_BUILDERS = ("json", "csv", "parquet")
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
_QUESTIONS = {"alpaca_chat.load_qa": ("question", "answer")}
_ALPACA = ("alpaca", "alpaca_w_system", "alpaca_chat", "gpteacher")
_CHATS = ("chat_template", "sharegpt")


@dataclass(frozen=True, slots=True)
class _Instruction:
    """Rows of columns: the prompt's, the one that is added to it, the answer's, the system message's, what went before.

    `joined` is what stands between the prompt and what is added.
    """

    prompt: str
    query: str
    response: str
    system: str | None
    history: str | None
    joined: str
    said_before: str = ""


@dataclass(frozen=True, slots=True)
class _Chat:
    """Rows of messages: their column, their keys, and whom their words for roles mean."""

    messages: str
    role: str
    content: str
    roles: Mapping[str, str]
    system: str | None
    drop_system: bool = False


def read_trainer_rows(entry: TrainerData, folder: Path) -> tuple[str, Iterator[TableRow]]:
    """Read what an entry names: the place as a person is told it, and the rows, each with a chat under `CHAT`.

    A chat ends with the answer where the row has one. The columns that went into it are left out of the row.

    Raises:
        SpecError: the file, the entry, the kind or the row that cannot be read.
        MissingExtraError: as `read_table` and `read_dataset`.
    """
    if isinstance(entry, FactoryListed):
        path = find_file(entry.dataset_info, folder)
        return read_trainer_rows(_listed(entry, path), path.parent)
    if isinstance(entry, AxolotlData):
        how = _axolotl(entry)
        place, rows = _axolotl_rows(entry, folder)
    else:
        how = _factory(entry)
        place, rows = _factory_rows(entry, folder)
    chats = _chats(rows, how) if isinstance(how, _Chat) else _instructions(rows, how)
    if isinstance(entry, FactoryFile | FactoryHub) and entry.num_samples is not None:
        return place, iter(_sample(list(chats), entry.num_samples))
    return place, chats


def _sample(rows: Sequence[TableRow], count: int) -> list[TableRow]:
    if count >= len(rows):
        return list(rows)
    return [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), count))]


def _listed(entry: FactoryListed, path: Path) -> FactoryFile | FactoryHub:
    try:
        known = json.loads(read_text(path, "list of data sets"))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not JSON: {error}") from error
    if not isinstance(known, dict) or not isinstance(known.get(entry.name), dict):
        there = did_you_mean(entry.name, map(str, known)) if isinstance(known, dict) and known else ""
        raise SpecError(f"{path} has no data set '{entry.name}'{there}")
    found = known[entry.name]
    kind = FactoryHub if "hf_hub_url" in found else FactoryFile
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise SpecError(f"{path}, '{entry.name}': {sentence(error, kind, found)}") from error


# -- where the rows are -----------------------------------------------------------------------------


def _axolotl_rows(entry: AxolotlData, folder: Path) -> tuple[str, Iterator[TableRow]]:
    path = find_file(entry.path, folder)
    kind = None if entry.ds_type in (None, "arrow") else entry.ds_type
    if path.is_file():
        return str(path), read_table(path, "data file", kind)
    if entry.path in _BUILDERS and entry.files and not path.exists():
        return _files([find_file(name, folder) for name in entry.files], kind or entry.path)
    if entry.files and path.is_dir():
        return _files([path / name for name in entry.files], kind)
    rows = read_dataset(
        entry.path,
        config=entry.name,
        split=entry.split,
        revision=entry.revision,
        folder=folder,
        files=entry.files or None,
    )
    return entry.path, rows


def _factory_rows(entry: FactoryFile | FactoryHub, folder: Path) -> tuple[str, Iterator[TableRow]]:
    if isinstance(entry, FactoryFile):
        path = find_file(entry.file_name, folder)
        if not path.is_dir():
            return str(path), read_table(path, "data file")
        return _files(sorted(one for one in path.iterdir() if one.is_file()), None)
    rows = read_dataset(
        entry.hf_hub_url,
        config=entry.subset,
        split=entry.split,
        revision=None,
        folder=folder,
        inside=entry.folder,
    )
    return entry.hf_hub_url, rows


def _files(paths: Sequence[Path], kind: str | None) -> tuple[str, Iterator[TableRow]]:
    if not paths:
        raise SpecError("the folder of the data set holds no file")

    def rows() -> Iterator[TableRow]:
        number = 0
        for path in paths:
            for row in read_table(path, "data file", kind):
                number += 1
                yield TableRow(number, row.place, row.values)

    return ", ".join(map(str, paths[:3])), rows()


# -- how a row is read ------------------------------------------------------------------------------


def _axolotl(entry: AxolotlData) -> _Chat | _Instruction:
    if isinstance(entry.type, AxolotlColumns):
        one = entry.type
        return _Instruction(
            one.field_instruction, one.field_input, one.field_output, one.field_system, None, "\n", one.system_prompt
        )
    kind = entry.type.split(":")[0]
    stem = kind.split(".")[0]
    if stem in _CHATS:
        keys = entry.message_property_mappings
        old = stem == "sharegpt"
        return _Chat(
            entry.field_messages or ("conversations" if old else CHAT),
            keys.get("role") or entry.message_field_role or ("from" if old else "role"),
            keys.get("content") or entry.message_field_content or ("value" if old else "content"),
            {**_ROLES, **{word: role for role, words in entry.roles.items() for word in words}},
            entry.field_system,
            entry.drop_system_message,
        )
    if kind in _QUESTIONS:
        return _Instruction(*(_QUESTIONS[kind][0], "input", _QUESTIONS[kind][1]), entry.field_system, None, "\n")
    if stem in _ALPACA:
        answer = "response" if stem == "gpteacher" else "output"
        return _Instruction("instruction", "input", answer, entry.field_system or "system", None, "\n")
    known = ", ".join((*_CHATS, *_ALPACA, *_QUESTIONS))
    raise SpecError(
        f"{entry.path}: axolotl's type '{entry.type}' is not read here; {known} are, and "
        "type: {field_instruction: ..., field_output: ...}"
    )


def _factory(entry: FactoryFile | FactoryHub) -> _Chat | _Instruction:
    columns, tags = entry.columns, entry.tags
    if entry.formatting == "alpaca":
        return _Instruction(columns.prompt, columns.query, columns.response, columns.system, columns.history, "\n")
    openai = entry.formatting == "openai"
    given = columns.model_fields_set | tags.model_fields_set
    roles = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
    return _Chat(
        "messages" if openai and "messages" not in given else columns.messages,
        "role" if openai and "role_tag" not in given else tags.role_tag,
        "content" if openai and "content_tag" not in given else tags.content_tag,
        {**_ROLES, **roles} if openai else roles,
        columns.system,
    )


def _chats(rows: Iterator[TableRow], how: _Chat) -> Iterator[TableRow]:
    for row in rows:
        chat = row.values.get(how.messages)
        if not isinstance(chat, list | tuple):
            raise _missing(row, how.messages, "the messages")
        turns = [_turn(turn, how, row.place, place) for place, turn in enumerate(chat, 1)]
        taken = {how.messages}
        if how.system is not None:
            taken.add(how.system)
            turns = [*_system(row, how.system), *turns]
        if how.drop_system:
            turns = [turn for turn in turns if turn["role"] != "system"]
        yield _row(row, turns, taken)


def _turn(turn: Any, how: _Chat, where: str, place: int) -> dict[str, str]:
    there = ", ".join(map(str, turn)) if isinstance(turn, Mapping) else type(turn).__name__
    if not isinstance(turn, Mapping) or how.role not in turn or how.content not in turn:
        raise SpecError(
            f"{where}: message {place} of '{how.messages}' needs the keys '{how.role}' and '{how.content}' (it has "
            f"{there}): the entry's tags or message_property_mappings name them"
        )
    word = turn[how.role]
    role = how.roles.get(word) if isinstance(word, str) else None
    if role is None:
        raise SpecError(
            f"{where}: message {place} of '{how.messages}' is from {word!r}; known are {', '.join(how.roles)}: chats "
            "with tools cannot be trained on here"
        )
    return {"role": role, "content": turn[how.content]}


def _instructions(rows: Iterator[TableRow], how: _Instruction) -> Iterator[TableRow]:
    for row in rows:
        values = row.values
        if how.prompt not in values:
            raise _missing(row, how.prompt, "the instruction")
        asked, added = values[how.prompt], values.get(how.query)
        if isinstance(asked, str) and isinstance(added, str) and added.strip():
            asked = f"{asked}{how.joined}{added}" if asked.strip() else added
        turns = _system(row, how.system, how.said_before)
        for pair in values.get(how.history or "") or ():
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise SpecError(f"{row.place}: '{how.history}' must be a list of [what was asked, what was answered]")
            turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
        turns.append({"role": "user", "content": asked})
        if values.get(how.response) is not None:
            turns.append({"role": "assistant", "content": values[how.response]})
        yield _row(row, turns, {how.prompt, how.query, how.response, how.system or "", how.history or ""})


def _system(row: TableRow, column: str | None, otherwise: str = "") -> list[dict[str, str]]:
    text = (row.values.get(column) if column else None) or otherwise
    if not isinstance(text, str):
        raise SpecError(f"{row.place}: the system message in '{column}' must be text")
    return [{"role": "system", "content": text}] if text.strip() else []


def _row(row: TableRow, turns: list[dict[str, str]], taken: set[str]) -> TableRow:
    rest = {name: value for name, value in row.values.items() if name not in taken and name != CHAT}
    return TableRow(row.number, row.place, {**rest, CHAT: turns})


def _missing(row: TableRow, column: str, what: str) -> SpecError:
    there = ", ".join(map(str, row.values)) or "nothing"
    return SpecError(f"{row.place} has no column '{column}' for {what} (it has {there}): the entry names it")


def unanswered(row: TableRow) -> TableRow:
    """The row without the answer at the end of its chat: what is asked."""
    turns = list(row.values[CHAT])
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    return TableRow(row.number, row.place, {**row.values, CHAT: turns})
