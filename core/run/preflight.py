"""The preflight of a run: its pilot, the gates, and what is recorded of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.gates import Gate, Preflight
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import ExperimentState
from windowshift.core.measure.preflight_gates import PowerWanted, preflight_gates, training_gates
from windowshift.core.plan.pilot import Pilot
from windowshift.core.plan.plan import Plan
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.piloting import Piloting
from windowshift.core.run.runner import Runner


async def fly(
    plan: Plan,
    pilot: Pilot,
    ledger: Ledger,
    backends: Mapping[str, Backend],
    observe: Callable[[Progress], None],
    *,
    anyway: bool,
) -> tuple[Preflight | None, ExperimentState]:
    """Run a pilot, as far as it is not there yet, and look at its gates.

    One that trains does so once the gates on the base model let it, and looks again. What it came to is recorded, once;
    so is that a person had the run go on. That holds for the same gates in later runs too.

    Returns:
        What it came to, None where the run was cancelled meanwhile; and how the pilot's own jobs ended.
    """
    state, jobs = await _step(plan, pilot.jobs, pilot.rows, ledger, backends, observe)
    if state == "cancelled":
        return None, state
    experiment = ledger.reader.find_experiment(plan.spec.name)
    scored: dict[int, list[str]] = {}
    for job in plan.jobs:
        if job.kind == "score":
            names = [behaviour.name for behaviour in plan.scoring[job.id].behaviours]
            scored.setdefault(ledger.numbers[job.parents[0]], []).extend(names)
    gates = preflight_gates(
        ledger.reader,
        experiment,
        pilot.seeds,
        pilot.prompts,
        plan.spec.sampling.samples,
        lambda number: scored.get(number, ()),
    )
    before = ledger.reader.preflights(ledger.experiment)
    allowed = {gate.name for one in before if one.anyway for gate in one.failed}

    def judged(gates: Sequence[Gate], rows: tuple[tuple[str, str, str], ...] = ()) -> Preflight:
        failed = [gate.name for gate in gates if not gate.passed]
        over = bool(failed) and (anyway or allowed.issuperset(failed))
        return Preflight(time.time(), len(pilot.seeds), pilot.prompts, tuple(gates), over, rows)

    found = judged((jobs, *gates))
    training = pilot.training
    if training is not None and (found.anyway or not found.failed):
        state, further = await _step(plan, training.jobs, training.rows, ledger, backends, observe)
        if state == "cancelled":
            return None, state
        sampling, seeds = plan.spec.sampling, len(plan.spec.seeds)
        effect = plan.spec.preflight.effect if plan.spec.preflight else None
        trained = training_gates(
            ledger.reader, experiment, pilot.seeds, training.trained, pilot.prompts * sampling.samples,
            PowerWanted(seeds, sampling.prompts, effect), lambda number: scored.get(number, ()),
        )  # fmt: skip
        # What was looked at again, with the trainings, stands once.
        again = {gate.name for gate in trained}
        kept = (gate for gate in (*(() if jobs.passed else (jobs,)), *gates) if gate.name not in again)
        found = judged((*([further] if jobs.passed else []), *kept, *trained), training.trained)
    if not before or (before[-1].gates, before[-1].anyway) != (found.gates, found.anyway):
        ledger.writer.event("preflight", found.to_json(), experiment=ledger.experiment)
    return found, state


async def _step(
    plan: Plan,
    some: frozenset[str],
    rows: Mapping[str, int],
    ledger: Ledger,
    backends: Mapping[str, Backend],
    observe: Callable[[Progress], None],
) -> tuple[ExperimentState, Gate]:
    """Run some jobs as far as a pilot goes; how that ended, and whether they did what they should."""
    ledger.pilot = Piloting(rows)
    try:
        state = await Runner(plan, ledger, backends, observe, some).run()
    finally:
        ended, ledger.pilot = ledger.pilot, Piloting()
    return state, _jobs(some, ledger, ended)


def _jobs(some: frozenset[str], ledger: Ledger, ended: Piloting) -> Gate:
    """Whether the pilot's jobs did what they should."""
    jobs = [job for job in ledger.plan.jobs if job.id in some]
    left = [job for job in jobs if ledger.state(job) != "done" and job.id not in ended.ended]
    if not left:
        return Gate("jobs", True, f"all {len(jobs)} jobs of the pilot did what they should")
    failed = [job for job in left if ledger.state(job) == "failed"]
    first = (failed or left)[0]
    why = ledger.reader.job(ledger.number(first)).error or "it did not begin"
    return Gate("jobs", False, f"{len(left)} of the pilot's {len(jobs)} jobs did not end, e.g. '{first.label}': {why}")


def stopped_by(found: Preflight) -> str:
    """Why a run ends here, and what to do, in one sentence."""
    gates = "; ".join(f"{gate.name}: {gate.said}" for gate in found.failed)
    return f"stopped by its preflight, {when_stopped(found)}: {gates}. To go on all the same: run --anyway"


def when_stopped(found: Preflight) -> str:
    """How far a run had come that its preflight stopped."""
    return "before the rest was trained" if found.rows else "before anything was trained"
