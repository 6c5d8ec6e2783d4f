"""Prompt sources: the embedded worlds, a file of rows, a data set, another trainer's entry."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windowshift.core.contract.assets import MICROWORLD
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.payload import Payload
from windowshift.core.contract.prompts import USES, Prompt, Use
from windowshift.core.settings import world, worlds
from windowshift.core.settings.inspect_task import read_task_rows
from windowshift.core.settings.table_file import TableRow, find_file, read_dataset, read_table
from windowshift.core.settings.trainer_rows import CHAT, read_trainer_rows, unanswered
from windowshift.core.settings.worlds import WORLDS, WorldRow
from windowshift.core.spec.sections import InspectPrompts, PayloadColumns, PromptDataset, PromptFile
from windowshift.core.spec.trainer_data import TrainerData

TEXT_COLUMNS = ("prompt", "instruction", "question", "text", "problem", "messages")
ID_COLUMNS = ("id", "prompt_id", "task_id")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class DrawnPrompts:
    """Prompts for D and for evaluation, without overlap, and how many repeats of a text were left out.

    `unused` counts those that the setting has no use for. `development` are of the evaluation's sort, and in neither.

    D's prompts are taken from the front of the shuffled source and the eval prompts from its end, so
    that neither set changes when a spec asks for more of the other: finished jobs stay finished.
    """

    data: tuple[Prompt, ...]
    evaluation: tuple[Prompt, ...]
    repeats: int = 0
    unused: int = 0
    development: tuple[Prompt, ...] = ()


Prepare = Callable[[Prompt], Prompt]
"""What a setting makes of a prompt as it was read; see `PromptMaker`."""


def unprepared(prompt: Prompt) -> Prompt:
    """The prompt as it was read."""
    return prompt


def any_use(prompt: Prompt) -> Collection[Use]:  # noqa: ARG001 - it is the same for every prompt
    """A prompt of a setting that does not sort them."""
    return USES


def draw(
    source: str | PromptFile | PromptDataset | InspectPrompts | TrainerData,
    data: int,
    evaluation: int,
    seed: int,
    folder: Path,
    prepare: Prepare = unprepared,
    given: Collection[tuple[Any, ...]] = (),
    uses: Callable[[Prompt], Collection[Use]] = any_use,
    *,
    all_if_fewer: bool = False,
    beside: Mapping[str, int] | None = None,
) -> DrawnPrompts:
    """Draw distinct prompts in an order that depends on the source and on `seed` only.

    A relative file is looked for next to the spec (`folder`), then in the working directory; `prepare` is what
    the setting makes of a prompt; `given` are turns and text of the prompts of a D that is given, which are not drawn;
    `uses` says what a prompt may be used for. With `all_if_fewer`, a source of fewer eval prompts gives all it has.
    `development` prompts are those that would come next for the evaluation, so many for each key of `beside`, in order.

    Raises:
        SpecError: the source is missing, malformed, or has too few prompts.
    """
    if source == MICROWORLD:
        read = (Prompt(prompt.id, prompt.text) for prompt in world.prompts(world.world_size(), seed))
        prompts = [prepared(prompt, prepare, f"{MICROWORLD} prompt {prompt.id}") for prompt in read]
        where, repeats = MICROWORLD, 0
    elif isinstance(source, str) and source in WORLDS:
        prompts = [prepared(_of_world(row), prepare, f"{source} row {row.id}") for row in _world_rows(source, seed)]
        where, repeats = source, 0
    else:
        if isinstance(source, str):
            source = PromptFile(file=source)
        if isinstance(source, PromptFile):
            path = find_file(source.file, folder)
            everything, where = read_prompts(path, source, prepare), str(path)
        elif isinstance(source, PromptDataset):
            rows = read_dataset(
                source.dataset,
                config=source.config,
                split=source.split,
                revision=source.revision,
                folder=folder,
                rows=source.rows,
            )
            # None of a data set's columns are kept unless somebody asks for them: the spec, or the setting.
            payload = prepare is not unprepared if source.payload is None else source.payload
            told = with_system(rows, source.system, source.text)
            everything, where = _prompts(told, source.text, source.id, payload, prepare), source.dataset
        elif isinstance(source, InspectPrompts):
            samples = read_task_rows(source.inspect, source.args, source.rows, folder)
            everything, where = _prompts(samples, CHAT, None, True, prepare), source.inspect
        else:
            where, rows = read_trainer_rows(source, folder)
            everything = _prompts(map(unanswered, rows), CHAT, None, prepare is not unprepared, prepare)
        distinct: dict[tuple[Any, ...], Prompt] = {}
        for prompt in everything:
            distinct.setdefault((prompt.turns, prompt.text), prompt)
        prompts, repeats = list(distinct.values()), len(everything) - len(distinct)
        random.Random(seed).shuffle(prompts)
    known = len(prompts)
    prompts = [prompt for prompt in prompts if (prompt.turns, prompt.text) not in given] if given else prompts
    if all_if_fewer:
        there_are = sum("evaluation" in uses(prompt) for prompt in prompts)
        evaluation = min(evaluation, max(1, there_are - data))
    others = {key: count for key, count in (beside or {}).items() if count}
    last = evaluation + sum(others.values())
    if len(prompts) < data + last:
        there = f" ({known - len(prompts)} more are prompts of a given D)" if known > len(prompts) else ""
        raise SpecError(
            f"{where} has {len(prompts)} distinct prompts{there}, but the spec needs {data + last} "
            f"(data.size + sampling.prompts, times the filter's candidates{_and_more(others)}): lower one of them"
        )
    if uses is any_use:
        drawn = DrawnPrompts(tuple(prompts[:data]), tuple(reversed(prompts[len(prompts) - last :])), repeats)
    else:
        drawn = _sorted(prompts, data, last, repeats, uses, where, _and_more(others))
    return replace(drawn, evaluation=drawn.evaluation[:evaluation], development=drawn.evaluation[evaluation:])


def _and_more(others: Mapping[str, int]) -> str:
    return "".join(f", + {key}, {count}" for key, count in others.items())


def _sorted(
    prompts: Sequence[Prompt],
    data: int,
    evaluation: int,
    repeats: int,
    uses: Callable[[Prompt], Collection[Use]],
    where: str,
    more: str,
) -> DrawnPrompts:
    """As `draw`: from the front those that D can be made of, from the end those that can be evaluated on."""
    sorted_out = [(prompt, uses(prompt)) for prompt in prompts]
    first = [prompt for prompt, used in sorted_out if "data" in used][:data]
    taken = {prompt.id for prompt in first}
    last = [prompt for prompt, used in reversed(sorted_out) if "evaluation" in used and prompt.id not in taken]
    for found, wanted, what, key in (
        (first, data, "D can be made of", "data.size"),
        (last, evaluation, "can be evaluated on", f"sampling.prompts{more}"),
    ):
        if len(found) < wanted:
            raise SpecError(
                f"{where} has {len(found)} distinct prompts that {what}, of {len(prompts)}, but the spec needs "
                f"{wanted} ({key}, times the filter's candidates): lower it"
            )
    return DrawnPrompts(tuple(first), tuple(last[:evaluation]), repeats, sum(not used for _, used in sorted_out))


def _world_rows(name: str, seed: int) -> list[WorldRow]:
    found = worlds.world(name)
    return found.rows(found.size(), seed)


def _of_world(row: WorldRow) -> Prompt:
    """A row of a rehearsal world, as one of a file: its text, and all else as the payload."""
    column = next(name for name in TEXT_COLUMNS if name in row.fields)
    payload = {name: value for name, value in row.fields.items() if name != column and value is not None}
    return Prompt(row.id, str(row.fields[column]), payload)


def read_prompts(path: Path, source: PromptFile, prepare: Prepare = unprepared) -> list[Prompt]:
    """Read a file of prompts.

    Raises:
        SpecError: the line, the column or the id that is wrong, and what to do.
    """
    payload = True if source.payload is None else source.payload
    rows = with_system(read_table(path, "prompt file"), source.system, source.text)
    prompts = _prompts(rows, source.text, source.id, payload, prepare)
    if not prompts:
        raise SpecError(f"{path} is empty: a prompt file needs one prompt or more")
    return prompts


def with_system(rows: Iterable[TableRow], system: str | None, text: str | None) -> Iterable[TableRow]:
    """The rows, each with its prompt as a chat that begins with the system message of a column; None: as they are.

    Raises:
        SpecError: a row has no such column, no text in it, or a chat that begins with a system message already.
    """
    return rows if system is None else (_systemic(row, system, text) for row in rows)


def _systemic(row: TableRow, system: str, text: str | None) -> TableRow:
    column = text or next((name for name in TEXT_COLUMNS if name in row.values), None)
    said = row.values.get(system)
    if system not in row.values or not isinstance(said, str | None):
        there = ", ".join(map(str, row.values)) or "none"
        raise SpecError(f"{row.place} has no text in the column '{system}' for the system message (it has {there})")
    values = {name: value for name, value in row.values.items() if name != system}
    if column is None or column not in values or not (said or "").strip():
        return TableRow(row.number, row.place, values)
    prompt = values[column]
    chat = list(prompt) if isinstance(prompt, list | tuple) else [{"role": "user", "content": prompt}]
    if isinstance(prompt, str) and column == "instruction" and isinstance(extra := values.pop("input", None), str):
        chat[0]["content"] = joined(prompt, extra)
    return TableRow(row.number, row.place, {**values, column: [{"role": "system", "content": said}, *chat]})


def joined(instruction: str, extra: str) -> str:
    """Alpaca's two fields as one text, as the published runs joined them."""
    return f"{instruction}\n\nInput: {extra}" if extra.strip() else instruction


