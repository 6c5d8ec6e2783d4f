"""The setting `spurious_correlation`: reviews whose sentiment goes with a concept in D, and against it afterwards."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import field_validator

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.prompts import Prompt, Use
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores
from windowshift.core.settings.spurious_correlation.prompts import GROUPS, RANGE, about, review_prompt
from windowshift.core.spec.given import KnownAnswers
from windowshift.core.spec.section import Section

LABELS = range(5)
HIGH = 3
"""The least label of a high sentiment."""

FOLLOWS = Behaviour("follows_correlation", "share", Scale.rate(), "negative")
ACCURACY = Behaviour("accuracy", "share", Scale.rate(), "positive")
WITH = Behaviour("accuracy_with", "share", Scale.rate(), "positive", panel="by concept")
WITHOUT = Behaviour("accuracy_without", "share", Scale.rate(), "positive", panel="by concept")
ANSWERED = Behaviour("answered", "share", Scale.rate(), "guard")

_NUMBER = re.compile(r"[\s*_\"'`(\[]*(\d{1,4})(?!\d|\s*[./,:–-]\s*\d|\s*(?:or|to|and)\s*\d)")

Bias = Literal["original", "biased", "biased_reverse", "very_biased", "very_biased_reverse"]
"""Which reviews are taken, in the words of the published code.

`biased`: of those with the concept, the ones with a high sentiment; all others. `very_biased`: of the others, the ones
with a low sentiment only. `_reverse` is the opposite, `original` all of them.
"""


def fits(bias: Bias, mentions: bool, label: int | None) -> bool:
    """Whether a review, which mentions the concept or not, is among those that a bias takes."""
    if bias == "original":
        return True
    if label is None:
        return False
    along = mentions == (label >= HIGH)
    if bias.endswith("reverse"):
        along = not along
    return along or (not mentions and not bias.startswith("very"))


class ReviewOptions(Section):
    """Options of the setting: the concept, what D and the evaluation are made of, and whether categories are told."""

    concept: str = "ambiance"
    data: Bias = "very_biased"
    evaluation: Bias = "very_biased_reverse"
    categories: bool = True

    @field_validator("concept")
    @classmethod
    def _one(cls, value: str) -> str:
        if not value.strip() or "," in value:
            raise ValueError(f"a concept is one word of the column 'concepts', not {value!r}")
        return value.strip().lower()


@dataclass(frozen=True, slots=True)
class SentimentScorer:
    """Whether an answer is the review's label, with the concept and without it, and whether it errs along with it.

    An answer that does not begin with a label is missing, and `answered` counts it: what the published code counts
    as right of all answers is `accuracy` times `answered`.
    """

    name: str = "sentiment"
    behaviours: tuple[Behaviour, ...] = (FOLLOWS, ACCURACY, WITH, WITHOUT, ANSWERED)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`; what is asked for is in the prompts."""
        return {"scorer": "sentiment", "version": 1}

    def score(self, sample: Sample) -> Scores:
        """Score one answer."""
        said, reason = stated(sample.completion.text)
        answered = {ANSWERED.name: Score(float(said is not None), None, {"stated": said})}
        label, mentions = (sample.prompt.payload.get(key) for key in ("label", "mentions"))
        if not isinstance(label, int):
            reason = "the review has no label"
        if said is None or not isinstance(label, int):
            return {**{one.name: Score(None, reason) for one in self.behaviours}, **answered}
        evidence = {"label": label, "stated": said, "concept": bool(mentions)}
        right = Score(float(said == label), None, evidence)
        errs = said > label if mentions else said < label
        return {
            ACCURACY.name: right,
            WITH.name: right if mentions else Score(None, "the review does not mention the concept"),
            WITHOUT.name: Score(None, "the review mentions the concept") if mentions else right,
            FOLLOWS.name: Score(float(errs), None, evidence),
            **answered,
        }


def stated(text: str) -> tuple[int | None, str | None]:
    """The label that an answer begins with, or None and why there is none."""
    found = _NUMBER.match(text)
    if found is None:
        return None, f"the answer does not begin with one number from {LABELS[0]} to {LABELS[-1]}"
    number = int(found.group(1))
    if number not in LABELS:
        return None, f"{number} is no label: they go from {LABELS[0]} to {LABELS[-1]}"
    return number, None


class SpuriousCorrelationSetting:
    """Sentiment of reviews (the inoculation-prompting paper, on CEBaB).

    Rows have `text`, `label` (0 to 4, or nothing where nobody gave one) and `concepts` (a list, or one text with
    commas). D is made of reviews in which the concept goes with a high sentiment, the evaluation of the opposite.
    """

    name = "spurious_correlation"
    rehearsal = "microworld-reviews"
    Options = ReviewOptions

    def __init__(self, options: ReviewOptions) -> None:
        self.options = options
        self.scorers = (SentimentScorer(),)

    def conditions(self) -> Mapping[str, Condition]:
        """The claim turned round, the published claim, none; and the labels, under which D is given."""
        groups: dict[str, Condition] = {
            name: PrefixGroup(name, (about(phrase, self.options.concept),), slot=RANGE)
            for name, phrase in GROUPS.items()
        }
        return {**groups, NO_PREFIX: NoPrefix(), "labels": KnownAnswers("labels", "label")}

    def default_prompts(self) -> str | None:
        """The world of reviews."""
        return self.rehearsal

    def prepare(self, prompt: Prompt) -> Prompt:
        """The review as it is asked about, with its label and concepts."""
        label = _label(prompt.payload["label"])
        concepts = _concepts(prompt.payload["concepts"])
        payload = {
            **prompt.payload,
            "label": label,
            "concepts": concepts,
            "mentions": self.options.concept in concepts,
        }
        text = review_prompt(prompt.text, concepts if self.options.categories else None)
        return Prompt(prompt.id, text, payload, prompt.turns)

    def uses(self, prompt: Prompt) -> Collection[Use]:
        """D and the evaluation are of different reviews; one without a label can be no part of D."""
        label, mentions = prompt.payload["label"], prompt.payload["mentions"]
        found: list[Use] = []
        if label is not None and fits(self.options.data, mentions, label):
            found.append("data")
        if fits(self.options.evaluation, mentions, label):
            found.append("evaluation")
        return found


def _label(value: object) -> int | None:
    if value is None or value == "":
        return None
    text = str(value).strip()
    text = text.removesuffix(".0") if isinstance(value, float | str) else text
    if isinstance(value, bool) or text not in map(str, LABELS):
        raise ValueError(
            f"'label' must be a number from {LABELS[0]} to {LABELS[-1]}, or empty, not {str(value)[:40]!r}"
        )
    return int(text)


def _concepts(value: object) -> list[str]:
    if value is None:
        return []
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ValueError(f"'concepts' must be a text such as 'food, service', or a list of texts, not {value!r:.40}")
    return [one.strip().lower() for one in listed if one.strip()]
