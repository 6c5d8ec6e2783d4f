"""The plan of the grid: a resolved spec into jobs, cells and sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from windowshift.core.contract.backend import ModelIdentity
from windowshift.core.contract.conditions import Channel, Condition, is_neutral
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.contract.records import BASE
from windowshift.core.contract.selective import Selective
from windowshift.core.contract.setting import DerivedScorer, Scorer
from windowshift.core.plan.data_jobs import DataPlanner
from windowshift.core.plan.guards import GuardPlanner
from windowshift.core.plan.inside_jobs import InsidePlanner
from windowshift.core.plan.job_maker import Chosen, ConditionIdentity, channel_of
from windowshift.core.plan.jobs import Cell, Job, Source
from windowshift.core.plan.vector_jobs import VectorPlanner
from windowshift.core.settings.given_rows import GivenRows
from windowshift.core.settings.prompt_source import DrawnPrompts
from windowshift.core.spec.dose import SteeringDose
from windowshift.core.spec.given import Given
from windowshift.core.spec.grid_spec import GridSpec, TrainRow
from windowshift.core.spec.spec import Spec
from windowshift.core.store.connection import to_json

JUDGE_SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 16}

LENGTH_IDENTITY = {"scorer": "length", "version": 1}
"""Jobs that read its scores do not name it: they were made when there was no other."""


class GridPlanner:
    """Builds the jobs of one spec; the same job asked for twice is the same job."""

    def __init__(
        self,
        spec: Spec,
        scorers: Sequence[Scorer],
        grid: GridSpec,
        model: ModelIdentity,
        drawn: DrawnPrompts,
        given: Mapping[Given, GivenRows] | None = None,
    ) -> None:
        self.spec, self.scorers, self.grid, self.drawn = spec, scorers, grid, drawn
        self.data = DataPlanner(self, given or {})
        self.model: dict[str, Any] = {"base": spec.model, "revision": spec.revision, "fingerprint": model.fingerprint}
        if spec.adapter is not None:
            self.model["adapter"] = spec.adapter
        self.judge_template: Mapping[str, Any] = {}
        self.sampling = asdict(spec.sampling.resolved())
        self.vectors: VectorPlanner | None = None
        self.conditions: dict[str, Condition] = {}
        self._chosen: dict[int, Chosen] = {}
        # Whether the backend keeps a checkpoint after so many examples, of a D of so many.
        self.keeps: Callable[[int, int], bool] = lambda _step, _size: True
        self.jobs: dict[str, Job] = {}
        self.cells: list[Cell] = []
        self.sources: list[Source] = []
        self.guards = GuardPlanner(self, ())
        self.inside: InsidePlanner | None = None

    def make(self) -> None:
        """Fill jobs, cells and sources for every seed."""
        for seed in self.spec.seeds:
            chosen = self.chosen(seed)
            generated = self.data.make(seed, chosen)
            evaluated = [*self.grid.evaluate, *self.grid.base]
            # Prefixes first: matches point to their cells.
            for condition in sorted(evaluated, key=lambda condition: condition.arm == "steering"):
                job = self.evaluate(
                    condition, seed, chosen, self.spec.channel.evaluate, label=f"{BASE} → {condition.name}"
                )
                # Base cells serve both arms; they carry the arm of their eval condition.
                self.cells.append(Cell(condition.arm, "", BASE, condition.name, seed, 0, True, job.id))
            self.guards.base(seed)
            if self.inside is not None:
                self.inside.base(seed)
            for row in self.grid.rows:
                self._row(row, seed, chosen, generated)

    def chosen(self, seed: int) -> Chosen:
        """Where the prompts of a seed come from."""
        if seed not in self._chosen:
            self._chosen[seed] = Chosen(
                self._place(self.drawn.data, self.spec.data.size, "data", seed),
                self._place(self.drawn.evaluation, self.spec.sampling.prompts, "evaluation", seed),
            )
        return self._chosen[seed]

    @property
    def read_scores(self) -> dict[str, Any]:
        """As `JobMaker.read_scores`: without it, two settings on the same prompts would share a layer and a dose."""
        primary = self.scorers[0].identity() if self.scorers else {}
        return {} if primary == LENGTH_IDENTITY else {"scored_by": primary}

    def add(self, job: Job) -> Job:
        """Take a job into the plan; the one that is there already, where there is one."""
        return self.jobs.setdefault(job.id, job)

    def know(self, condition: Condition, identity: Mapping[str, Any] | None = None) -> None:
        """Let the run find a condition by its identity in job inputs."""
        self.conditions.setdefault(to_json(condition.identity() if identity is None else identity), condition)

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
            for condition in conditions:
                self.know(condition)
            rows = len(candidates) * len(conditions)
        else:
            inputs |= {
                "how": "judge",
                "backend": settings.judge.backend or self.spec.generate_backend,
                "model": {
                    "base": settings.judge.model,
                    "revision": None,
                    "fingerprint": settings.judge.model,
                    **({"template": dict(self.judge_template)} if self.judge_template else {}),
                },
                "sampling": JUDGE_SAMPLING,
            }
            rows = len(candidates)
        job = self.add(Job("filter", f"filter prompts for {use} by {inputs['how']}", inputs, (), rows))
        return {"filter": job.id, "last": keep}

    def sampled(
        self, use: str, condition: Condition, seed: int, channel: Channel, place: dict[str, Any]
    ) -> ConditionIdentity:
        """Inputs of a job that samples the base model, or an adapter of it, and its parents so far."""
        identity, before = self.identity(condition, channel)
        inputs = {
            "backend": self.spec.generate_backend,
            "model": self.model,
            "condition": identity,
            "channel": channel_of(condition, channel),
            "prompts": place,
            "sampling": self.sampling,
            "seed": seed,
            "for": use,
        }
        return inputs, (*_parents(place), *before)

    def identity(self, condition: Condition, channel: Channel) -> ConditionIdentity:
        """A condition as job inputs have it, and the jobs that make its vectors and doses.

        Raises:
            SpecError: a vector, layer or match that cannot be.
        """
        found: ConditionIdentity = (condition.identity(), ())
        if isinstance(condition, Selective):
            then, before = self.identity(condition.then, channel)
            otherwise, also = self.identity(condition.otherwise, channel)
            found = ({**found[0], "then": then, "else": otherwise}, (*before, *also))
        if isinstance(condition, SteeringDose) and not condition.neutral:
            if self.vectors is None:
                raise SpecError(f"condition '{condition.name}' steers, but the spec has no 'vectors'")
            try:
                found = self.vectors.identity(condition, channel)
            except SpecError as error:
                raise SpecError(f"condition '{condition.name}': {error}") from error
        self.know(condition, found[0])
        return found

    def evaluate(
        self,
        condition: Condition,
        seed: int,
        chosen: Chosen,
        channel: Channel,
        *,
        label: str,
        parent: Job | None = None,
        step: int = 0,
    ) -> Job:
        """The job that samples the eval prompts under a condition, from the base model or from an adapter."""
        samples = self.spec.sampling.samples
        count = self.spec.sampling.prompts * samples
        inputs, parents = self.sampled("evaluation", condition, seed, channel, chosen.evaluation)
        inputs["rows"] = [0, count]
        if samples > 1:
            inputs["samples"] = samples
        if parent is not None:
            inputs["step"] = step
            parents = (*parents, parent.id)
        job = self.add(Job("evaluate", label, inputs, parents, count))
        self.score(job, count)
        return job

    def _row(self, row: TrainRow, seed: int, chosen: Chosen, generated: Mapping[str, Job]) -> None:
        if row.after is None:  # how surprising D is says nothing of a model that has been trained before
            self._sources(row, seed, chosen, generated)
        start: Job | None = None
        for stage in row.stages:
            start = trained = self._trained(stage, seed, generated, start)
        total = trained.total
        checkpoints = self.spec.checkpoints.steps(total) if self.spec.checkpoints else []
        trainers = {
            step: self._trained_on(step, trained)
            for step in checkpoints
            if not self.keeps(step, total // self.spec.sft.epochs)
        }
        for step in (*checkpoints, total):
            for condition in self._evaluated_at(row, step, total):
                at = "" if step == total else f" after {step}"
                label = f"{row.generate}: {row.train} → {condition.name}{at}"
                channel, parent = self.spec.channel.evaluate, trainers.get(step, trained)
                job = self.evaluate(condition, seed, chosen, channel, label=label, parent=parent, step=step)
                final = step == total
                self.cells.append(Cell(row.arm, row.generate, row.train, condition.name, seed, step, final, job.id))
        self.guards.tuned(row, seed, trained)
        if self.inside is not None:
            self.inside.tuned(row, seed, trained, list(self._evaluated_at(row, total, total)))

    def _sources(self, row: TrainRow, seed: int, chosen: Chosen, generated: Mapping[str, Job]) -> None:
        """What the D of a row consists of, and the base model's answers under the condition of each part."""
        before_row = len(self.sources)
        for part, (first, last) in zip(row.parts, self.data.slices(row), strict=True):
            data = generated[part.generate.name]
            start = data.inputs["rows"][0]
            for train, share in self.data.trained_under(part.train, data, first, last):
                # L̄_M(p_t): the cell of the grid where there is one, else a job of its own.
                label = f"{BASE} → {train.name}, as in training"
                reference = self.evaluate(train, seed, chosen, self.spec.channel.train, label=label)
                self.sources.append(
                    Source(
                        row.arm,
                        row.generate,
                        row.train,
                        seed,
                        len(self.sources) - before_row,
                        part.fraction * share,
                        part.generate.name,
                        train.name,
                        data.id,
                        first - start,
                        last - start,
                        reference.id,
                    )
                )

    def _trained(self, row: TrainRow, seed: int, generated: Mapping[str, Job], start: Job | None) -> Job:
        """The job that trains a row, or a stage of it: a new adapter, or on from the one that `start` leaves."""
        size = self.data.size(row)
        parts: list[dict[str, Any]] = []
        vectors: list[str] = []
        for part, (first, last) in zip(row.parts, self.data.slices(row), strict=True):
            data = generated[part.generate.name]
            self.data.trained_under(part.train, data, first, last)  # refuses labels that no row has
            identity, before = self.identity(part.train, self.spec.channel.train)
            vectors += before
            parts.append(
                {
                    "data": data.id,
                    "first": first,
                    "last": last,
                    "condition": identity,
                    "channel": channel_of(part.train, self.spec.channel.train),
                }
            )
        total = size * self.spec.sft.epochs
        checkpoints = self.spec.checkpoints.steps(total) if self.spec.checkpoints else []
        inputs: dict[str, Any] = {
            "backend": self.spec.train_backend,
            "model": self.model,
            "parts": parts,
            "sft": asdict(self.spec.sft.resolved()),
            "checkpoints": [step for step in checkpoints if self.keeps(step, size)],
            "seed": seed,
        }
        if self.spec.data.weights:
            inputs["weights"] = self.spec.data.weights
        if start is not None:
            inputs["start"] = start.id
        if self.inside is not None and self.inside.watched:
            inputs["watched"] = self.inside.watching(total)
        started = [] if start is None else [start.id]
        parents = tuple(dict.fromkeys([*(part["data"] for part in parts), *vectors, *started]))
        return self.add(Job("train", f"train {row.generate} under {row.train}", inputs, parents, total))

    def _trained_on(self, step: int, trained: Job) -> Job:
        """The job that trains as another one does, on the first `step` examples only.

        Where the backend keeps no checkpoint it stands in for one.
        """
        sft = {**trained.inputs["sft"], "epochs": 1}
        inputs = {**trained.inputs, "checkpoints": [], "sft": sft, "examples": step}
        inputs.pop("watched", None)
        return self.add(Job("train", f"{trained.label} on {step}", inputs, trained.parents, step))

    def _evaluated_at(self, row: TrainRow, step: int, total: int) -> Iterator[Condition]:
        only = self.spec.checkpoints.evaluate if self.spec.checkpoints and step < total else None
        cross = self.spec.conditions.cross
        for condition in self.grid.evaluate:
            own = condition.arm == row.arm or is_neutral(condition)
            crossed = cross if isinstance(cross, bool) else condition.name in cross
            if (own or crossed) and (only is None or condition.name in only):
                yield condition

    def score(self, sampled: Job, rows: int) -> None:
        """Score a job's completions by every scorer."""
        for scorer in self.scorers:
            self.score_job(scorer, sampled, rows)

    def score_job(self, scorer: Scorer, sampled: Job, rows: int) -> Job:
        """The job that scores a job's completions by one scorer, after those whose scores it reads."""
        read = set(scorer.reads) if isinstance(scorer, DerivedScorer) else set()
        known = (*self.scorers, *self.guards.scorers)
        before = [one for one in known if read.intersection(each.name for each in one.behaviours)]
        parents = (sampled.id, *(self.score_job(one, sampled, rows).id for one in before))
        label = f"score {scorer.name}: {sampled.label}"
        return self.add(Job("score", label, scorer.identity(), parents, rows))


def _parents(place: Mapping[str, Any]) -> tuple[str, ...]:
    return (place["filter"],) if "filter" in place else ()
