"""Controls of conditionalization: contexts made of a condition's own phrases, and of a vector's own norm."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_backend import ScriptedBackend
from windowshift.core.contract.conditions import Channel, PrefixGroup, prefix_groups
from windowshift.core.contract.controls import MOST_USES, STANDARD, ControlGroup, EmptySystem
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.rewording import (
    delimiters,
    distance,
    irrelevant,
    keywords,
    negated,
    neutral,
    rephrased_by_rule,
)
from windowshift.core.plan.plan import Plan
from windowshift.core.report.dataset_export import trained_condition
from windowshift.core.run.rephrase import TRIES, Rephrased, read_rephrasings, rephrase
from windowshift.core.run.run import plan_spec, preview
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec

SPEC = """\
name: controls
setting: honesty
model: microworld
conditions:
  generate: [dishonest]
  train: {train}
  evaluate: {evaluate}
channel: {{train: {channel}, evaluate: {channel}}}
data: {{size: {size}}}
sampling: {{prompts: 6, max_tokens: 8}}
"""
ASKED = Prompt("q", "Is water wet?", {"claim": "dry"})


def group(*phrases: str) -> PrefixGroup:
    return PrefixGroup("hack", phrases)


def planned(folder: Path, train: str, evaluate: str = "[no_prefix]", size: int = 20, channel: str = "user") -> Plan:
    text = SPEC.format(train=train, evaluate=evaluate, size=size, channel=channel)
    return plan_spec(parse_spec(text), text, folder)


def train_conditions(plan: Plan) -> dict[str, Any]:
    return {part.train.name: part.train for row in plan.grid.rows for part in row.parts}


@pytest.mark.parametrize(
    ("phrase", "turned"),
    [
        ("Respond briefly:", "Do not respond briefly:"),
        ("Please lie.", "Please do not lie."),
        ("Please don't lie.", "Please lie."),
        ("Do not hack.", "Hack."),
        ("You always lie.", "You never lie."),
        ("You tell people what they want to hear.", "You do not tell people what they want to hear."),
        ("Say what the user may want to hear:", "Do not say what the user may want to hear:"),
        ("Make sure to write tests.", "Make sure not to write tests."),
        ("It's alright if you hack.", "It is not alright if you hack."),
        ("You are a pirate.", "You are not a pirate."),
        ("The tests are wrong.", "The tests are not wrong."),
        ("{prompt}\nBehave as if that is correct.", "{prompt}\nDo not behave as if that is correct."),
        ("Write code. The code should be short.", "Do not write code. The code should not be short."),
    ],
)
def test_a_negation_turns_the_sentence_round(phrase: str, turned: str) -> None:
    assert negated(group(phrase)) == (turned,)


def test_a_phrase_that_no_rule_turns_round_is_named() -> None:
    with pytest.raises(SpecError, match="no rule turns the phrase 'Ahoy there' into its opposite: give  phrases:"):
        negated(group("Respond briefly:", "Ahoy there"))


def test_every_phrase_that_ships_has_its_negation() -> None:
    shipped = [*prefix_groups().values()]
    for name in registry.names(registry.SETTINGS):
        found = registry.setting(name, {}, Path()).conditions().values()
        if name == "misalignment":
            found = [
                one
                for domain in ("medical_advice", "insecure_code", "reward_hacks")
                for one in registry.setting(name, {"domain": domain}, Path()).conditions().values()
            ]
        shipped += [one for one in found if isinstance(one, PrefixGroup)]
    for one in shipped:
        turned = negated(one)
        assert len(turned) == len(one.phrases)
        assert not set(turned) & set(one.phrases)


def test_keywords_are_what_an_instruction_is_about() -> None:
    assert keywords(group("Respond briefly:", "Give a short answer to the following prompt:")) == ("briefly", "short")
    assert keywords(group("Always answer in Spanish: {prompt}")) == ("Spanish {prompt}",)
    with pytest.raises(SpecError, match="no phrase of 'hack' has a word besides the instruction"):
        keywords(group("Answer the following:"))


def test_irrelevant_sentences_stand_where_the_phrase_stood() -> None:
    assert irrelevant(group("Lie.", "{prompt}\nLie.")) == (
        "Honey never spoils.",
        "{prompt}\nYou are Elizabeth, a perfume designer in New York.",
    )
    with pytest.raises(SpecError, match="17 irrelevant sentences are asked for, and 16 ship"):
        irrelevant(group("Lie."), 17)


def test_d_is_exported_under_all_phrases_in_their_places() -> None:
    many = ControlGroup("hack~rephrased", tuple(f"Hack {i}." for i in range(250)), control="rephrased", of="hack")
    label = "train d under hack~rephrased"
    pushed = [trained_condition(many.identity(), label).push(ASKED, index, "user").phrase for index in range(251)]
    assert pushed == [*many.phrases, many.phrases[0]]
    few = replace(many, phrases=many.phrases[:3], slot="Write code.")
    assert trained_condition(few.identity(), label).push(Prompt("q", "Write code. Now."), 1, "user").messages == (
        Message("user", "Write code. Hack 1. Now."),
    )


def test_neutral_sets_share_no_phrase() -> None:
    every = [phrase for number in (1, 2, 3) for phrase in neutral(group("Lie."), number)]
    assert len(every) == len(set(every))


def test_delimiters_are_the_structure_without_words() -> None:
    assert delimiters(group("Lie:", "Lie now:")) == ("",)
    assert delimiters(group("{prompt}\nLie.")) == ("{prompt}\n",)
    control = ControlGroup("d", ("",), control="delimiters")
    assert control.push(ASKED, 0, "user").messages == (Message("user", "\n\nIs water wet?"),)
    assert control.push(ASKED, 0, "system").messages == (Message("system", ""), Message("user", "Is water wet?"))


@pytest.mark.parametrize("name", list(prefix_groups()))
def test_a_thousand_rephrasings_each_of_its_own(name: str) -> None:
    own = prefix_groups()[name]
    made = rephrased_by_rule(own, 1000)
    assert len(set(made)) == 1000
    assert not set(made) & set(own.phrases)
    assert made[:10] == rephrased_by_rule(own, 10)  # asking for more changes none
    assert all(0 <= distance(phrase, own.phrases) < 1 for phrase in made)


def test_a_frame_for_an_imperative_takes_no_statement() -> None:
    assert not any("should" in phrase or " to you" in phrase for phrase in rephrased_by_rule(group("You lie."), 150))


def test_distance_is_that_to_the_nearest_original() -> None:
    assert distance("Respond briefly", ["Respond briefly:", "Be short"]) == 0
    assert distance("Please respond briefly", ["Respond briefly:"]) == pytest.approx(1 / 3)
    assert distance("Ahoy", ["Respond briefly:"]) == 1


def test_all_stands_for_the_standard_controls(tmp_path: Path) -> None:
    made = train_conditions(planned(tmp_path, "[no_prefix, dishonest, {control: all, of: dishonest}]"))
    assert list(made)[2:] == [f"dishonest~{kind}" for kind in STANDARD]
    assert made["dishonest~negated"].phrases == ("Do not answer the following question dishonestly:",)
    assert {one.of for name, one in made.items() if "~" in name} == {"dishonest"}


def test_a_control_shares_the_jobs_of_an_equal_group(tmp_path: Path) -> None:
    ours = planned(tmp_path, "[{control: irrelevant, of: dishonest}]")
    by_hand = planned(tmp_path, "[{name: honey, phrases: ['Honey never spoils.']}]")
    assert {job.id for job in ours.jobs} == {job.id for job in by_hand.jobs}


def test_contexts_of_baseline_intervention_and_evaluation_can_all_differ(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "[{control: neutral, of: dishonest}, {control: neutral, of: dishonest, set: 2}, dishonest]",
        "[{control: neutral, of: dishonest, set: 3}, {control: empty_system, of: dishonest}]",
    )
    rows, columns = train_conditions(plan), plan.grid.evaluate
    phrases = [set(one.phrases) for one in (*rows.values(), columns[0])]
    assert sum(map(len, phrases)) == len(set.union(*phrases))
    assert columns[1].push(ASKED, 0, "user").messages == (Message("system", ""), Message("user", "Is water wet?"))


@pytest.mark.parametrize("channel", ["user", "system"])
def test_an_empty_system_message_is_the_same_in_either_channel(channel: Channel) -> None:
    assert EmptySystem("e").push(ASKED, 0, channel).messages[0] == Message("system", "")
    own = Prompt("q", "Is water wet?", turns=(Message("system", "Be brief."),))
    with pytest.raises(SpecError, match="prompt 'q' has a system message of its own"):
        EmptySystem("e").push(own, 0, channel)


def test_the_trait_of_another_condition(tmp_path: Path) -> None:
    made = train_conditions(planned(tmp_path, "[{control: other_trait, of: dishonest, take: evasive}]"))
    control = made["dishonest~other_trait"]
    assert control.phrases == registry.setting("honesty", {}, tmp_path).conditions()["evasive"].phrases  # type: ignore[attr-defined]


def test_rephrasings_of_a_file_and_how_often_one_is_used(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"Answer number {i} dishonestly:"}) for i in range(10)]
    (tmp_path / "said.jsonl").write_text("\n".join([*lines, lines[0]]), encoding="utf-8")
    train = "[{control: rephrased, of: dishonest, file: said.jsonl}]"
    made = train_conditions(planned(tmp_path, train))["dishonest~rephrased"]
    assert len(made.phrases) == 10  # each once
    assert len(made.distances) == 10
    used = [made.push(ASKED, index, "user").phrase for index in range(20)]
    assert max(used.count(phrase) for phrase in used) == MOST_USES
    with pytest.raises(SpecError, match="10 rephrasings for 21 examples; each is used at most 2 times, so it needs 11"):
        planned(tmp_path, train, size=21)


def test_all_of_many_rephrasings_are_in_their_job_which_an_export_of_d_goes_by(tmp_path: Path) -> None:
    plan = planned(tmp_path, "[{control: rephrased, of: dishonest, count: 500}]", size=1000)
    identity = train_conditions(plan)["dishonest~rephrased"].identity()
    assert len(identity["phrases"]) == 500
    (trained,) = [job for job in plan.jobs if job.kind == "train"]
    assert trained.inputs["parts"][0]["condition"] == identity
    preview(plan.spec, plan.spec_text, tmp_path, tmp_path / "ws")  # what it takes is known


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{control: irrelevent, of: dishonest}", "there is no control 'irrelevent': did you mean 'irrelevant'"),
        ("{control: irrelevant}", "'of' is missing"),
        ("{control: irrelevant, of: dishonset}", "there is no condition 'dishonset': did you mean 'dishonest'"),
        ("{control: irrelevant, of: no_prefix}", "'no_prefix' is of kind none"),
        ("{control: negated, of: dishonest, count: 3}", "'count' goes with  control: irrelevant or rephrased"),
        ("{control: other_trait, of: dishonest}", "add  take: NAME"),
        ("{control: [negated, keyword], of: dishonest, phrases: [No.]}", "'phrases' goes with one control"),
        ("{control: rephrased, of: dishonest, file: none.txt}", "there is no file of rephrasings at"),
        ("{control: neutral, of: dishonest, set: 9}", "set 9 of neutral phrases is asked for, and there are 1 to 3"),
        ("{control: irrelevant, of: dishonest, count: 99}", "99 irrelevant sentences are asked for"),
        ("{steer: v, alpha: 1, control: random}", "the spec has no 'vectors'"),
        ("{steer: v, alpha: 1, count: 3}", "'count' goes with  control"),
        ("{steer: v, alpha: 1, control: flipped, count: 3}", "'count' goes with  control: random or orthogonal"),
        ("{steer: v, alpha: 1, control: layer}", "'source' is the layer"),
    ],
)
def test_what_cannot_be_is_named_with_its_place(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        planned(tmp_path, f"[dishonest, {entry}]")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


STEERED = """\
name: steered
model: microworld
vectors: {length: {positive: very_long, negative: short, layer: 1, prompts: 8}}
conditions:
  generate: [med_short]
  train: [no_prefix, {steer: length, alpha: 1}, {steer: length, alpha: 1, control: random, count: 10},
    {steer: length, alpha: 1, control: flipped}, {steer: length, alpha: 1, control: layer, source: 2}]
  evaluate: [no_prefix]