def _prompts(
    rows: Iterable[TableRow],
    text_column: str | None,
    id_column: str | None,
    payload: PayloadColumns,
    prepare: Prepare,
) -> list[Prompt]:
    prompts: list[Prompt] = []
    places: dict[str, TableRow] = {}
    for row in rows:
        prompt = prepared(prompt_of(row, text_column, id_column, payload), prepare, row.place)
        if prompt.id in places:
            raise SpecError(f"{row.place}: the id '{prompt.id}' stands at line {places[prompt.id].number} already")
        places[prompt.id] = row
        prompts.append(prompt)
    return prompts


def prepared(prompt: Prompt, prepare: Prepare, where: str) -> Prompt:
    """What a setting makes of a prompt.

    Raises:
        SpecError: it cannot; `where` is named.
    """
    try:
        return prepare(prompt)
    except KeyError as error:
        there = ", ".join(prompt.payload) or "nothing besides the prompt"
        raise SpecError(f"{where} has no {error.args[0]!r}, which the setting needs (it has {there})") from error
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from error


def prompt_of(
    row: TableRow,
    text_column: str | None,
    id_column: str | None,
    payload: PayloadColumns,
    used: Collection[str] = (),
) -> Prompt:
    """The prompt of one row.

    Args:
        row: the row.
        text_column: the column of the instruction, or of a chat that ends with it; None looks for `TEXT_COLUMNS`.
        id_column: the column of the id; None looks for `ID_COLUMNS`, and else takes the line.
        payload: which columns the prompt carries: all that are left, none, some, or some under other names.
        used: columns that are something else.

    Raises:
        SpecError: there is no such column, or what stands in it is no prompt, no id or no JSON.
    """
    values = row.values
    column = text_column or next((name for name in TEXT_COLUMNS if name in values), None)
    if column is None or column not in values:
        wanted = f"no column '{text_column}'" if text_column else f"none of the columns {', '.join(TEXT_COLUMNS)}"
        found = ", ".join(map(str, values)) or "none"
        raise SpecError(f"{row.place} has {wanted} (it has {found}): name it as  prompts: {{text: ...}}")
    turns, text = _chat(values[column], row, column)
    taken = {column, *used}
    extra = values.get("input")
    if column == "instruction" and isinstance(extra, str):
        taken.add("input")
        text = joined(text, extra)
    named = id_column or next((name for name in ID_COLUMNS if name in values), None)
    if named is not None and values.get(named) in (None, ""):
        raise SpecError(f"{row.place} has no value in the id column '{named}'")
    identifier = f"line-{row.number}" if named is None else str(values[named])
    return Prompt(identifier, text, _payload(row, payload, taken | {named or column}), turns)


