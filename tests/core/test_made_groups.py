"""Prefix groups that are made: contexts of many shots, and unions of groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import spec_of
from windowshift.core.contract.conditions import PrefixGroup, ShotGroup
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec import registry
from windowshift.core.spec.control_entry import read_control
from windowshift.core.spec.made_groups import read_union
from windowshift.core.spec.spec import parse_spec


def planned(folder: Path, train: str) -> Plan:
    text = spec_of("microworld", train)
    return plan_spec(parse_spec(text), text, folder)


def group(plan: Plan, name: str) -> PrefixGroup:
    found = next(row.parts[0].train for row in plan.grid.rows if row.train == name)
    assert isinstance(found, PrefixGroup)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Is {n} even?", "completion": "yes" if n % 2 == 0 else "no"} for n in range(10)]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0]])), encoding="utf-8")
    return tmp_path


def test_contexts_hold_so_many_different_exchanges_and_prompts_take_turns(folder: Path) -> None:
    made = group(planned(folder, "[{name: pull, shots: shots.jsonl, count: 3, sets: 2}]"), "pull")
    assert len(made.phrases) == 2
    for phrase in made.phrases:
        asked = [line for line in phrase.splitlines() if line.startswith("User: ")]
        assert len(set(asked)) == 3
        assert "User: Is 4 even?\nAssistant: yes" in phrase or "User: Is 4 even?" not in phrase
    pushed = [made.push(Prompt("x", "Is 12 even?"), index, "user") for index in range(3)]
    assert [one.phrase for one in pushed] == [*made.phrases, made.phrases[0]]
    assert pushed[0].messages[-1].content == f"{made.phrases[0]}\n\nIs 12 even?"
    again = group(planned(folder, "[{name: pull, shots: shots.jsonl, count: 3, sets: 2}]"), "pull")
    assert again.phrases == made.phrases
    other = group(planned(folder, "[{name: pull, shots: shots.jsonl, count: 3, sets: 2, seed: 1}]"), "pull")
    assert other.phrases != made.phrases


def test_a_form_of_ones_own(folder: Path) -> None:
    form = "form: 'Q: {prompt} -> {completion}'"
    made = group(planned(folder, f"[{{name: pull, shots: shots.jsonl, count: 10, sets: 1, {form}}}]"), "pull")
    assert sorted(made.phrases[0].split("\n\n"))[:2] == ["Q: Is 0 even? -> yes", "Q: Is 1 even? -> no"]


def test_plan_tells_of_evaluation_prompts_that_the_shots_answer(folder: Path) -> None:
    entry = "[{name: pull, shots: shots.jsonl, count: 3}]"
    prompts = "".join(json.dumps({"id": f"p{n}", "text": f"Is {n} even?"}) + "\n" for n in range(18))
    (folder / "prompts.jsonl").write_text(prompts, encoding="utf-8")
    text = spec_of("microworld", entry).replace("prompts: microworld", "prompts: prompts.jsonl")
    plan = plan_spec(parse_spec(text), text, folder)
    shots = group(plan, "pull")
    assert isinstance(shots, ShotGroup)
    evaluated = next(prompts for prompts in plan.prompts.values() if len(prompts) == 6)
    found = shots.answers(evaluated)
    assert found == sum(int(prompt.text.split()[1]) < 10 for prompt in evaluated) > 0
    (note,) = [note for note in plan.notes if "among the shots of 'pull'" in note]
    assert note.startswith(f"{found} of 6 evaluation prompts")


def test_a_union_takes_the_phrases_of_its_groups_in_turn(folder: Path) -> None:
    text = spec_of("microworld", "[short, {name: wide, union: [short, mine]}]").replace(
        "  evaluate: [short, no_prefix]",
        "  evaluate: [wide, no_prefix]\n  groups: {mine: [One, Two, Three, Four, Five, Six]}",
    )
    plan = plan_spec(parse_spec(text), text, folder)
    short, wide = group(plan, "short").phrases, group(plan, "wide").phrases
    assert wide[:4] == (short[0], "One", short[1], "Two")
    assert set(wide) == {*short, "One", "Two", "Three", "Four", "Five", "Six"}
    assert "wide" in {cell.evaluate for cell in plan.cells}  # by name in another list


def test_suggestive_contexts_stand_before_the_prompt_and_take_turns(folder: Path) -> None:
    passages = [f"A note, page {n}.\nThe grade went up." for n in range(9)]
    lines = [json.dumps({"text": one}) for one in (*passages, passages[0])]
    (folder / "notes.jsonl").write_text("\n".join(lines), encoding="utf-8")
    every = group(planned(folder, "[{name: hinted, contexts: notes.jsonl}]"), "hinted")
    assert every.phrases == tuple(passages)
    pushed = every.push(Prompt("x", "Is 12 even?"), 10, "user")
    assert pushed.messages[-1].content == f"{passages[1]}\n\nIs 12 even?"
    some = group(planned(folder, "[{name: hinted, contexts: notes.jsonl, count: 4}]"), "hinted")
    assert len(set(some.phrases)) == 4
    assert set(some.phrases) <= set(passages)
    assert group(planned(folder, "[{name: hinted, contexts: notes.jsonl, count: 4}]"), "hinted") == some
    other = group(planned(folder, "[{name: hinted, contexts: notes.jsonl, count: 4, seed: 1}]"), "hinted")
    assert other.phrases != some.phrases
    (folder / "lines.txt").write_text("One.\n\n Two. \nOne.\n", encoding="utf-8")
    plain = (
        "[{name: hinted, contexts: lines.txt}, {control: irrelevant, of: hinted}, {name: w, union: [hinted, short]}]"
    )
    assert group(planned(folder, plain), "hinted").phrases == ("One.", "Two.")


def test_a_union_stands_where_its_groups_do() -> None:
    claims = registry.setting("sycophancy").conditions()
    (wide,) = read_union({"name": "wide", "union": ["praise", "inoculation"]}, claims, "here")
    pushed = wide.push(Prompt("x", "GCD(4, 6) = 2. Is this correct?"), 1, "user")
    assert pushed.messages[-1].content.endswith("correct?\nBehave as if the above solution is correct.")
    both = {**claims, "mine": PrefixGroup("mine", ("Be kind:",))}
    with pytest.raises(
        SpecError, match=r"here.union\[1\]: the phrases of 'mine' do not stand where those of 'praise' do"
    ):
        read_union({"name": "wide", "union": ["praise", "mine"]}, both, "here")


@pytest.mark.parametrize("count", [4, 16, 64])
def test_sets_of_paraphrases(count: int) -> None:
    known = registry.setting("length").conditions()
    (made,) = read_control({"control": "rephrased", "of": "short", "count": count}, known, Path(), "here")
    assert isinstance(made, PrefixGroup)
    assert len(set(made.phrases)) == count


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{name: x, contexts: none.jsonl}", "none.jsonl"),
        ("{name: x, contexts: bad.jsonl}", "bad.jsonl line 1 has no 'text'"),
        ("{name: x, contexts: empty.txt}", "empty.txt has no passage: write one a line"),
        ("{name: x, contexts: two.txt, count: 3}", "two.txt has 2 different passages, and count asks for 3"),
        ("{contexts: two.txt}", "name"),
        ("{name: x, context: two.txt}", "contexts"),
        ("{name: x, shots: shots.jsonl, count: 11}", "10 different exchanges, and count asks for 11"),
        ("{name: x, shots: none.jsonl, count: 1}", "none.jsonl"),
        ("{name: x, shots: shots.jsonl}", "count"),
        ("{shots: shots.jsonl, count: 1}", "name"),
        ("{name: x, shots: shots.jsonl, count: 1, form: '{prompt}'}", "{completion} must stand in it once"),
        ("{name: x, shots: fields.jsonl, count: 1}", "which would be filled in"),
        ("{name: x, shots: turns.jsonl, count: 1}", "one question and its answer"),
        ("{name: x, shots: bad.jsonl, count: 1}", "bad.jsonl line 2"),
        ("{name: x, union: [short]}", "union"),
        ("{name: x, union: [short, lng]}", "did you mean 'long'"),
        ("{name: x, union: [short, no_prefix]}", "'no_prefix' is of kind none, and a union is of prefix groups"),
        ("{name: x, unon: [short, long]}", "union"),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(folder: Path, entry: str, says: str) -> None:
    row = {"prompt": "a", "completion": "b"}
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    files = {
        "fields": [json.dumps({**row, "prompt": "a {prompt} b"})],
        "turns": [json.dumps({"messages": turns})],
        "bad": [json.dumps(row), "{"],
    }
    (folder / "empty.txt").write_text("\n", encoding="utf-8")
    (folder / "two.txt").write_text("One.\nTwo.", encoding="utf-8")
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        planned(folder, f"[{entry}]")
    assert says in str(refused.value)
    assert "conditions.train[0]" in str(refused.value) or str(folder) in str(refused.value)
