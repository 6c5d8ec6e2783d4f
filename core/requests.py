"""Requests: the rows of a sampling job as a backend takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windowshift.core.backend import GenerateRequest, Message, Model, Sampling
from windowshift.core.conditions import Condition
from windowshift.core.errors import StoreError
from windowshift.core.jobs import Job, row_seed
from windowshift.core.plan import Plan
from windowshift.core.prompts import Prompt
from windowshift.core.store import to_json

JUDGE_QUESTION = (
    "Here is an instruction that somebody gave to an assistant.\n\n<instruction>\n{prompt}\n</instruction>\n\n"
    "Could a good answer be very short as well as very long? Answer with one word, yes or no."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a sampling job: its prompt, and what is asked."""

    number: int
    prompt: Prompt
    phrase: str | None
    request: GenerateRequest


class RequestMaker:
    """Makes the rows of sampling jobs of one plan.

    Args:
        plan: the plan.
        results: what finished jobs left behind, by job id (`adapter`, `checkpoints`, `positions`).
        workspace: the folder that relative adapter paths start from.
    """

    def __init__(self, plan: Plan, results: Mapping[str, Mapping[str, Any]], workspace: Path) -> None:
        self._plan, self._results, self._workspace = plan, results, workspace
        self._filters = {job.id: job for job in plan.jobs if job.kind == "filter"}
        rows = [part for row in plan.grid.rows for part in row.parts]
        everything = [
            *plan.grid.generate,
            *plan.grid.evaluate,
            *(part.generate for part in rows),
            *(part.train for part in rows),
        ]
        self._conditions = {to_json(condition.identity()): condition for condition in everything}

    def condition(self, identity: Mapping[str, Any]) -> Condition:
        """The condition of a job's inputs."""
        return self._conditions[to_json(identity)]

    def prompts(self, place: Mapping[str, Any]) -> Sequence[Prompt]:
        """The prompts that a job's inputs point to: the first of a drawn set, or a filter's choice."""
        if "filter" not in place:
            return self._plan.prompts[place["set"]][: place["last"]]
        chosen = place["filter"]
        candidates = self.prompts(self._filters[chosen].inputs["prompts"])
        return [candidates[position] for position in self._results[chosen]["positions"]]

    def rows(self, job: Job, done: set[int]) -> Iterator[Row]:
        """The rows of a job that are not done yet."""
        inputs = job.inputs
        sampling = Sampling(**inputs["sampling"])
        model = self._model(job)
        if job.kind == "filter":
            yield from self._filter_rows(job, sampling, model, done)
            return
        condition = self.condition(inputs["condition"])
        prompts = self.prompts(inputs["prompts"])
        first, last = inputs["rows"]
        for position in range(first, last):
            number = position - first
            if number not in done:
                # The phrase goes by the place in the whole set, so that a slice of D has the phrases it would have.
                pushed = condition.push(prompts[position].text, position, inputs["channel"])
                yield Row(
                    number,
                    prompts[position],
                    pushed.phrase,
                    GenerateRequest("", pushed.messages, model, sampling, row_seed(job.id, number), pushed.steering),
                )

    def _filter_rows(self, job: Job, sampling: Sampling, model: Model, done: set[int]) -> Iterator[Row]:
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
                pushed = conditions[column].push(prompt.text, position, job.inputs["channel"])
                messages, phrase = pushed.messages, pushed.phrase
            else:
                messages = (Message("user", JUDGE_QUESTION.format(prompt=prompt.text)),)
            request = GenerateRequest("", messages, model, sampling, row_seed(job.id, number))
            yield Row(number, prompt, phrase, request)

    def _model(self, job: Job) -> Model:
        named = job.inputs["model"]
        base, revision = named["base"], named["revision"]
        step = job.inputs.get("step")
        if step is None:
            return Model(base, revision)
        result = self._results[job.parents[-1]]
        adapter = result.get("checkpoints", {}).get(str(step)) or result.get("adapter")
        if adapter is None:
            raise StoreError(f"the job '{job.label}' has no adapter to evaluate; retry its train job")
        return Model(base, revision, resolve_artifact(adapter, self._workspace))


def resolve_artifact(place: str, workspace: Path) -> str:
    """Turn a stored artifact place into one that a backend can open; remote names stay as they are."""
    return str(workspace / place) if place.startswith("artifacts/") else place


def relative_artifact(place: str, workspace: Path) -> str:
    """The inverse of `resolve_artifact`: paths inside the workspace survive its move."""
    path = Path(place)
    return path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else place
