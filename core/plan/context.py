"""Whether prompts, and what is drawn, learned or asked after them, fit a model's context: known before anything runs.

It goes by the jobs of a plan, so that whatever asks a model for something is looked at: the grid, D, vectors, dose
curves, filters and judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from windowshift.core.contract.assets import is_embedded
from windowshift.core.contract.backend import Backend, ContextBackend, CountingBackend
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, Message, TemplateInputs
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import ModelScorer, Question, Sample
from windowshift.core.plan.cost import CHARACTERS_A_TOKEN, TOKENS_A_TURN
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.settings.filtering import JUDGE_QUESTION
from windowshift.core.store.connection import to_json

Chat = tuple[tuple[Message, ...], str]
"""Messages, and the answer to them; empty where it is yet to be drawn."""
_A_MESSAGE = 16
"""Tokens that a template may put around a message, beside what it puts into every chat."""
_MOST_AROUND = 2048
"""More than any template puts into every chat: where it is not too many, nothing has to be loaded to know it."""


@dataclass(frozen=True)
class _Model:
    """A model at a backend that knows its context."""

    name: str
    backend: Backend
    tokens: int
    revision: str | None = None
    inputs: TemplateInputs | None = None

    @cached_property
    def around(self) -> int:
        """The tokens of a chat that says nothing: a template may have a system message of its own."""
        if is_embedded(self.name):
            return _A_MESSAGE  # known, and nothing has to be loaded for it
        counted = self._counted([((Message("user", ""),), "")])
        return _A_MESSAGE if counted is None else counted[0]

    def counts(self, chats: Sequence[Chat]) -> tuple[list[int], bool]:
        """Tokens of chats, and whether they were counted; else they are estimated from their length."""
        counted = self._counted(chats)
        if counted is not None:
            return counted, True
        return [
            sum(len(one.content) // CHARACTERS_A_TOKEN + TOKENS_A_TURN for one in messages)
            + len(answer) // CHARACTERS_A_TOKEN
            for messages, answer in chats
        ], False

    def _counted(self, chats: Sequence[Chat]) -> list[int] | None:
        if not isinstance(self.backend, CountingBackend):
            return None
        try:
            return self.backend.count_tokens(self.name, self.revision, self.inputs, chats)
        except BackendError:
            return None  # said by whoever tries the template, or loads the model

    def suspects(self, room: int, chats: Sequence[tuple[str, Chat]]) -> list[tuple[str, Chat]]:
        """Those that may have more than `room` tokens: a text has no more of them than bytes in UTF-8."""
        bounds = [
            sum(_bytes(one.content) + _A_MESSAGE for one in messages) + _bytes(answer)
            for _, (messages, answer) in chats
        ]
        if max(bounds, default=0) + _MOST_AROUND <= room:
            return []
        return [chat for chat, bound in zip(chats, bounds, strict=True) if bound + self.around > room]


@dataclass
class _Long:
    """What of some chats is too long: how many of how many, and the longest."""

    all: int = 0
    long: int = 0
    most: int = 0
    which: str = ""
    counted: bool = True

    def see(self, model: _Model, room: int, chats: Sequence[tuple[str, Chat]]) -> _Long:
        """Look at chats, each with what it is called, that may have `room` tokens."""
        self.all += len(chats)
        if suspects := model.suspects(room, chats):
            counts, self.counted = model.counts([chat for _, chat in suspects])
            for (name, _), count in zip(suspects, counts, strict=True):
                if count > room:
                    self.long += 1
                    if count > self.most:
                        self.most, self.which = count, name
        return self

    @property
    def others(self) -> str:
        """How many more there are, for the end of a clause."""
        if self.long < 2:
            return ""
        return ", and so does another one" if self.long == 2 else f", and so do {self.long - 1} others"

    @property
    def tokens(self) -> str:
        """How many tokens the longest has."""
        return f"{self.most} tokens" if self.counted else f"about {self.most} tokens (by its length)"


@dataclass
class _Check:
    """One plan's check; `notes` are what it cannot know, or what is left out."""

    plan: Plan
    backends: Mapping[str, Backend]
    notes: list[str] = field(default_factory=list)
    _models: dict[str, _Model | None] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def run(self) -> None:
        jobs = self.plan.jobs
        self._by_id = {job.id: job for job in jobs}
        done: set[str] = set()
        for job in jobs:
            if job.id in self.plan.copied:
                continue
            look, what = self._look(job)
            key = to_json(what)
            if look is not None and key not in done:
                done.add(key)
                look(job)

    def _look(self, job: Job) -> tuple[Callable[[Job], None] | None, Any]:
        """What looks at a job, and what it goes by: seeds, and cells of other adapters, change nothing."""
        inputs = job.inputs
        if job.kind == "train":
            return self._training, [inputs["parts"], inputs.get("examples")]
        if job.kind == "extract" and inputs["how"] == "difference":
            return self._vector, [inputs["positive"], inputs["negative"]]
        if self.plan.asks(job):
            scorer = inputs if job.kind == "filter" else self.plan.scoring[job.id].identity()
            parent = self._by_id[job.parents[0]] if job.parents else job
            return self._asked, [scorer, parent.inputs.get("prompts"), parent.inputs.get("sampling")]
        if job.kind != "score" and "sampling" in inputs:
            names = ("condition", "conditions", "channel", "prompts", "rows", "sampling")
            return self._sampled, [inputs.get(name) for name in names]
        return None, None

    # -- what is drawn --------------------------------------------------------------------------

    def _sampled(self, job: Job) -> None:
        model = self._model(job)
        if model is None:
            return
        most = job.inputs["sampling"]["max_tokens"]
        if most >= model.tokens:
            raise SpecError(
                f"sampling.max_tokens is {most}, and the context of '{model.name}' has {model.tokens} tokens, prompt "
                "and completion together: lower it"
            )
        prompts, chosen = self._prompts(job.inputs["prompts"])
        first, last = job.inputs.get("rows", (0, len(prompts)))
        identities = [job.inputs["condition"]] if "condition" in job.inputs else job.inputs.get("conditions", ())
        for identity in identities:
            condition = self.plan.conditions[to_json(identity)]
            channel = job.inputs.get("channel", "user")
            places = range(len(prompts)) if chosen else range(first, min(last, len(prompts)))
            chats = [
                (f"'{prompts[place].id}'", (condition.push(prompts[place], place, channel).messages, ""))
                for place in places
            ]
            found = _Long().see(model, model.tokens - most, chats)
            if not found.long:
                continue
            beyond = f"sampling.max_tokens {most} go beyond the {model.tokens} of '{model.name}'{found.others}"
            remedy = "lower max_tokens, or leave such prompts out"
            if found.counted and not chosen:
                raise SpecError(
                    f"prompt {found.which} under '{condition.name}' has {found.tokens}, which with {beyond}: {remedy}"
                )
            why = "; the filter may leave it out" if chosen else ""
            self._note(
                f"prompt {found.which} under '{condition.name}' has {found.tokens}, which with {beyond}: it has no "
                f"answer there{why}; {remedy}"
            )

    # -- what is learned ------------------------------------------------------------------------

    def _training(self, job: Job) -> None:
        model = self._model(job)
        if model is None:
            return
        every, sure = 0, 0
        for part in job.inputs["parts"]:
            condition = self.plan.conditions[to_json(part["condition"])]
            data = self._by_id[part["data"]]
            kept = "kept" in data.inputs
            while "kept" in data.inputs:
                data = self._by_id[data.parents[0]]
            prompts, chosen = self._prompts(data.inputs["prompts"])
            rows = self.plan.given.get(data.inputs.get("given", ""))
            # Which rows a filter or a score keeps is not known: any of them may be learned.
            places = range(len(prompts)) if kept or chosen else range(part["first"], min(part["last"], len(prompts)))
            drawn = 0 if rows is not None else data.inputs["sampling"]["max_tokens"]
            chats = [
                (
                    f"example {place + 1}",
                    (
                        condition.push(prompts[place], place, part["channel"]).messages,
                        rows.completions[place] if rows is not None else "",
                    ),
                )
                for place in places
            ]
            whose = f"'{rows.place}'" if rows is not None else "D"
            every += len(chats)
            # An answer that is drawn has a token at least.
            certain = _Long().see(model, model.tokens - (1 if drawn else 0), chats)
            sure += certain.long if certain.counted and not (kept or chosen) else 0
            found = certain if certain.long or not drawn else _Long().see(model, model.tokens - drawn, chats)
            if found.long:
                sure_of = found is certain and found.counted
                answer = f", and an answer up to {drawn}" if drawn and not sure_of else ""
                self._note(
                    f"{found.long} of {found.all} examples of {whose} under '{condition.name}' "
                    f"{'are' if sure_of else 'may be'} longer than the {model.tokens} tokens of '{model.name}' (the "
                    f"longest has {found.tokens}{answer}), and are left out of training"
                )
        if every and sure == every:
            raise SpecError(
                f"none of the {every} examples of '{job.label}' fits the {model.tokens} tokens of '{model.name}': "
                "shorten them, or take a model with a longer context"
            )

    # -- what is read or asked ------------------------------------------------------------------

    def _vector(self, job: Job) -> None:
        model = self._model(job)
        for side in (job.inputs["positive"], job.inputs["negative"]) if model is not None else ():
            assert model is not None
            if "file" in side:
                rows = self.plan.answered[side["file"]].rows
                chats = [(f"row {number}", chat) for number, chat in enumerate(rows, 1)]
            elif "condition" in side:
                prompts, _ = self._prompts(side["prompts"])
                condition = self.plan.conditions[to_json(side["condition"])]
                first, last = side["rows"]
                chats = [
                    (f"'{prompts[place].id}'", (condition.push(prompts[place], place, side["channel"]).messages, ""))
                    for place in range(first, min(last, len(prompts)))
                ]
            else:
                continue  # drawn by a job of its own, which is looked at
            found = _Long().see(model, model.tokens, chats)
            if found.long:
                said = (
                    f"vectors.{job.inputs['name']}: {found.which} of '{side['label']}' has {found.tokens}, more than "
                    f"the {model.tokens} of '{model.name}'{found.others}: shorten or leave out what is too long"
                )
                if found.counted:
                    raise SpecError(said)
                self._note(said)

    def _asked(self, job: Job) -> None:
        """Questions about completions, whose length is not known; or about prompts, by a judging filter."""
        if job.kind == "filter":
            who, backend, base = "data.filter.judge", job.inputs["backend"], job.inputs["model"]["base"]
            template = TemplateInputs.of(job.inputs["model"].get("template"))
            most, drawn = job.inputs["sampling"]["max_tokens"], 0
            prompts, _ = self._prompts(job.inputs["prompts"])
            texts = [(prompt, JUDGE_QUESTION.format(prompt=prompt.text)) for prompt in prompts]
        else:
            scorer = self.plan.scoring[job.id]
            assert isinstance(scorer, ModelScorer)
            backend, base, most = scorer.backend, scorer.asked.base, scorer.sampling.max_tokens
            template, who = scorer.asked.template, f"judge '{scorer.name}'"
            parent = self._by_id[job.parents[0]]
            while "kept" in parent.inputs:
                parent = self._by_id[parent.parents[0]]
            drawn = parent.inputs["sampling"]["max_tokens"] if "sampling" in parent.inputs else 0
            prompts, _ = self._prompts(parent.inputs["prompts"])
            rows = self.plan.given.get(parent.inputs.get("given", ""))
            answers = [""] * len(prompts) if rows is None else rows.completions
            asked = [
                (prompt, _question(scorer, prompt, answer)) for prompt, answer in zip(prompts, answers, strict=True)
            ]
            texts = [(prompt, question.text) for prompt, question in asked if question is not None]
        model = self._known(backend, base, None, template)
        if model is None:
            return
        chats = [(f"'{prompt.id}'", ((Message("user", text),), "")) for prompt, text in texts]
        found = _Long().see(model, model.tokens - most, chats)
        if found.long:
            said = (
                f"{who}: the question about prompt {found.which} has {found.tokens}, which with its answer go beyond "
                f"the {model.tokens} of '{model.name}'{found.others}"
            )
            if found.counted and found.long == found.all:
                raise SpecError(f"{said}: take a judge with a longer context")
            self._note(f"{said}: there is no score there", once=f"{who} has none")
        elif drawn:
            longer = _Long().see(model, model.tokens - most - drawn, chats)
            if longer.long:
                self._note(
                    f"{who}: the question about prompt {longer.which} has {longer.tokens} without the completion: one "
                    f"of {drawn} tokens may not fit the {model.tokens} of '{model.name}' beside it, and has no score "
                    "then",
                    once=f"{who} may have none",  # of D and of the eval prompts one is enough
                )

    # -- models and prompts ---------------------------------------------------------------------

    def _model(self, job: Job) -> _Model | None:
        named = job.inputs["model"]
        return self._known(
            job.inputs["backend"], named["base"], named["revision"], TemplateInputs.of(named.get("template"))
        )

    def _known(self, name: str, base: str, revision: str | None, inputs: TemplateInputs | None) -> _Model | None:
        key = to_json([name, base, revision])
        if key not in self._models:
            backend, tokens = self.backends[name], None
            if isinstance(backend, ContextBackend):
                try:
                    tokens = backend.context(base, revision)
                except BackendError:
                    tokens = None  # whoever loads the model, or asks its server, says why
            self._models[key] = None if tokens is None else _Model(base, backend, tokens, revision, inputs)
        return self._models[key]

    def _prompts(self, place: Mapping[str, Any]) -> tuple[Sequence[Prompt], bool]:
        """The prompts of a job, and whether a filter chooses among them."""
        chosen = "filter" in place
        while "filter" in place:
            place = self._by_id[place["filter"]].inputs["prompts"]
        return self.plan.prompts[place["set"]], chosen

    def _note(self, text: str, once: str | None = None) -> None:
        if (once or text) not in self._said:
            self._said.add(once or text)
            self.notes.append(text)


def within_context(plan: Plan, backends: Mapping[str, Backend]) -> Plan:
    """Refuse what cannot fit; return the plan with notes of what may not, or is left out.

    Tokens are counted only where bytes do not settle it, which loads the tokenizer; a backend that cannot count has
    them estimated, and nothing is refused by an estimate.

    Raises:
        SpecError: a prompt does not fit with `max_tokens` after it, no example of a training does, a text behind a
            vector does not, or no question of a judge.
    """
    check = _Check(plan, backends)
    check.run()
    return replace(plan, notes=(*plan.notes, *check.notes))


def _question(scorer: ModelScorer, prompt: Prompt, answer: str) -> Question | None:
    """What is asked about an answer, "" where it is yet to be drawn; None where nothing is."""
    for said in (answer, answer or "."):  # an empty answer may be scored unasked, and one that is drawn is not empty
        found = scorer.ask(Sample(prompt, Completion("", said, "stop", 1)))
        if isinstance(found, Question):
            return found
    return None


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
