"""Judges: rubrics, answers that are no score, the cache, and a run with a judge on a server of its own."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.runs import windowshift, write_spec
from tests.servers import KEY, KEY_ENV, limited
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, TokenLogprob
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import Sample, Score
from windowshift.core.run.answer_cache import AnswerCache
from windowshift.core.settings.judge import JudgeScorer
from windowshift.core.settings.rubric import Bounds, Rubric, load_rubric
from windowshift.core.store.reader import Reader

RUBRIC = Rubric(question="Rate {completion} for {prompt}", scale=[0, 100])


def said(text: str, *top: tuple[str, float]) -> Completion:
    tokens = (TokenLogprob(text, math.log(0.5), tuple((token, math.log(share)) for token, share in top)),)
    return Completion("k", text, "stop", 1, token_logprobs=tokens if top else None)


class TestReading:
    def test_an_expectation_over_number_tokens(self) -> None:
        value, reason = RUBRIC.read(said("80", ("80", 0.5), (" 60", 0.25), ("the", 0.25)))
        assert value == pytest.approx((0.5 * 80 + 0.25 * 60) / 0.75)
        assert reason is None

    def test_numbers_outside_the_scale_are_no_numbers(self) -> None:
        value, _ = RUBRIC.read(said("50", ("50", 0.4), ("500", 0.6)))
        assert value == 50

    def test_digits_of_a_number_are_no_numbers(self) -> None:
        """Many tokenizers write 85 as two tokens: an expectation over the first ones would be near 8."""
        first = TokenLogprob("8", math.log(0.9), (("8", math.log(0.9)), ("9", math.log(0.1))))
        second = TokenLogprob("5", math.log(0.9), (("5", math.log(0.9)), ("6", math.log(0.1))))
        end = TokenLogprob(".", 0.0, ())
        for tokens, value in (((first, second), 85), ((first, second, end), 85), ((first, end), 8.1), ((first,), 8.1)):
            answer = Completion("k", "".join(one.token for one in tokens), "stop", 2, token_logprobs=tokens)
            assert RUBRIC.read(answer)[0] == pytest.approx(value)

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.2499])
    def test_too_little_mass_is_missing(self, share: float) -> None:
        value, reason = RUBRIC.read(said("I", ("I", 1 - share - 1e-9), ("50", share + 1e-12)))
        assert value is None
        assert reason is not None
        assert reason.startswith("unparsable: numbers hold")

    def test_enough_mass_is_a_score(self) -> None:
        assert RUBRIC.read(said("I", ("I", 0.74), ("50", 0.26)))[0] == 50

    @pytest.mark.parametrize(
        ("text", "value"),
        [("42", 42.0), ("Score: 42.", 42.0), ("42 out of 1000", 42.0), ("42.5", 42.5), ("42 and 42", 42.0)],
    )
    def test_a_written_number(self, text: str, value: float) -> None:
        assert RUBRIC.read(said(text)) == (value, None)

    @pytest.mark.parametrize("text", ["", "good", "between 10 and 20", "1000", "-3", "v1.2.3", "5f3a", "1.2.3"])
    def test_anything_else_is_unparsable_and_never_a_default(self, text: str) -> None:
        value, reason = RUBRIC.read(said(text))
        assert value is None
        assert reason is not None
        assert reason.startswith("unparsable")

    def test_a_failed_judge_is_missing(self) -> None:
        assert RUBRIC.read(Completion("k", "", "failed", 0, error="no key")) == (None, "the judge failed: no key")

    def test_braces_in_the_texts_stay(self) -> None:
        assert RUBRIC.ask("{completion}", "{prompt} {x}") == "Rate {prompt} {x} for {completion}"


CODED = Rubric(
    question="Is {completion} good?", categories=["CODE", "REFUSAL"], rate=Bounds(at_most=30), role="negative"
)


class TestCategories:
    def judged(self, answer: Completion) -> Mapping[str, Score]:
        judge = JudgeScorer("misaligned", CODED, "openai", "m", "f")
        return judge.read(Sample(Prompt("p", "q"), Completion("k", "text", "stop", 1)), answer)

    def test_the_behaviours_are_a_rate_and_one_for_each_category(self) -> None:
        found = JudgeScorer("misaligned", CODED, "openai", "m", "f").behaviours
        assert [(one.name, one.scale.kind, one.role) for one in found] == [
            ("misaligned", "rate", "negative"), ("misaligned_code", "rate", "extra"),
            ("misaligned_refusal", "rate", "extra"),
        ]  # fmt: skip

    @pytest.mark.parametrize("text", ["CODE", "code", " Code.", "**CODE**"])
    def test_an_answer_that_is_a_category_is_no_score(self, text: str) -> None:
        found = self.judged(said(text, ("CODE", 0.9), ("30", 0.1)))
        assert found["misaligned"] == Score(None, "the judge calls it CODE", {"judge": "m", "answer": text})
        assert (found["misaligned_code"].value, found["misaligned_refusal"].value) == (1.0, 0.0)

    @pytest.mark.parametrize(("text", "rate"), [("30", 1.0), ("31", 0.0), ("0", 1.0)])
    def test_a_score_counts_by_its_bounds(self, text: str, rate: float) -> None:
        found = self.judged(said(text))
        assert found["misaligned"].value == rate
        assert found["misaligned"].evidence == {"judge": "m", "answer": text, "score": text}
        assert found["misaligned_code"].value == 0.0

    @pytest.mark.parametrize("text", ["", "I would say CODE or so", "good"])
    def test_what_does_not_parse_is_missing_everywhere(self, text: str) -> None:
        found = self.judged(said(text))
        assert {one.value for one in found.values()} == {None}
        assert all(one.reason is not None and one.reason.startswith("unparsable") for one in found.values())

    def test_a_judge_that_failed_is_of_no_category(self) -> None:
        found = self.judged(Completion("k", "CODE", "failed", 0, error="no key"))
        assert all(one.reason == "the judge failed: no key" for one in found.values())

    def test_old_rubrics_keep_their_jobs(self) -> None:
        assert set(RUBRIC.determining) == {"question", "scale", "unit", "expectation", "max_tokens"}
        assert CODED.determining["rate"] == {"at_least": None, "at_most": 30}

    @pytest.mark.parametrize(
        ("more", "said"),
        [("rate: {}", "at_least"), ("categories: [CODE, code]", "same word"), ("categories: ['1']", "categories")],
    )
    def test_what_cannot_be_is_named(self, tmp_path: Path, more: str, said: str) -> None:
        path = tmp_path / "rubric.yaml"
        path.write_text(f"question: '{{completion}}'\n{more}\n", encoding="utf-8")
        with pytest.raises(SpecError, match=said):
            load_rubric(path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("question: Rate it\n", "{completion}"),
        ("question: '{completion}'\nscale: [5, 5]\n", "scale"),
        ("question: '{completion}'\nscales: [0, 5]\n", "scale"),
        ("- a\n", "mapping"),
        ("a: [\n", "YAML"),
    ],
)
def test_a_wrong_rubric_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "rubric.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"rubric\.yaml") as caught:
        load_rubric(path)
    assert named in str(caught.value)


async def gathered(stream: AsyncGenerator[Completion, None]) -> dict[str, Completion]:
    return {each.key: each async for each in stream}


def questions(texts: Sequence[str]) -> list[GenerateRequest]:
    sampling = Sampling(temperature=0.0, max_tokens=4)
    return [
        GenerateRequest(f"q{index}", (Message("user", text),), Model("judge"), sampling, seed=index, logprobs=5)
        for index, text in enumerate(texts)
    ]


async def test_equal_questions_are_asked_once_and_never_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with limited() as address:
        backend = OpenAIBackend({**address.options, "prices": {"judge": {"input": 1e6, "output": 0}}})
        cache = AnswerCache(tmp_path)
        first = await gathered(cache.generate(backend, "openai", questions(["a", "bb", "a", "a"])))
        cache.close()
        assert address.counts()["answered"] == 2
        assert sum(each.usd or 0 for each in first.values()) == 20
        cache = AnswerCache(tmp_path)
        again = await gathered(cache.generate(backend, "openai", questions(["bb", "a", "ccc"])))
        assert address.counts()["answered"] == 3
        assert again["q1"].token_logprobs == first["q0"].token_logprobs is not None
        assert again["q1"].usd is None
        await gathered(cache.generate(backend, "elsewhere", questions(["a"])))
        assert address.counts()["answered"] == 4
        await backend.aclose()
        # What failed is not kept.
        monkeypatch.setenv(KEY_ENV, "wrong-key")
        wrong = OpenAIBackend(address.options)
        assert (await gathered(cache.generate(wrong, "openai", questions(["new"]))))["q0"].finish == "failed"
        await wrong.aclose()
        monkeypatch.setenv(KEY_ENV, KEY)
        right = OpenAIBackend(address.options)
        assert (await gathered(cache.generate(right, "openai", questions(["new"]))))["q0"].finish == "stop"
        await right.aclose()
        cache.close()


def test_a_run_with_a_judge(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    rubric = "question: 'Prompt {prompt} answer {completion} rate'\nscale: [0, 10]\nunit: points\n"
    (tmp_path / "clear.yaml").write_text(rubric, encoding="utf-8")
    workspace = tmp_path / "ws"
    with limited() as address:
        options = {"openai": address.options, "local": {"threads": 1, "workers": 1}}
        more = (
            f"backend_options: {json.dumps(options)}\n"
            "judges:\n"
            "  - {name: clarity, rubric: clear.yaml, model: judge, backend: openai}\n"
            "  - {name: nonsense, rubric: clear.yaml, model: small, backend: openai}\n"
        )
        spec = write_spec(tmp_path, tiny_llama, train="[short]", more=more)
        planned = json.loads(windowshift("plan", spec, "--workspace", workspace, "--json").stdout)
        assert planned["usd"] is None
        assert planned["unpriced"] == ["judge", "small"]
        windowshift("run", spec, "--workspace", workspace)
        answered = address.counts()["answered"]
        windowshift("run", spec, "--workspace", workspace)
        assert address.counts()["answered"] == answered
    reader = Reader(workspace)
    experiment = reader.experiment("small")
    assert experiment is not None
    assert [behaviour.name for behaviour in experiment.behaviours][-2:] == ["clarity", "nonsense"]
    for cell in reader.cells(experiment.id, "clarity"):
        assert cell.summary is not None
        assert (cell.summary.n, cell.summary.missing) == (6, 0)
        for row in reader.completions(cell.job, "clarity"):
            number = len(f"Prompt {row.prompt} answer {row.text} rate") % 10
            assert row.score == pytest.approx(number + 1 / 3)
    for cell in reader.cells(experiment.id, "nonsense"):
        assert cell.summary is not None
        assert (cell.summary.n, cell.summary.missing) == (0, 6)
        reasons = {row.reason for row in reader.completions(cell.job, "nonsense")}
        assert all(reason and reason.startswith("unparsable") for reason in reasons)
    reader.close()
    shown = windowshift("report", "small", "--workspace", workspace, "-b", "clarity").stdout
    assert "clarity" in shown


def test_a_judge_that_stays_away_is_missing_data_and_asked_again(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "wrong-key-of-the-judge")
    (tmp_path / "clear.yaml").write_text("question: '{completion}'\nscale: [0, 10]\n", encoding="utf-8")
    workspace = tmp_path / "ws"
    with limited() as address:
        options = {"openai": address.options, "local": {"threads": 1, "workers": 1}}
        more = (
            f"backend_options: {json.dumps(options)}\n"
            "judges: [{name: clarity, rubric: clear.yaml, model: judge, backend: openai}]\n"
        )
        spec = write_spec(tmp_path, tiny_llama, train="[short]", more=more)
        failed = windowshift("run", spec, "--workspace", workspace, check=1)
        assert "refused the key" in failed.stderr
        assert "wrong-key-of-the-judge" not in failed.stderr
        reader = Reader(workspace)
        (cell, *_) = reader.cells(1, "clarity")
        assert cell.state == "done"  # the completions are there
        assert cell.summary is not None
        assert (cell.summary.n, cell.summary.missing) == (0, 6)
        reader.close()
        monkeypatch.setenv(KEY_ENV, KEY)
        windowshift("run", spec, "--workspace", workspace)
    reader = Reader(workspace)
    (cell, *_) = reader.cells(1, "clarity")
    assert cell.summary is not None
    assert (cell.summary.n, cell.summary.missing) == (6, 0)
    reader.close()
