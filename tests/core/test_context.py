"""What cannot fit the model's context is refused in the plan, before anything is drawn."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_backend import ScriptedBackend
from windowshift.backends.local.model_folder import model_context
from windowshift.backends.local.tokenizer import load_chat_format
from windowshift.backends.openai.said import ModelEntry
from windowshift.backends.shared.said import read
from windowshift.core.contract.backend import Capabilities, ModelSize
from windowshift.core.contract.contexts import context_of
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message, TemplateInputs
from windowshift.core.contract.vector_job import VectorEvent, VectorJob
from windowshift.core.plan.context import within_context
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec

SPEC = """\
name: long
model: microworld
prompts: prompts.jsonl
conditions:
  generate: {generate}
  train: {train}
  evaluate: {evaluate}
{groups}data: {{size: 3{filter}}}
sampling: {{prompts: 3, max_tokens: {most}}}
"""
CONTEXT = 2048


def planned(
    folder: Path, prompts: list[str], most: int = 16, generate: str = "[no_prefix]", evaluate: str = "[no_prefix]"
) -> Plan:
    lines = [json.dumps({"id": f"p{number}", "text": text}) for number, text in enumerate(prompts)]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    text = SPEC.format(train="[no_prefix]", generate=generate, evaluate=evaluate, most=most, groups="", filter="")
    return plan_spec(parse_spec(text), text, folder)


def of_tokens(count: int) -> str:
    """A prompt that has this many tokens as the model is asked it."""
    chat = load_chat_format("microworld")

    def tokens(text: str) -> int:
        return len(chat.prompt_ids([Message("user", text)]))

    a_word = tokens("bees bees") - tokens("bees")
    words = (count - tokens("bees")) // a_word + 1
    text = " ".join(["bees"] * words)
    while (left := count - tokens(text)) > 0:
        text += next(more for more in (".", "!", "?", "a") if 0 < tokens(text + more) - tokens(text) <= left)
    assert tokens(text) == count
    return text


def test_the_embedded_model_says_its_context() -> None:
    assert model_context("microworld") == CONTEXT


def test_max_tokens_as_long_as_the_context(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"sampling\.max_tokens is 2048, and the context of 'microworld' has 2048 tokens"
    ):
        planned(tmp_path, [f"a {n}" for n in range(6)], most=CONTEXT)


def test_a_prompt_that_does_not_fit_is_named(tmp_path: Path) -> None:
    prompts = [f"a {n}" for n in range(5)]
    fits = of_tokens(2000)
    planned(tmp_path, [*prompts, fits], most=48)
    with pytest.raises(SpecError) as caught:
        planned(tmp_path, [*prompts, fits], most=49)
    said = str(caught.value)
    assert said.startswith("prompt 'p5' under 'no_prefix' has 2000 tokens, which with sampling.max_tokens 49 go beyond")
    assert "lower max_tokens" in said


def test_the_phrase_counts_too(tmp_path: Path) -> None:
    prompts = [of_tokens(2000 - n) for n in range(6)]
    planned(tmp_path, prompts, most=48)
    with pytest.raises(SpecError, match=r"under 'very_long' has .* and so do \d others"):
        planned(tmp_path, prompts, most=48, evaluate="[no_prefix, very_long]")


def test_bytes_that_are_few_tokens_are_counted(tmp_path: Path) -> None:
    prompt = of_tokens(1900)
    assert len(prompt.encode()) > CONTEXT  # more bytes than there is room for
    planned(tmp_path, [f"a {n}" for n in range(5)] + [prompt], most=16)


@pytest.mark.parametrize(("long", "short"), [(3, 0), (1, 2)])
def test_examples_of_a_given_set(tmp_path: Path, long: int, short: int) -> None:
    words = of_tokens(2100)
    rows = [{"prompt": f"q{n}", "completion": words if n < long else "yes"} for n in range(long + short)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prompts, given = [f"a {n}" for n in range(6)], "[{data: d.jsonl}]"
    if short:
        notes = planned(tmp_path, prompts, generate=given).notes
        assert any(note.startswith("1 of 3 examples of") and "left out of training" in note for note in notes)
    else:
        with pytest.raises(SpecError, match=r"none of the 3 examples of .* fits the 2048 tokens of 'microworld'"):
            planned(tmp_path, prompts, generate=given)


# -- any backend: words are tokens here, 300 stand around every chat, and a model takes 1,000 --------

AROUND, TAKES = 300, 1000


@dataclass
class Knowing(ScriptedBackend):
    """Says how many tokens its models take, and cannot count them."""

    capabilities: Capabilities = field(default_factory=lambda: Capabilities(trains=True, generates=True, steers=True))
    takes: dict[str, int] = field(default_factory=dict)

    def context(self, base: str, revision: str | None = None) -> int | None:
        return self.takes.get(base, TAKES)

    def size(self, base: str, revision: str | None = None) -> ModelSize:
        return ModelSize(2, 8)

    async def make_vectors(self, jobs: Sequence[VectorJob]) -> AsyncGenerator[VectorEvent, None]:
        raise NotImplementedError
        yield


class Counting(Knowing):
    """Counts words, and has a system message of its own in every chat."""

    def count_tokens(
        self,
        base: str,
        revision: str | None,
        inputs: TemplateInputs | None,
        chats: Sequence[tuple[Sequence[Message], str]],
    ) -> list[int]:
        return [AROUND + sum(len(one.content.split()) for one in some) + len(said.split()) for some, said in chats]


def checked(folder: Path, prompts: list[int], more: str = "", backend: Knowing | None = None, **spec: Any) -> list[str]:
    """The notes of a plan whose prompts have so many words: those of D, p0 and so on, and then the eval prompts."""
    lines = [
        json.dumps({"id": f"p{number}", "text": f"p{number}" + " bee" * (words - 1)})
        for number, words in enumerate(prompts)
    ]
    drawn = list(range(len(prompts)))
    random.Random(0).shuffle(drawn)
    text = "\n".join(line for _, line in sorted(zip(drawn, lines, strict=True)))
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
    bare = "[no_prefix]"
    shown = {"generate": bare, "train": bare, "evaluate": bare, "most": 16, "groups": "", "filter": "", **spec}
    text = SPEC.format(**shown).replace("microworld", "org/model") + more
    backends = {"local": backend or Counting()}
    plan = make_plan(parse_spec(text), text, folder, backends)
    return list(within_context(plan, backends).notes)


def test_what_a_template_says_in_every_chat_counts(tmp_path: Path) -> None:
    assert checked(tmp_path, [10] * 5 + [TAKES - AROUND - 16]) == []
    with pytest.raises(SpecError, match=f"prompt 'p5' under 'no_prefix' has {TAKES - 15} tokens, which with"):
        checked(tmp_path, [10] * 5 + [TAKES - AROUND - 15])


def test_a_backend_that_cannot_count_estimates_and_says_so(tmp_path: Path) -> None:
    (note,) = checked(tmp_path, [10] * 5 + [1200], backend=Knowing())
    assert note.startswith("prompt 'p5' under 'no_prefix' has about 1207 tokens (by its length), which with")
    assert "it has no answer there" in note
    with pytest.raises(SpecError, match=r"sampling\.max_tokens is 1000, and the context of 'org/model' has 1000"):
        checked(tmp_path, [10] * 6, backend=Knowing(), most=TAKES)


def test_examples_that_are_yet_to_be_written_may_be_too_long(tmp_path: Path) -> None:
    talks = {"train": "[talks]", "groups": f"  groups: {{talks: ['{'bee ' * 500}']}}\n"}
    # 520 words and 300 around them leave room for 170, and for no more.
    assert checked(tmp_path, [20] * 6, most=180, **talks) == []
    with pytest.raises(SpecError, match="under 'talks' has 820 tokens, which with"):
        checked(tmp_path, [20] * 6, most=181, **talks)  # the base model is sampled under it, too
    # Those of D are learned under it alone: 520 words of theirs fit, if the answer is short.
    (note,) = checked(tmp_path, [20, 170, 20, 20, 20, 20], most=100, **talks)
    assert note == (
        "1 of 3 examples of D under 'talks' may be longer than the 1000 tokens of 'org/model' (the longest has 970 "
        "tokens, and an answer up to 100), and are left out of training"
    )
    (note,) = checked(tmp_path, [20, 250, 250, 20, 20, 20], most=100, **talks)
    assert note.startswith("2 of 3 examples of D under 'talks' are longer than the 1000 tokens of 'org/model'")
    with pytest.raises(SpecError, match="none of the 3 examples of 'train no_prefix under talks' fits the 1000"):
        checked(tmp_path, [250, 250, 250, 20, 20, 20], most=100, **talks)


def test_a_given_set_is_learned_under_its_phrase(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "yes " * words} for words in (5, 690, 5)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert not [note for note in checked(tmp_path, [10] * 6, generate="[{data: d.jsonl}]") if "longer" in note]
    notes = checked(tmp_path, [10] * 6, generate="[{data: d.jsonl}]", train="[very_long]")
    (note,) = [note for note in notes if "longer" in note]
    assert note.startswith(f"1 of 3 examples of '{tmp_path / 'd.jsonl'}' under 'very_long' are longer than the 1000")


@pytest.mark.parametrize("tokens", ["response", "prompt"])
def test_sides_of_vectors_that_no_cell_is_under(tmp_path: Path, tokens: str) -> None:
    vectors = f"vectors:\n  v: {{positive: very_long, negative: short, tokens: {tokens}, layer: 1}}\n"
    room = TAKES - AROUND - (16 if tokens == "response" else 0)
    assert checked(tmp_path, [room - 200] * 6, vectors) == []
    # Nothing is written under `very_long` but what the vector is made of.
    say = "prompt '.*' under 'very_long' has" if tokens == "response" else r"vectors\.v: '.*' of 'very_long' has"
    longer = [room - 1] * 6 if tokens == "response" else [room - 17] * 6
    with pytest.raises(SpecError, match=say):
        checked(tmp_path, longer, vectors)


def test_a_file_behind_a_vector(tmp_path: Path) -> None:
    for name, words in (("yes.jsonl", 5), ("no.jsonl", 800)):
        rows = [{"prompt": "q", "completion": "yes " * count} for count in (5, words)]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    vectors = "vectors:\n  v: {positive: {file: yes.jsonl}, negative: {file: no.jsonl}, layer: 1}\n"
    with pytest.raises(SpecError, match=r"vectors\.v: row 2 of 'no\.jsonl' has 1101 tokens, more than the 1000 of"):
        checked(tmp_path, [10] * 6, vectors)


JUDGE = "judges: [{{name: clarity, rubric: r.yaml, model: {model}}}]\n"


def test_questions_of_a_judge(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("question: 'Rate {completion} for {prompt}'\n", encoding="utf-8")
    small = Counting(takes={"org/judge": 400})
    more = JUDGE.format(model="org/judge")
    assert checked(tmp_path, [10] * 6, more, small) == []
    (note,) = checked(tmp_path, [10] * 6, more, small, most=100)
    assert note.startswith("judge 'clarity': the question about prompt 'p0' has 312 tokens without the completion: one")
    (note,) = checked(tmp_path, [10] * 5 + [200], more, small)
    assert "judge 'clarity': the question about prompt 'p5' has 502 tokens, which with its answer go beyond" in note
    assert note.endswith("there is no score there")
    with pytest.raises(SpecError, match="take a judge with a longer context"):
        checked(tmp_path, [200] * 6, more, small)


def test_candidates_that_a_filter_may_leave_out_refuse_nothing(tmp_path: Path) -> None:
    notes = checked(tmp_path, [10] * 11 + [800], filter=", filter: {judge: {model: org/judge}, candidates: 2}")
    assert any("the filter may leave it out" in note for note in notes)
    assert any(note.startswith("data.filter.judge: the question about prompt") for note in notes)


def test_what_servers_call_the_context() -> None:
    for name in ("max_model_len", "context_length", "context_window", "max_context_length"):
        assert read(ModelEntry, {"id": "m", name: 4096}).context == 4096
        assert read(ModelEntry, {"id": "m", name: "much"}).context is None  # an aside, which loses nobody a model
    assert context_of("api.openai.com", "gpt-4o-2024-08-06") == 128_000
    assert context_of("elsewhere", "gpt-4o") is None
