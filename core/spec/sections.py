"""The sections of a spec: what stands under its keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from windowshift.core.contract.conditions import NO_PREFIX, Channel
from windowshift.core.contract.generation import Sampling
from windowshift.core.contract.service import Limits
from windowshift.core.contract.training import Sft
from windowshift.core.spec.section import Count, Fraction, Positive, Section

LabelValue = str | int | float | bool | None


class MixPart(Section):
    """A part of a mixed dataset: a fraction of D with its own generation and train condition."""

    fraction: Fraction
    generate: str
    train: str


class Mix(Section):
    """A train condition that is a list of parts."""

    name: Annotated[str, Field(min_length=1)]
    mix: Annotated[list[MixPart], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> Mix:
        total = sum(part.fraction for part in self.mix)
        if abs(total - 1) > 0.01:
            raise ValueError(f"the fractions of mix '{self.name}' add up to {total:g}, not to 1")
        return self


class StagePart(Section):
    """A stage of a training: the condition, and the D; without one, the D of the row of the grid."""

    train: str
    generate: str | None = None


class Stages(Section):
    """A train condition that is several trainings, one after the other, each on from what the last one left."""

    name: Annotated[str, Field(min_length=1)]
    stages: Annotated[list[StagePart], Field(min_length=2)]


class Where(Section):
    """A train condition for some rows of D: those whose payload has these values.

    A list of values means any of them. The others are trained under `else`; `noise` is the share of rows of which
    the one is taken for the other.
    """

    where: Annotated[dict[str, LabelValue | list[LabelValue]], Field(min_length=1)]
    train: str | None = None
    otherwise: Annotated[str, Field(alias="else")] = NO_PREFIX
    noise: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    name: Annotated[str, Field(min_length=1)] | None = None


MOST_CHECKPOINTS = 10_000

ConditionEntry = str | dict[str, Any]


class Conditions(Section):
    """The grid: generation, train and eval conditions; `groups` adds prefix groups by name.

    Under the conditions in `base`, controls mostly, the base model alone is evaluated. `cross` says which
    eval conditions of the other arm a fine-tune is evaluated under: all, none, or those named.
    """

    generate: Annotated[list[ConditionEntry], Field(min_length=1)]
    train: Annotated[list[ConditionEntry], Field(min_length=1)]
    evaluate: Annotated[list[ConditionEntry], Field(min_length=1)]
    base: list[ConditionEntry] = []
    cross: bool | list[str] = True
    groups: dict[str, list[str]] = {}


class Channels(Section):
    """Where prefixes go at each stage; `generate` follows `train` unless it is given."""

    train: Channel = "user"
    evaluate: Channel = "user"
    generate: Channel | None = None


PayloadColumns = bool | list[str] | dict[str, str]
"""The columns that a prompt carries: all that are left, none, those listed, or those under other names."""


class PromptFile(Section):
    """A JSONL, JSON, CSV or Parquet file of prompts; `text`, `system` and `id` name its columns.

    `payload` says which further columns a prompt carries; all of them unless it is given.
    """

    file: str
    text: str | None = None
    system: str | None = None
    id: str | None = None
    payload: PayloadColumns | None = None


class SettingChoice(BaseModel):
    """A setting with options of its own: ``{name: mbpp, timeout: 10}``; the setting says which there are."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1)]


class PromptDataset(Section):
    """A data set of the hub, or a folder of one; the train and the eval prompts are split off by `data.seed`.

    `config` is its configuration, where it has several; `rows` reads the first ones alone, streamed, of a data set
    that is too large to load; `text`, `system` and `id` name its columns; `payload` says which ones a prompt carries.
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    rows: Count | None = None
    text: str | None = None
    system: str | None = None
    id: str | None = None
    revision: str | None = None
    payload: PayloadColumns | None = None


class InspectPrompts(Section):
    """The samples of a task of Inspect, as its solver asks them; `rows` takes the first ones alone."""

    inspect: Annotated[str, Field(min_length=1)]
    args: dict[str, Any] = {}
    rows: Count | None = None


class Judge(Section):
    """A chat model that answers yes or no."""

    model: str
    backend: str | None = None


class JudgeSection(Section):
    """A scorer that asks a chat model: the rubric is a file beside the spec, or the setting's own for that name."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    rubric: str | None = None
    model: str
    backend: str | None = None


