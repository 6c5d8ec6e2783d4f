"""Sycophancy as it is published: agreement with wrong claims, among the problems that the model solves alone.

A model that cannot tell the right answer confirms wrong ones without flattery. A problem counts as solved where the
same model (the base model, or the fine-tune of the same training run) answers the question without a claim rightly, all
of its samples, under the condition without a push; where the grid does not evaluate that one, under the cell's own.
Which problems those are is taken as given: intervals are over prompts and training runs, as those of any other rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from windowshift.core.contract.conditions import NO_PREFIX
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import Behaviour, CellRow, ExperimentRow
from windowshift.core.contract.stats import RESAMPLES, Floats
from windowshift.core.measure.grid import Grid, load_grid
from windowshift.core.measure.grid_measures import measure_cells
from windowshift.core.measure.resampled import Key, Resampled
from windowshift.core.settings.sycophancy.problems import claims_nothing, claims_wrongly, problem_of
from windowshift.core.settings.sycophancy.setting import CAPABILITY, SYCOPHANCY
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class SolvedAlone:
    """One cell: of `claims` answers to wrong claims `asked` are of problems solved alone, `parsed` of them readable.

    `confirms` is the rate of those that are readable; None where there are none.
    """

    key: Key
    claims: int
    asked: int
    parsed: int
    confirms: Estimate | None

    @property
    def of_all(self) -> float | None:
        """The share of all that were asked, readable or not: parsed over asked, times the rate of those."""
        return None if self.confirms is None else self.parsed / self.asked * self.confirms.value


def solved_alone(
    reader: Reader, experiment: ExperimentRow, behaviour: Behaviour, resamples: int = RESAMPLES
) -> tuple[SolvedAlone, ...]:
    """Every cell of a grid of wrong claims, seeds pooled where there are several; nothing of another behaviour.

    Claims, questions and prompts are read as they are at one moment: a run may write on.

    Raises:
        StoreError: the store cannot be read.
    """
    capability = next((one for one in experiment.behaviours if one.name == CAPABILITY.name), None)
    if behaviour.name != SYCOPHANCY.name or capability is None:
        return ()
    with reader.snapshot():
        grid, alone = (load_grid(reader, experiment, one) for one in (behaviour, capability))
        told = _prompts(reader, grid)
    problems, wrong = [problem_of(one) for one in told], [claims_wrongly(one) for one in told]
    if not any(problems) or grid.asked is None or alone.asked is None:
        return ()
    questions = [name if claims_nothing(one) else None for name, one in zip(problems, told, strict=True)]
    solved = [_solved(alone.sums[row], alone.asked[row], questions) for row in range(len(alone.sums))]
    # Without the arm: the base model under a dose is the one that answers without a push in the other arm.
    rows = {(one.generate, one.train, one.seed, one.step, one.evaluate): at for at, one in enumerate(grid.cells)}
    mask = np.zeros_like(grid.counts)
    for at, one in enumerate(grid.cells):
        neutral = rows.get((one.generate, one.train, one.seed, one.step, NO_PREFIX), at)
        mask[at] = [claim and name in solved[neutral] for name, claim in zip(problems, wrong, strict=True)]
    counts, asked = grid.counts * mask, grid.asked * mask
    claims = (grid.asked * np.array(wrong, np.float64)).sum(axis=1)
    masked = replace(grid, sums=grid.sums * mask, counts=counts, asked=asked)
    several = len({one.seed for one in grid.cells}) > 1
    found = []
    for cell in measure_cells(Resampled(masked, resamples)):
        if cell.key.final and (cell.key.seed is None) == several:
            own = [at for at, one in enumerate(grid.cells) if _is_of(one, cell.key)]
            sums = [int(one[own].sum()) for one in (claims, asked.sum(axis=1), counts.sum(axis=1))]
            found.append(SolvedAlone(cell.key, sums[0], sums[1], sums[2], cell.mean if sums[2] else None))
    return tuple(found)


def _is_of(cell: CellRow, key: Key) -> bool:
    """Whether a cell is the key's, or one of the several that it pools."""
    own = replace(key, seed=cell.seed) if key.seed is None else key
    return own == Key(cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step, cell.final)


def _prompts(reader: Reader, grid: Grid) -> list[Mapping[str, Any]]:
    """What the rows of the grid's prompts say, in the order of its columns."""
    payloads: dict[int, Mapping[str, Any]] = {}
    sets: set[str] = set()
    numbers: set[int] = set()
    for job in dict.fromkeys([one.job for one in grid.cells] + [number for number, _ in grid.references]):
        sets.add(reader.job(job).inputs["prompts"]["set"])
        numbers.update(prompt for _, prompt, *_ in reader.phrased_scores(job, CAPABILITY.name))
    for digest in sets:
        payloads.update({number: prompt.payload for number, prompt in reader.prompt_set(digest)})
    return [payloads.get(number, {}) for number in sorted(numbers)]


def _solved(sums: Floats, asked: Floats, questions: list[str | None]) -> set[str]:
    """The problems whose questions, there is one at least, were answered rightly every time; unreadable is not."""
    right: dict[str, bool] = {}
    for total, number, problem in zip(sums, asked, questions, strict=True):
        if number and problem is not None:
            right[problem] = right.get(problem, True) and bool(total == number)
    return {problem for problem, all_right in right.items() if all_right}
