"""The microscope as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.stats import Estimate
from windowshift.core.measure.microscope import (
    LITTLE,
    PARTS,
    Dissection,
    Leak,
    Microscope,
    PartName,
    TrainingEffect,
)
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown
from windowshift.core.report.report import REHEARSAL

LABELS: dict[PartName, str] = {
    "effect": "effect of the condition",
    "conditionalization": "conditionalization (any context)",
    "under_training": "under-training (little to learn)",
    "inoculation": "inoculation (about the trait)",
}
LEGEND = (
    "Learned: the fine-tune against the base model, without a push at evaluation ({effect}). Prevented: what the "
    "training without a push learned, less that. Loss: how far the training loss fell, from the first tenth of the "
    "examples to the last, in nats a token; ∗ marks a fall below {little:.0%} of the controls'. The three parts add up "
    "to the effect."
)
COVERS = "95% intervals over prompts, and over training runs where there are several; the loss by step."


def microscope_json(found: Microscope) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "experiment": found.experiment.name,
        "model": found.experiment.model,
        "rehearsal": found.experiment.rehearsal,
        "behaviour": asdict(found.behaviour),
        "conditions": [
            {
                "arm": one.arm,
                "generate": one.generate,
                "train": one.train,
                "evaluate": one.evaluate,
                "parts": {name: _number(part) for name, part in one.parts.items()},
                "missing": one.missing,
                "acts": list(one.acts),
                "verdict": one.verdict,
                "completions": one.completions,
                "seeds": one.seeds,
                "null": None if one.null is None else asdict(one.null),
                "trained": [
                    {
                        "train": row.train,
                        "control": row.control or None,
                        "learned": _number(row.learned),
                        "prevented": _number(row.prevented),
                        "loss": None
                        if row.loss is None
                        else {
                            "first": asdict(row.loss.first),
                            "last": asdict(row.loss.last),
                            "drop": asdict(row.loss.drop),
                        },
                    }
                    for row in one.trained
                ],
            }
            for one in found.dissections
        ],
        "leak": [
            {
                "arm": leak.arm,
                "generate": leak.generate,
                "cells": [
                    {"train": train, "evaluate": evaluate, **asdict(effect)}
                    for (train, evaluate), effect in leak.effects.items()
                ],
            }
            for leak in found.leaks
        ],
    }


def microscope_blocks(found: Microscope) -> Iterator[Block]:
    """A block of tables for each train condition with controls, then what leaks under each eval condition."""
    experiment = found.experiment
    yield Heading(f"{experiment.name}: {found.behaviour.name} under the microscope, on {experiment.model}", 1)
    if experiment.rehearsal:
        yield Line(f"REHEARSAL MODEL: {REHEARSAL}.", "bold yellow")
    several = len({one.generate for one in found.dissections}) > 1
    for one in found.dissections:
        yield from dissection_blocks(one, found, several=several)
    yield from legend_blocks(found)
    for leak in found.leaks:
        yield from leak_blocks(leak, found, several=several)


def parts_table(one: Dissection, found: Microscope) -> Table:
    """The parts of one condition's effect, with their share of it."""
    effect = one.parts["effect"]
    rows = []
    for name in PARTS:
        part = one.parts[name]
        label = LABELS[name]
        if name == "inoculation" and "under_training" in one.missing:
            label = "inoculation or under-training"
        text = shown(part, found.scale.words.effect_format, missing=f"— ({one.missing.get(name, 'undefined')})")
        share = (
            ""
            if part is None or effect is None or name == "effect" or not effect.value
            else (f"{part.value / effect.value:.0%}")
        )
        rows.append((Item(label), Item(text, "bold" if name in one.acts else ""), Item(share)))
    return Table(("part", f"prevented ({found.scale.words.effect_short})", "share"), tuple(rows))


def trained_table(one: Dissection, found: Microscope) -> Table:
    """What each training learned and kept from being learned, and how far its loss fell."""
    form = found.scale.words.effect_format
    controls = [row.loss.drop.value for row in one.trained if row.control and row.loss is not None]
    usual = sum(controls) / len(controls) if controls else None
    rows = tuple(
        (
            Item(_label(row, one), "bold" if row.train == one.train else ""),
            Item(shown(row.learned, form)),
            Item(shown(row.prevented, form)),
            Item(_fall(row, usual)),
        )
        for row in one.trained
    )
    return Table(("trained under", "learned", "prevented", "loss fell"), rows)


def _label(row: TrainingEffect, one: Dissection) -> str:
    """A train condition; of a control what it is, where its own name does not say it."""
    if not row.control or row.train == f"{one.train}~{row.control}":
        return row.train.removeprefix(one.train) if row.control else row.train
    return f"{row.train} ({row.control.replace('_', ' ')})"


def legend_blocks(found: Microscope) -> Iterator[Block]:
    """What the columns are, and what the intervals cover."""
    yield Line(LEGEND.format(effect=found.scale.words.effect, little=LITTLE), "dim")
    yield Line(COVERS, "dim")


def dissection_blocks(one: Dissection, found: Microscope, *, several: bool = False) -> Iterator[Block]:
    """The verdict on one train condition, the parts of its effect, and its controls."""
    data = f", {one.generate} data" if several else ""
    yield Heading(f"Trained under {one.train}{data}, evaluated under {one.evaluate or 'no push'}")
    yield Line(f"Verdict: {one.verdict}.", "bold")
    if not one.trained:
        return
    yield parts_table(one, found)
    runs = (
        f"{one.seeds} trainings (seeds) each"
        if one.seeds > 1
        else "one training each: run-to-run noise is not included"
    )
    yield Line(f"n {one.completions} completions a cell, of {runs}.", "dim")
    yield Line("")
    if one.null is not None:
        form = found.scale.words.effect_format
        low, high = form.text(one.null.low), form.text(one.null.high)
        yield Line(
            f"{one.null.directions} directions of the same norm prevent {form.text(one.null.mean)} on average; one "
            f"more would lie in [{low}, {high}] (95% prediction interval over directions, Student's t)."
        )
        yield Line("")
    yield trained_table(one, found)
    yield Line("")


def leak_blocks(leak: Leak, found: Microscope, *, several: bool = False) -> Iterator[Block]:
    """Every fine-tune against the base model, by eval condition; nothing where there is one alone."""
    if len(leak.evaluates) < 2 or not leak.effects:
        return
    data = f", {leak.generate} data" if several else ""
    yield Heading(f"Leak in the {leak.arm} arm{data}: each fine-tune against the base model, by eval condition")
    form = replace(found.scale.words.effect_format)
    rows = tuple(
        (Item(train), *(Item(shown(leak.effects.get((train, evaluate)), form)) for evaluate in leak.evaluates))
        for train in leak.trains
    )
    yield Table(("trained under", *leak.evaluates), rows)


def _fall(row: TrainingEffect, usual: float | None) -> str:
    if row.loss is None:
        return "—"
    mark = "∗" if usual and not row.control and row.loss.drop.value < LITTLE * usual else ""
    return f"{NumberFormat(3).whole(row.loss.drop)}{mark}"


def _number(one: Estimate | None) -> dict[str, Any] | None:
    return None if one is None else asdict(one)
