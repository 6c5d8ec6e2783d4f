"""The ledger: which jobs of a plan are done, running, ready or failed, kept in step with the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.records import ExperimentState, JobState
from windowshift.core.contract.setting import Scorer
from windowshift.core.contract.training import TrainProgress
from windowshift.core.measure.summarise import put_summaries
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.run.register import register
from windowshift.core.run.requests import resolve_artifact
from windowshift.core.settings.judge import is_judged
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


class Ledger:
    """The one place where a run changes a job's state.

    Opening it registers the plan in the store and takes over what earlier runs left: finished jobs
    are reused, half-done and failed ones go on.

    Args:
        plan: the plan.
        writer: the store.
    """

    def __init__(self, plan: Plan, writer: Writer) -> None:
        self.plan, self.writer, self.workspace = plan, writer, writer.workspace
        self.reader = Reader(writer.workspace, writer.connection)
        self.experiment, self.numbers = register(plan, writer)
        self.results: dict[str, dict[str, Any]] = {}
        self._jobs = {job.id: job for job in plan.jobs}
        self._by_number = {number: self._jobs[identifier] for identifier, number in self.numbers.items()}
        self._states: dict[str, JobState] = {}
        self._priorities: dict[str, int] = {}
        self._scorers: dict[str, list[Scorer]] = {}
        self._cell_jobs = [cell.job for cell in plan.cells]
        self._run: int | None = None
        by_identity = {json.dumps(scorer.identity(), sort_keys=True): scorer for scorer in plan.scorers}
        for job in plan.jobs:
            if job.kind == "score":
                scorer = by_identity[json.dumps(dict(job.inputs), sort_keys=True)]
                # A judge scores its own answers, as rows of the score job; the others what their parent sampled.
                self._scorers.setdefault(job.id if is_judged(job.inputs) else job.parents[0], []).append(scorer)
        with writer.batch():
            self._take_over()

    def _take_over(self) -> None:
        for row in self.reader.jobs(self.experiment):
            self.results[row.id] = dict(row.result)
            self._priorities[row.id] = row.priority
            state: JobState = row.state
            if state == "done" and row.kind in ("train", "extract") and not self._artifacts_there(row.result):
                self.writer.event(
                    "message",
                    {"text": f"what '{row.label}' made is gone; it is made again"},
                    experiment=self.experiment,
                    job=row.n,
                )
                state = "pending"
            if state == "failed":
                self.writer.drop_failed_completions(row.n)
            if state != "done":
                state = "pending"
            if state != row.state:
                self.writer.set_job(row.n, state, experiment=self.experiment)
            self._states[row.id] = state

    def _artifacts_there(self, result: Mapping[str, Any]) -> bool:
        made = result.get("adapter") or result.get("vector") or "artifacts/?"
        places = [made, *result.get("checkpoints", {}).values()]
        local = [place for place in places if place.startswith("artifacts/")]
        return all(Path(resolve_artifact(place, self.workspace)).exists() for place in local)

    # -- what there is to do --------------------------------------------------------------------

    def ready(self) -> list[Job]:
        """Pending jobs whose parents are all done, by priority, then in plan order."""
        found = [
            job
            for job in self.plan.jobs
            if self._states[job.id] == "pending" and all(self._states[parent] == "done" for parent in job.parents)
        ]
        return sorted(found, key=lambda job: -self._priorities[job.id])

    def priority(self, job: Job) -> int:
        """Where a job stands: higher numbers go first."""
        return self._priorities[job.id]

    def job(self, identifier: str) -> Job:
        """A job by id."""
        return self._jobs[identifier]

    def number(self, job: Job) -> int:
        """A job's number in the store."""
        return self.numbers[job.id]

    def state(self, job: Job) -> JobState:
        """A job's state."""
        return self._states[job.id]

    def scorers(self, job: Job) -> Sequence[Scorer]:
        """The scorers that the plan wants on a sampling job's completions."""
        return self._scorers.get(job.id, ())

    def held(self) -> bool:
        """Whether a person paused a job, so that the run waits for them."""
        return "paused" in self._states.values()

    def all_done(self, only: Collection[str] | None = None) -> bool:
        """Whether nothing is left to do, among some jobs or among all."""
        return all(state == "done" for job, state in self._states.items() if only is None or job in only)

    def spent(self) -> float:
        """What the experiment's runs have paid so far, in USD."""
        return self.reader.spent(self.experiment)

    def failures(self) -> list[str]:
        """One sentence for every job that failed, in plan order."""
        return [f"{row.label}: {row.error}" for row in self.reader.jobs(self.experiment) if row.state == "failed"]

    def progress(self) -> Progress:
        """How far the run is."""
        states = list(self._states.values())
        return Progress(
            sum(self._states[job] == "done" for job in self._cell_jobs),
            len(self._cell_jobs),
            states.count("done"),
            len(states),
            states.count("failed"),
            tuple(self._jobs[identifier].label for identifier, state in self._states.items() if state == "running"),
        )

    # -- changes --------------------------------------------------------------------------------

    def _set(self, job: Job, state: JobState, **fields: Any) -> None:
        self._states[job.id] = state
        self.writer.set_job(self.number(job), state, experiment=self.experiment, **fields)

    def start(self, job: Job) -> None:
        """A job is being worked on."""
        if self._states[job.id] != "running":
            self._set(job, "running")

    def finish(self, job: Job, result: Mapping[str, Any] | None = None, usd: float | None = None) -> None:
        """A job is done; `result` is added to what it left behind."""
        if result:
            self.results[job.id].update(result)
        with self.writer.batch():
            if usd is not None:
                self.writer.add_cost(self.number(job), usd, experiment=self.experiment)
            self._set(job, "done", result=self.results[job.id] or None)

    def fail(self, job: Job, error: str, result: Mapping[str, Any] | None = None) -> None:
        """A job failed; its children wait until it is retried. `result` is what it found out nevertheless."""
        if result:
            self.results[job.id].update(result)
            self._set(job, "failed", error=error, result=self.results[job.id])
        else:
            self._set(job, "failed", error=error)

    def fail_unfinished(self, jobs: Iterable[Job], error: str) -> None:
        """What is left of some jobs fails."""
        for job in jobs:
            if self._states[job.id] in ("pending", "running"):
                self.fail(job, error)

    def put_back(self, job: Job) -> None:
        """A job that was being worked on waits again; what it has stays."""
        if self._states[job.id] == "running":
            self._set(job, "pending")

    def pause(self, number: int) -> tuple[Job, ...]:
        """A person wants a job to wait; what it has stays. Return it, where that changed anything."""
        job = self._by_number.get(number)
        if job is None or self._states[job.id] not in ("pending", "running"):
            return ()
        self._set(job, "paused")
        return (job,)

    def resume(self, number: int) -> tuple[Job, ...]:
        """A person lets a paused job go on. Return it, where that changed anything."""
        job = self._by_number.get(number)
        if job is None or self._states[job.id] != "paused":
            return ()
        self._set(job, "pending")
        return (job,)

    def move(self, number: int, *, first: bool) -> tuple[Job, ...]:
        """Put a job, with what it waits for, before all that is left to do, or after it. Return what was moved."""
        job = self._by_number.get(number)
        if job is None or self._states[job.id] == "done":
            return ()
        moved = [job]
        if first:
            for one in moved:  # grows while it is walked: parents, their parents, ...
                moved += [self._jobs[parent] for parent in one.parents if self._states[parent] != "done"]
        place = max(self._priorities.values()) + 1 if first else min(self._priorities.values()) - 1
        with self.writer.batch():
            for one in moved:
                self._priorities[one.id] = place
                self.writer.set_priority(self.number(one), place)
            data = {"text": f"goes {'first' if first else 'last'}"}
            self.writer.event("message", data, experiment=self.experiment, job=number)
        return tuple(moved)

    def cancel(self, number: int) -> None:
        """A person cancelled a job."""
        job = self._by_number.get(number)
        if job is not None and self._states[job.id] != "done":
            self._set(job, "cancelled")

    def cancel_unfinished(self) -> None:
        """A person cancelled the experiment."""
        with self.writer.batch():
            for job in self.plan.jobs:
                if self._states[job.id] not in ("done", "failed"):
                    self._set(job, "cancelled")

    def retry(self, number: int | None) -> None:
        """Failed and cancelled jobs, or one of them, wait again; failed completions are asked for anew."""
        for job in self.plan.jobs if number is None else filter(None, [self._by_number.get(number)]):
            if self._states[job.id] in ("failed", "cancelled"):
                with self.writer.batch():
                    self.writer.drop_failed_completions(self.number(job))
                    self._set(job, "pending")

    def trained_step(self, job: Job, event: TrainProgress, *, fresh: bool) -> None:
        """Record a training step's loss and speed; one that is not `fresh` is in the curve already."""
        number = self.number(job)
        with self.writer.batch():
            self.writer.progress(number, event.examples, loss=event.loss, rate=event.tokens_per_second)
            if not fresh:
                return
            data = {"step": event.step, "examples": event.examples, "loss": event.loss}
            self.writer.event("loss", data, experiment=self.experiment, job=number)

    def checkpointed(self, job: Job, examples: int, place: str) -> None:
        """Record a checkpoint's adapter."""
        self.results[job.id].setdefault("checkpoints", {})[str(examples)] = place
        with self.writer.batch():
            self._set(job, "running", result=self.results[job.id])
            data = {"examples": examples, "adapter": place}
            self.writer.event("checkpoint", data, experiment=self.experiment, job=self.number(job))

    def said(self, job: Job, text: str) -> None:
        """Record what a backend says of a job."""
        self.writer.event("message", {"text": text}, experiment=self.experiment, job=self.number(job))

    def judged(self, job: Job) -> None:
        """Pass a judge's scores on to the completions that it judged, and summarise them there."""
        number, parent = self.number(job), self.number(self._jobs[job.parents[0]])
        for measured in (each for scorer in self.scorers(job) for each in scorer.behaviours):
            behaviour = measured.name
            scores = []
            for row in self.reader.completions(number, behaviour):
                reason = f"the judge failed: {row.error}" if row.finish == "failed" else row.reason
                scores.append((row.row, behaviour, row.score, reason))
            self.writer.add_scores(parent, scores)
            put_summaries(self.reader, self.writer, parent, [measured])

    def score_missing(self, job: Job) -> None:
        """Score the completions of a score job's parent that lack a score, e.g. of an older run."""
        parent = self._jobs[job.parents[0]]
        number = self.number(parent)
        for scorer in self.scorers(parent):
            if scorer.identity() != dict(job.inputs):
                continue
            primary = scorer.behaviours[0].name
            scored = []
            for row in self.reader.completions(number, primary):
                if row.score is None and row.reason is None and row.finish != "failed":
                    completion = Completion(
                        "", row.text, "stop", row.tokens, row.prompt_tokens, row.logprob,
                        reasoning=row.reasoning, reasoning_tokens=row.reasoning_tokens,
                    )  # fmt: skip
                    found = scorer.score(row.asked, completion)
                    scored += [(row.row, name, value, reason) for name, (value, reason) in found.items()]
            if scored:
                self.writer.add_scores(number, scored)

    # -- the run --------------------------------------------------------------------------------

    def begin(self) -> None:
        """The run starts."""
        with self.writer.batch():
            self._run = self.writer.start_run(self.experiment)
            self.set_experiment("running")

    def heartbeat(self) -> None:
        """The run is alive."""
        if self._run is not None:
            self.writer.heartbeat(self._run)

    def end(self, state: ExperimentState, error: str | None = None) -> None:
        """The run ended by itself."""
        with self.writer.batch():
            self.set_experiment(state, error)
            if self._run is not None:
                self.writer.end_run(self._run)

    def set_experiment(self, state: ExperimentState, error: str | None = None) -> None:
        """Record the experiment's state."""
        self.writer.set_experiment(self.experiment, state, error)
