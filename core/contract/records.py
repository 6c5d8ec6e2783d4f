"""Rows of the store, as screens and analysis see them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.prompts import Prompt, stored_prompt
from windowshift.core.contract.scale import Scale

JobKind = Literal[
    "generate",
    "train",
    "evaluate",
    "score",
    "filter",
    "extract",
    "sweep",
    "dose",
    "match",
    "iso_kl",
    "project",
    "gradient",
]
JobState = Literal["pending", "running", "paused", "done", "failed", "cancelled"]
ExperimentState = Literal["planned", "running", "paused", "done", "failed", "interrupted", "cancelled"]
Arm = Literal["prefix", "steering"]
Role = Literal["primary", "positive", "negative", "guard", "extra"]
ROLES: tuple[Role, ...] = ("primary", "positive", "negative", "guard", "extra")
ControlAction = Literal["pause", "resume", "cancel", "retry", "first", "last"]

BASE = "base"
SAMPLING: tuple[JobKind, ...] = ("filter", "generate", "sweep", "dose", "evaluate")
"""Kinds of jobs whose rows are completions, in the order of how much waits for them."""
VECTOR_KINDS: tuple[JobKind, ...] = ("extract", "sweep", "dose", "match", "iso_kl")
"""Kinds of jobs that make vectors and find their layers and doses."""
INSIDE_KINDS: tuple[JobKind, ...] = ("project", "gradient")
"""Kinds of jobs that read inside the model; nothing waits for them."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a scorer measures: its name, the unit of its scores, how they compare, and what part it plays.

    `unit` is that of a single score (`characters`, `share`); what stands beside a mean is `mean_label`. A `primary`
    behaviour is the one that screens and reports show first; a `positive` trait is to be kept, a `negative` one to be
    suppressed, and a `guard` is measured to see that nothing else was lost. Rates of one `group` are outcomes of which
    a completion has one, such as hack, correct, neither and did not run: together they are the whole. Traits are drawn
    together with those of their own `panel`, such as those out of distribution.

    `guard` is the guard that it belongs to (see `core.plan.guards`): it is measured on that guard's own prompts, and
    its cells are not those of the grid. `counts` is what a score counts, where that is not the completion: scores of
    several instructions a prompt have weights, and means and n are over instructions.
    """

    name: str
    unit: str
    scale: Scale
    role: Role = "extra"
    group: str = ""
    guard: str = ""
    counts: str = ""
    panel: str = ""

    @property
    def score_unit(self) -> str:
        """What stands behind a single score: nothing for a rate, whose scores are 0, 1 or between."""
        return "" if self.scale.kind == "rate" else self.unit

    @property
    def mean_label(self) -> str:
        """What a mean of it is called, with its unit."""
        if self.scale.kind == "rate":
            return "rate, %" if self.scale.percent else "rate"
        return f"mean {self.unit}".rstrip()

    @property
    def effect_label(self) -> str:
        """What a cell against the base model is called, with what it is on."""
        words = self.scale.words
        if self.scale.kind == "difference":
            return f"difference, {self.unit}" if self.unit else "difference"
        return f"uplift {words.effect_short}" if self.scale.kind == "ratio" else f"difference, {words.effect_short}"

    def value_text(self, value: float | None, *, narrow: bool = False) -> str:
        """A mean with its unit, as it stands in a sentence."""
        text = self.scale.words.value_format.with_unit(value, narrow=narrow)
        return text if self.scale.kind == "rate" else f"{text} {self.unit}".rstrip()

    @classmethod
    def from_json(cls, data: Mapping[str, Any], place: int) -> Behaviour:
        """Read one as the store has it, also from before there were scales; `place` is its place in the list.

        Raises:
            ValueError: it is none; the sentence says why.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
            raise ValueError(f"a behaviour has a name, unlike {data!r}")
        role = data.get("role", "extra" if place else "primary")
        if role not in ROLES:
            raise ValueError(f"the role of a behaviour is one of {', '.join(ROLES)}, not {role!r}")
        scale = data["scale"] if "scale" in data else data.get("compare")
        further = {key: str(data.get(key, "")) for key in ("group", "guard", "counts", "panel")}
        return cls(data["name"], str(data.get("unit", "")), Scale.from_json(scale), role, **further)


def primary_of(behaviours: Sequence[Behaviour]) -> Behaviour:
    """The behaviour that is shown first: the one with the role `primary`, else the first. There must be one."""
    return next((one for one in behaviours if one.role == "primary"), behaviours[0])


