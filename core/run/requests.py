"""Requests: the rows of a sampling job as a backend takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windowshift.core.contract.artifacts import Artifacts
from windowshift.core.contract.conditions import Channel, Condition, Pushed
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling, Steering, TemplateInputs
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.selective import Selective
from windowshift.core.contract.setting import ModelScorer, Question, Sample
from windowshift.core.contract.vector_file import VectorHeader, read_header
from windowshift.core.measure.trials import Trial, curve_trials, refined_trials, sweep_trials
from windowshift.core.plan.jobs import Job, row_seed
from windowshift.core.plan.plan import Plan
from windowshift.core.settings.filtering import JUDGE_QUESTION
from windowshift.core.settings.soundness import SoundnessScorer
from windowshift.core.store.connection import to_json
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One row of a job: its prompt and phrase; `judged` is what a question to a judge is about."""

    number: int
    prompt: Prompt
    phrase: str | None
    judged: Sample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRow(PromptRow):
    """One row of a sampling job, and what is asked."""

    request: GenerateRequest


class RequestMaker:
    """Makes the rows of sampling jobs of one plan.

    Args:
        plan: the plan.
        results: what finished jobs left behind, by job id (`adapter`, `checkpoints`, `positions`).
        artifacts: where they left it.
    """

    def __init__(self, plan: Plan, results: Mapping[str, Mapping[str, Any]], artifacts: Artifacts) -> None:
        self._plan, self._results, self._artifacts = plan, results, artifacts
        self._filters = {job.id: job for job in plan.jobs if job.kind == "filter"}
        sound = any(isinstance(scorer, SoundnessScorer) for scorer in plan.scorers)
        self._coherent = plan.spec.sampling.coherence if sound else 0
        self._headers: dict[str, VectorHeader] = {}
        self._last: tuple[Mapping[str, Any], Condition] | None = None

    def condition(self, identity: Mapping[str, Any]) -> Condition:
        """The condition of a job's inputs."""
        # All rows of a job ask with the same object, whose JSON takes longer than all else that a row needs.
        if self._last is None or self._last[0] is not identity:
            self._last = identity, self._plan.conditions[to_json(identity)]
        return self._last[1]

    def push(self, identity: Mapping[str, Any], prompt: Prompt, position: int, channel: Channel) -> Pushed:
        """A prompt under the condition of a job's inputs, with the files, layers and alphas of its steering.

        Raises:
            StoreError: a vector's file is gone or damaged.
        """
        condition = self.condition(identity)
        if isinstance(condition, Selective):
            return self.push(
                identity["then" if condition.applies(prompt, position) else "else"], prompt, position, channel
            )
        pushed = condition.push(prompt, position, channel)
        if not pushed.steering:
            return pushed
        steering = (
            self._steering(asked, use, identity)
            for asked, use in zip(pushed.steering, identity["vectors"], strict=True)
        )
        return replace(pushed, steering=tuple(steering))

    def vector(self, job: str) -> str:
        """The file of the vector that a job made.

        Raises:
            DamagedError: it is gone or damaged.
        """
        return self._artifacts.get(str(self._results[job]["vector"]))

    def header(self, job: str) -> VectorHeader:
        """What is known of the vector that a job made.

        Raises:
            StoreError: its file is gone or damaged.
        """
        if job not in self._headers:
            try:
                self._headers[job] = read_header(self.vector(job))
            except SpecError as error:
                raise StoreError(f"{error}; run again to make it anew") from error
        return self._headers[job]

    def trials(self, job: Job) -> list[Trial]:
        """What a sweep or a dose curve tries."""
        header = self.header(job.inputs["vector"])
        if job.kind == "sweep":
            return sweep_trials(job.inputs, header)
        if job.inputs["for"] == "refine":
            return refined_trials(job.inputs, header, self._results[job.inputs["match"]])
        return curve_trials(job.inputs, header, self._results[job.inputs["sweep"]])

    def layer(self, named: int | Mapping[str, Any]) -> int:
        """A layer as job inputs have it: a number, or the sweep that chose it."""
        return int(self._results[named["sweep"]]["layer"]) if isinstance(named, Mapping) else named

    def _steering(self, asked: Steering, use: Mapping[str, Any], identity: Mapping[str, Any]) -> Steering:
        layer = self.layer(use["layer"])
        alpha = asked.alpha
        solved = identity["match"] or identity.get("iso_kl")
        if solved is not None:
            alpha = float(self._results[solved]["alpha"])
        elif identity["unit"] == "dose":
            alpha = self.header(use["vector"]).alpha_of(alpha, layer)
        return replace(asked, vector=self.vector(use["vector"]), layer=layer, alpha=alpha)

    def prompts(self, place: Mapping[str, Any]) -> Sequence[Prompt]:
        """The prompts that a job's inputs point to: the first of a drawn set, or a filter's choice."""
        if "filter" not in place:
            return self._plan.prompts[place["set"]][: place["last"]]
        chosen = place["filter"]
        candidates = self.prompts(self._filters[chosen].inputs["prompts"])
        return [candidates[position] for position in self._results[chosen]["positions"]]

    def rows(self, job: Job, done: set[int]) -> Iterator[AskedRow]:
        """The rows of a job that are not done yet."""
        inputs = job.inputs
        sampling = Sampling(**inputs["sampling"])
        model = self._model(job)
        if job.kind == "filter":
            yield from self._filter_rows(job, sampling, model, done)
            return
        if job.kind in ("sweep", "dose"):
            yield from self._trial_rows(job, sampling, model, done)
            return
        prompts = self.prompts(inputs["prompts"])
        first, last = inputs["rows"]
        samples = inputs.get("samples", 1)  # of each prompt, one after another; phrases go on from one to the next
        for position in range(first, last):
            number = position - first
            if number not in done:
                prompt = prompts[position // samples]
                # The phrase goes by the place in the whole set, so that a slice of D has the phrases it would have.
                pushed = self.push(inputs["condition"], prompt, position, inputs["channel"])
                seed = row_seed(job.id, number)
                asked = number // samples < self._coherent and inputs["for"] not in ("guard", "development")
                request = GenerateRequest("", pushed.messages, model, sampling, seed, pushed.steering, coherence=asked)
                yield AskedRow(number, prompt, pushed.phrase, request=request)

    def _trial_rows(self, job: Job, sampling: Sampling, model: Model, done: set[int]) -> Iterator[AskedRow]:
        prompts = self.prompts(job.inputs["prompts"])
        first, last = job.inputs["rows"]
        vector = self.vector(job.inputs["vector"])
        tokens = job.inputs.get("tokens", "all")
        number = -1
        for trial in self.trials(job):
            for position in range(first, last):
                number += 1
                if number in done:
                    continue
                steering = (Steering(vector, trial.alpha, trial.layer, tokens),) if trial.alpha else ()
                # A sweep compares layers: the same random stream under every alpha. A curve is smoothed for its
                # level: streams of their own, so that neighbours average out.
                seed = row_seed(job.id, position if job.kind == "sweep" else number)
                messages = prompts[position].messages
                asked = position < self._coherent
                request = GenerateRequest("", messages, model, sampling, seed, steering, coherence=asked)
                yield AskedRow(number, prompts[position], None, request=request)

    def _filter_rows(self, job: Job, sampling: Sampling, model: Model, done: set[int]) -> Iterator[AskedRow]:
        prompts = self.prompts(job.inputs["prompts"])
        conditions = [self.condition(identity) for identity in job.inputs.get("conditions", ())]
        width = max(1, len(conditions))
        for number in range(len(prompts) * width):
            if number in done:
                continue
            position, column = divmod(number, width)
            prompt = prompts[position]
            phrase = None
            if conditions:
                pushed = conditions[column].push(prompt, position, job.inputs["channel"])
                messages, phrase = pushed.messages, pushed.phrase
            else:
                messages = (Message("user", JUDGE_QUESTION.format(prompt=prompt.text)),)
            request = GenerateRequest("", messages, model, sampling, row_seed(job.id, number))
            yield AskedRow(number, prompt, phrase, request=request)

    def questions(
        self, scorer: ModelScorer, job: Job, parent: Job, reader: Reader, number: int, done: set[int]
    ) -> Iterator[AskedRow]:
        """What a score job asks about its parent's completions; not about one that failed, or needs no answer.

        The row number is that of the completion.

        Args:
            scorer: what asks.
            job: the score job.
            parent: the job that holds the completions, `number` in the store that `reader` reads.
            reader: the store.
            number: see `parent`.
            done: the rows that were answered already.
        """
        condition = self._plan.condition_name(parent)
        for row, phrase, prompt, completion in reader.samples(number):
            if row in done:
                continue
            sample = Sample(prompt, completion, condition, phrase)
            question = scorer.ask(sample)
            if not isinstance(question, Question):
                continue  # it has its scores without an answer; see `Ledger.judged`
            messages = (Message("user", question.text),)
            seed = row_seed(job.id, row)
            request = GenerateRequest("", messages, scorer.asked, scorer.sampling, seed, logprobs=question.logprobs)
            yield AskedRow(row, prompt, None, sample, request=request)

    def check_artifacts(self, job: Job) -> None:
        """Look at the content of what a job's rows need of other jobs; may run in any thread.

        Raises:
            DamagedError: an adapter or a vector is gone or damaged.
        """
        if job.inputs.get("step") is not None:
            self._model(job)
        if "vector" in job.inputs:
            self.vector(job.inputs["vector"])
        for use in job.inputs.get("condition", {}).get("vectors", ()):
            self.vector(use["vector"])

    def _model(self, job: Job) -> Model:
        named = job.inputs["model"]
        base, revision = named["base"], named["revision"]
        step = job.inputs.get("step")
        template = TemplateInputs.of(named.get("template"))
        if step is None:
            return Model(base, revision, merged=named.get("adapter"), template=template)
        return Model(base, revision, self.adapter(job, job.parents[-1], step), named.get("adapter"), template)

    def adapter(self, job: Job, trained: str, step: int | None = None) -> str:
        """The folder, or the remote name, of the adapter that a train job left; of a checkpoint where it kept one.

        Raises:
            DamagedError: it is gone or damaged.
            StoreError: there is none.
        """
        result = self._results[trained]
        adapter = result.get("checkpoints", {}).get(str(step)) or result.get("adapter")
        if adapter is None:
            raise StoreError(f"the job '{job.label}' has no adapter to go by; retry its train job")
        return self._artifacts.get(adapter)
