"""Inspect's tasks and scorers here: a task's samples as prompts, and what its scorer says as a behaviour.

A task's solver says what is asked: it is run up to where it asks the model, and what it would ask is the prompt. The
cell's model answers through its backend, under the cell's condition. To score, the solver is run again with that
answer in the model's place, so that what it does with an answer (choices, templates) is done, and then the scorer.
A solver that asks more than once, or with tools, is refused by name.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import math
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.setting import Sample, Score, Scores
from windowshift.core.settings.table_file import TableRow, find_file

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.dataset import Sample as InspectSample
    from inspect_ai.solver import TaskState

T = TypeVar("T")
SAMPLE = "inspect_sample"
"""The key of a prompt's payload that says which sample of a task it is."""
SECONDS = 120.0
_WORDS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


class _AsksError(Exception):
    """What a solver asks the model, in place of an answer."""

    def __init__(self, state: TaskState) -> None:
        self.state = state


@dataclass(frozen=True)
class InspectScorer:
    """One behaviour by a scorer of Inspect, or by that of a task; its values C, P and I are 1, 0.5 and 0.

    Attributes:
        name: the behaviour.
        behaviour: with its unit and scale.
        place: ``package/name``, or ``file.py@task``.
        folder: where the file is looked for first.
        args: of the task or the scorer, as JSON.
        target: the payload's column of what is right, for prompts that are not the task's own.
        key: which of several values is meant.
    """

    name: str
    behaviour: Behaviour
    place: str
    folder: str
    args: str = "{}"
    target: str = "target"
    key: str | None = None
    timeout: float = SECONDS
    batch_size: int = 8
    workers: int = 1
    process: bool = False  # Inspect's scorers are coroutines, and end at a time limit
    version: str = field(default="")

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The one."""
        return (self.behaviour,)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`: the scorer by name and version, and what it is told."""
        found = {"scorer": "inspect", "version": 1, "name": self.name, "place": self.place, "package": self.version}
        return {**found, "args": json.loads(self.args), "target": self.target, "key": self.key}

    async def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
        """Score some completions, one after the other."""
        return [{self.name: await self._one(sample)} for sample in samples]

    async def _one(self, sample: Sample) -> Score:
        from inspect_ai.scorer import Target

        state, scorer = await self._answered(sample)
        found = await scorer(state, Target(state.target.target))
        if found is None:
            return Score(None, f"{self.place} gave no score")
        kept = {"answer": found.answer, "explanation": found.explanation}
        evidence = {name: value for name, value in kept.items() if value} or None
        return Score(*self._read(found.value), evidence)

    async def _answered(self, sample: Sample) -> tuple[TaskState, Callable[..., Any]]:
        task, scorer = _found(self.place, self.folder, self.args)
        number = sample.prompt.payload.get(SAMPLE)
        if task is not None and isinstance(number, int) and sample.prompt.payload.get("inspect_task") == self.place:
            state = await _solved(task, task.dataset[number], self.place, sample.completion)
        else:
            target = sample.prompt.payload.get(self.target)
            if target is not None and not isinstance(target, str | int | float | list):
                raise ValueError(f"the payload's '{self.target}' is no text")
            state = _plain(sample, "" if target is None else target)
        return state, scorer

    def _read(self, value: object) -> tuple[float | None, str | None]:
        if isinstance(value, dict):
            if self.key not in value:
                there = ", ".join(map(str, value))
                return None, f"{self.place} gave several values ({there}): name the one that is meant as  key: ..."
            value = value[self.key]
        number = _number(value)
        return (None, f"{self.place} gave {value!r}, which is no number"[:200]) if number is None else (number, None)


def _number(value: object) -> float | None:
    """A value of Inspect's as a score; None: it is no finite number, and none of its words."""
    if isinstance(value, str):
        word = _WORDS.get(value, _WORDS.get(value.lower()))
        try:
            value = float(value) if word is None else word
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def load_inspect_scorer(
    place: str,
    behaviour: Behaviour,
    where: str,
    folder: Path,
    *,
    args: Mapping[str, Any],
    target: str,
    key: str | None,
    timeout: float | None,
) -> InspectScorer:
    """Find a task or a scorer of Inspect.

    Raises:
        SpecError: there is none of that name, or it cannot be made with these arguments.
        MissingExtraError: Inspect is not installed.
    """
    text = json.dumps(dict(args), sort_keys=True)
    try:
        _found(place, str(folder), text)
    except SpecError as error:
        raise SpecError(f"{where}.inspect: {error}") from error
    return InspectScorer(
        behaviour.name, behaviour, place, str(folder), text, target, key, timeout or SECONDS, version=_version(place)
    )


def read_task_rows(place: str, args: Mapping[str, Any], rows: int | None, folder: Path) -> Iterator[TableRow]:
    """The samples of a task as rows: `messages`, `id`, and target, choices and metadata beside them.

    Raises:
        SpecError: there is no such task, its solver asks what cannot be asked here, or a sample is not text.
        MissingExtraError: Inspect is not installed.
    """
    task, _ = _found(place, str(folder), json.dumps(dict(args), sort_keys=True))
    if task is None:
        raise SpecError(f"prompts.inspect: {place} is a scorer, which has no samples: name a task")
    samples = list(task.dataset)[:rows]
    asked = _apart(lambda: _all_asked(task, samples, place))
    for number, (sample, messages) in enumerate(zip(samples, asked, strict=True)):
        values = {
            "id": str(sample.id if sample.id is not None else number + 1),
            "messages": messages,
            "target": sample.target,
            "choices": sample.choices,
            "metadata": _plain_json(sample.metadata),
            "inspect_task": place,
            SAMPLE: number,
        }
        yield TableRow(number + 1, f"{place} sample {values['id']}", {k: v for k, v in values.items() if v is not None})