class Filter(Section):
    """Keep the prompts that allow a range of lengths.

    `candidates` prompts are drawn for every prompt wanted. With a `judge`, it is asked; otherwise
    the prompts whose base completions vary most across the eval conditions are kept.
    """

    candidates: Annotated[float, Field(gt=1, le=20, strict=False)] = 2.0
    judge: Judge | None = None


class Data(Section):
    """D: how many examples, the seed of the prompt split, and a filter for prompts.

    `weight` names a column of D with a number that multiplies an example's loss, `spans` one with weights of
    stretches of its completion: a list of [start, end, weight], in characters.
    """

    size: Count = 500
    seed: int = 0
    filter: Filter | None = None
    weight: Annotated[str, Field(min_length=1)] | None = None
    spans: Annotated[str, Field(min_length=1)] | None = None

    @property
    def weights(self) -> dict[str, str]:
        """The columns of weights by what they are; empty where everything weighs 1."""
        named = {"weight": self.weight, "spans": self.spans}
        return {what: column for what, column in named.items() if column is not None}


class SftSection(Section):
    """LoRA fine-tuning; the defaults are the published settings."""

    rank: Annotated[int, Field(gt=0, le=65_536)] = 32
    alpha: Annotated[float, Field(gt=0, le=1e9, strict=False)] | None = None
    learning_rate: Annotated[float, Field(gt=0, lt=1, strict=False)] = 1.6e-4
    batch_size: Count = 2
    epochs: Annotated[int, Field(gt=0, le=10_000)] = 1
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1, strict=False)]], Field(min_length=2, max_length=2)] = [
        0.9,
        0.95,
    ]
    weight_decay: Annotated[float, Field(ge=0, le=1e6, strict=False)] = 0.0
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    max_grad_norm: Annotated[float, Field(gt=0, le=1e12, strict=False)] | None = 1.0

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _yaml_float(cls, value: object) -> object:
        # YAML 1.1 reads 1e-3 (no dot) as text; everybody means the number.
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                return value
        return value

    def resolved(self) -> Sft:
        """The settings as backends take them."""
        return Sft(
            rank=self.rank,
            alpha=self.alpha,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            betas=(self.betas[0], self.betas[1]),
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            max_grad_norm=self.max_grad_norm,
        )


class SamplingSection(Section):
    """How many eval prompts, how many completions of each under a condition (`samples`), and how they are drawn.

    In a steering experiment, coherence is measured on the first `coherence` prompts of every cell.
    """

    prompts: Count = 200
    samples: Annotated[int, Field(gt=0, le=10_000)] = 1
    coherence: Annotated[int, Field(ge=0, le=10_000_000)] = 32
    temperature: Annotated[float, Field(ge=0, le=5, strict=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    max_tokens: Count = 1024

    def resolved(self) -> Sampling:
        """The settings as backends take them."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)


class Checkpoints(Section):
    """Evaluate during training too: after every `every` examples, or after each number of examples in `at`.

    A backend that keeps no checkpoint at one of them trains a model of its own on that many examples.
    """

    every: Positive | None = None
    at: Annotated[list[Positive], Field(min_length=1, max_length=MOST_CHECKPOINTS)] | None = None
    evaluate: list[str] | None = None

    @model_validator(mode="after")
    def _one(self) -> Checkpoints:
        if (self.every is None) == (self.at is None):
            raise ValueError("checkpoints needs 'every' or 'at', and not both: e.g. at: [100, 200, 500]")
        return self

    def steps(self, total: int) -> list[int]:
        """The numbers of examples before the last one, `total`, in ascending order."""
        if self.at is not None:
            return sorted({step for step in self.at if step < total})
        return list(range(self.every or total, total, self.every or total))


class LimitsSection(Section):
    """What a run may spend and ask for: USD in all, fine-tuning jobs at once, requests and tokens a minute."""

    usd: Annotated[float, Field(gt=0, le=1e12, strict=False)] | None = None
    jobs: Positive | None = None
    rpm: Positive | None = None
    tpm: Positive | None = None

    def resolved(self) -> Limits:
        """The limits as backends take them."""
        return Limits(self.usd, self.jobs, self.rpm, self.tpm)


class BackendChoice(Section):
    """Two backends: one trains, one generates."""

    train: str
    generate: str
