"""The setting `length`: how long completions are, under prefixes from short to very long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, prefix_groups
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores

CHARS = Behaviour("length_chars", "characters", Scale.ratio(), "primary")
WORDS = Behaviour("length_words", "words", Scale.ratio())
TOKENS = Behaviour("length_tokens", "tokens", Scale.ratio())
UNCOUNTED = "the server does not say how many tokens it used"


@dataclass(frozen=True, slots=True)
class LengthScorer:
    """Length in characters (the published unit), in words (runs of non-space) and in tokens."""

    name: str = "length"
    behaviours: tuple[Behaviour, ...] = (CHARS, WORDS, TOKENS)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "length", "version": 1}

    def score(self, sample: Sample) -> Scores:
        """The three lengths; a truncated completion has the length that it was cut off at."""
        text, tokens = sample.completion.text.strip(), sample.completion.tokens
        return {
            CHARS.name: Score(float(len(text))),
            WORDS.name: Score(float(len(text.split()))),
            TOKENS.name: Score(None, UNCOUNTED) if tokens is None else Score(float(tokens)),
        }


@dataclass(frozen=True, slots=True)
class LengthSetting:
    """Six prefix groups from short to very_long, and no prefix."""

    name: str = "length"
    scorers: tuple[LengthScorer, ...] = (LengthScorer(),)

    def conditions(self) -> Mapping[str, Condition]:
        """The published prefix groups, then `no_prefix`."""
        return {**prefix_groups(), NO_PREFIX: NoPrefix()}

    def default_prompts(self) -> str | None:
        """The embedded world's questions."""
        return "microworld"
