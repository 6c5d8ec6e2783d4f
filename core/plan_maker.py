"""The plan's maker: a resolved spec into jobs, cells and sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from windowshift.core.backend import ModelIdentity
from windowshift.core.conditions import Condition, NoPrefix
from windowshift.core.errors import SpecError
from windowshift.core.grid_spec import GridSpec, TrainRow
from windowshift.core.jobs import Cell, Job, Source
from windowshift.core.prompt_source import Drawn
from windowshift.core.prompts import Prompt, set_digest
from windowshift.core.records import BASE
from windowshift.core.setting import Scorer
from windowshift.core.spec import Spec

JUDGE_SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 16}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where D's prompts and the eval prompts come from, as job inputs have it."""

    data: dict[str, Any]
    evaluation: dict[str, Any]


class PlanMaker:
    """Builds the jobs of one spec; the same job asked for twice is the same job."""

    def __init__(
        self, spec: Spec, scorers: Sequence[Scorer], grid: GridSpec, model: ModelIdentity, drawn: Drawn
    ) -> None:
        self.spec, self.scorers, self.grid, self.drawn = spec, scorers, grid, drawn
        self.model = {"base": spec.model, "revision": spec.revision, "fingerprint": model.fingerprint}
        self.sampling = asdict(spec.sampling.resolved())
        self.keeps: Callable[[int], bool] = lambda _: True  # whether the backend keeps a checkpoint after so many
        self.jobs: dict[str, Job] = {}
        self.cells: list[Cell] = []
        self.sources: list[Source] = []

    def make(self) -> None:
        """Fill jobs, cells and sources for every seed."""
        for seed in self.spec.seeds:
            chosen = Chosen(
                self._place(self.drawn.data, self.spec.data.size, "data", seed),
                self._place(self.drawn.evaluation, self.spec.sampling.prompts, "evaluation", seed),
            )
            generated = self._generate(seed, chosen)
            for condition in self.grid.evaluate:
                job = self._evaluate(
                    condition, seed, chosen, self.spec.channel.evaluate, label=f"{BASE} → {condition.name}"
                )
                # Base cells serve both arms; they carry the arm of their eval condition.
                self.cells.append(Cell(condition.arm, "", BASE, condition.name, seed, 0, True, job.id))
            for row in self.grid.rows:
                self._row(row, seed, chosen, generated)

    def _add(self, job: Job) -> Job:
        return self.jobs.setdefault(job.id, job)

    def _place(self, candidates: tuple[Prompt, ...], keep: int, use: str, seed: int) -> dict[str, Any]:
        """Where prompts come from: a drawn set, or what a filter job will choose of it."""
        settings = self.spec.data.filter
        everything = {"set": set_digest(candidates), "last": len(candidates)}
        if settings is None:
            return everything
        inputs: dict[str, Any] = {
            "prompts": everything,
            "keep": keep,
            "seed": seed,
            "channel": self.spec.channel.evaluate,
        }
        if settings.judge is None:
            conditions = [condition for condition in self.grid.evaluate if condition.arm == "prefix"]
            if len(conditions) < 2:
                raise SpecError("data.filter needs two eval prefixes or more to see how the base model's lengths vary")
            inputs |= {
                "how": "variance",
                "backend": self.spec.generate_backend,
                "model": self.model,
                "sampling": self.sampling,
                "conditions": [condition.identity() for condition in conditions],
            }
            rows = len(candidates) * len(conditions)
        else:
            inputs |= {
                "how": "judge",
                "backend": settings.judge.backend or self.spec.generate_backend,
                "model": {"base": settings.judge.model, "revision": None, "fingerprint": settings.judge.model},
                "sampling": JUDGE_SAMPLING,
            }
            rows = len(candidates)
        job = self._add(Job("filter", f"filter prompts for {use} by {inputs['how']}", inputs, (), rows))
        return {"filter": job.id, "last": keep}

    def _sampled(
        self, kind: str, condition: Condition, seed: int, channel: str, prompts: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "backend": self.spec.generate_backend,
            "model": self.model,
            "condition": condition.identity(),
            "channel": "user" if isinstance(condition, NoPrefix) else channel,
            "prompts": prompts,
            "sampling": self.sampling,
            "seed": seed,
            "for": kind,
        }

    def _generate(self, seed: int, chosen: Chosen) -> dict[str, Job]:
        """One job a generation condition, over the part of D's prompts that some row needs."""
        wanted: dict[str, tuple[Condition, set[tuple[int, int]]]] = {}
        for row in self.grid.rows:
            for part, (first, last) in zip(row.parts, _slices(row, self.spec.data.size), strict=True):
                wanted.setdefault(part.generate.name, (part.generate, set()))[1].add((first, last))
        jobs = {}
        channel = self.spec.channel.generate or self.spec.channel.train
        for name, (condition, spans) in wanted.items():
            first, last = min(span[0] for span in spans), max(span[1] for span in spans)
            inputs = self._sampled("data", condition, seed, channel, chosen.data)
            inputs["rows"] = [first, last]
            job = self._add(Job("generate", f"data {name}", inputs, _parents(chosen.data), last - first))
            self._score(job, job.total)
            jobs[name] = job
        return jobs

    def _evaluate(
        self,
        condition: Condition,
        seed: int,
        chosen: Chosen,
        channel: str,
        *,
        label: str,
        parent: Job | None = None,
        step: int = 0,
    ) -> Job:
        count = self.spec.sampling.prompts
        inputs = self._sampled("evaluation", condition, seed, channel, chosen.evaluation)
        inputs["rows"] = [0, count]
        parents = _parents(chosen.evaluation)
        if parent is not None:
            inputs["step"] = step
            parents = (*parents, parent.id)
        job = self._add(Job("evaluate", label, inputs, parents, count))
        self._score(job, count)
        return job

    def _row(self, row: TrainRow, seed: int, chosen: Chosen, generated: Mapping[str, Job]) -> None:
        size = self.spec.data.size
        parts: list[dict[str, Any]] = []
        for number, (part, (first, last)) in enumerate(zip(row.parts, _slices(row, size), strict=True)):
            data = generated[part.generate.name]
            # L̄_M(p_t): the cell of the grid where there is one, else a job of its own.
            label = f"{BASE} → {part.train.name}, as in training"
            reference = self._evaluate(part.train, seed, chosen, self.spec.channel.train, label=label)
            parts.append(
                {
                    "data": data.id,
                    "first": first,
                    "last": last,
                    "condition": part.train.identity(),
                    "channel": "user" if isinstance(part.train, NoPrefix) else self.spec.channel.train,
                }
            )
            start = data.inputs["rows"][0]
            self.sources.append(
                Source(
                    row.arm,
                    row.generate,
                    row.train,
                    seed,
                    number,
                    part.fraction,
                    part.generate.name,
                    part.train.name,
                    data.id,
                    first - start,
                    last - start,
                    reference.id,
                )
            )
        total = size * self.spec.sft.epochs
        checkpoints = self.spec.checkpoints.steps(total) if self.spec.checkpoints else []
        inputs: dict[str, Any] = {
            "backend": self.spec.train_backend,
            "model": self.model,
            "parts": parts,
            "sft": asdict(self.spec.sft.resolved()),
            "checkpoints": [step for step in checkpoints if self.keeps(step)],
            "seed": seed,
        }
        parents = tuple(dict.fromkeys(part["data"] for part in parts))
        trained = self._add(Job("train", f"train {row.generate} under {row.train}", inputs, parents, total))
        # Where the backend keeps no checkpoint, a model of its own sees the first examples only.
        own = inputs | {"checkpoints": [], "sft": inputs["sft"] | {"epochs": 1}}
        trainers = {
            step: self._add(
                Job(
                    "train",
                    f"train {row.generate} under {row.train} on {step}",
                    own | {"examples": step},
                    parents,
                    step,
                )
            )
            for step in checkpoints
            if not self.keeps(step)
        }
        for step in (*checkpoints, total):
            for condition in self._evaluated_at(step, total):
                at = "" if step == total else f" after {step}"
                label = f"{row.generate}: {row.train} → {condition.name}{at}"
                channel = self.spec.channel.evaluate
                job = self._evaluate(
                    condition, seed, chosen, channel, label=label, parent=trainers.get(step, trained), step=step
                )
                self.cells.append(
                    Cell(row.arm, row.generate, row.train, condition.name, seed, step, step == total, job.id)
                )

    def _evaluated_at(self, step: int, total: int) -> Iterator[Condition]:
        only = self.spec.checkpoints.evaluate if self.spec.checkpoints and step < total else None
        for condition in self.grid.evaluate:
            if only is None or condition.name in only:
                yield condition

    def _score(self, sampled: Job, rows: int) -> None:
        for scorer in self.scorers:
            self._add(Job("score", f"score {scorer.name}: {sampled.label}", scorer.identity(), (sampled.id,), rows))


def _parents(place: Mapping[str, Any]) -> tuple[str, ...]:
    return (place["filter"],) if "filter" in place else ()


def _slices(row: TrainRow, size: int) -> list[tuple[int, int]]:
    """Cut 0 .. size into the row's parts by cumulated fractions, without gap or overlap."""
    edges = [0]
    total = sum(part.fraction for part in row.parts)
    cumulated = 0.0
    for part in row.parts:
        cumulated += part.fraction / total
        edges.append(round(size * cumulated))
    if len(set(edges)) != len(edges):
        raise SpecError(f"conditions.train: mix '{row.train}' has a part of no example at data.size {size}")
    return list(pairwise(edges))
