"""Judges: a chat model that scores completions by a rubric, as a scorer of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from windowshift.core.contract.assets import MICROWORLD
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, Model, Sampling, TemplateInputs
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Question, Sample, Score, Scorer, Scores
from windowshift.core.settings import worlds
from windowshift.core.settings.domains import ModelByDomain, RowByDomain
from windowshift.core.settings.rubric import ALTERNATIVES, Rubric, load_rubric
from windowshift.core.spec.sections import JudgeSection
from windowshift.core.spec.spec import Spec

_SHOWN = 2000  # characters of an answer that are kept as evidence; a judge is asked for a few tokens


@dataclass(frozen=True, slots=True)
class Judged:
    """A behaviour of a setting that a chat model scores, and what it is asked.

    The spec names the model, in a judge of that name, and may name another rubric; the role stays the setting's.
    `by_domain` scores out of distribution apart. `of` says which prompts it is measured on; of all others the score is
    missing, and nobody is asked.
    """

    rubric: Rubric
    by_domain: bool = False
    of: Callable[[Prompt], bool] | None = None
    otherwise: str = ""


@runtime_checkable
class JudgedSetting(Protocol):
    """A setting with behaviours that chat models score."""

    def judged(self) -> Mapping[str, Judged]:
        """What is judged, by the name of the behaviour; the spec must name a judge for each."""
        ...


@dataclass(frozen=True)
class JudgeScorer:
    """Scores by asking a model (a `ModelScorer`).

    Attributes:
        name: the behaviour that it measures.
        rubric: what is asked.
        backend: the name of the backend that answers.
        model: its model.
        fingerprint: what determines the model's answers.
        template: what its chat template reads besides the messages.
        of: whether it is measured on a prompt; None: on all. Otherwise it is missing, for the reason `otherwise`.
    """

    name: str
    rubric: Rubric
    backend: str
    model: str
    fingerprint: str
    template: Mapping[str, Any] = field(default_factory=dict)
    of: Callable[[Prompt], bool] | None = None
    otherwise: str = ""

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The score, or the rate of scores within bounds; and a rate for each category."""
        low, high = self.rubric.scale
        score = Behaviour(self.name, self.rubric.unit, Scale.difference(low=low, high=high), self.rubric.role)
        if self.rubric.rate is not None:
            score = Behaviour(self.name, "share", Scale.rate(), self.rubric.role)
        rates = (Behaviour(self.of_category(one), "share", Scale.rate()) for one in self.rubric.categories)
        return (score, *rates)

    def of_category(self, category: str) -> str:
        """The behaviour that says how often an answer is of a category."""
        return f"{self.name}_{re.sub(r'[^a-z]+', '_', category.lower()).strip('_')}"

    @property
    def sampling(self) -> Sampling:
        """Greedy, and short."""
        return Sampling(temperature=0.0, max_tokens=self.rubric.max_tokens)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`; also the inputs of the score job."""
        return {
            "scorer": "judge",
            "version": 1,
            "name": self.name,
            "backend": self.backend,
            "model": {
                "base": self.model,
                "revision": None,
                "fingerprint": self.fingerprint,
                **({"template": dict(self.template)} if self.template else {}),
            },
            "sampling": asdict(self.sampling),
            "rubric": self.rubric.determining,
        }

    @property
    def asked(self) -> Model:
        """The model that judges."""
        return Model(self.model, template=TemplateInputs.of(self.template))

    def ask(self, sample: Sample) -> Question | Scores:
        """The rubric's question, with prompt and completion in their places; or that there is nothing to ask."""
        if self.of is not None and not self.of(sample.prompt):
            return {one.name: Score(None, self.otherwise) for one in self.behaviours}
        text = self.rubric.ask(sample.prompt.text, sample.completion.text)
        return Question(text, ALTERNATIVES if self.rubric.expectation else None)

    def read(self, sample: Sample, answer: Completion) -> Scores:  # noqa: ARG002 - the protocol's
        """The answer's score, with what the judge wrote as evidence."""
        evidence = {"judge": self.model, "answer": answer.text[:_SHOWN]}
        category = None if answer.finish == "failed" else self.rubric.category(answer)
        value, reason = self.rubric.read(answer) if category is None else (None, f"the judge calls it {category}")
        if value is not None and self.rubric.rate is not None:
            evidence["score"] = f"{value:g}"
            value = self.rubric.counted(value)
        found = {self.name: Score(value, reason, evidence)}
        for one in self.rubric.categories:
            # Unparsable answers are of no category, and neither is it known that they are of none.
            known = category is not None or value is not None
            rate = float(one == category) if known else None
            found[self.of_category(one)] = Score(rate, None if known else reason)
        return found


@dataclass(frozen=True)
class RehearsalJudge:
    """A rule in the place of a chat model (a `RowScorer`), so that a judged setting can be rehearsed anywhere.

    The rule belongs to the world of an embedded model and knows the sentences of that world alone. It writes what a
    judge would write, which is read as any judge's answer is.
    """

    judge: JudgeScorer
    world: str

    @property
    def name(self) -> str:
        """As `Scorer.name`."""
        return self.judge.name

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """As those of a judge that is a model."""
        return self.judge.behaviours

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        rubric = self.judge.rubric.determining
        return {"scorer": "rehearsal judge", "version": 1, "name": self.name, "world": self.world, "rubric": rubric}

    def score(self, sample: Sample) -> Scores:
        """As `RowScorer.score`."""
        asked = self.judge.ask(sample)
        if not isinstance(asked, Question):
            return asked
        said = worlds.judged(self.world, self.name, sample.prompt, sample.completion.text)
        return self.judge.read(sample, Completion("", said, "stop", 1))


def judges_of(
    spec: Spec,
    folder: Path,
    backends: Mapping[str, Backend],
    taken: Sequence[str],
    template: Callable[[Backend, str], Mapping[str, Any]] = lambda _, __: {},
    judged: Mapping[str, Judged] | None = None,
    rehearsal: str = MICROWORLD,
) -> list[Scorer]:
    """The judges that a spec names, those of the setting's own behaviours first.

    Args:
        spec: the experiment.
        folder: where relative rubric files are looked for first.
        backends: the backends that the spec names, by name.
        taken: the behaviours that the setting measures already.
        template: what the chat template of a model at a backend reads besides the messages.
        judged: what the setting has scored by judges, by name.
        rehearsal: the embedded model of the setting, which `microworld` stands for; for a behaviour of the setting it
            is a rule of that model's world that judges, where it has one.

    Raises:
        SpecError: a rubric that is none, a name that is taken, a model that is not there, or a behaviour of the setting
            without a judge.
    """
    own = dict(judged or {})
    for name in own:
        if not any(section.name == name for section in spec.judges):
            raise SpecError(
                f"the setting '{spec.setting_name}' has '{name}' scored by a chat model: name one as  judges: "
                f"[{{name: {name}, model: MODEL, backend: openai}}]"
            )
    found: dict[str, Scorer] = {}
    for place, section in enumerate(spec.judges):
        where = f"judges[{place}]"
        part = own.get(section.name)
        rubric = _rubric(section, part, folder, own, where)
        name = section.backend or spec.generate_backend
        measured = {*taken, *(one.name for judge in found.values() for one in judge.behaviours)}
        if part is not None and section.model == MICROWORLD and worlds.judges(rehearsal, section.name):
            if spec.model != rehearsal:
                raise SpecError(
                    f"{where}: {MICROWORLD} stands for a rule of the rehearsal's world, which cannot judge what "
                    f"'{spec.model}' writes: name a chat model"
                )
            rule = RehearsalJudge(
                JudgeScorer(
                    section.name,
                    rubric,
                    "",
                    f"a rule of {rehearsal}, no chat model",
                    "",
                    of=part.of,
                    otherwise=part.otherwise,
                ),
                rehearsal,
            )
            ruled: Scorer = RowByDomain(rule) if part.by_domain else rule
            _check_names(ruled, measured, where)
            found[section.name] = ruled
            continue
        try:
            fingerprint = backends[name].identify(section.model).fingerprint
        except BackendError as error:
            raise SpecError(f"{where}: {error}") from error
        read = template(backends[name], section.model)
        scope: dict[str, Any] = {} if part is None else {"of": part.of, "otherwise": part.otherwise}
        judge = JudgeScorer(section.name, rubric, name, section.model, fingerprint, read, **scope)
        scorer: Scorer = ModelByDomain(judge) if part is not None and part.by_domain else judge
        _check_names(scorer, measured, where)
        found[section.name] = scorer
    return [*(found[name] for name in own), *(judge for name, judge in found.items() if name not in own)]


def _check_names(scorer: Scorer, measured: Collection[str], where: str) -> None:
    twice = next((one.name for one in scorer.behaviours if one.name in measured), None)
    if twice is not None:
        raise SpecError(f"{where}: '{twice}' is measured already: give the judge another name")


def _rubric(section: JudgeSection, part: Judged | None, folder: Path, own: Mapping[str, Judged], where: str) -> Rubric:
    """The rubric file that a judge names, else the setting's."""
    if section.rubric is None:
        if part is None:
            known = f"; the setting has one for {', '.join(own)}" if own else ""
            raise SpecError(f"{where}: '{section.name}' has no rubric: add  rubric: FILE{known}")
        return part.rubric
    path = folder / section.rubric
    found, _ = load_rubric(path if path.exists() else Path(section.rubric))
    return found if part is None else found.model_copy(update={"role": part.rubric.role})
