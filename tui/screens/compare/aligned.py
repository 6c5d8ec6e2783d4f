"""The same prompt's completions of several rows, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.records import Behaviour, CellRow, CompletionRow
from windowshift.core.store.reader import Reader
from windowshift.tui.read.cell_snapshot import find_base
from windowshift.tui.read.pins import variant
from windowshift.tui.read.snapshot import CellKey, ExperimentView, behaviour_of, read_experiment, trained_seeds
from windowshift.tui.text.word_diff import Marked, word_diff


@dataclass(frozen=True, slots=True)
class Beside:
    """What one row answered: the eval condition, the completion (None: not there yet), its words marked."""

    key: CellKey
    completion: CompletionRow | None
    marked: Marked | None = None


@dataclass(frozen=True, slots=True)
class BesideSnapshot:
    """One prompt under one eval condition; `count` prompts can be shown, this is number `position`.

    `seeds` counts the training runs that the measures of a row pool.
    """

    experiment: ExperimentView
    behaviour: Behaviour
    evaluates: tuple[str, ...]
    evaluate: str
    position: int
    count: int
    columns: tuple[Beside, ...]
    seeds: int = 1

    @property
    def cells_done(self) -> int:
        """How many cells of the experiment are done: measures are taken anew when there are more."""
        return self.experiment.row.cells_done


@dataclass(frozen=True, slots=True)
class BesideChoice:
    """What to read: pinned cells, behaviour, eval condition (None: the first pin's), prompt, words marked or not."""

    pinned: tuple[CellKey, ...]
    behaviour: str | None
    evaluate: str | None
    position: int
    diff: bool


def read_beside(reader: Reader, name: str, choice: BesideChoice) -> BesideSnapshot | None:
    """Return one prompt's completions; None where the experiment is not there.

    A row of another arm may not have the chosen eval condition: it shows the one that is matched to it, else
    the one at the same place of its own order, from the lowest mean of the base model to the highest.
    """
    view = read_experiment(reader, name)
    if view is None or not choice.pinned:
        return None
    behaviour = behaviour_of(view.row, choice.behaviour)
    cells = reader.cells(view.row.id, behaviour.name)
    rows = [_row(cells, key) for key in choice.pinned]
    evaluates = tuple(rows[0])
    wanted = choice.evaluate if choice.evaluate is not None else choice.pinned[0].evaluate
    evaluate = wanted if wanted in evaluates else next(iter(evaluates), "")
    place = evaluates.index(evaluate) if evaluate in evaluates else 0
    matched = _counterpart(view.row.conditions.get("evaluate", []), evaluate)
    chosen = [row.get(evaluate) or row.get(matched) or _at(row, place) for row in rows]
    first = chosen[0]
    count = first.done if first else 0
    position = max(0, min(choice.position, count - 1))
    found = reader.completions(first.job, behaviour.name, first=position, limit=1) if first else []
    own = found[0] if found else None
    columns = [Beside(_key(first, choice.pinned[0]), own)]
    for key, cell in zip(choice.pinned[1:], chosen[1:], strict=True):
        other = reader.completion_of_prompt(cell.job, own.prompt_id, behaviour.name) if cell and own else None
        marked = None
        if choice.diff and own and other:
            marked = word_diff(own.text, other.text)[1]
        columns.append(Beside(_key(cell, key), other, marked))
    return BesideSnapshot(view, behaviour, evaluates, evaluate, position, count, tuple(columns), trained_seeds(cells))


def _counterpart(conditions: Sequence[Mapping[str, Any]], evaluate: str) -> str:
    """The dose that is matched to a prefix group, or the group that a dose is matched to; else nothing."""
    for entry in conditions:
        match = entry.get("match") if entry.get("prefix") is None else None
        if match and evaluate in (match, entry["name"]):
            return str(entry["name"] if evaluate == match else match)
    return ""


def _row(cells: Sequence[CellRow], key: CellKey) -> dict[str, CellRow]:
    """The final cells of a pinned row, by eval condition, in the order of the base model's means."""
    own = [
        cell
        for cell in cells
        if cell.final and cell.seed == key.seed and (cell.arm, cell.generate, cell.train) == variant(key)
    ]

    def base_mean(cell: CellRow) -> float:
        base = find_base(cells, _key(cell, key))
        known = base.summary.mean if base and base.summary else None
        return float("inf") if known is None else known

    return {cell.evaluate: cell for cell in sorted(own, key=base_mean)}


def _at(row: dict[str, CellRow], place: int) -> CellRow | None:
    cells = list(row.values())
    return cells[min(place, len(cells) - 1)] if cells else None


def _key(cell: CellRow | None, pinned: CellKey) -> CellKey:
    if cell is None:
        return pinned
    return CellKey(cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step)


def title(keys: Sequence[CellKey], key: CellKey) -> str:
    """Return a pinned row's name, as long as it takes to tell it from the others."""
    alike = [one for one in keys if one.train == key.train and one.arm != key.arm]
    name = f"{key.arm}: {key.train}" if alike else key.train
    if len({one.generate for one in keys}) > 1:
        name += f" on {key.generate}"
    return name
