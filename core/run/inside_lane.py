"""The lane of what is read inside the model: jobs that can be done now, in one call to a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from windowshift.core.contract.artifacts import DamagedError
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.generation import Model, TemplateInputs
from windowshift.core.contract.inside import (
    GradientJob,
    InsideBackend,
    InsideEvent,
    InsideFailed,
    InsideJob,
    Passage,
    Projected,
    ProjectionJob,
)
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import Sft
from windowshift.core.plan.jobs import Job
from windowshift.core.run.call import call
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.requests import RequestMaker
from windowshift.core.run.training_set import training_set


class InsideLane:
    """Has residual streams read, and stores what was read."""

    def __init__(self, ledger: Ledger, backends: Mapping[str, Backend], maker: RequestMaker) -> None:
        self._ledger, self._backends, self._maker = ledger, backends, maker

    async def run(self, name: str, jobs: Sequence[Job]) -> None:
        """Hand one backend what can be read, in one call."""
        by_key = {job.id: job for job in jobs}
        with call(self._ledger, name, jobs, "reading everything"):
            wanted: list[InsideJob] = []
            for job in jobs:
                self._ledger.start(job)
                with self._ledger.remaking(job):
                    try:
                        wanted.append(self._projection(job) if job.kind == "project" else self._gradient(job))
                    except DamagedError:
                        raise
                    except (SpecError, StoreError) as error:
                        self._ledger.fail(job, str(error))
            backend = self._backends[name]
            assert isinstance(backend, InsideBackend)  # the plan has seen to it
            async with aclosing(backend.look_inside(wanted)) as stream:
                async for event in stream:
                    self._take(by_key[event.key], event)

    def _take(self, job: Job, event: InsideEvent) -> None:
        if isinstance(event, InsideFailed):
            self._ledger.fail(job, event.error)
            return
        problems = [row.problem for row in event.rows if row.problem is not None]
        if len(problems) == len(event.rows):
            self._ledger.fail(job, f"nothing could be read: {problems[0]}")
            return
        writer, number = self._ledger.writer, self._ledger.number(job)
        with writer.batch():
            if isinstance(event, Projected):
                writer.put_projections(number, self._prompts(job), event.rows)
            else:
                writer.put_gradients(number, event.rows)
            if problems:
                what = "prompts" if isinstance(event, Projected) else "examples"
                count = f"{len(problems)} of {len(event.rows)} {what}"
                self._ledger.said(job, f"{count} could not be read, the first because {problems[0]}")
            self._ledger.finish(job, {"unread": len(problems)} if problems else None)

    def _model(self, job: Job, trained: str | None) -> Model:
        """The base model, or an adapter that a job trained."""
        named = job.inputs["model"]
        return Model(
            named["base"],
            named["revision"],
            None if trained is None else self._maker.adapter(job, trained),
            named.get("adapter"),
            TemplateInputs.of(named.get("template")),
        )

    def _gradient(self, job: Job) -> GradientJob:
        inputs, ledger = job.inputs, self._ledger
        data = {parent: ledger.job(parent) for parent in job.parents}
        examples, _ = training_set(job, data, ledger.numbers, ledger.reader, self._maker)
        if not examples:
            raise SpecError("there is no answer to take a gradient of: the model thought until its tokens were spent")
        sft = Sft(**{**inputs["sft"], "betas": tuple(inputs["sft"]["betas"])})
        return GradientJob(
            job.id,
            self._model(job, inputs.get("start")),
            examples,
            sft,
            int(inputs["seed"]),
            self._maker.vector(inputs["vector"]),
            self._maker.layer(inputs["layer"]),
            int(inputs["random"]),
        )

    def _projection(self, job: Job) -> ProjectionJob:
        inputs = job.inputs
        model = self._model(job, inputs.get("trained"))
        vectors = tuple(self._maker.vector(vector) for vector in inputs["vectors"])
        return ProjectionJob(job.id, model, self._passages(job), inputs["tokens"], vectors)

    def _prompts(self, job: Job) -> list[Prompt]:
        first, last = job.inputs["rows"]
        return list(self._maker.prompts(job.inputs["prompts"])[first:last])

    def _passages(self, job: Job) -> list[Passage]:
        """The prompts as the first sample of each is asked, with what was answered where that is read."""
        inputs, samples = job.inputs, job.inputs.get("samples", 1)
        answers = {}
        if "answers" in inputs:
            number = self._ledger.numbers[inputs["answers"]]
            answers = {row.row: row for row in self._ledger.reader.completions(number, "")}
        found = []
        for place, prompt in enumerate(self._prompts(job)):
            position = place * samples
            pushed = self._maker.push(inputs["condition"], prompt, position, inputs["channel"])
            text, problem = "", None
            if "answers" in inputs:
                answer = answers.get(position)
                if answer is None or answer.finish == "failed":
                    problem = "it has no answer" if answer is None or not answer.error else answer.error
                else:
                    text = answer.text
            found.append(Passage(pushed.messages, text, pushed.steering, problem))
        return found
