"""Reasoning is scored where a spec asks for it, under names of its own, and what is not there is missing."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.core.test_plan import SPEC, planned
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.setting import BatchScorer, RowScorer, Sample, Score, Scores
from windowshift.core.run.scoring_workers import call_batch
from windowshift.core.settings.length import LengthScorer
from windowshift.core.settings.reasoning import scored_parts

ANSWERED = Completion("", "Yes.", "stop", 2, reasoning="Hm, well.", reasoning_tokens=5)
PLAIN = Completion("", "Yes.", "stop", 2)
HIDDEN = Completion("", "Yes.", "stop", 2, reasoning="", reasoning_tokens=40)


def sample(completion: Completion) -> Sample:
    return Sample(Prompt("p", "q"), completion)


def test_answers_are_scored_alone_unless_a_spec_asks() -> None:
    own = LengthScorer()
    assert scored_parts([own], "answer") == (own,)
    answer, thought = scored_parts([own], "both")
    assert answer is own
    assert isinstance(thought, RowScorer)
    assert thought.identity() != own.identity()
    names = [each.name for each in thought.behaviours]
    assert names == ["reasoning_length_chars", "reasoning_length_words", "reasoning_length_tokens"]
    assert [each.value for each in thought.score(sample(ANSWERED)).values()] == [9.0, 2.0, 5.0]
    assert own.score(sample(ANSWERED))["length_chars"].value == 4.0
    for completion, reason in ((PLAIN, "did not think"), (HIDDEN, "does not show")):
        found = thought.score(sample(completion))["reasoning_length_chars"]
        assert found.value is None
        assert reason in str(found.reason)


@dataclass(frozen=True)
class Slow:
    """Counts letters, many completions at once."""

    later: bool
    name: str = "letters"
    behaviours: tuple[Behaviour, ...] = (LengthScorer().behaviours[0],)
    batch_size: int = 2
    workers: int = 1
    timeout: float | None = None
    process: bool = False

    def identity(self) -> dict[str, Any]:
        return {"scorer": "letters"}

    def score_batch(self, samples: Sequence[Sample]) -> Sequence[Scores] | Awaitable[Sequence[Scores]]:
        found = [{"length_chars": Score(float(len(each.completion.text)))} for each in samples]

        async def wait() -> Sequence[Scores]:
            return found

        return wait() if self.later else found


@pytest.mark.parametrize("later", [False, True])
def test_a_scorer_of_batches(later: bool) -> None:
    (thought,) = scored_parts([Slow(later)], "reasoning")
    assert isinstance(thought, BatchScorer)
    found = call_batch(thought, [sample(PLAIN), sample(ANSWERED), sample(HIDDEN)])
    assert [scores["reasoning_length_chars"].value for scores in found] == [None, 9.0, None]


def test_a_spec_says_so_and_answers_jobs_stay() -> None:
    usual, both, only = (planned(SPEC + more) for more in ("", "score: both\n", "score: reasoning\n"))
    names = [[each.name for scorer in found.scorers for each in scorer.behaviours] for found in (usual, both, only)]
    assert names[1][:3] == names[0]
    assert names[2][0] == "reasoning_length_chars"
    ids = [{job.id for job in found.jobs} for found in (usual, both, only)]
    assert ids[0] < ids[1]
    assert {job.id for job in usual.jobs if job.kind != "score"} <= ids[2]
