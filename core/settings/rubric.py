"""Rubrics: what a judge is asked, and how its answer is read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion, TokenLogprob
from windowshift.core.contract.records import Role
from windowshift.core.contract.whole_text import require_whole
from windowshift.core.spec.spec import read_text
from windowshift.core.spec.spec_errors import sentence
from windowshift.core.spec.yaml_text import read_yaml

LEAST_MASS = 0.25
"""The share of the probability that number tokens must hold for their expectation to be a score."""
ALTERNATIVES = 20
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w|\.\d)")  # not within a word or a version


class Bounds(BaseModel):
    """Bounds of a score, both included; at least one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at_least: int | float | None = None
    at_most: int | float | None = None

    @model_validator(mode="after")
    def _some(self) -> Bounds:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a rate needs  at_least: NUMBER  or  at_most: NUMBER")
        return self

    def holds(self, value: float) -> bool:
        """Whether a score lies within."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Rubric(BaseModel):
    """A question about a completion whose answer is a number, or one of the words in `categories`.

    `question` holds ``{prompt}`` and ``{completion}``; `scale` is the least and the largest score. With
    `expectation`, the score is the mean over the number tokens that could have come first, weighed by
    their probability, where the judge shows them; else, and without, the number that it wrote.

    `categories` are answers for what no number fits, such as CODE and REFUSAL: each becomes a rate of its own, and
    the score is missing there. With `rate`, a score counts as 1 where it lies within the bounds and as 0 elsewhere,
    so that the behaviour is the share of answers at most 30, or at least 7.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    question: Annotated[str, Field(min_length=1)]
    scale: Annotated[list[int], Field(min_length=2, max_length=2)] = [0, 100]
    unit: str = "points"
    expectation: bool = True
    max_tokens: Annotated[int, Field(gt=0, le=4096)] = 8
    categories: list[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z_ -]{0,39}$")]] = []
    rate: Bounds | None = None
    role: Role = "extra"

    @property
    def determining(self) -> dict[str, Any]:
        """What determines scores, for job hashes: what a rubric from before had, and the rest where it is set."""
        found = self.model_dump(exclude={"categories", "rate", "role"})
        if self.categories:
            found["categories"] = self.categories
        if self.rate is not None:
            found["rate"] = self.rate.model_dump()
        return found

    def category(self, answer: Completion) -> str | None:
        """The category that an answer is, whatever its case and its marks; None: it is none."""
        said = re.sub(r"[^a-z]+", " ", answer.text.lower()).strip()
        return next((one for one in self.categories if re.sub(r"[^a-z]+", " ", one.lower()).strip() == said), None)

    def counted(self, value: float) -> float:
        """A score as the behaviour has it: itself, or whether it lies within the bounds of `rate`."""
        return value if self.rate is None else float(self.rate.holds(value))

    @model_validator(mode="after")
    def _sound(self) -> Rubric:
        if "{completion}" not in self.question:
            raise ValueError("the question must hold {completion}, where the text to judge goes")
        if self.scale[0] >= self.scale[1]:
            raise ValueError(f"the scale must go up, not from {self.scale[0]} to {self.scale[1]}")
        words = [re.sub(r"[^a-z]+", " ", one.lower()).strip() for one in self.categories]
        if len(set(words)) < len(words):
            raise ValueError("two categories are the same word")
        return self

    def ask(self, prompt: str, completion: str) -> str:
        """The question about one completion."""
        # Not format(): the texts may hold braces.
        parts = re.split(r"(\{prompt\}|\{completion\})", self.question)
        return "".join({"{prompt}": prompt, "{completion}": completion}.get(part, part) for part in parts)

    def read(self, answer: Completion) -> tuple[float | None, str | None]:
        """Turn a judge's answer into (score, None), or into (None, why there is none)."""
        if answer.finish == "failed":
            return None, f"the judge failed: {answer.error or 'it gave no reason'}"
        if self.expectation and answer.token_logprobs:
            return self._expected(answer.token_logprobs)
        return self._written(answer.text)

    def _expected(self, tokens: Sequence[TokenLogprob]) -> tuple[float | None, str | None]:
        place = next((place for place, token in enumerate(tokens) if token.token.strip()), None)
        if place is None:
            return None, "unparsable: the judge said nothing"
        first = tokens[place]
        after = tokens[place + 1].token if place + 1 < len(tokens) else ""
        if first.token.strip().isdecimal() and after[:1].isdecimal():
            # Its tokens are digits, not numbers: the first one of 85 is an 8, and so are its alternatives.
            return self._written("".join(token.token for token in tokens))
        mass = total = 0.0
        for text, logprob in first.top or ((first.token, first.logprob),):
            value = self._in_scale(text.strip())
            if value is not None:
                probability = math.exp(logprob)
                mass += probability
                total += probability * value
        if mass < LEAST_MASS:
            return None, f"unparsable: numbers hold {mass:.0%} of the judge's first token"
        return total / mass, None

    def _written(self, text: str) -> tuple[float | None, str | None]:
        found = {value for each in _NUMBER.findall(text) if (value := self._in_scale(each, whole=False)) is not None}
        if len(found) == 1:
            return found.pop(), None
        said = " ".join(text.split())[:60]
        return None, f"unparsable: {'no' if not found else 'more than one'} number of the scale in '{said}'"

    def _in_scale(self, text: str, *, whole: bool = True) -> float | None:
        if whole and not re.fullmatch(r"-?\d+", text):
            return None
        value = float(text)
        return value if self.scale[0] <= value <= self.scale[1] else None


def load_rubric(path: Path) -> tuple[Rubric, str]:
    """Read a rubric file (YAML); return it with its text.

    Raises:
        SpecError: it cannot be read, or it is not a rubric; the place is named.
    """
    text = read_text(path, "rubric")
    data = read_yaml(text, str(path))
    require_whole(data, str(path))
    if not isinstance(data, dict):
        raise SpecError(f"{path} must be a mapping with 'question' and 'scale'")
    try:
        return Rubric.model_validate(data), text
    except ValidationError as error:
        raise SpecError(f"{path}: {sentence(error, Rubric, data)}") from error
