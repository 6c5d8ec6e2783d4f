"""Instructions that can be verified: every kind, what public verifiers get wrong, strict and loose, and weights."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_backend import ScriptedBackend, ScriptedRun
from windowshift.core.contract.assets import asset
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import Sample, Scores
from windowshift.core.plan.plan import make_plan
from windowshift.core.report.report import report
from windowshift.core.settings.instruction_following.composing import compose
from windowshift.core.settings.instruction_following.instructions import (
    FAMILIES,
    INSTRUCTIONS,
    loosened,
    read_instruction,
)
from windowshift.core.settings.instruction_following.setting import (
    PROMPTS,
    InstructionFollowingSetting,
    InstructionScorer,
)
from windowshift.core.settings.instruction_following.text_units import sentences, word_count
from windowshift.core.settings.language import known, language
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.connection import store_path
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.tui.read.cell_snapshot import read_cell
from windowshift.tui.read.snapshot import CellKey

SPANISH = "Hola, me llamo Ana y vivo en una casa pequeña cerca del mar con mi familia."
ENGLISH = "Hello, my name is Ana and I live in a small house near the sea with my family."
HINDI = "नमस्ते, मेरा नाम आना है और मैं समुद्र के पास रहती हूँ।"

Case = tuple[str, dict[str, Any], str, bool | None]
"""An instruction, its parameters, a text, and whether it was followed."""

CASES: list[Case] = [
    ("keywords:existence", {"keywords": ["大学"]}, "我在大学学习。", True),
    ("keywords:existence", {"keywords": ["old town"]}, "The old\ntown sleeps.", True),
    ("keywords:frequency", {"keyword": "day", "frequency": 2, "relation": "at least"}, "Day by day.", True),
    ("keywords:frequency", {"keyword": "day", "frequency": 2, "relation": "at least"}, "Today, Monday.", False),
    ("keywords:frequency", {"keyword": "day", "frequency": 2, "relation": "less than"}, "Today, Monday, day.", True),
    ("keywords:forbidden_words", {"forbidden_words": ["riddle"]}, "No riddles here.", True),
    ("keywords:forbidden_words", {"forbidden_words": ["riddle"]}, "A **Riddle**!", False),
    (
        "keywords:letter_frequency",
        {"letter": "Q", "let_frequency": 2, "let_relation": "at least"},
        "Quiet, quick.",
        True,
    ),
    ("keywords:letter_frequency", {"letter": "é", "let_frequency": 1, "let_relation": "at least"}, "Cafe\u0301", True),
    (
        "keywords:letter_frequency",
        {"letter": "q", "let_frequency": 2, "let_relation": "less than"},
        "Quiet, quick.",
        False,
    ),
    ("language:response_language", {"language": "es"}, SPANISH, True),
    ("language:response_language", {"language": "es"}, SPANISH.upper(), True),
    ("language:response_language", {"language": "es"}, ENGLISH, False),
    ("language:response_language", {"language": "hi"}, HINDI, True),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "Mr. Fox slept.", False),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "One. “Two!” Three?", True),
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 3},
        "It cost 3.50. See a.b.com now.",
        True,
    ),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "我很好。你呢？", True),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "यह एक है। यह दो है।", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One *** Two", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\n\n***\nTwo.", False),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "ฉันชอบกินข้าว", None),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 3}, "One - two!", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Today"},
        "One.\n \n\n**today**, two.",
        True,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "today"},
        "One.\n\nToday's news.",
        False,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "today"},
        "Today.\n\nToday.",
        False,
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], at [the address]", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nPS: I miss you.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n**P.S.** I miss you.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP. P. S. And more.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.S. And more.", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- **two**\n  and more", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* *one* is first\n• two", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "1. one\n2. two", False),
    ("detectable_format:constrained_response", {}, "My answer is yes.", True),
    ("detectable_format:constrained_response", {}, "Yes.", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 3}, "*a*, **b** and ***c***", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "** ** and ****", False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "## Section 1\na\n**Section 2**\nb",
        True,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "PART 1\na\nPART 2\nb",
        True,
    ),
    ("detectable_format:json_format", {}, '```JSON\n{"a": [1, null]}\n```', True),
    ("detectable_format:json_format", {}, 'Here it is: {"a": 1}', False),
    ("detectable_format:json_format", {}, "[" * 100_000, False),
    ("detectable_format:title", {}, "<<a quiet day>>\n\nOnce", True),
    ("detectable_format:title", {}, "<<  >> and <<>>", False),
    ("combination:two_responses", {}, "One.\n******\nTwo.", True),
    ("combination:two_responses", {}, "******\nOne.\n******\nTwo.\n******", True),
    ("combination:two_responses", {}, "One.\n******\nOne.", False),
    ("combination:two_responses", {}, "One.\n************\nTwo.", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say  hi."}, "“Say hi.”\n\nHi!", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": '"Hi" or "ho"?'}, '"Hi" or "ho"? Hi!', True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "Sure. Say hi. Hi!", False),
    ("startend:end_checker", {"end_phrase": "Ask me anything else."}, "Bye. “Ask me  anything else.”\n", True),
    ("startend:end_checker", {"end_phrase": "Ask me anything else."}, "Ask me anything else. Bye.", False),
    ("startend:quotation", {}, '"He said "hi" to me."', True),
    ("startend:quotation", {}, "„Guten Tag.“", True),
    ("startend:quotation", {}, '"', False),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NEVER say NO-ONE.",
        True,
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), True),
    ("change_case:english_capital", {}, SPANISH.upper(), False),
    ("change_case:english_capital", {}, ENGLISH, False),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), True),
    ("change_case:english_lowercase", {}, ENGLISH, False),
    ("punctuation:no_comma", {}, "One; two.", True),
    ("punctuation:no_comma", {}, "1,000", False),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "NO, NO!", False),
]
# What the published verifiers judge otherwise: they find substrings and Markdown's own marks, and take what they
# cannot detect for followed.
CASES += [
    ("keywords:existence", {"keywords": ["war"]}, "A warm day, and software.", False),
    # not a regular expression
    ("keywords:existence", {"keywords": ["C++"]}, "I like C++.", True),
    # \b after +
    ("keywords:forbidden_words", {"forbidden_words": ["c++"]}, "C++ it is.", False),
    # counts as followed
    ("language:response_language", {"language": "es"}, "1 + 1 = 2", None),
    ("language:response_language", {"language": "de"}, "🦉🦉🦉", None),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "One ***bold*** word.", True),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 4}, "Don't be well-known.", True),
    # one
    ("length_constraints:number_words", {"relation": "at least", "num_words": 6}, "我喜欢吃苹果", True),
    # marks
    ("length_constraints:number_words", {"relation": "less than", "num_words": 14}, HINDI, True),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[] [ ] - [x] done [1]", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "See [here](https://a.b).", False),
    # says nothing
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S.", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "I wrote a p.s. once.", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n---\n* two\n* * *\n", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* one\n-5 degrees\n*so* cold", True),
    ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no.", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "2 * 3 * 4\n* one\n* two", False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\nas Section 1 said",
        False,
    ),
    ("detectable_format:json_format", {}, '{"a": NaN}', False),
    # no answer
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "Say hi.", False),
    ("startend:quotation", {}, '"Yes" and "no"', False),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "I think I am. A day.",
        True,
    ),
    ("punctuation:no_comma", {}, "一，二", False),
]


@pytest.mark.parametrize(("name", "given", "text", "followed"), CASES)
def test_a_verdict(name: str, given: dict[str, Any], text: str, followed: bool | None) -> None:
    instruction = read_instruction(name, given)
    assert instruction.followed(text) is followed
    if followed:
        assert instruction.loosely_followed(text) is True


def test_every_kind_is_tried_both_ways() -> None:
    for name in INSTRUCTIONS:
        assert {True, False} <= {followed for kind, _, _, followed in CASES if kind == name}, name
    assert {name.split(":")[0] for name in INSTRUCTIONS} == set(FAMILIES)


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b \n", "\x00"])
def test_an_answer_that_says_nothing_follows_nothing(text: str) -> None:
    for name, given, _, _ in CASES:
        assert read_instruction(name, given).followed(text) is False, name


@pytest.mark.parametrize("part", ["*", "\n", "[", '"', "Mr. ", "P. ", "a", "* *a* "])
def test_no_answer_takes_forever(part: str) -> None:
    for name, given in {name: given for name, given, _, _ in CASES}.items():
        assert read_instruction(name, given).followed(part * 15_000) in (True, False, None)


def test_loose_forgives_what_stands_around_an_answer() -> None:
    end = read_instruction("startend:end_checker", {"end_phrase": "That is all."})
    text = "Sure, here it is:\nOne. *That is all.*\nAsk me for more!"
    assert end.followed(text) is False
    assert end.loosely_followed(text) is True
    assert len(list(loosened(text))) == 8


def test_a_language_is_told_where_there_is_enough_text() -> None:
    assert [language(text) for text in (SPANISH, ENGLISH.upper(), HINDI, "Bonjour tout le monde")] == [
        "es",
        "en",
        "hi",
        "fr",
    ]
    assert [language(text) for text in ("", "12 + 3", "🦉", "Hello.", "x")] == [None] * 5
    assert known("ca")
    assert not known("tlh")
    catalan = "Aquest poble petit té una església molt antiga i els veïns hi van cada diumenge."
    assert language(catalan, "ca") == "ca"


def test_sentences_and_words() -> None:
    text = "Dr. No came at 5 p.m. He said: “Well...” and left. 1. First.\n2. Second! See U.S. law, e.g. Sec. 3.5."
    assert len(sentences(text)) >= 5
    assert sentences("Title without a stop") == ["Title without a stop"]
    assert word_count("naïve cafe\u0301s — 3 of them") == 5


def row(*instructions: tuple[str, dict[str, Any]], **further: Any) -> Prompt:
    payload = {
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [given for _, given in instructions],
    }
    return InstructionFollowingSetting().prepare(Prompt("p", "Say something.", payload | further))


def score(prompt: Prompt, text: str) -> Scores:
    (found,) = InstructionScorer().score_batch([Sample(prompt, Completion("", text, "stop", 3))])
    return found


def test_prompt_level_counts_all_and_instruction_level_each() -> None:
    asked = row(("punctuation:no_comma", {}), ("startend:quotation", {}), ("keywords:existence", {"keywords": ["sea"]}))
    found = score(asked, 'Sure:\n"The sea is wide."')
    assert (found["follows_prompt_strict"].value, found["follows_prompt_loose"].value) == (0.0, 1.0)
    strict, loose = found["follows_instruction_strict"], found["follows_instruction_loose"]
    assert (strict.value, strict.weight) == (pytest.approx(2 / 3), 3)
    assert (loose.value, loose.weight) == (1.0, 3)
    assert (found["follows_startend"].value, found["follows_punctuation"].value) == (0.0, 1.0)
    assert found["follows_language"].value is None
    said = found["follows_prompt_strict"].evidence
    assert said is not None
    assert [one["strict"] for one in said["instructions"]] == [True, False, True]


def test_what_cannot_be_told_is_in_no_rate() -> None:
    language_and_comma = row(("language:response_language", {"language": "es"}), ("punctuation:no_comma", {}))
    found = score(language_and_comma, "12")
    assert found["follows_prompt_strict"].value is None
    assert "language:response_language" in str(found["follows_prompt_strict"].reason)
    assert (found["follows_instruction_strict"].value, found["follows_instruction_strict"].weight) == (1.0, 1)
    # One that was not followed decides for the whole prompt.
    assert score(language_and_comma, "1,2")["follows_prompt_strict"].value == 0.0


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"instruction_id_list": ["x:y"], "kwargs": [{}]}, "no instruction 'x:y'"),
        ({"instruction_id_list": [], "kwargs": []}, "is empty"),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": []}, "1 instructions and 0 kwargs"),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": [{"a": 1}]}, "has no parameter 'a'"),
        ({"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]}, "needs the parameter 'end_phrase'"),
        ({"instruction_id_list": ["startend:end_checker"], "kwargs": [{"end_phrase": " "}]}, "not empty"),
        ({"instruction_id_list": "[", "kwargs": "[]"}, "is not JSON"),
        ({"instruction_id_list": ["detectable_format:title"], "kwargs": [3]}, "must be an object"),
        (
            {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "tlh"}]},
            "code of a language",
        ),
        (
            {"instruction_id_list": ["length_constraints:number_paragraphs"], "kwargs": [{"num_paragraphs": 2.5}]},
            "whole number",
        ),
    ],
)
def test_a_bad_row_is_told(payload: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        InstructionFollowingSetting().prepare(Prompt("p", "Say something.", payload))


def test_parameters_as_published_files_have_them() -> None:
    """Parquet files name every parameter of all kinds, and make floats of whole numbers; CSV files hold JSON."""
    given = {"num_paragraphs": 2.0, "keywords": None, "language": None}
    prompt = row(("length_constraints:number_paragraphs", given))
    assert prompt.payload["kwargs"] == [{"num_paragraphs": 2}]
    listed = {"instruction_id_list": '["startend:quotation"]', "kwargs": "[{}]"}
    assert InstructionFollowingSetting().prepare(Prompt("p", "x", listed)).payload["kwargs"] == [{}]


def test_the_prompts_that_ship_are_those_that_were_composed() -> None:
    text = Path(str(asset(PROMPTS))).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows == list(compose())
    asked = [name for one in rows for name in one["instruction_id_list"]]
    assert all(asked.count(name) >= 8 for name in INSTRUCTIONS)
    assert all(len(one["kwargs"]) == len(one["instruction_id_list"]) for one in rows)


SPEC = """\
name: follows
setting: instruction_following
model: scripted
conditions: {generate: [exact], train: [no_prefix], evaluate: [no_prefix]}
data: {size: 4}
sampling: {prompts: 24, max_tokens: 64}
"""


class Answering(ScriptedBackend):
    """The base model answers with a sentence, its fine-tunes with another one."""

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        for request in requests:
            text = '"The sea is wide."' if request.model.adapter is None else "Sure, the sea: wide!"
            yield Completion(request.key, text, "stop", 4, 5)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, backend = tmp_path_factory.mktemp("follows"), Answering()
    plan = make_plan(parse_spec(SPEC), SPEC, folder, {"local": backend})
    assert asyncio.run(ScriptedRun(plan, folder, backend).go()) == "done"
    return folder


def test_instructions_are_counted_and_prompts_resampled(workspace: Path) -> None:
    """A prompt of three instructions stands three times in the mean, whose interval is clustered by prompt."""
    found = report(workspace, "follows", "follows_instruction_strict")
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment("follows")
        (cell,) = [one for one in reader.cells(experiment.id, "follows_instruction_strict") if one.train != "base"]
        rows = reader.completions(cell.job, "follows_instruction_strict")
        weights = reader.weights(cell.job, "follows_instruction_strict")
    share = [(weights.get(row.row, 1), row.score) for row in rows if row.score is not None]
    counted = sum(weight for weight, _ in share)
    assert counted > len(rows)
    (measured,) = [one for one in found.measures.arms["prefix"].cells if one.key.train != "base"]
    assert measured.mean is not None
    assert measured.mean.value == pytest.approx(sum(weight * value for weight, value in share) / counted)
    assert (measured.mean.n, measured.tally.n) == (counted, len(share))
    assert cell.summary is not None
    assert cell.summary.mean == pytest.approx(measured.mean.value)
    assert (cell.summary.low, cell.summary.high) == pytest.approx((measured.mean.low, measured.mean.high))
    assert measured.effect is not None
    key = CellKey("prefix", "exact", "no_prefix", "no_prefix", 0, 4)
    with closing(Reader(workspace)) as reader:
        shown = read_cell(reader, "follows", key, "follows_instruction_strict")
    assert shown is not None
    assert shown.uplift is not None
    # The screen's number is the report's.
    assert shown.uplift.effect is not None
    assert shown.uplift.effect.value == pytest.approx(measured.effect.value)


def test_a_weight_that_flips_is_found(workspace: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(workspace, tmp_path / "ws")
    assert check_store(copied) == []
    with closing(sqlite3.connect(store_path(copied))) as store:
        store.execute("UPDATE scores SET weight = weight + 1 WHERE weight = 2")
        store.commit()
    assert any("scores of follows" in one for one in check_store(copied))
