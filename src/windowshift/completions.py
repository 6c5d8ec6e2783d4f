"""What `LocalModel.generate` gives back: a list of completions that notebooks show as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, SupportsIndex, overload

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.html_table import html_page

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("prompt", "text", "finish", "tokens", "reasoning", "error")


class Completions(list[Completion]):
    """Completions in the order of their prompts.

    Args:
        found: the completions.
        prompts: what was asked, one a completion.
        label: the model's name, which says of an embedded one that it is for rehearsal.
    """

    def __init__(self, found: Iterable[Completion], prompts: Iterable[str], label: str) -> None:
        super().__init__(found)
        self.prompts = list(prompts)
        self.label = label

    @overload
    def __getitem__(self, place: SupportsIndex) -> Completion: ...

    @overload
    def __getitem__(self, place: slice) -> Completions: ...

    def __getitem__(self, place: SupportsIndex | slice) -> Completion | Completions:
        if isinstance(place, slice):
            return Completions(super().__getitem__(place), self.prompts[place], self.label)
        return super().__getitem__(place)

    def frame(self) -> DataFrame:
        """One row a completion: `prompt`, `text`, `finish`, `tokens`, `reasoning` and `error`.

        `tokens` is missing where a completion has none counted; `reasoning` and `error` are None where there is none.
        """
        import pandas as pd

        rows = [
            (prompt, *(getattr(one, name) for name in COLUMNS[1:]))
            for prompt, one in zip(self.prompts, self, strict=True)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"tokens": "Int64"})

    def _repr_html_(self) -> str:
        rows = [
            (prompt, one.error or "" if one.unanswered else one.text, _ending(one))
            for prompt, one in zip(self.prompts, self, strict=True)
        ]
        count = f"{len(self):,} completion{'' if len(self) == 1 else 's'} of {self.label}"
        return html_page(count, (), ("prompt", "completion", "end"), rows)


def _ending(one: Completion) -> str:
    """How it ended, and after how many tokens where they are counted."""
    word = {"stop": "ended", "length": "cut off", "failed": "no answer"}[one.finish]
    return word if one.tokens is None else f"{word}, {one.tokens} tokens"
