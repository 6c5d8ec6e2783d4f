"""Registering a plan: its experiment, jobs, cells and sources in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from windowshift.core.contract.conditions import Condition
from windowshift.core.contract.controls import ControlGroup, EmptySystem
from windowshift.core.plan.jobs import Cell
from windowshift.core.plan.plan import Plan
from windowshift.core.spec.dose import SteeringDose
from windowshift.core.spec.grid_spec import TrainRow
from windowshift.core.store.connection import to_json
from windowshift.core.store.writer import Writer


def register(plan: Plan, writer: Writer) -> tuple[int, dict[str, int]]:
    """Write a plan to the store; return the experiment's id and each job's number by job id."""
    spec = plan.spec
    measured = [behaviour for scorer in plan.scorers for behaviour in scorer.behaviours]
    measured += [behaviour for guard in plan.guards for behaviour in guard.behaviours]
    behaviours = [asdict(behaviour) for behaviour in measured]
    train = [
        {
            "name": row.train,
            "generate": row.generate,
            "arm": row.arm,
            **_trained_under(row),
            "parts": [
                {"fraction": part.fraction, "generate": part.generate.name, "train": part.train.name}
                for part in row.parts
            ],
        }
        for row in plan.grid.rows
    ]
    with writer.batch():
        contrasts = writer.registered(spec.name, plan.contrasts, "contrasts")
        frozen = [] if spec.selection is None else [spec.selection.model_dump()]
        selections = writer.registered(spec.name, frozen, "selections")
        experiment = writer.put_experiment(
            {
                "name": spec.name,
                "spec": plan.spec_text,
                "setting": plan.setting.name,
                "model": plan.model.label,
                "fingerprint": plan.model.fingerprint,
                "rehearsal": int(plan.model.rehearsal),
                "backend": spec.backend
                if isinstance(spec.backend, str)
                else f"{spec.backend.train}+{spec.backend.generate}",
                "behaviours": to_json(behaviours),
                "conditions": to_json(
                    {
                        "generate": [_described(condition) for condition in plan.grid.generate],
                        "train": train,
                        "evaluate": [_described(condition) for condition in plan.grid.evaluate],
                        "base": [_described(condition) for condition in plan.grid.base],
                        **({"contrasts": contrasts} if contrasts else {}),
                        **({"selections": selections} if selections else {}),
                    }
                ),
                "channels": to_json(
                    {
                        "generate": spec.channel.generate or spec.channel.train,
                        "train": spec.channel.train,
                        "evaluate": spec.channel.evaluate,
                    }
                ),
                "data_size": spec.data.size,
            }
        )
        numbers = writer.put_jobs(
            experiment,
            [
                (job.id, job.kind, job.label, to_json(job.inputs), to_json(list(job.parents)), job.total)
                for job in plan.jobs
            ],
        )

        def filled(c: Cell) -> tuple[str, str, str, str, int, int, int, int]:
            return (c.arm, c.generate, c.train, c.evaluate, c.seed, c.step, int(c.final), numbers[c.job])

        writer.put_grid(
            experiment,
            map(filled, plan.cells),
            (
                (
                    s.arm, s.generate, s.train, s.seed, s.part, s.fraction,
                    s.part_generate, s.part_train, numbers[s.job], s.first, s.last, numbers[s.reference],
                )
                for s in plan.sources
            ),
            ((one.guard, *filled(one.cell)) for one in plan.guard_cells),
        )  # fmt: skip
        for digest, prompts in plan.prompts.items():
            writer.put_prompts(digest, prompts)
    return experiment, numbers


def _trained_under(row: TrainRow) -> dict[str, Any]:
    """The kind of a train condition, and what it is."""
    if row.after:
        stages = [{"generate": one.parts[0].generate.name, "train": one.parts[0].train.name} for one in row.stages]
        return {"kind": "stages", "stages": stages}
    if len(row.parts) > 1:
        return {"kind": "mix"}
    train = row.parts[0].train
    return {"kind": train.kind, **train.identity(), **_control(train)}


def _described(condition: Condition) -> dict[str, Any]:
    return {"name": condition.name, "arm": condition.arm, **condition.identity(), **_control(condition)}


def _control(condition: Condition) -> dict[str, Any]:
    """Of what a condition is a control, which its jobs need not know."""
    if not isinstance(condition, ControlGroup | EmptySystem | SteeringDose) or condition.control is None:
        return {}
    found: dict[str, Any] = {"control": condition.control, "of": condition.of}
    if isinstance(condition, ControlGroup) and condition.distances:
        found["distances"] = [round(one, 3) for one in condition.distances]
    return found
