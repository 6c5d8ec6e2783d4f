"""Completions of servers that do not say how many tokens they used: all but the count is there."""

from __future__ import annotations

from pathlib import Path

from tests.store_rows import completion, put_experiment
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import Sample
from windowshift.core.settings.length import LengthScorer
from windowshift.core.settings.soundness import SoundnessScorer
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer


def test_a_count_that_is_not_there_is_missing_with_its_reason() -> None:
    sample = Sample(Prompt("k", "q"), Completion("", "Yes, two.", "stop", None, logprob=-3.0))
    scores = {**LengthScorer().score(sample), **SoundnessScorer().score(sample)}
    assert scores["length_chars"].value == 9
    for name in ("length_tokens", "coherence"):
        assert scores[name].value is None
        assert "does not say how many tokens" in (scores[name].reason or "")


def test_the_store_keeps_it_apart_from_none_at_all(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    _, (job, _) = put_experiment(writer)
    writer.put_prompts("p", [Prompt("k", "q")])
    uncounted = [*completion(job, 0)]
    uncounted[5] = None
    writer.add_completions([tuple(uncounted), completion(job, 1)])
    reader = Reader(tmp_path, writer.connection)
    counted = completion(job, 1)[5]
    assert [row.tokens for row in reader.completions(job, "length_chars")] == [None, counted]
    assert [tokens for *_, tokens in reader.text_sizes(job)] == [None, counted]
    assert [one.tokens for *_, one in reader.samples(job)] == [None, counted]
    assert reader.mean_tokens(job) == counted
    writer.close()
