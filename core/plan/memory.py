"""The largest that a plan asks for, from which a backend tells what it takes of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windowshift.core.contract.memory import MemoryAsked
from windowshift.core.plan.cost import CHARACTERS_A_TOKEN, TOKENS_A_TURN
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan

_JUDGED = ("score", "filter")


def memory_asked(plan: Plan) -> MemoryAsked:
    """What a plan asks of the model that it is about: lengths by their characters, completions as long as they may be.

    Questions to judges are left out.
    """
    spec, jobs = plan.spec, {job.id: job for job in plan.jobs}
    prompt = answer = completions = 0
    for job in plan.jobs:
        drawn = "sampling" in job.inputs and job.kind not in _JUDGED and job.id not in plan.copied
        if drawn and job.inputs["model"]["base"] == spec.model:
            completions += job.total
            prompt = max(prompt, _prompt_tokens(plan, jobs, job))
            answer = max(answer, int(job.inputs["sampling"]["max_tokens"]))
    trainings = [job for job in plan.jobs if job.kind == "train" and job.id not in plan.copied]
    question = learned = 0
    for data in {part["data"]: jobs[part["data"]] for job in trainings for part in job.inputs["parts"]}.values():
        question = max(question, _prompt_tokens(plan, jobs, data))
        learned = max(learned, _learned_tokens(plan, jobs, data))
    sft = spec.sft.resolved() if trainings else None
    return MemoryAsked(sft, len(trainings), question + learned, learned, completions, prompt, answer)


def _learned_tokens(plan: Plan, jobs: Mapping[str, Job], data: Job) -> int:
    """Tokens of the longest completion of D: as it is where it is given, else as long as it may be drawn."""
    inputs = data.inputs
    if "kept" in inputs:
        return _learned_tokens(plan, jobs, jobs[data.parents[0]])
    if "given" in inputs:
        return max(map(len, plan.given[inputs["given"]].completions), default=0) // CHARACTERS_A_TOKEN + TOKENS_A_TURN
    return int(inputs["sampling"]["max_tokens"])


def _prompt_tokens(plan: Plan, jobs: Mapping[str, Job], job: Job) -> int:
    """Tokens of the longest prompt of a job, with the longest phrase before it."""
    place: Mapping[str, Any] = job.inputs["prompts"]
    while "filter" in place:
        place = jobs[place["filter"]].inputs["prompts"]
    conditions = [job.inputs["condition"]] if "condition" in job.inputs else job.inputs.get("conditions", ())
    phrase = max((len(phrase) for each in conditions for phrase in each.get("phrases", ())), default=0)
    longest = max((len(one.text) for one in plan.prompts[place["set"]]), default=0)
    return (longest + phrase) // CHARACTERS_A_TOKEN + TOKENS_A_TURN
