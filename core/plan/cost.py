"""What the jobs of a plan take that are not done yet: tokens and money, by kind of job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prices import Price
from windowshift.core.contract.setting import ModelScorer, Question, Sample
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.store.reader import Reader

CHARACTERS_A_TOKEN = 4  # of English text; the same as a backend counts before a server has
TOKENS_A_TURN = 8

PriceOf = Mapping[str, Callable[[str], Price | None]]
"""What a model costs, by the name of the backend."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the unfinished jobs of one kind take.

    `input_tokens` is estimated from the texts; `output_tokens` and `trained_tokens` are what they can
    be at most, by `max_tokens`, where completions are not there yet. So is `usd`: at most; None: a
    price is not known, and `unpriced` names the models.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    trained_tokens: int = 0
    usd: float | None = 0.0
    unpriced: tuple[str, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        """Both together; one unknown amount makes the sum unknown."""
        return Cost(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.trained_tokens + other.trained_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
            tuple(dict.fromkeys((*self.unpriced, *other.unpriced))),
        )


class Costs:
    """Works out what jobs of a plan cost.

    Args:
        plan: the plan.
        prices: by backend name; a backend that is not there costs nothing (your own machine).
        batched: the backends whose completions have the Batch API's price.
        reader: the workspace, for the lengths of completions that are there; None: there is none yet.
    """

    def __init__(self, plan: Plan, prices: PriceOf, batched: frozenset[str], reader: Reader | None) -> None:
        self._prices, self._batched, self._reader, self._scoring = prices, batched, reader, plan.scoring
        self._jobs, self._given, self._prompts = {job.id: job for job in plan.jobs}, plan.given, plan.prompts
        self._characters = {
            digest: sum(len(prompt.text) for prompt in prompts) / max(1, len(prompts))
            for digest, prompts in plan.prompts.items()
        }
        self._known = {} if reader is None else reader.job_numbers(list(self._jobs))
        # Asked once a model: a price may take a question to the server.
        self._price = cache(lambda backend, model: prices[backend](model))

    def of(self, job: Job) -> Cost:
        """What one unfinished job takes; nothing, where no model answers or learns."""
        if job.kind == "train":
            return self._training(job)
        return self._sampling(job) if "sampling" in job.inputs else Cost()

    def _sampling(self, job: Job) -> Cost:
        inputs = job.inputs
        left = job.total - self._done(job)
        if job.kind == "score":
            share, tokens = self._judged_tokens(job)
            left = round(left * share)
            prompt = left * tokens
        else:
            prompt = left * self._prompt_tokens(job)
        answer = left * int(inputs["sampling"]["max_tokens"])
        backend, model = inputs["backend"], inputs["model"]["base"]
        if backend not in self._prices:
            return Cost(prompt, answer)
        price = self._price(backend, model)
        if price is not None and inputs.get("step") is not None:
            price = price.tuned()
        if price is None:
            return Cost(prompt, answer, usd=None, unpriced=(model,))
        return Cost(prompt, answer, usd=price.completion(prompt, answer, batch=backend in self._batched))

    def _training(self, job: Job) -> Cost:
        tokens = 0.0
        for part in job.inputs["parts"]:
            data = self._jobs[part["data"]]
            # D as it is, where it is there; as long as it can be, where it is not.
            answer = self._answer_tokens(data)
            tokens += (part["last"] - part["first"]) * (self._prompt_tokens(data) + answer + TOKENS_A_TURN)
        size = sum(part["last"] - part["first"] for part in job.inputs["parts"])
        seen = round(tokens * job.total / max(1, size))
        backend, model = job.inputs["backend"], job.inputs["model"]["base"]
        if backend not in self._prices:
            return Cost(trained_tokens=seen)
        price = self._price(backend, model)
        usd = None if price is None else price.trained(seen + self._watched_tokens(job))
        return Cost(trained_tokens=seen, usd=usd, unpriced=(model,) if usd is None else ())

    def _watched_tokens(self, job: Job) -> int:
        """The tokens of the texts that a training reads, each time that it does; paid for as if they were learned."""
        watched = job.inputs.get("watched")
        if watched is None:
            return 0
        texts = self._prompts[watched["set"]]
        written = [sum(len(turn.content) for turn in one.turns) + len(one.text) for one in texts]
        answers = [len(str(one.payload["completion"])) for one in texts]
        a_reading = (sum(written) + sum(answers)) / CHARACTERS_A_TOKEN + 2 * TOKENS_A_TURN * len(texts)
        return round(a_reading) * len(watched["at"])

    def _prompt_tokens(self, job: Job) -> int:
        place = self._place(job)
        conditions = [job.inputs["condition"]] if "condition" in job.inputs else job.inputs.get("conditions", ())
        phrases = [phrase for condition in conditions for phrase in condition.get("phrases", ())]
        extra = sum(map(len, phrases)) / max(1, len(phrases))
        return round((self._characters[place["set"]] + extra) / CHARACTERS_A_TOKEN) + TOKENS_A_TURN

    def _judged_tokens(self, job: Job) -> tuple[float, int]:
        """The share of completions that are asked about, and a question's tokens.

        A question is what is asked, the prompt, and the completion at its longest.
        """
        scorer = self._scoring[job.id]
        assert isinstance(scorer, ModelScorer)  # others have no sampling
        parent = self._jobs[job.parents[0]]
        prompts = self._prompts[self._place(parent)["set"]]
        found = [scorer.ask(Sample(replace(one, text=""), Completion("", "", "stop", 0))) for one in prompts]
        asked = [len(one.text) for one in found if isinstance(one, Question)]
        if not asked:
            return 0.0, 0
        written = sum(asked) / len(asked) / CHARACTERS_A_TOKEN
        return len(asked) / len(found), round(written + self._prompt_tokens(parent) + self._answer_tokens(parent))

    def _place(self, job: Job) -> Mapping[str, Any]:
        place: Mapping[str, Any] = job.inputs["prompts"]
        while "filter" in place:
            place = self._jobs[place["filter"]].inputs["prompts"]
        return place

    def _answer_tokens(self, job: Job) -> float:
        """How long a job's completions are: as they are, where they are there, else as they can be at most."""
        if "kept" in job.inputs:
            return self._answer_tokens(self._jobs[job.parents[0]])
        if "given" in job.inputs:
            texts = self._given[job.inputs["given"]].completions
            return sum(map(len, texts)) / max(1, len(texts)) / CHARACTERS_A_TOKEN
        return self._mean_tokens(job) or float(job.inputs["sampling"]["max_tokens"])

    def _done(self, job: Job) -> int:
        number = self._known.get(job.id)
        return 0 if self._reader is None or number is None else len(self._reader.rows_done(number))

    def _mean_tokens(self, job: Job) -> float | None:
        number = self._known.get(job.id)
        return None if self._reader is None or number is None else self._reader.mean_tokens(number)