def measured_beside(behaviour: Behaviour, behaviours: Sequence[Behaviour]) -> list[Behaviour]:
    """The behaviours that are measured on the same completions as one: those of the grid, or of the same guard."""
    return [one for one in behaviours if one.guard == behaviour.guard]


def instead_of(name: str, names: Sequence[str]) -> str:
    """What a person may have meant by a name that is not among those there are, as the end of a sentence."""
    if not names:
        return "it has none yet; start one with 'windowshift run'"
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there is {', '.join(names[:10])}"


@dataclass(frozen=True, slots=True)
class ExperimentRow:
    """One experiment with its progress. Times are Unix seconds; `usd` is None where nothing is priced."""

    id: int
    name: str
    state: ExperimentState
    setting: str
    model: str
    rehearsal: bool
    backend: str
    behaviours: tuple[Behaviour, ...]
    conditions: dict[str, list[dict[str, Any]]]
    channels: dict[str, str]
    data_size: int
    created: float
    started: float | None
    ended: float | None
    error: str | None
    jobs: dict[str, int] = field(default_factory=dict)
    cells_done: int = 0
    cells_total: int = 0
    usd: float | None = None

    def find_behaviour(self, name: str | None) -> Behaviour:
        """A behaviour by name; None: the primary one.

        Raises:
            SpecError: the experiment does not measure it.
        """
        if name is None and self.behaviours:
            return primary_of(self.behaviours)
        for behaviour in self.behaviours:
            if behaviour.name == name:
                return behaviour
        names = [behaviour.name for behaviour in self.behaviours]
        raise SpecError(f"experiment '{self.name}' does not measure '{name}': {instead_of(name or '', names)}")


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job; `done` of `total` counts rows, or examples when training. A higher `priority` goes first."""

    n: int
    id: str
    kind: JobKind
    label: str
    state: JobState
    done: int
    total: int
    loss: float | None
    rate: float | None
    usd: float | None
    error: str | None
    started: float | None
    ended: float | None
    inputs: dict[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of one cell: `n` scored completions, 95 % interval `low` .. `high` of the mean."""

    n: int
    missing: int
    truncated: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None

    @property
    def estimate(self) -> Estimate | None:
        """The mean with its interval; None where nothing is scored."""
        return None if self.mean is None else Estimate(self.mean, self.low, self.high, self.n)


@dataclass(frozen=True, slots=True)
class CellRow:
    """One (generation, train, eval) triple with its job's state and the summary of one behaviour."""

    id: int
    arm: Arm
    generate: str
    train: str
    evaluate: str
    seed: int
    step: int
    final: bool
    job: int
    state: JobState
    done: int
    total: int
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A part of the D behind a grid row: rows `first` .. `last` - 1 of a generate job.

    `reference` is the job that samples the base model under the part's train condition, in the channel
    of training: where L̄_M(p_t) comes from.
    """

    arm: Arm
    generate: str
    train: str
    seed: int
    part: int
    fraction: float
    part_generate: str
    part_train: str
    job: int
    first: int
    last: int
    reference: int | None = None


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """One completion with its prompt and one behaviour's score.

    `payload` and `turns` are the prompt's, as JSON; `reasoning` is as in `Completion`, `evidence` as in
    `setting.Score`.
    """

    row: int
    prompt_id: str
    prompt: str
    phrase: str | None
    finish: str
    tokens: int | None
    prompt_tokens: int
    logprob: float | None
    error: str | None
    text: str
    score: float | None
    reason: str | None = None
    payload: str | None = None
    turns: str | None = None
    reasoning: str | None = None
    reasoning_tokens: int = 0
    evidence: dict[str, Any] | None = None

    @property
    def asked(self) -> Prompt:
        """The prompt, with its payload and what was said before it."""
        return stored_prompt(self.prompt_id, self.prompt, self.payload, self.turns)

    @property
    def unanswered(self) -> bool:
        """Whether the model thought and gave no answer."""
        return self.finish == "failed" and self.reasoning is not None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the append-only event log."""

    id: int
    at: float
    experiment: int | None
    job: int | None
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One runner process; `ended` is None while it runs, or when it was killed."""

    id: int
    experiment: int
    pid: int
    host: str
    started: float
    heartbeat: float
    ended: float | None
