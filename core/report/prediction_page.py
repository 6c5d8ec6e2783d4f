"""What is predicted of cells that are not trained, as a page and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from windowshift.core.measure.prediction import LEAST_ROWS, PredictedRows, Prediction
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown
from windowshift.core.report.report import REHEARSAL


def prediction_blocks(found: Prediction) -> Iterator[Block]:
    """A table for each arm and D."""
    experiment, words = found.experiment, found.behaviour.scale.words
    yield Heading(f"{experiment.name}: {found.behaviour.name} of cells that are not trained, predicted", 1)
    if experiment.rehearsal:
        yield Line(f"REHEARSAL MODEL: {REHEARSAL}.", "bold yellow")
    if not found.rows:
        yield Line("No row of the grid is trained by fine-tuning: there is nothing to predict.")
        return
    for rows in found.rows:
        yield Heading(f"{words.uplift} ({words.link}), {rows.arm} arm, trained on {rows.generate} data")
        if not rows.cells:
            yield Line("Every cell is done: there is nothing to predict.")
        elif rows.reason:
            yield Line(f"Nothing is predicted: {rows.reason}.", "yellow")
        else:
            if any(one.uplift for one in rows.cells):
                yield _table(found, rows)
                yield Line(f"Predicted by {_by(rows)}.", "dim")
            for reason, cells in _missing(rows).items():
                yield Line(f"Not predicted: {', '.join(cells)}: {reason}.", "yellow")
        if rows.order:
            yield Line(f"To train next, the most informative first: {', '.join(rows.order)}.")
        yield Line(_held(rows), "dim")
    yield Line(
        "Intervals hold the uplift that would be measured on the same prompts, with as many seeds: least squares over "
        "trained rows, one regression an eval condition, Student's t; by base-model quantities alone.",
        "dim",
    )


def _table(found: Prediction, rows: PredictedRows) -> Table:
    words = found.behaviour.scale.words
    lines = []
    for one in rows.cells:
        if one.uplift is None:
            continue
        surprise = rows.surprise.get(one.train)
        lines.append(
            (
                Item(f"{one.train} → {one.evaluate}"),
                Item(shown(one.uplift, words.link_format)),
                Item("—" if surprise is None else f"{surprise.value:.2f}"),
                Item("—" if one.base_mean is None else f"{one.base_mean:.3g}"),
                Item(str(one.uplift.n)),
                Item(str(one.degrees)),
            )
        )
    heads = ("train → eval", f"predicted {words.link_short} [95%]", words.surprise, "base mean", "rows", "df")
    return Table(heads, tuple(lines))


def _by(rows: PredictedRows) -> str:
    """The regressors, and where there are fewer of them, where."""
    under: dict[tuple[str, ...], dict[str, None]] = {}
    for one in rows.cells:
        if one.by:
            under.setdefault(one.by, {})[one.evaluate] = None
    if len(under) == 1:
        return ", ".join(next(iter(under)))
    return "; ".join(f"{', '.join(names)} (under {', '.join(where)})" for names, where in under.items())


def _missing(rows: PredictedRows) -> dict[str, list[str]]:
    """The cells that are not predicted, by the reason why."""
    found: dict[str, list[str]] = {}
    for one in rows.cells:
        if one.uplift is None:
            found.setdefault(one.reason, []).append(f"{one.train} → {one.evaluate}")
    return found


def _held(rows: PredictedRows) -> str:
    if not rows.held_of:
        return f"How well it predicts is not known before {LEAST_ROWS + 1} rows are trained: each is left out once."
    return (
        f"Each trained row left out once: {rows.held} of {rows.held_of} of its cells lie within the intervals that the "
        "other rows predict (19 of 20 are to)."
    )


def prediction_json(found: Prediction) -> dict[str, Any]:
    """Everything as JSON values."""
    return {
        "experiment": found.experiment.name,
        "model": found.experiment.model,
        "rehearsal": found.experiment.rehearsal,
        "behaviour": asdict(found.behaviour),
        "scale": found.behaviour.scale.link,
        "rows": [
            {
                "arm": rows.arm,
                "generate": rows.generate,
                "trained": list(rows.trained),
                "next": list(rows.order),
                "held_out": {"cells": rows.held_of, "within": rows.held},
                "reason": rows.reason or None,
                "cells": [
                    {
                        "train": one.train,
                        "evaluate": one.evaluate,
                        "train_mean_ratio": None if (x := rows.surprise.get(one.train)) is None else x.value,
                        "base_mean": one.base_mean,
                        "uplift": one.uplift.value if one.uplift else None,
                        "uplift_ci95": list(one.uplift.interval) if one.uplift and one.uplift.interval else None,
                        "uplift_n": one.uplift.n if one.uplift else None,
                        "seeds": one.uplift.seeds if one.uplift else None,
                        "degrees": one.degrees if one.uplift else None,
                        "by": list(one.by),
                        "leverage": one.leverage,
                        "reason": one.reason or None,
                    }
                    for one in rows.cells
                ],
            }
            for rows in found.rows
        ],
    }
