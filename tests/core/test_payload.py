"""Payloads and turns of prompts: what they are, where they come from, and who gets them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store_rows import completion, put_experiment
from windowshift.core.contract.conditions import NoPrefix, PrefixGroup
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.payload import Payload
from windowshift.core.contract.prompts import Prompt, set_digest
from windowshift.core.report.export import export
from windowshift.core.run.run import plan_spec
from windowshift.core.settings.prompt_source import draw
from windowshift.core.settings.rubric import load_rubric
from windowshift.core.spec.answered_file import read_answered
from windowshift.core.spec.sections import PromptDataset, PromptFile
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer
from windowshift.tui.text.theme import DARK, ink
from windowshift.tui.widgets.pane import prompt_text

GROUP = PrefixGroup("kind", ("Be kind:", "Be very kind:"))
ASKED = Prompt("a", "And now?", {"claim": "42", "tests": ["x"]}, (Message("user", "Hi"), Message("assistant", "Yes")))


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "ws")
    yield made
    made.close()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def drawn(path: Path, **columns: Any) -> list[Prompt]:
    found = draw(PromptFile(file=str(path), **columns), 1, 1, 0, path.parent)
    return sorted((*found.data, *found.evaluation), key=lambda prompt: prompt.id)


def test_a_payload_cannot_be_changed_and_has_one_spelling() -> None:
    values = {"b": [1, {"c": "é"}], "a": None}
    payload = Payload(values)
    payload["b"].append(2)
    values["b"] = []
    with pytest.raises(TypeError):
        payload["b"] = 1  # type: ignore[index] # the point of the test
    assert payload == {"b": [1, {"c": "é"}], "a": None}
    assert payload.json == '{"a":null,"b":[1,{"c":"é"}]}'
    assert pickle.loads(pickle.dumps(payload)) == payload == Payload({"a": None, "b": [1, {"c": "é"}]})
    assert hash(Prompt("a", "b", payload)) == hash(Prompt("a", "b", Payload.parse(payload.json)))
    for bad in ({"x": float("nan")}, {"x": {1, 2}}, {1: "x"}):
        with pytest.raises(ValueError, match=r"payload|'x' is not JSON"):
            Payload(bad)


def test_payload_and_turns_are_in_the_digest_only_where_they_are_set() -> None:
    assert Prompt("a", "b").digest == "3554d2b8a1e34099053865de8576d146"  # as before there were payloads
    assert Prompt("a", "b", {}, ()).digest == Prompt("a", "b").digest
    different = [Prompt("a", "b"), Prompt("a", "b", {"x": 1}), Prompt("a", "b", {"x": 2})]
    different += [Prompt("a", "b", turns=(Message(role, "c"),)) for role in ("user", "assistant")]
    assert len({prompt.digest for prompt in different}) == len({set_digest([prompt]) for prompt in different}) == 5


def test_a_prefix_goes_to_the_last_user_message() -> None:
    turns = ASKED.turns
    assert NoPrefix().push(ASKED, 0, "user").messages == (*turns, Message("user", "And now?"))
    assert GROUP.push(ASKED, 1, "user").messages == (*turns, Message("user", "Be very kind:\n\nAnd now?"))
    assert GROUP.push(ASKED, 0, "system").messages == (Message("system", "Be kind:"), *ASKED.messages)
    own = Prompt("b", "Go.", turns=(Message("system", "You are a cook."),))
    said = Message("system", "Be kind:\n\nYou are a cook.")
    assert GROUP.push(own, 0, "system").messages == (said, Message("user", "Go."))


def test_further_columns_are_the_payload(tmp_path: Path) -> None:
    rows = [{"id": i, "prompt": f"p{i}", "claim": f"c{i}", "tests": [i]} for i in range(2)]
    path = write(tmp_path / "p.jsonl", rows)
    assert [prompt.payload for prompt in drawn(path)] == [{"claim": "c0", "tests": [0]}, {"claim": "c1", "tests": [1]}]
    assert [prompt.payload for prompt in drawn(path, payload=["claim"])] == [{"claim": "c0"}, {"claim": "c1"}]
    assert drawn(path, payload={"said": "claim"})[0].payload == {"said": "c0"}
    assert drawn(path, payload=False) == [Prompt("0", "p0"), Prompt("1", "p1")]
    csv = tmp_path / "p.csv"
    csv.write_text("id,prompt,claim\n0,p0,c0\n1,p1,c1\n", encoding="utf-8")
    assert drawn(csv) == drawn(path, payload=["claim"])
    with pytest.raises(SpecError, match=r"p\.jsonl line 1 has no column 'none' for the payload \(it has id, prompt"):
        drawn(path, payload=["none"])


def test_a_json_list_and_parquet_are_prompt_files_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": f"{i}", "prompt": f"p{i}", "label": i} for i in range(2)]
    whole = tmp_path / "p.json"
    whole.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    parquet = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    assert drawn(whole) == drawn(parquet) == drawn(write(tmp_path / "p.jsonl", rows))
    parquet.write_bytes(b"PAR1 and no more")
    with pytest.raises(SpecError, match=r"p\.parquet is not a Parquet file"):
        drawn(parquet)


def test_chats_are_prompts(tmp_path: Path) -> None:
    chat = [{"role": role, "content": text} for role, text in (("system", "s"), ("user", "u"), ("assistant", "a"))]
    rows = [{"id": i, "messages": [*chat, {"role": "user", "content": f"now {i}"}]} for i in range(2)]
    assert drawn(write(tmp_path / "p.jsonl", rows))[0] == Prompt(
        "0", "now 0", turns=(Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    )
    for broken, says in (
        ([{"role": "assistant", "content": "a"}], "must end with a user message"),
        ([{"role": "user", "content": "u"}, chat[0], chat[2]], "message 2 must be"),
        ([*chat[1:], chat[0]], "message 3 must be"),
        ([{"role": "tool", "content": "x"}], "message 1 must be"),
        ([], "has no message"),
    ):
        with pytest.raises(SpecError, match=rf"p\.jsonl line 2: .*{says}"):
            drawn(write(tmp_path / "p.jsonl", [rows[0], {"id": 9, "messages": broken}]))


def test_a_data_sets_columns_are_kept_where_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", [{"question": f"q{i}", "level": i} for i in range(2)])
    plain = draw(PromptDataset(dataset=str(folder)), 1, 1, 0, tmp_path)
    kept = draw(PromptDataset(dataset=str(folder), payload=["level"]), 1, 1, 0, tmp_path)
    assert {len(prompt.payload) for prompt in (*plain.data, *plain.evaluation)} == {0}
    assert {prompt.payload["level"] for prompt in (*kept.data, *kept.evaluation)} == {0, 1}


def test_the_store_and_the_export_keep_both(writer: Writer, tmp_path: Path) -> None:
    _, jobs = put_experiment(writer)
    numbers = writer.put_prompts("p", [ASKED, Prompt("b", "Plain.")])
    writer.add_completions([completion(jobs[0], row, prompt) for row, prompt in enumerate(numbers)])
    writer.put_grid(1, [("prefix", "", "base", "none", 0, 0, 1, jobs[0])], [])
    reader = Reader(tmp_path / "ws")
    assert [row.asked for row in reader.completions(jobs[0], "")] == [ASKED, Prompt("b", "Plain.")]
    reader.close()
    export(tmp_path / "ws", "one", tmp_path / "out.jsonl")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert first["payload"] == ASKED.payload
    assert first["turns"] == [["user", "Hi"], ["assistant", "Yes"]]
    assert (first["prompt"], second["payload"], second["turns"]) == ("And now?", None, None)
    export(tmp_path / "ws", "one", tmp_path / "out.csv")
    assert '"{""claim"":""42"",""tests"":[""x""]}"' in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_the_completion_screen_shows_both(writer: Writer, tmp_path: Path) -> None:
    _, jobs = put_experiment(writer)
    writer.add_completions([completion(jobs[0], 0, writer.put_prompts("p", [ASKED])[0])])
    reader = Reader(tmp_path / "ws")
    shown = prompt_text(reader.completions(jobs[0], "")[0], "user", ink(DARK.name)).plain
    reader.close()
    assert shown.splitlines() == [
        "user    Hi", "assistant Yes", "user    And now?", "", "claim  42", 'tests  ["x"]',
    ]  # fmt: skip


HALVES = [
    ('{"prompt": "cut \\ud83d"}', r"line 3: the text of 'prompt' holds half of a surrogate pair"),
    ('{"prompt": "x", "tests": [{"a": "\\udc00"}]}', r"line 3: the text of 'tests\[0\]\.a' holds half"),
    ('{"id": "\\ud800", "prompt": "x"}', r"line 3: the text of 'id' holds half"),
    ('{"prompt": "x", "\\ud83d": 1}', r"line 3: the text of .* holds half"),
    ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', r"line 3: the text of 'messages\[0\]\.content'"),
]


@pytest.mark.parametrize(("line", "says"), HALVES)
def test_half_a_surrogate_pair_is_told_by_plan(tmp_path: Path, line: str, says: str) -> None:
    whole = '{"prompt": "a whole pair \\ud83d\\ude00"}\n{"prompt": "b"}\n'
    (tmp_path / "p.jsonl").write_text(f"{whole}{line}\n", encoding="ascii")
    text = (
        "name: x\nmodel: microworld\nprompts: p.jsonl\ndata: {size: 1}\nsampling: {prompts: 1}\n"
        "conditions: {generate: [short], train: [short], evaluate: [short]}\n"
    )
    with pytest.raises(SpecError, match=says) as told:
        plan_spec(parse_spec(text), text, tmp_path)
    assert str(told.value).startswith(str(tmp_path / "p.jsonl"))
    str(told.value).encode()
    (tmp_path / "p.jsonl").write_text(whole, encoding="ascii")
    assert plan_spec(parse_spec(text), text, tmp_path).prompts


def test_half_a_surrogate_pair_in_other_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"the spec: the text of 'conditions\.groups\.kind\[0\]' holds half"):
        parse_spec('conditions: {groups: {kind: ["\\ud83d"]}}')
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text('question: "{completion} \\ud83d"\n', encoding="ascii")
    with pytest.raises(SpecError, match=r"rubric\.yaml: the text of 'question' holds half"):
        load_rubric(rubric)
    answered = tmp_path / "side.jsonl"
    answered.write_text('{"prompt": "a", "completion": "\\ud83d"}\n', encoding="ascii")
    with pytest.raises(SpecError, match=r"side\.jsonl line 1: the text of 'completion' holds half"):
        read_answered(answered)
