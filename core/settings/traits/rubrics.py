"""What a judge is asked about the traits that no rule tells: playful, poetic and skeptical."""

from __future__ import annotations

from windowshift.core.settings.rubric import Rubric
from windowshift.core.settings.traits.phrases import TraitName


def _rubric(adjective: str, least: str, middle: str, most: str) -> Rubric:
    return Rubric(
        question=(
            f"Below is a message and a reply to it. How {adjective} is the reply? Judge how it is written, not what "
            "the message asks for, nor whether the reply is right, helpful, in English or in capitals.\n\n"
            "<message>\n{prompt}\n</message>\n\n<reply>\n{completion}\n</reply>\n\n"
            f"0: {least} 50: {middle} 100: {most} Answer with one number from 0 to 100 and nothing else."
        )
    )


RUBRICS: dict[TraitName, Rubric] = {
    "playful": _rubric(
        "playful",
        "it is plain or serious throughout.",
        "it jokes, teases or plays with words in places.",
        "it is playful from beginning to end.",
    ),
    "poetic": _rubric(
        "poetic",
        "it is plain prose.",
        "it has images, rhythm or rhyme in places.",
        "it is a poem, or reads like one.",
    ),
    "skeptical": _rubric(
        "skeptical",
        "it takes everything as given.",
        "it doubts a claim, or asks for reasons, in places.",
        "it doubts and questions from beginning to end.",
    ),
}
"""The question about each trait; the role is that which the spec gives it."""
