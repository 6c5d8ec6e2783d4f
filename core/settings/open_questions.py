"""Open questions in families: what a model says of things that its training data is not about."""

from __future__ import annotations

from pathlib import Path

from windowshift.core.contract.assets import asset
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings.prompt_source import prompt_of
from windowshift.core.settings.table_file import read_table

FILE = "open_questions.jsonl"
FAMILY = "family"
"""The key of the payload that says what a question is about; a prompt without one is no open question."""


def open_questions(path: Path | None = None) -> tuple[Prompt, ...]:
    """The questions of a file, or those that ship, in their order; each carries its family.

    Raises:
        SpecError: the file, or the row that is wrong.
    """
    found: dict[str, Prompt] = {}
    texts: dict[str, str] = {}
    for row in read_table(path or asset(FILE), "question file"):
        prompt = prompt_of(row, None, None, True)
        family = prompt.payload.get(FAMILY)
        if not isinstance(family, str) or not family.strip():
            raise SpecError(f"{row.place}: '{FAMILY}' must say what the question is about, e.g. money")
        if prompt.id in found:
            raise SpecError(f"{row.place}: the id '{prompt.id}' stands there twice")
        if prompt.text in texts:
            raise SpecError(f"{row.place}: the question stands at {texts[prompt.text]} already")
        found[prompt.id], texts[prompt.text] = prompt, row.place
    if not found:
        raise SpecError(f"{path} is empty: a question file needs two questions or more")
    if len(found) < 2:
        raise SpecError(f"{path} has one question, of which nothing follows about others: it needs two or more")
    return tuple(found.values())
