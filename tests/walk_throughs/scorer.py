"""A scorer: whether an answer ends in a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores

ASKS = Behaviour("asks", "share", Scale.rate())


@dataclass(frozen=True, slots=True)
class AskingScorer:
    """Looks at the last character."""

    name: str = "asking"
    behaviours: tuple[Behaviour, ...] = (ASKS,)

    def identity(self) -> dict[str, Any]:
        """Raise the version when a score would change."""
        return {"scorer": "asking", "version": 1}

    def score(self, sample: Sample) -> Scores:
        """An empty answer is missing, never a 0."""
        text = sample.completion.text.strip()
        return {"asks": Score(float(text.endswith("?"))) if text else Score(None, "the answer is empty")}
