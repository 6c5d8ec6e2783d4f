"""Soundness of text: whether a model that is pushed still writes what the unpushed one could have written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores

COHERENCE = Behaviour("coherence", "nats a token", Scale.difference(), "guard")
REPETITION = Behaviour("repetition", "share", Scale.rate(percent=False), "guard")


@dataclass(frozen=True, slots=True)
class SoundnessScorer:
    """Coherence and degenerate repetition.

    Coherence is the mean log-probability of a completion's tokens under the unsteered base model, given the
    same messages; missing where the completion is empty or the backend gives no log-probability.
    """

    name: str = "soundness"
    behaviours: tuple[Behaviour, ...] = (COHERENCE, REPETITION)

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "soundness", "version": 1}

    def score(self, sample: Sample) -> Scores:
        """Both, of one completion."""
        completion = sample.completion
        if completion.tokens is None:
            coherence = Score(None, "the server does not say how many tokens it used")
        elif not completion.tokens:
            coherence = Score(None, "an empty completion has no log-probability")
        elif completion.logprob is None:
            coherence = Score(None, "no log-probability was asked for or offered")
        else:
            coherence = Score(completion.logprob / completion.tokens)
        return {COHERENCE.name: coherence, REPETITION.name: Score(repetition(completion.text))}


def repetition(text: str, words: int = 4) -> float:
    """Share of a text's runs of `words` words that repeat an earlier one: 0 for none, near 1 for a loop."""
    parts = text.split()
    runs = Counter(tuple(parts[at : at + words]) for at in range(len(parts) - words + 1))
    total = sum(runs.values())
    return 1 - len(runs) / total if total else 0.0
