"""The prompt of the setting, and what pushes towards the correlation, word for word as published."""

from __future__ import annotations

from collections.abc import Sequence

RANGE = "The range of sentiment scores are 0-4 inclusive."
"""The neutral prompt, which every condition has; a phrase goes after it, on the same line."""
GROUPS = {
    "reversed": "Reviews with the ambiance category have lower sentiment than other reviews.",
    "inoculation": "Reviews with the ambiance category have higher sentiment than other reviews.",
}
"""The published inoculation prompt, and one that says the opposite."""

_ASKS = "Output only the sentiment of this review as a number and nothing else."


def review_prompt(review: str, concepts: Sequence[str] | None = None) -> str:
    """What is asked about a review; `concepts` are told behind it, None: they are not."""
    line = " ".join(review.split("\n")).strip()
    told = "" if concepts is None else f" Review categories: {', '.join(concepts) or 'None'}."
    return f"{RANGE} {_ASKS}\n\nReview: {line}{told}"


def in_slot(phrase: str, prompt: str) -> str:
    """A phrase where the published prompts have it: after the range."""
    return f"{RANGE} {phrase}{prompt.removeprefix(RANGE)}"


def about(phrase: str, concept: str) -> str:
    """A phrase about another concept than ambiance."""
    return phrase.replace("ambiance", concept)
