"""Readings inside the model for a generated workspace: invented drifts, gradients and watched texts of the prefix arm.

The drift of a row is 2 % of the stream's RMS for each octave that its train condition is from D's, twice that at the
layer in use; D's gradient points the same way. What is watched of `long` is not there yet.
"""

from __future__ import annotations

import math
import random

from tests.generated_steering import LAYER, LAYERS
from tests.generated_store import BASE_MEAN, CONDITIONS
from windowshift.core.contract.inside import Gradient, Projection
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.training import TextLogprob
from windowshift.core.store.connection import to_json
from windowshift.core.store.writer import Writer

TEXTS = (
    Prompt("watched-1", "How long is a river?", {"completion": "Some are long.", "group": "facts"}),
    Prompt("watched-2", "What do bees make?", {"completion": "They make honey.", "group": "facts"}),
    Prompt("watched-3", "Is ice warm?", {"completion": "It is not.", "group": "facts"}),
    Prompt("watched-4", "Rivers?", {"completion": "Yes."}),
)
PROMPTS, EXAMPLES, RANDOM = 12, 8, 20
RMS = (10.0, 20.0, 30.0)


def octaves(train: str) -> float:
    """How many times a train condition doubles the length of D's."""
    return math.log2(BASE_MEAN[train] / BASE_MEAN["med_short"])


def add_inside(writer: Writer, name: str = "med-short") -> None:
    """Add the readings to an experiment of `generate_store` with its steering arm."""
    rng = random.Random(5)
    store = writer.connection
    (experiment,) = store.execute("SELECT id FROM experiments WHERE name = ?", (name,)).fetchone()
    prompts = [Prompt(f"e{number}", f"Prompt {number}?") for number in range(PROMPTS)]
    digest = set_digest(TEXTS)
    asked = {"condition": {"kind": "none"}, "channel": "user", "prompts": {"set": "p"}}
    jobs = {}
    for n, identifier, kind, label in store.execute("SELECT n, id, kind, label FROM jobs").fetchall():
        jobs[kind, label] = n, identifier
    vectors = [jobs["extract", f"vector {one}"][1] for one in ("length", "random")]
    added: list[tuple[str, str, str, str, str, int]] = []

    def add(kind: str, label: str, inputs: dict[str, object], total: int) -> str:
        identifier = f"{name}-inside-{len(added):02d}".ljust(20, "x")
        added.append((identifier, kind, label, to_json(inputs), "[]", total))
        return identifier

    looked = {"vectors": vectors, "tokens": "last_prompt", "rows": [0, PROMPTS], **asked}
    read: dict[str, tuple[str, float]] = {
        add("project", "inside base, under no_prefix", looked, PROMPTS): ("base", 0.0)
    }
    taken: dict[str, float] = {}
    with writer.batch():
        for train in ("", *CONDITIONS):
            label = f"med_short: {train} → no_prefix" if train else "base → no_prefix"
            store.execute("UPDATE jobs SET inputs = ? WHERE n = ?", (to_json(asked), jobs["evaluate", label][0]))
            if not train:
                continue
            number, trained = jobs["train", f"train med_short under {train}"]
            inputs = {"parts": [train], "seed": 0, "watched": {"set": digest, "at": [0, 30, 60]}}
            store.execute("UPDATE jobs SET inputs = ? WHERE n = ?", (to_json(inputs), number))
            here = {**looked, "trained": trained}
            read[add("project", f"inside med_short: {train}, under no_prefix", here, PROMPTS)] = train, octaves(train)
            own = {"parts": [train], "seed": 0, "vector": vectors[0], "layer": LAYER, "random": RANDOM}
            taken[add("gradient", f"gradient of med_short: {train}, along length", own, EXAMPLES)] = octaves(train)
            for step in (0, 30, 60) if train != "long" else ():
                change = -0.004 * step * (1 + abs(octaves(train)))
                texts = [
                    TextLogprob(4 * (-2.0 - place + change + rng.random() * 0.01), 4) for place in range(len(TEXTS))
                ]
                writer.put_watched(number, step, texts)
        writer.put_prompts(digest, TEXTS)
        numbers = writer.put_jobs(0, added)
        store.execute("DELETE FROM experiment_jobs WHERE experiment = 0")
        (last,) = store.execute("SELECT max(position) FROM experiment_jobs").fetchone()
        for place, number in enumerate(numbers.values(), 1):
            store.execute("INSERT INTO experiment_jobs VALUES (?, ?, ?)", (experiment, number, last + place))
        for identifier, (_, moved) in read.items():
            writer.put_projections(
                numbers[identifier], prompts, [_projection(rng, moved, row) for row in range(PROMPTS)]
            )
            writer.set_job(numbers[identifier], "done", experiment=experiment)
        for identifier, moved in taken.items():
            writer.put_gradients(numbers[identifier], _gradients(rng, moved))
            writer.set_job(numbers[identifier], "done", experiment=experiment)


def _projection(rng: random.Random, moved: float, row: int) -> Projection:
    own = tuple(
        RMS[layer] * (0.1 * math.sin(row + layer) + 0.02 * moved * (2 if layer == LAYER else 1) + rng.gauss(0, 0.004))
        for layer in range(LAYERS)
    )
    noise = tuple(RMS[layer] * (0.1 * math.cos(row + layer) + rng.gauss(0, 0.004)) for layer in range(LAYERS))
    return Projection((own, noise), RMS, 1)


def _gradients(rng: random.Random, moved: float, width: int = 8) -> list[Gradient]:
    drawn = [[-moved + rng.gauss(0, 1), *(rng.gauss(0, 1) for _ in range(width - 1))] for _ in range(EXAMPLES)]
    sides = [[rng.gauss(0, 1) for _ in range(width)] for _ in range(RANDOM)]
    found = []
    for row, one in enumerate(drawn):
        random_ones = tuple(-_dot(one, side) / math.sqrt(_dot(side, side)) for side in sides)
        found.append(Gradient(-one[0], random_ones, tuple(_dot(one, other) for other in drawn[: row + 1]), 9))
    return found


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
