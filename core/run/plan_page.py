"""What `windowshift plan` shows: jobs, tokens, money and time, by kind and in all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from windowshift.core.contract.budget import dollars
from windowshift.core.contract.looks import Look
from windowshift.core.plan.cost import Cost
from windowshift.core.plan.estimate import PlanEstimate
from windowshift.core.plan.pilot import pilot_of
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import Preview


def plan_json(found: Preview) -> dict[str, Any]:
    """As JSON."""
    plan, left = found.plan, found.estimate
    return {
        "experiment": plan.spec.name,
        "model": plan.model.label,
        "rehearsal": plan.model.rehearsal,
        "jobs": {kind: {"done": done, "total": total} for kind, (done, total) in left.jobs.items()},
        "cells": len(plan.cells),
        "guards": [
            {"guard": one.name, "prompts": len(one.prompts), "cells": _guarded(plan, one.name)} for one in plan.guards
        ],
        "completions": left.completions,
        "examples": left.examples,
        "seconds": left.seconds,
        "usd": left.usd,
        "kinds": left.to_json(),
        "unpriced": list(left.cost.unpriced),
        "price_sources": list(found.sources),
        "preflight": _pilot_json(found),
        "limits": plan.spec.limits.model_dump(),
        "memory": None if found.memory is None else {**asdict(found.memory), "together": found.memory.together},
        "notes": list(found.notes),
        "repeated_prompts": plan.repeats,
    }


def plan_lines(found: Preview) -> Iterator[str]:
    """As lines."""
    plan, left = found.plan, found.estimate
    spec = plan.spec
    label = f"{plan.model.label}{' (rehearsal model)' if plan.model.rehearsal else ''}"
    yield f"{spec.name}: {spec.setting_name} on {label}, backend {spec.train_backend}, {len(plan.cells)} cells"
    for guard in plan.guards:
        under = ", ".join(condition.name for condition in guard.conditions)
        yield f"  guard {guard.name}: {_guarded(plan, guard.name)} cells of {len(guard.prompts)} prompts, under {under}"
    for kind, one in left.kinds.items():
        line = f"  {kind:9} {one.total:6} jobs, {one.done} done"
        if one.rows:
            line += f"; to do: {tokens(one.cost)}, {money(one.cost)}, {duration(one.seconds)}"
        yield line
    yield f"  to do: {left.completions} completions, {left.examples} training examples"
    yield f"  time:  {_time(left)}"
    if found.memory is not None:
        yield f"  memory at its peak: {found.memory.words}"
    yield from cost_lines(found)


def _pilot_json(found: Preview) -> dict[str, Any] | None:
    section, pilot = found.plan.spec.preflight, found.pilot
    if section is None or pilot is None:
        return None
    seeds = min(section.piloted, len(found.plan.spec.seeds))
    rows = _piloted_rows(found.plan)
    return {
        "seeds": seeds,
        "prompts": section.prompts,
        "rows": [list(one) for one in rows],
        "trainings": len(rows) * seeds,
        "completions": pilot.completions,
        "examples": pilot.examples,
        "usd": pilot.usd,
        "seconds": pilot.seconds,
    }


def _piloted_rows(plan: Plan) -> tuple[tuple[str, str, str], ...]:
    """The rows that the pilot trains."""
    pilot = pilot_of(plan)
    return pilot.training.trained if pilot and pilot.training else ()


def _guarded(plan: Plan, guard: str) -> int:
    return sum(one.guard == guard for one in plan.guard_cells)


def cost_lines(found: Preview) -> Iterator[str]:
    """What is left to pay, and what a person must know before."""
    plan, left = found.plan, found.estimate
    if left.completions or left.examples:
        yield f"  tokens: {tokens(left.cost)}"
    section, pilot = plan.spec.preflight, found.pilot
    if section is not None and pilot is not None:
        seeds, rows = min(section.piloted, len(plan.spec.seeds)), _piloted_rows(plan)
        trained = ""
        if rows:
            names = ", ".join(train for _, _, train in rows)
            trained = (
                f", and then {len(rows) * seeds} trainings of the grid ({names}), {pilot.examples} examples in all"
            )
        yield (
            f"  preflight, of this: {seeds} seed{'' if seeds == 1 else 's'} × {section.prompts} prompts of the base "
            f"model and of D{trained}, {pilot.completions} completions; {money(pilot.cost)}, "
            f"{duration(pilot.seconds)}; the rest waits for its gates"
        )
        if section.trains and seeds < 2:
            yield "  note:  the spec has one seed, so that its pilot trains nothing: what runs differ by takes two"
    sources = f" ({'; '.join(found.sources)})" if found.sources and left.usd else ""
    yield f"  cost:  {money(left.cost)}{sources}"
    limits = {name: value for name, value in plan.spec.limits.model_dump().items() if value is not None}
    if limits:
        yield f"  limits: {', '.join(f'{name} {value:g}' for name, value in limits.items())}"
    notes = list(found.notes)
    if plan.repeats:
        notes.append(f"{plan.repeats} prompts repeat another one's text and were left out")
    for note in notes:
        yield f"  note:  {note}"


def look_line(look: Look) -> str:
    """How a run came out that stops once the contrasts of its spec are decided."""
    if not look.stopped:
        open_ones = f"not decided: {', '.join(look.undecided)}" if look.undecided else "its contrasts are decided"
        return f"{open_ones}, at look {look.number} of at most {look.of}; no cell was left out"
    cost = "money unknown" if look.usd is None else f"at most {dollars(look.usd)}"
    return (
        f"its contrasts are decided: stopped by rule after look {look.number} of at most {look.of}, which saved "
        f"{look.cells_left} cells, {cost}, {duration(look.seconds)}; to train the rest: run it without --until"
    )


def tokens(cost: Cost) -> str:
    """Tokens as people read them: in and out, or trained on."""
    parts = []
    if cost.input_tokens or cost.output_tokens:
        parts.append(f"about {_short(cost.input_tokens)} tokens in, at most {_short(cost.output_tokens)} out")
    if cost.trained_tokens:
        parts.append(f"at most {_short(cost.trained_tokens)} trained on")
    return ", ".join(parts) or "no tokens"


def money(cost: Cost) -> str:
    """Money as people read it; an unknown price is said."""
    if cost.usd is None:
        return f"unknown: no price is known of {', '.join(cost.unpriced)}"
    return f"at most {dollars(cost.usd)}" if cost.usd else "$0.00"


def duration(seconds: float | None) -> str:
    """A time as people read it."""
    if seconds is None:
        return "time unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"about {minutes} min {rest} s" if minutes else f"about {rest} s"


def _time(left: PlanEstimate) -> str:
    return "unknown: nothing like it has run in this workspace yet" if left.seconds is None else duration(left.seconds)


def _short(count: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
