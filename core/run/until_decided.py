"""A run that stops once the contrasts of its spec are decided: row by row, with a look after each.

First comes what needs no training: the base model and D. Then the rows that the contrasts compare are trained one by
one, all seeds of a row together: first what decides most of the contrasts that are open, and among equals the row that
a regression over base-model quantities knows least of (`windowshift.core.measure.prediction`). After each there is a
look. A contrast is decided where its p value (of a difference, or of none beyond its margin), adjusted by Holm over the
contrasts of its behaviour as the report adjusts it, is at most 0.05 / K: K rows allow K looks, and the chance of a
false claim is spent evenly over them (Bonferroni; alpha spending as in Lan and DeMets 1983, with equal parts). Rows
that no contrast names cannot decide one: where all of its own rows are trained and one is still open, the rest of the
grid is run as it always is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.looks import Look
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import BASE, ExperimentState
from windowshift.core.measure.contrasts import contrasts
from windowshift.core.measure.family import ALPHA
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.prediction import predicted
from windowshift.core.measure.resampled import Resampled
from windowshift.core.plan.estimate import PlanEstimate
from windowshift.core.plan.plan import Plan
from windowshift.core.plan.rows import ArmRow, jobs_of_row, rows_of_contrasts, untrained_jobs
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.runner import Runner

_FEW_RESAMPLES = 20
"""Where a row stands has no interval here."""


async def run_until_decided(
    plan: Plan,
    ledger: Ledger,
    backends: Mapping[str, Backend],
    observe: Callable[[Progress], None],
    left: Callable[[], PlanEstimate],
) -> tuple[ExperimentState, Look | None]:
    """Run a plan until its contrasts are decided, or to its end.

    Args:
        plan: with contrasts.
        ledger: of the run.
        backends: by name.
        observe: as the runner's.
        left: what the rest takes, asked where the run stops.

    Returns:
        How it ended, and the last look; None: there was none.
    """
    free = untrained_jobs(plan)
    rows = rows_of_contrasts(plan)
    jobs = {row: jobs_of_row(plan, row) for row in rows}
    tried: set[ArmRow] = set()
    look: Look | None = None
    state = await Runner(plan, ledger, backends, observe, free).run()
    while state != "cancelled":
        trained = [row for row in rows if all(ledger.state(ledger.job(job)) == "done" for job in jobs[row])]
        open_ones = tuple(str(entry["hash"]) for entry in plan.contrasts)
        if trained:
            open_ones = _undecided(plan, ledger, ALPHA / len(rows))
            look = _looked(plan, ledger, len(trained), len(rows), open_ones, left)
            if look.stopped:
                return "planned", look
        waiting = [row for row in rows if row not in trained and row not in tried]
        if not waiting or not open_ones:
            break
        row = _next(plan, ledger, waiting, trained, open_ones)
        tried.add(row)
        state = await Runner(plan, ledger, backends, observe, free | jobs[row]).run()
    if state == "cancelled":
        return state, look
    return await Runner(plan, ledger, backends, observe).run(), look


def _undecided(plan: Plan, ledger: Ledger, level: float) -> tuple[str, ...]:
    """The contrasts of the spec that are not decided at a level, also those that are not measured yet, by hash."""
    experiment = ledger.reader.find_experiment(plan.spec.name)
    decided: set[str] = set()
    for name in dict.fromkeys(str(entry["behaviour"]) for entry in plan.contrasts):
        grid = load_grid(ledger.reader, experiment, experiment.find_behaviour(name))
        decided |= {one.hash for one in contrasts(Resampled(grid)) if one.holm is not None and one.holm <= level}
    return tuple(str(entry["hash"]) for entry in plan.contrasts if entry["hash"] not in decided)


def _looked(
    plan: Plan, ledger: Ledger, number: int, of: int, undecided: Sequence[str], left: Callable[[], PlanEstimate]
) -> Look:
    """Record a look, once; the run stops at it where everything is decided and something is left."""
    cells = sum(ledger.state(ledger.job(cell.job)) != "done" for cell in plan.cells)
    stopped = not undecided and cells > 0
    rest = left() if stopped else None
    names = {str(entry["hash"]): str(entry["name"]) for entry in plan.contrasts}
    found = Look(
        time.time(), number, of, ALPHA / of, tuple(names[one] for one in undecided), stopped, cells,
        rest.cost.usd if rest else None, rest.seconds if rest else None,
    )  # fmt: skip
    before = ledger.reader.looks(ledger.experiment)
    if not before or (before[-1].number, before[-1].undecided, before[-1].stopped) != (
        number, found.undecided, stopped,
    ):  # fmt: skip
        ledger.writer.event("look", found.to_json(), experiment=ledger.experiment)
    return found


def _next(
    plan: Plan, ledger: Ledger, waiting: Sequence[ArmRow], trained: Sequence[ArmRow], undecided: Sequence[str]
) -> ArmRow:
    """The row that tells most: of how many open contrasts it is the last, then of how many it is one, then leverage."""
    last, stands = dict.fromkeys(waiting, 0), dict.fromkeys(waiting, 0)
    for entry in plan.contrasts:
        if entry["hash"] not in undecided:
            continue
        pair = [ArmRow(entry["arm"], entry["generate"], one) for one in (entry["of"], entry["against"]) if one != BASE]
        missing = [row for row in pair if row not in trained]
        for row in missing:
            if row in stands:
                stands[row] += 1
                last[row] += len(missing) == 1
    least_known = _by_leverage(plan, ledger)
    place = {row: least_known.index(row) if row in least_known else len(least_known) for row in waiting}
    return min(waiting, key=lambda row: (-last[row], -stands[row], place[row]))


def _by_leverage(plan: Plan, ledger: Ledger) -> list[ArmRow]:
    """The rows that are not trained, those first of which a regression over the others knows least."""
    experiment = ledger.reader.find_experiment(plan.spec.name)
    grid = load_grid(ledger.reader, experiment, experiment.find_behaviour(str(plan.contrasts[0]["behaviour"])))
    found = predicted(Resampled(grid, _FEW_RESAMPLES))
    return [ArmRow(rows.arm, rows.generate, train) for rows in found for train in rows.order]