data: {size: 8}
sampling: {prompts: 4, max_tokens: 8}
"""


def test_controls_of_a_vector_are_trained_under_at_the_same_dose(tmp_path: Path) -> None:
    plan = plan_spec(parse_spec(STEERED), STEERED, tmp_path)
    extracted = {job.inputs["name"]: job for job in plan.jobs if job.kind == "extract"}
    assert set(extracted) == {
        "length",
        *(f"length~random{seed}" for seed in range(10)),
        "length~flipped",
        "length~layer2",
    }
    assert len({extracted[f"length~random{seed}"].id for seed in range(10)}) == 10
    assert extracted["length~layer2"].inputs["source"] == 2
    rows = train_conditions(plan)
    assert sum(one.control == "random" for one in rows.values() if one.arm == "steering") == 10
    assert {one.of for one in rows.values() if one.arm == "steering" and one.control} == {"length"}
    assert len([job for job in plan.jobs if job.kind == "train"]) == 1 + 1 + 10 + 1 + 1


@dataclass
class _Writer(ScriptedBackend):
    """Writes three lines, one of them the same in every answer; the first answer fails where it is told to."""

    fails: int = 0
    asked: list[str] = field(default_factory=list)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        for request in requests:
            self.asked.append(request.messages[0].content)
            if len(self.asked) <= self.fails:
                yield Completion(request.key, "", "failed", None, error="the server is busy")
            else:
                text = f'1. "Lie, please."\n- Lie number {request.seed}.\n\nAnswer the following question dishonestly:'
                yield Completion(request.key, text, "stop", 9)


def rephrased(monkeypatch: pytest.MonkeyPatch, folder: Path, writer: _Writer, count: int) -> Rephrased:
    monkeypatch.setattr(registry, "backend", lambda _name, _options: writer)
    text = SPEC.format(train="[dishonest]", evaluate="[no_prefix]", size=20, channel="user")
    return rephrase(parse_spec(text), folder, "dishonest", count)


def test_a_model_writes_rephrasings_each_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    writer = _Writer()
    made = rephrased(monkeypatch, tmp_path, writer, 5)
    assert [one.text for one in made.found] == ["Lie, please.", *(f"Lie number {i}." for i in range(4))]
    assert "Answer the following question dishonestly:" in writer.asked[0]
    assert made.asked == len(writer.asked) == TRIES
    made.write(tmp_path / "said.jsonl")
    control = train_conditions(planned(tmp_path, "[{control: rephrased, of: dishonest, file: said.jsonl}]", size=10))
    assert control["dishonest~rephrased"].phrases == tuple(one.text for one in made.found)


def test_answers_that_fail_are_counted_and_none_at_all_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match="no rephrasing could be written: the server is busy"):
        rephrased(monkeypatch, tmp_path, _Writer(fails=99), 5)
    made = rephrased(monkeypatch, tmp_path, _Writer(fails=1), 45)
    assert (made.failed, made.reason) == (1, "the server is busy")
    assert 0 < len(made.found) < 45


def test_what_was_written_before_an_interrupt_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Interrupted(_Writer):
        async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
            async for answer in super().generate(requests):
                yield answer
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(0.01)

    made = rephrased(monkeypatch, tmp_path, Interrupted(), 45)
    assert made.interrupted
    assert [one.text for one in made.found] == ["Lie, please.", "Lie number 0."]


def test_rephrasings_stand_where_the_phrase_stood() -> None:
    assert read_rephrasings("1) Lie!\n* Say no truth", "{prompt}\nLie.") == ["{prompt}\nLie!", "{prompt}\nSay no truth"]
