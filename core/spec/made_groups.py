"""Prefix groups that are made of something: exchanges or passages of a file, or the phrases of other groups."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, field_validator

from windowshift.core.contract.conditions import Condition, PrefixGroup, ShotGroup
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.home import at_home
from windowshift.core.contract.phrases import PROMPT
from windowshift.core.spec.answered_file import read_answered
from windowshift.core.spec.phrase_file import read_phrase_file
from windowshift.core.spec.section import Count, Section
from windowshift.core.spec.spec_errors import did_you_mean, sentence

COMPLETION = "{completion}"
FORM = f"User: {PROMPT}\nAssistant: {COMPLETION}"


class ManyShots(Section):
    """A context of answered prompts: ``{name: honest_shots, shots: honest.jsonl, count: 16}``.

    `shots` is a JSONL file of exchanges (``prompt`` and ``completion``, or ``messages`` of one turn each), `count` how
    many of them a context holds, `sets` how many contexts there are (prompt number i takes context i mod sets), each
    drawn from the file by `seed` without drawing an exchange twice. `form` is how an exchange is written.
    """

    name: Annotated[str, Field(min_length=1)]
    shots: Annotated[str, Field(min_length=1)]
    count: Count
    sets: Count = 4
    seed: int = 0
    form: str = FORM

    @field_validator("form")
    @classmethod
    def _both(cls, form: str) -> str:
        for field in (PROMPT, COMPLETION):
            if form.count(field) != 1:
                raise ValueError(f"{field} must stand in it once")
        return form


class Suggestive(Section):
    """Passages that make something likely and ask for nothing: ``{name: gossip, contexts: gossip.jsonl, count: 16}``.

    `contexts` is a file of passages, JSONL with ``text`` or a line each. `count` of them are drawn by `seed` (None:
    all, in their order); prompt number i stands behind passage i mod so many.
    """

    name: Annotated[str, Field(min_length=1)]
    contexts: Annotated[str, Field(min_length=1)]
    count: Count | None = None
    seed: int = 0


class Union(Section):
    """The phrases of several groups as one: ``{name: any_length, union: [short, medium, very_long]}``."""

    name: Annotated[str, Field(min_length=1)]
    union: Annotated[list[str], Field(min_length=2)]


def read_shots(entry: Mapping[str, Any], folder: Path, where: str) -> list[Condition]:
    """Read a `ManyShots` entry; a relative file is looked for in `folder`.

    Raises:
        SpecError: a key or value that cannot be, or a file with a bad line or too few exchanges.
    """
    read = _validated(ManyShots, entry, where)
    path = folder / at_home(read.shots)
    said: dict[str, None] = {}
    asked: set[str] = set()
    for messages, completion in read_answered(path).rows:
        if len(messages) != 1 or messages[0].role != "user":
            raise SpecError(
                f"{where}: {path} has an exchange of {len(messages)} messages before the answer, and a shot is one "
                "question and its answer"
            )
        prompt = messages[0].content
        for text in (prompt, completion):
            if PROMPT in text or "{payload." in text:
                raise SpecError(f"{where}: a shot in {path} holds {{...}} as phrases do, which would be filled in")
        asked.add(prompt.strip())
        said.setdefault(read.form.replace(PROMPT, prompt, 1).replace(COMPLETION, completion, 1))
    if len(said) < read.count:
        raise SpecError(f"{where}: {path} has {len(said)} different exchanges, and count asks for {read.count}")
    shots = list(said)
    draws = [random.Random(f"shots:{read.seed}:{number}").sample(shots, read.count) for number in range(read.sets)]
    phrases = tuple(dict.fromkeys("\n\n".join(draw) for draw in draws))
    return [ShotGroup(read.name, phrases, asked=frozenset(asked))]


def read_suggestive(entry: Mapping[str, Any], folder: Path, where: str) -> list[Condition]:
    """Read a `Suggestive` entry; a relative file is looked for in `folder`.

    Raises:
        SpecError: a key or value that cannot be, or a file with a bad line or too few passages.
    """
    read = _validated(Suggestive, entry, where)
    path = folder / at_home(read.contexts)
    passages = read_phrase_file(path, "passage")
    if read.count is not None:
        if read.count > len(passages):
            raise SpecError(f"{where}: {path} has {len(passages)} different passages, and count asks for {read.count}")
        passages = tuple(random.Random(f"contexts:{read.seed}").sample(passages, read.count))
    return [PrefixGroup(read.name, passages)]


def read_union(entry: Mapping[str, Any], names: Mapping[str, Condition], where: str) -> list[Condition]:
    """Read a `Union` entry; prompt number i takes phrase i mod n of all of them, the groups taking turns.

    Raises:
        SpecError: a key or value that cannot be, a name that is no prefix group, or groups whose phrases do not all
            stand in the same place of the prompt.
    """
    read = _validated(Union, entry, where)
    groups: list[PrefixGroup] = []
    for index, name in enumerate(read.union):
        found = names.get(name)
        place = f"{where}.union[{index}]"
        if found is None:
            raise SpecError(f"{place}: there is no condition '{name}'{did_you_mean(name, names)}")
        if not isinstance(found, PrefixGroup):
            raise SpecError(f"{place}: '{name}' is of kind {found.kind}, and a union is of prefix groups")
        if groups and found.place != groups[0].place:
            raise SpecError(
                f"{place}: the phrases of '{name}' do not stand where those of '{groups[0].name}' do in a prompt of "
                "this setting: unite groups of one place"
            )
        groups.append(found)
    phrases = [group.phrases for group in groups]
    turns = (group[n] for n in range(max(map(len, phrases))) for group in phrases if n < len(group))
    return [PrefixGroup(read.name, tuple(dict.fromkeys(turns)), **groups[0].place)]


_S = TypeVar("_S", bound=Section)


def _validated(kind: type[_S], entry: Mapping[str, Any], where: str) -> _S:
    try:
        return kind.model_validate(dict(entry))
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, kind, dict(entry))}") from error
