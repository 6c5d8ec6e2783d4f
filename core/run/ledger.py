"""The ledger: which jobs of a plan are done, running, ready or failed, kept in step with the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from windowshift.core.contract.artifacts import Artifacts, DamagedError
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.progress import Progress, Work
from windowshift.core.contract.records import SAMPLING, ExperimentState, JobState
from windowshift.core.contract.redaction import sentence
from windowshift.core.contract.setting import ModelScorer, Question, RowScorer, Sample, Score, Scorer, Scores
from windowshift.core.contract.training import TrainProgress
from windowshift.core.measure.summarise import put_summaries
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.run.piloting import Piloting
from windowshift.core.run.register import register
from windowshift.core.run.scoring import FAILED
from windowshift.core.store.artifact_folder import ArtifactFolder
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

MOST_REMADE = 2
"""How often a run makes the same artifact anew: a disk that damages what it is given is not written to for ever."""


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
        self.artifacts: Artifacts = ArtifactFolder(writer.workspace, writes=True)
        self.experiment, self.numbers = register(plan, writer)
        self.pilot = Piloting()
        self.results: dict[str, dict[str, Any]] = {}
        self._jobs = {job.id: job for job in plan.jobs}
        self._by_number = {number: self._jobs[identifier] for identifier, number in self.numbers.items()}
        self._states: dict[str, JobState] = {}
        self._priorities: dict[str, int] = {}
        self._arriving: dict[str, list[RowScorer | ModelScorer]] = {}
        self._score_jobs: dict[str, list[Job]] = {}
        self._sampled: set[str] = set()
        self._remade: Counter[str] = Counter()
        self._done: dict[str, int] = {}
        self._units: dict[str, str] = {}
        self._cell_jobs = [cell.job for cell in plan.cells]
        self._run: int | None = None
        for job in plan.jobs:
            if job.kind == "score":
                self._score_jobs.setdefault(job.parents[0], []).append(job)
                if job.id in plan.copied:
                    continue
                scorer = plan.scoring[job.id]
                # A model scores by its own answers, rows of the score job; a row scorer what the parent sampled.
                if isinstance(scorer, ModelScorer):
                    self._arriving.setdefault(job.id, []).append(scorer)
                elif isinstance(scorer, RowScorer):
                    self._arriving.setdefault(job.parents[0], []).append(scorer)
            if (unit := self._unit(job)) is not None:
                self._units[job.id] = unit
        self._also_waits_for = {job.id: set(self._scores_read_by(job)) for job in plan.jobs}
        with writer.batch():
            self._take_over()
            self._summarise_anew()

    def _unit(self, job: Job) -> str | None:
        if job.kind == "score":
            return None if isinstance(self.plan.scoring[job.id], RowScorer) else "scores"
        units = {"train": "examples", "extract": "vectors", "project": "readings", "gradient": "readings"}
        return units.get(job.kind, "rows" if job.kind in SAMPLING else None)

    def _take_over(self) -> None:
        for row in self.reader.jobs(self.experiment):
            self.results[row.id] = dict(row.result)
            self._priorities[row.id] = row.priority
            self._done[row.id] = row.done
            state: JobState = row.state
            lost = self._lost(row.result) if state == "done" and row.kind in ("train", "extract") else []
            if lost:
                text = f"what '{row.label}' made is gone, or damaged; it is made again"
                self.writer.event("message", {"text": text}, experiment=self.experiment, job=row.n)
                for place in lost:
                    with suppress(StoreError):  # it leads elsewhere, or names nothing
                        self.artifacts.discard(place)
                state = "pending"
            if state == "failed":
                self.writer.drop_failed_completions(row.n)
            if state != "done":
                state = "pending"
            if state != row.state:
                self.writer.set_job(row.n, state, experiment=self.experiment)
            self._states[row.id] = state

    def _summarise_anew(self) -> None:
        """Work out intervals that an older version of the store had otherwise."""
        known = {each.name: each for scorer in self.plan.scorers for each in scorer.behaviours}
        for job, name in self.reader.without_interval(self.experiment):
            if name in known:
                put_summaries(self.reader, self.writer, job, [known[name]])

    def _lost(self, result: Mapping[str, Any]) -> list[str]:
        """The places at which what a job made is gone or damaged; an empty one for a job that names none."""
        made = str(result.get("adapter") or result.get("vector") or "")
        places = [made, *map(str, result.get("checkpoints", {}).values())]
        return [place for place in places if not self._is_there(place)]

    def _is_there(self, place: str) -> bool:
        try:
            return bool(place) and self.artifacts.exists(place)
        except StoreError:  # a place that leads elsewhere: what is there is not ours
            return False

    def ready(self) -> list[Job]:
        """Pending jobs whose parents are all done, by priority, then in plan order."""
        waiting = [job for job in self.plan.jobs if self._states[job.id] == "pending"]
        found = [job for job in waiting if job.id not in self.pilot.ended and self._can_start(job)]
        return sorted(found, key=lambda job: -self._priorities[job.id])

    def _can_start(self, job: Job) -> bool:
        if job.kind == "score" and job.id not in self.plan.copied:
            sampled, *read = job.parents  # what a derived score reads, besides
            return (sampled in self._sampled or self._there(sampled)) and all(map(self._there, read))
        waits_for = (*job.parents, *self._also_waits_for[job.id])
        return all(self._states[parent] == "done" for parent in waits_for)

    def _there(self, job: str) -> bool:
        """Whether a job is done, or as far as a pilot has it."""
        return self._states[job] == "done" or job in self.pilot.ended

    def _scores_read_by(self, job: Job) -> tuple[str, ...]:
        """The score jobs behind the scores that a job reads besides its parents' completions."""
        sources: tuple[str, ...] = ()
        if job.id in self.plan.copied:
            return (self.plan.copied[job.id].id,)
        if job.kind == "match":
            sources = (job.inputs["curve"], job.inputs["target"])
        elif job.kind == "extract" and job.inputs.get("min_difference") is not None:
            sources = job.parents
        return tuple(one.id for source in sources for one in self._primary_score_jobs(source))

    def _primary_score_jobs(self, source: str) -> list[Job]:
        primary = self.plan.scorers[0]
        return [one for one in self._score_jobs.get(source, ()) if self.plan.scoring[one.id] is primary]

    def scored_through(self) -> list[Job]:
        """Sampled jobs that waited for their scores, all of which are there, or will never be."""
        ended = ("done", "failed", "cancelled")
        return [
            self._jobs[identifier]
            for identifier in sorted(self._sampled, key=lambda one: self.numbers[one])
            if self._states[identifier] == "running"
            and all(self._states[score.id] in ended for score in self._score_jobs.get(identifier, ()))
        ]

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

    def scorer(self, job: Job) -> Scorer:
        """What a score job scores by."""
        return self.plan.scoring[job.id]

    def arriving_scorers(self, job: Job) -> Sequence[RowScorer | ModelScorer]:
        """What scores a job's rows as they arrive: row scorers; of a score job, the model that answers."""
        return self._arriving.get(job.id, ())

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
            work=tuple(self._work()),
        )

    def _work(self) -> Iterator[Work]:
        """What there is to do in units that people count, within jobs too; what takes no time is left out."""
        found: dict[str, list[int]] = {}
        for job in self.plan.jobs:
            unit = self._units.get(job.id)
            if unit is not None:
                state = self._states[job.id]
                count = found.setdefault(unit, [0, 0, 0])
                count[0] += job.total if state == "done" else min(job.total, self._done.get(job.id, 0))
                count[1] += job.total
                count[2] += state == "running"
        return (Work(unit, done, total, bool(busy)) for unit, (done, total, busy) in found.items())

    def advance(self, job: Job, done: int, *, loss: float | None = None, rate: float | None = None) -> None:
        """A job has `done` rows or examples; `rate` of them a second, or tokens where it trains."""
        self._done[job.id] = done
        self.writer.progress(self.number(job), done, loss=loss, rate=rate)

    def _set(self, job: Job, state: JobState, **fields: Any) -> None:
        if state != "running":
            self._sampled.discard(job.id)
        self._states[job.id] = state
        if fields.get("error"):
            fields["error"] = sentence(fields["error"])
        self.writer.set_job(self.number(job), state, experiment=self.experiment, **fields)

    def start(self, job: Job) -> None:
        """A job is being worked on."""
        if self._states[job.id] != "running":
            self._set(job, "running")

    def finish(self, job: Job, result: Mapping[str, Any] | None = None, usd: float | None = None) -> None:
        """A job is done; `result` is added to what it left behind. In a pilot it may only have come so far."""
        if self.pilot.end(job):
            self.put_back(job)
            return
        if result:
            self.results[job.id].update(result)
        with self.writer.batch():
            if usd is not None:
                self.writer.add_cost(self.number(job), usd, experiment=self.experiment)
            self._set(job, "done", result=self.results[job.id] or None)
            if job.kind == "score":
                behaviours = [each.name for each in self.scorer(job).behaviours]
                self.writer.seal_scores(self.number(self._jobs[job.parents[0]]), behaviours)

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
            ended = job.id in self._sampled or job.id in self.pilot.ended
            if self._states[job.id] in ("pending", "running") and not ended:
                self.fail(job, error)

    def put_back(self, job: Job) -> None:
        """A job that was being worked on waits again; what it has stays."""
        if self._states[job.id] == "running" and job.id not in self._sampled:
            self._set(job, "pending")

    @contextmanager
    def remaking(self, job: Job) -> Iterator[None]:
        """Have made anew what a job finds gone or damaged in the block; the job waits for it."""
        try:
            yield
        except DamagedError as error:
            maker = self._jobs.get(error.job)
            if maker is None:  # not of this plan: nobody here can make it
                raise
            self.said(maker, str(error))
            if self._states[maker.id] == "done":
                self._remade[maker.id] += 1
            if self._remade[maker.id] > MOST_REMADE:
                self.fail(job, f"{error}; it was made anew {MOST_REMADE} times in this run, and is damaged again")
                return
            self._also_waits_for[job.id].add(maker.id)
            with self.writer.batch():
                if self._states[maker.id] == "done":
                    self.artifacts.discard(error.place)
                    self._set(maker, "pending")
                self._sampled.discard(job.id)
                self.put_back(job)

    def sampled(self, job: Job) -> None:
        """A job's rows are there, and what they come to needs their scores first (see `scored_through`)."""
        self._sampled.add(job.id)

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
        """Failed and cancelled jobs, or one of them, wait again; failed completions are asked for anew.

        So do done ones whose scorer failed on some completions: those are scored anew.
        """
        for job in self.plan.jobs if number is None else filter(None, [self._by_number.get(number)]):
            state = self._states[job.id]
            with self.writer.batch():
                if state in ("failed", "cancelled"):
                    self.writer.drop_failed_completions(self.number(job))
                    self._set(job, "pending")
                elif job.kind == "score" and state == "done" and self.results[job.id].get("unscored"):
                    behaviours = [each.name for each in self.scorer(job).behaviours]
                    self.writer.drop_scores(self.number(self._jobs[job.parents[0]]), behaviours, FAILED)
                    self.results[job.id].pop("unscored")
                    self._set(job, "pending", result=self.results[job.id])
                    for one in self._score_jobs[job.parents[0]]:
                        if job.id in one.parents and self._states[one.id] == "done":
                            self._set(one, "pending")  # what was derived of these scores

    def trained_step(self, job: Job, event: TrainProgress, *, fresh: bool) -> None:
        """Record a training step's loss and speed; one that is not `fresh` is in the curve already."""
        number = self.number(job)
        with self.writer.batch():
            self.advance(job, event.examples, loss=event.loss, rate=event.tokens_per_second)
            if not fresh:
                return
            data = {"step": event.step, "examples": event.examples, "loss": event.loss}
            device = {"mfu": event.mfu, "memory": event.memory}
            data |= {key: value for key, value in device.items() if value is not None}
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
        self.writer.event("message", {"text": sentence(text)}, experiment=self.experiment, job=self.number(job))

    def judged(self, job: Job) -> None:
        """Pass a judge's scores, and what it said, on to the completions that it judged; others need no answer."""
        number, parent = self.number(job), self.number(self._jobs[job.parents[0]])
        self.writer.put_scores(parent, self._unasked(job, number, parent))
        for behaviour in (each.name for each in self.scorer(job).behaviours):
            rows = []
            weights = self.reader.weights(number, behaviour)
            for row in self.reader.completions(number, behaviour):
                reason = f"the judge failed: {row.error}" if row.finish == "failed" else row.reason
                score = Score(row.score, reason, row.evidence, weights.get(row.row, 1))
                rows.append((row.row, {behaviour: score}))
            self.writer.put_scores(parent, rows)

    def _unasked(self, job: Job, number: int, parent: int) -> Iterator[tuple[int, Scores]]:
        """The scores of completions that a judge had nothing to be asked about."""
        scorer, asked = self.scorer(job), self.reader.rows_done(number)
        if not isinstance(scorer, ModelScorer) or asked == self.reader.rows_done(parent):
            return
        condition = self.plan.condition_name(self._jobs[job.parents[0]])
        for row, phrase, prompt, completion in self.reader.samples(parent):
            found = None if row in asked else scorer.ask(Sample(prompt, completion, condition, phrase))
            if found is not None and not isinstance(found, Question):
                yield row, found

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