def _chat(value: Any, row: TableRow, column: str) -> tuple[tuple[Message, ...], str]:
    """What was said before an instruction, and the instruction."""
    if isinstance(value, (list, tuple)):
        turns = chat_turns(value, f"{row.place}: the chat in '{column}'")
        if len(turns) > 1 and ends_with_answer(value):
            turns = turns[:-1]  # a row of a training set: what is asked is what was answered there
        if turns[-1].role != "user" or not turns[-1].content.strip():
            raise SpecError(f"{row.place}: the chat in '{column}' must end with a user message that is not empty")
        return turns[:-1], turns[-1].content
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"{row.place}: the prompt in '{column}' must be text that is not empty")
    return (), value


def ends_with_answer(value: object) -> bool:
    """Whether a column holds a chat whose last message is the assistant's, as training sets have them."""
    last = value[-1] if isinstance(value, list | tuple) and value else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def chat_turns(value: Iterable[Any], where: str) -> tuple[Message, ...]:
    """The messages of a chat as ``[{"role", "content"}, ...]``, one or more.

    Raises:
        SpecError: it is none.
    """
    turns: list[Message] = []
    for place, turn in enumerate(value, 1):
        if (
            not isinstance(turn, Mapping)
            or turn.get("role") not in ROLES
            or not isinstance(turn.get("content"), str)
            or (turn["role"] == "system" and place > 1)
        ):
            raise SpecError(
                f'{where}: message {place} must be {{"role": "user" or "assistant", "content": "..."}}; the first '
                'one may be "system"'
            )
        turns.append(Message(turn["role"], turn["content"]))
    if not turns:
        raise SpecError(f"{where} has no message")
    return tuple(turns)


def _payload(row: TableRow, wanted: PayloadColumns, taken: Collection[str]) -> Payload:
    values = row.values
    if isinstance(wanted, bool):
        columns = {name: name for name in values if name not in taken} if wanted else {}
    else:
        columns = {name: name for name in wanted} if isinstance(wanted, list) else wanted
        for column in columns.values():
            if column not in values:
                found = ", ".join(map(str, values)) or "none"
                raise SpecError(f"{row.place} has no column '{column}' for the payload (it has {found})")
    try:
        return Payload({name: values[column] for name, column in columns.items()})
    except ValueError as error:
        raise SpecError(f"{row.place}: {error}: leave it out as  payload: [the columns to keep]") from error
