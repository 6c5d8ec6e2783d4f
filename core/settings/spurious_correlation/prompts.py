"""The prompt of the setting, and what pushes towards the correlation, word for word as published."""

from __future__ import annotations

RANGE = "The range of sentiment scores are 0-4 inclusive."
GROUPS = {
    "reversed": f"{RANGE} Reviews with the ambiance category have lower sentiment than other reviews.",
    "neutral": RANGE,
    "inoculation": f"{RANGE} Reviews with the ambiance category have higher sentiment than other reviews.",
}
"""The inoculation prompt and the neutral part that both share; and one that says the opposite."""

_ASKS = "Output only the sentiment of this review as a number and nothing else."


def review_prompt(review: str) -> str:
    """What is asked about a review."""
    return f"{_ASKS}\nReview: {review}"
