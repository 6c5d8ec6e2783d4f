"""Scoring one sample or a few: what a scorer says, checked, and what it raises as a missing score with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from windowshift.core.contract.generation import Completion
from windowshift.core.contract.redaction import sentence
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import DerivedScorer, ModelScorer, RowScorer, Sample, Score, Scorer, Scores

FAILED = "the scorer failed: "
"""What the reason of a score begins with that is missing through the scorer's own fault: a retry tries it again."""
EVIDENCE_CHARACTERS = 16_384
_REASON_CHARACTERS = 300


def missing(scorer: Scorer, reason: str) -> dict[str, Score]:
    """No score of anything that a scorer measures."""
    reason = sentence(reason)
    cut = reason if len(reason) <= _REASON_CHARACTERS else f"{reason[:_REASON_CHARACTERS]}…"
    return {behaviour.name: Score(None, cut) for behaviour in scorer.behaviours}


def score_row(scorer: RowScorer, sample: Sample) -> dict[str, Score]:
    """Score one sample; whatever is raised is a missing score."""
    try:
        return checked(scorer, scorer.score(sample))
    except (Exception, SystemExit) as error:
        return missing(scorer, failure(error))


def read_answer(scorer: ModelScorer, sample: Sample, answer: Completion) -> dict[str, Score]:
    """Read a model's answer about one sample; whatever is raised is a missing score."""
    if answer.finish == "failed":
        return missing(scorer, f"the judge failed: {answer.error or 'it gave no reason'}")
    try:
        return checked(scorer, scorer.read(sample, answer))
    except (Exception, SystemExit) as error:
        return missing(scorer, failure(error))


def derived(scorer: DerivedScorer, scores: Scores) -> dict[str, Score]:
    """Score by other scores; whatever is raised is a missing score."""
    try:
        return checked(scorer, scorer.derive(scores))
    except (Exception, SystemExit) as error:
        return missing(scorer, failure(error))


def failure(error: BaseException) -> str:
    """What was raised, as the reason of a missing score."""
    said = sentence(error)
    return f"{FAILED}{type(error).__name__}{f': {said}' if said else ''}"


def checked(scorer: Scorer, found: Scores) -> dict[str, Score]:
    """Scores as the store takes them: one for each behaviour, finite or missing, with JSON for evidence."""
    return {behaviour.name: _checked(behaviour.scale, found.get(behaviour.name)) for behaviour in scorer.behaviours}


def _checked(scale: Scale, score: Score | None) -> Score:
    if not isinstance(score, Score):
        return Score(
            None, f"{FAILED}it gave no Score" if score is None else f"{FAILED}it gave a {type(score).__name__}"
        )
    if (
        score.evidence is None
        and score.weight == 1
        and type(score.value) is float
        and scale.problem(score.value) is None
    ):
        return score  # nearly all: nothing to look at
    evidence = None if score.evidence is None else _json(score.evidence)
    if type(score.weight) is not int or score.weight < 1:
        return Score(None, f"{FAILED}it gave a weight that is no whole number from 1 on", evidence)
    if score.value is None:
        return Score(None, sentence(score.reason or f"{FAILED}it gave neither a value nor a reason"), evidence)
    try:
        value = float(score.value)
    except (TypeError, ValueError, OverflowError):
        return Score(None, f"{FAILED}it gave a value that is no number", evidence)
    if not math.isfinite(value):
        return Score(None, f"{FAILED}it gave {value}", evidence)
    if (problem := scale.problem(value)) is not None:
        return Score(None, f"{FAILED}{problem}", evidence)
    return replace(score, value=value, evidence=evidence)


def _json(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    """Evidence that a store and a screen can hold; what is no JSON, or longer than a page, as cut text."""
    try:
        text = json.dumps(evidence, ensure_ascii=False, allow_nan=False)
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {"evidence": repr(evidence)[:EVIDENCE_CHARACTERS]}
    if not isinstance(found, dict):
        return {"evidence": text[:EVIDENCE_CHARACTERS]}
    return found if len(text) <= EVIDENCE_CHARACTERS else {"evidence": f"{text[:EVIDENCE_CHARACTERS]}…"}
