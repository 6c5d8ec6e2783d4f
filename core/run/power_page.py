"""What `windowshift plan --power` shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.estimate import ONE_RUN
from windowshift.core.contract.records import BASE, ExperimentRow, primary_of
from windowshift.core.measure.grid import Grid, load_grid
from windowshift.core.measure.power import SHIPPED, Power, Variances, power, seeds_for, variances
from windowshift.core.measure.preflight_gates import piloted_grid
from windowshift.core.plan.plan import Plan
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader

MOST_PILOTS = 5


@dataclass(frozen=True, slots=True)
class PowerPage:
    """What a plan's seeds and prompts can see.

    `wanted` is an effect that a person asked for, with the seeds that would see it at each noise between runs.
    """

    unit: str
    seeds: int
    prompts: int
    found: Variances
    rows: tuple[Power, ...]
    wanted: float | None
    needed: tuple[int | None, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def power_page(plan: Plan, workspace: Path, wanted: float | None = None) -> PowerPage:
    """Work it out from earlier experiments of the same setting and model in a workspace, else from shipped variances.

    Raises:
        SpecError: there is neither: shipped ones are of lengths alone; or the wanted effect is not above 0.
    """
    if wanted is not None and not 0 < wanted < math.inf:
        raise SpecError("--effect is a size above 0, on the scale that uplifts have in the report")
    behaviour = primary_of([one for scorer in plan.scorers for one in scorer.behaviours])
    found = _pilots(plan, behaviour.name, workspace)
    if found is None:
        if behaviour.scale.kind != "ratio":
            raise SpecError(
                f"no finished experiment of the setting '{plan.setting.name}' on {plan.model.label} is in {workspace}, "
                "and the shipped variances are of lengths: run a pilot of 2 seeds and 32 prompts first"
            )
        found = SHIPPED
    seeds, prompts = len(plan.spec.seeds), plan.spec.sampling.prompts
    rows = power(found, seeds, prompts)
    needed = tuple(seeds_for(found, one.run, wanted, prompts) for one in rows) if wanted is not None else ()
    return PowerPage(behaviour.scale.words.link, seeds, prompts, found, rows, wanted, needed)


def _pilots(plan: Plan, behaviour: str, workspace: Path) -> Variances | None:
    if not store_path(workspace).is_file():
        return None
    with closing(Reader(workspace)) as reader:
        alike = [
            one
            for one in reader.experiments()
            if one.setting == plan.setting.name
            and one.model == plan.model.label
            and any(known.name == behaviour for known in one.behaviours)
        ]
        loaded = [(one.name, _loaded(reader, one, behaviour)) for one in alike[:MOST_PILOTS]]
    return variances(loaded)


def _loaded(reader: Reader, experiment: ExperimentRow, behaviour: str) -> Grid:
    """An experiment's grid; that of its pilot where only this was trained."""
    measured = experiment.find_behaviour(behaviour)
    grid = load_grid(reader, experiment, measured)
    flown = [one for one in reader.preflights(experiment.id) if one.rows]
    if not flown or any(cell.state == "done" and cell.train != BASE for cell in grid.cells):
        return grid
    last = flown[-1]
    samples = max((int(reader.job(cell.job).inputs.get("samples") or 1) for cell in grid.cells), default=1)
    seeds = list(dict.fromkeys(cell.seed for cell in grid.cells))[: last.seeds]
    return piloted_grid(reader, experiment, measured, seeds, last.rows, last.prompts * samples)


def power_lines(page: PowerPage) -> Iterator[str]:
    """As lines."""
    grid = f"{page.seeds} seed{'' if page.seeds == 1 else 's'} × {page.prompts} prompts"
    yield f"power: what {grid} can see 80 times of 100, of a row's average uplift ({page.unit})"
    yield f"  from {page.found.source}: sd of a prompt {page.found.prompt:.2f}" + (
        f", of training runs {page.found.run:.3f}" if page.found.run is not None else "; of training runs unknown"
    )
    for number, one in enumerate(page.rows):
        more = ", ".join(f"{seeds} × {prompts}: {effect:.2f}" for seeds, prompts, effect in one.more)
        upper = (
            f", below which it is at 80 % ({page.found.degrees} degrees of freedom)" if _is_upper(page, number) else ""
        )
        yield f"  runs' sd {one.run:.2f}{upper}: an effect of {one.effect:.2f} or more ({more})"
    if page.wanted is not None:
        for one, seeds in zip(page.rows, page.needed, strict=True):
            said = "more than 64 seeds" if seeds is None else f"{seeds} seed{'' if seeds == 1 else 's'}"
            yield f"  to see {page.wanted:g} at a runs' sd of {one.run:.2f}: {said} × {page.prompts} prompts"
    if page.seeds == 1:
        yield f"  with one seed: {ONE_RUN}; a difference that is seen may be one between runs"


def _is_upper(page: PowerPage, number: int) -> bool:
    """Whether a row is of the limit that few runs leave, and not of their estimate."""
    return page.found.upper is not None and number == 1
