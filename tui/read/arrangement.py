"""Which completions of a cell are listed, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from windowshift.core.store.reader import Reader
from windowshift.tui.read.cell_snapshot import IndexEntry
from windowshift.tui.read.pattern_search import find_rows
from windowshift.tui.read.row_filter import Compare, End, Pattern, RowFilter, Term, TextTerm

Sort = Literal["row", "score", "length", "text"]
SORTS: tuple[Sort, ...] = ("row", "score", "length", "text")
_WORDS: dict[Sort, tuple[str, str]] = {
    "row": ("by row", "by row, last first"),
    "score": ("by score, low first", "by score, high first"),
    "length": ("by length, short first", "by length, long first"),
    "text": ("by text, A to Z", "by text, Z to A"),
}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A filter and an order."""

    sort: Sort = "row"
    backwards: bool = False
    terms: RowFilter = ()

    @property
    def plain(self) -> bool:
        """Whether every row is listed, by number: nothing has to be read or sorted."""
        return self == Arrangement()

    @property
    def words(self) -> str:
        """The order as people read it."""
        return _WORDS[self.sort][self.backwards]

    @property
    def chips(self) -> tuple[str, ...]:
        """The terms as people read them."""
        return tuple(term.shown for term in self.terms)

    def next_sort(self) -> Arrangement:
        """Return the same filter in the next order, forwards."""
        return replace(self, sort=SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)], backwards=False)


def arrange(
    reader: Reader,
    job: int,
    entries: Sequence[IndexEntry],
    wanted: Arrangement,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Return the rows that pass the filter, in order. Runs in a worker thread.

    Args:
        reader: of the store.
        job: the number of the job whose completions they are.
        entries: the index of the cell.
        wanted: filter and order.
        cancelled: asked now and then; True ends the work early with what is there.

    Raises:
        FilterError: a regular expression takes too long.
        StoreError: the store cannot be read.
    """
    kept = {entry.row: entry for entry in entries}
    sizes: dict[int, tuple[int, int | None]] = {}
    if wanted.sort == "length" or any(isinstance(t, Compare) and t.field in ("len", "tokens") for t in wanted.terms):
        sizes = {row: (characters, tokens) for row, characters, tokens in reader.text_sizes(job)}
    # The cheap terms first: a regular expression then has less to add to.
    for term in sorted(wanted.terms, key=_cost):
        if cancelled():
            return []
        passed = _passing(reader, job, kept, sizes, term, cancelled)
        kept = {row: entry for row, entry in kept.items() if row in passed}
    return _ordered(reader, job, kept, sizes, wanted)


def _cost(term: Term) -> int:
    return (Compare, End, TextTerm, Pattern).index(type(term))


def _passing(
    reader: Reader,
    job: int,
    kept: dict[int, IndexEntry],
    sizes: dict[int, tuple[int, int | None]],
    term: Term,
    cancelled: Callable[[], bool],
) -> set[int] | frozenset[int]:
    if isinstance(term, End):
        return {row for row, entry in kept.items() if (entry.finish == term.finish) != term.other}
    if isinstance(term, Compare):
        return {row for row, entry in kept.items() if term.holds(_value(term, entry, sizes))}
    if isinstance(term, Pattern):
        found: set[int] | frozenset[int] = find_rows(reader.workspace, job, term, cancelled=cancelled)
    else:
        found = set()
        for completion in reader.iter_completions(job, ""):
            texts = (completion.text, completion.prompt, completion.phrase or "")
            if any(term.text in text.casefold() for text in texts):
                found.add(completion.row)
            if cancelled():
                break
    return set(kept) - found if term.without else found


def _value(term: Compare, entry: IndexEntry, sizes: dict[int, tuple[int, int | None]]) -> float | None:
    if term.field == "score":
        return entry.score
    if term.field == "row":
        return entry.row
    # A row that arrived after the sizes were read comes with the next reading.
    characters, tokens = sizes.get(entry.row, (None, None))
    return characters if term.field == "len" else tokens


def _ordered(
    reader: Reader, job: int, kept: dict[int, IndexEntry], sizes: dict[int, tuple[int, int | None]], wanted: Arrangement
) -> list[int]:
    if wanted.sort == "text":
        rows = [row for row in reader.rows_by_text(job) if row in kept]
        return rows[::-1] if wanted.backwards else rows
    if wanted.sort == "row":
        return sorted(kept, reverse=wanted.backwards)
    values: dict[int, float | None] = {row: entry.score for row, entry in kept.items()}
    if wanted.sort == "length":
        values = {row: sizes[row][0] if row in sizes else None for row in kept}
    known = {row: value for row, value in values.items() if value is not None}
    # Those without a value come last either way; equal ones stay in the order of their rows.
    return sorted(known, key=known.__getitem__, reverse=wanted.backwards) + [row for row in kept if row not in known]
