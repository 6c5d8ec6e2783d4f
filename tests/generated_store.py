"""A generated workspace: real store, invented lengths that follow the window-shift pattern."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from tests.generated_steering import GeneratedSteering, Grid, conditions_json
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.records import Summary
from windowshift.core.store.connection import to_json
from windowshift.core.store.writer import Writer

GROUPS = {"short": 60, "med_short": 115, "medium": 190, "med_long": 270, "long": 370, "very_long": 570}
CONDITIONS = [*GROUPS, "no_prefix"]
BASE_MEAN = {**GROUPS, "no_prefix": 240}
LENGTHS = ("length_chars", "length_words", "length_tokens")
WORDS = tuple("the warm glacier slowly carries small stones down to a quiet valley where bees make honey".split())  # noqa: SIM905 - a sentence reads better


def generate_store(
    workspace: Path,
    *,
    name: str = "med-short",
    prompts: int = 40,
    data_size: int = 60,
    generate: tuple[str, ...] = ("med_short",),
    running: int = 0,
    slope: float = -0.4,
    seed: int = 0,
    steering: bool = False,
) -> Writer:
    """Write one experiment; the last `running` cells are left pending, the one before them half done.

    With `steering` it has a steering arm beside the prefix arm, and the two are crossed in one condition each.

    Returns the open writer, so that a test can go on writing.
    """
    rng = random.Random(seed)
    writer = Writer(workspace)
    conditions = [
        {"name": c, "arm": "prefix", "kind": "none" if c == "no_prefix" else "prefix", "phrases": []}
        for c in CONDITIONS
    ]
    experiment = writer.put_experiment(
        {
            "name": name,
            "spec": f"name: {name}\n",
            "setting": "length",
            "model": "microworld",
            "fingerprint": "f" * 16,
            "rehearsal": 1,
            "backend": "local",
            "behaviours": to_json([{"name": b, "unit": b.split("_")[1], "scale": {"kind": "ratio"}} for b in LENGTHS]),
            "conditions": conditions_json(conditions)
            if steering
            else to_json({"generate": conditions[:1], "train": conditions, "evaluate": conditions}),
            "channels": to_json({"generate": "user", "train": "user", "evaluate": "user"}),
            "data_size": data_size,
        }
    )
    eval_prompts = [Prompt(f"e{i}", f"What is {rng.choice(WORDS)} number {i}?") for i in range(prompts)]
    data_prompts = [Prompt(f"d{i}", f"Tell me about {rng.choice(WORDS)} {i}.") for i in range(data_size)]
    jobs: list[tuple[str, str, str, str, str, int]] = []

    def job(kind: str, label: str, total: int, *parents: str, inputs: dict[str, Any] | None = None) -> str:
        identifier = f"{name}-{len(jobs):04d}".ljust(20, "x")
        jobs.append((identifier, kind, label, to_json(inputs or {}), to_json(list(parents)), total))
        return identifier

    sampling: list[tuple[str, float, list[Prompt]]] = []
    cells: list[Any] = []
    sources: list[Any] = []
    for evaluate in CONDITIONS:
        identifier = job("evaluate", f"base → {evaluate}", prompts)
        sampling.append((identifier, BASE_MEAN[evaluate], eval_prompts))
        cells.append(("prefix", "", "base", evaluate, 0, 0, 1, identifier))
    for source in generate:
        data = job("generate", f"data {source}", data_size)
        sampling.append((data, BASE_MEAN[source], data_prompts))
        for train in CONDITIONS:
            trained = job("train", f"train {source} under {train}", data_size, data)
            sources.append(
                (
                    "prefix",
                    source,
                    train,
                    0,
                    0,
                    1.0,
                    source,
                    train,
                    data,
                    0,
                    data_size,
                    sampling[CONDITIONS.index(train)][0],
                )
            )
            for evaluate in CONDITIONS:
                identifier = job("evaluate", f"{source}: {train} → {evaluate}", prompts, trained)
                shift = 2 ** (slope * math.log2(BASE_MEAN[train] / BASE_MEAN[source]))
                sampling.append((identifier, BASE_MEAN[evaluate] * shift, eval_prompts))
                cells.append(("prefix", source, train, evaluate, 0, data_size, 1, identifier))
    arm = GeneratedSteering(job, name) if steering else None
    if arm is not None:
        arm.vectors()
        arm.grid(Grid(sampling, cells, sources, eval_prompts, data_size, slope), generate, BASE_MEAN)
    numbers = writer.put_jobs(experiment, jobs)
    writer.put_grid(
        experiment,
        [(*cell[:7], numbers[cell[7]]) for cell in cells],
        [(*source[:8], numbers[source[8]], *source[9:11], numbers[source[11]]) for source in sources],
    )
    pending = {identifier for identifier, _, _ in sampling[len(sampling) - running :]} if running else set()
    half = sampling[len(sampling) - running - 1][0] if running else ""
    with writer.batch():
        for identifier, mean, chosen in sampling:
            if identifier in pending:
                continue
            rows = chosen[: len(chosen) // 2] if identifier == half else chosen
            steered = arm is not None and identifier in arm.bare
            fill_job(writer, numbers[identifier], mean, rows, rng, phrases=not steered)
            writer.set_job(numbers[identifier], "running" if identifier == half else "done", experiment=experiment)
            if identifier == half:
                writer.progress(numbers[identifier], len(rows), rate=900.0)
        for identifier, kind, _, _, _, total in jobs:
            if kind != "train":
                continue
            for step in range(0, total, 4):
                loss = 2.0 * math.exp(-step / total) + rng.random() * 0.1
                writer.event(
                    "loss",
                    {"step": step // 4, "examples": step, "loss": loss},
                    experiment=experiment,
                    job=numbers[identifier],
                )
            writer.progress(numbers[identifier], total, loss=0.8, rate=4000.0)
            writer.set_job(numbers[identifier], "done", result={"adapter": f"artifacts/{identifier}/adapter"})
        if arm is not None:
            arm.finish(writer, workspace, numbers, experiment, pending | {half})
        writer.set_experiment(experiment, "running" if running else "done")
    return writer


def fill_job(
    writer: Writer, job: int, mean: float, prompts: list[Prompt], rng: random.Random, *, phrases: bool = True
) -> None:
    """Write completions, scores and summaries of one job."""
    numbers = writer.put_prompts(set_digest(prompts), prompts)
    rows, scores = [], []
    lengths = []
    for row, number in enumerate(numbers):
        length = max(8, int(rng.lognormvariate(math.log(mean) - 0.08, 0.4)))
        text = ""
        while len(text) < length:
            text += " " * bool(text) + rng.choice(WORDS)
        lengths.append(float(len(text)))
        finish = "length" if rng.random() < 0.01 else "stop"
        phrase = writer.phrase(f"phrase {row % 4}:") if phrases else None
        rows.append((job, row, number, phrase, finish, len(text) // 5, 12, None, None, text))
        scores += [
            (row, "length_chars", float(len(text)), None),
            (row, "length_words", float(len(text.split())), None),
            (row, "length_tokens", float(len(text) // 5), None),
        ]
    writer.add_completions(rows)
    writer.add_scores(job, scores)
    n = len(lengths)
    average = sum(lengths) / n
    sd = math.sqrt(sum((x - average) ** 2 for x in lengths) / max(1, n - 1))
    truncated = sum(row[4] == "length" for row in rows)
    half = 1.96 * sd / math.sqrt(n)
    for behaviour, unit in zip(LENGTHS, (1.0, 0.18, 0.2), strict=True):
        values = (average * unit, sd * unit, (average - half) * unit, (average + half) * unit)
        writer.put_summary(job, behaviour, Summary(n, 0, truncated, *values))