async def _all_asked(task: Task, samples: Sequence[InspectSample], place: str) -> list[list[dict[str, str]]]:
    return [_texts(await _solved(task, sample, place, None), place) for sample in samples]


async def _solved(task: Task, sample: InspectSample, place: str, answer: Completion | None) -> TaskState:
    """The state where the solver asks (`answer` is None), or once it has made what it makes of an answer."""
    from inspect_ai.solver import Generate, Solver, chain

    state = _state(sample.input, sample.target, sample.id, sample.choices, dict(sample.metadata or {}))
    given = 0

    async def generate(state: TaskState, *_: Any, **__: Any) -> TaskState:
        nonlocal given
        if answer is None:
            raise _AsksError(state)
        if given:
            raise ValueError(f"{place} asks the model more than once for a sample, which is not done here")
        given += 1
        return _with_answer(state, answer)

    asks: Generate = generate
    try:
        for solver in (task.setup, task.solver):
            if solver is not None:
                state = await (solver if isinstance(solver, Solver) else chain(*solver))(state, asks)
    except _AsksError as error:
        return error.state
    if answer is None:
        raise SpecError(f"{place}: its solver never asks the model")
    return state


def _state(asked: Any, target: Any, number: Any, choices: Any, metadata: dict[str, Any]) -> TaskState:
    from inspect_ai.model import ChatMessageUser, ModelName
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    messages = [ChatMessageUser(content=asked)] if isinstance(asked, str) else list(asked)
    wanted = [str(one) for one in target] if isinstance(target, list) else str(target)
    name = ModelName("windowshift/cell")
    return TaskState(name, number or 0, 1, asked, messages, Target(wanted), choices, metadata=metadata)


def _with_answer(state: TaskState, answer: Completion) -> TaskState:
    from inspect_ai.model import ModelOutput

    state.output = ModelOutput.from_content(
        "windowshift/cell", answer.text, "max_tokens" if answer.finish == "length" else "stop"
    )
    state.messages.append(state.output.message)
    return state


def _plain(sample: Sample, target: Any) -> TaskState:
    """The state of a sample whose prompt is no task's."""
    from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    messages: list[ChatMessage] = [kinds[turn.role](content=turn.content) for turn in sample.prompt.messages]
    choices = sample.prompt.payload.get("choices")
    metadata = {name: sample.prompt.payload[name] for name in sample.prompt.payload}
    asked = messages if sample.prompt.turns else sample.prompt.text
    listed = [str(one) for one in choices] if isinstance(choices, list) else None
    return _with_answer(_state(asked, target, sample.prompt.id, listed, metadata), sample.completion)


def _texts(state: TaskState, place: str) -> list[dict[str, str]]:
    if state.tools:
        raise SpecError(f"{place}: its solver gives the model tools, which no cell can be asked with")
    turns = []
    for message in state.messages:
        if not isinstance(message.content, str) and any(part.type != "text" for part in message.content):
            raise SpecError(f"{place}: a sample holds more than text")
        turns.append({"role": message.role, "content": message.text})
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    return [*([{"role": "system", "content": "\n\n".join(systems)}] if systems else []), *rest]


def _plain_json(metadata: Mapping[str, Any] | None) -> Any:
    try:
        return json.loads(json.dumps(metadata)) if metadata else None
    except (TypeError, ValueError):
        return None  # what is no JSON stays with the task, which the scorer asks


@lru_cache(maxsize=16)
def _found(place: str, folder: str, args: str) -> tuple[Task | None, Callable[..., Any]]:
    """A task with its first scorer, or a scorer alone."""
    try:
        from inspect_ai._eval.loader import load_tasks
        from inspect_ai._util.registry import registry_create, registry_lookup
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"inspect: {place}", "inspect", error.name or "inspect_ai") from error
    given = json.loads(args)
    file, at, name = place.partition("@")
    try:
        if at or file.endswith(".py"):
            path = find_file(file, Path(folder)).resolve()
            if not path.is_file():
                raise SpecError(f"there is no file {path}")
            tasks = load_tasks([f"{path}@{name}" if name else str(path)], given)
        elif registry_lookup("task", place) is not None:
            tasks = load_tasks([place], given)
        elif registry_lookup("scorer", place) is not None:
            made: Any = registry_create("scorer", place, **given)
            return None, made
        else:
            raise SpecError(
                f"no installed package has a task or scorer '{place}': write it as package/name, or as file.py@task"
            )
    except SpecError:
        raise
    except Exception as error:  # a task is a person's own code
        raise SpecError(f"{place} cannot be made: {type(error).__name__}: {error}") from error
    if len(tasks) != 1:
        raise SpecError(f"{place} has {len(tasks)} tasks: name one as  file.py@task")
    scorers = tasks[0].scorer or []
    if not scorers:
        raise SpecError(f"{place} has no scorer")
    first: Any = scorers[0]
    return tasks[0], first


def _version(place: str) -> str:
    package = place.partition("/")[0].replace("_", "-")
    found = [f"inspect-ai {importlib.metadata.version('inspect-ai')}"]
    if package not in ("inspect-ai", "") and "@" not in place and "/" in place:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(package)
    return ", ".join(found)


def _apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own: the caller may stand in one."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work()))
        except BaseException as error:  # raised again where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        if isinstance(failed[0], SpecError) or not isinstance(failed[0], Exception):
            raise failed[0]
        raise SpecError(f"the task's solver failed: {type(failed[0]).__name__}: {failed[0]}") from failed[0]
    return found[0]
