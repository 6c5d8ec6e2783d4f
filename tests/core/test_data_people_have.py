"""Data that people have: `datasets` folders, streamed data sets, chats, and other trainers' entries as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windowshift.core.contract.errors import SpecError
from windowshift.core.run.run import plan_spec
from windowshift.core.settings import table_file
from windowshift.core.settings.given_rows import read_given_rows
from windowshift.core.settings.prompt_source import draw, unprepared
from windowshift.core.settings.table_file import read_dataset, read_table
from windowshift.core.spec.given import read_given
from windowshift.core.spec.spec import parse_spec

Said = tuple[list[tuple[str, str]], str, str]
ALPACA = [
    {"instruction": f"Do {i}.", "input": "it" if i else "", "output": f"Done {i}.", "kind": "x"} for i in range(4)
]
SHAREGPT = [
    {
        "conversations": [
            {"from": "human", "value": f"Ask {i}"},
            {"from": "gpt", "value": "What?"},
            {"from": "human", "value": "That."},
            {"from": "gpt", "value": f"Said {i}"},
        ],
        "system": "Be kind.",
    }
    for i in range(4)
]


def write(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def given(folder: Path, data: Any, **more: Any) -> list[Said]:
    """What was said before, the prompt and the answer of every row."""
    entry = read_given({"data": data, **more}, "conditions.generate[0]")
    assert hash(entry) == hash(read_given({"data": data, **more}, "conditions.generate[0]"))
    found = read_given_rows(entry, 100, 0, folder, unprepared)
    rows = zip(found.prompts, found.completions, strict=True)
    return sorted(([(t.role, t.content) for t in prompt.turns], prompt.text, answer) for prompt, answer in rows)


def texts(folder: Path, prompts: str, count: int = 2) -> list[Said]:
    """What a spec with such prompts asks."""
    spec = parse_spec(
        f"name: a\nmodel: microworld\nprompts: {prompts}\n"
        "conditions: {generate: [short], train: [short], evaluate: [short]}"
    )
    assert spec.prompts is not None
    drawn = draw(spec.prompts, count, 1, 0, folder)
    found = (*drawn.data, *drawn.evaluation)
    return sorted(([(t.role, t.content) for t in prompt.turns], prompt.text, "") for prompt in found)


# -- axolotl ----------------------------------------------------------------------------------------

INSTRUCTED = [([], "Do 0.", "Done 0."), *(([], f"Do {i}.\nit", f"Done {i}.") for i in range(1, 4))]


def chats(*before: tuple[str, str]) -> list[Said]:
    return [
        ([*before, ("user", f"Ask {i}"), ("assistant", "What?")], "That.", f"Said {i}") for i in range(len(SHAREGPT))
    ]


def test_axolotl_reads_instructions_chats_and_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ALPACA)
    write(tmp_path / "s.json", SHAREGPT)
    write(tmp_path / "q.jsonl", [{"q": "one", "a": "two", "s": "three"}])
    assert given(tmp_path, {"path": "a.jsonl", "type": "alpaca"}) == INSTRUCTED
    assert given(tmp_path, {"path": "s.json", "type": "sharegpt", "conversation": "chatml"}) == chats()
    mapped = {
        "path": "s.json",
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "conversations",
        "field_system": "system",
        "message_property_mappings": {"role": "from", "content": "value"},
        "roles": {"user": ["human"], "assistant": ["gpt"]},
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    assert given(tmp_path, mapped) == chats(("system", "Be kind."))
    assert given(tmp_path, {**mapped, "drop_system_message": True}) == chats()
    columns = {"field_instruction": "q", "field_output": "a", "field_system": "s", "format": "[INST] {instruction}"}
    assert given(tmp_path, {"path": "q.jsonl", "type": columns}) == [([("system", "three")], "one", "two")]
    written = write(tmp_path / "strange.dat", ALPACA)
    assert given(tmp_path, {"path": written.name, "ds_type": "json", "type": "alpaca"}) == INSTRUCTED
    files = {"path": "json", "data_files": ["a.jsonl"], "type": "alpaca"}
    assert given(tmp_path, files) == INSTRUCTED


def test_axolotl_reads_a_folder_by_the_library(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", ALPACA[:3])
    write(tmp_path / "set" / "test.jsonl", ALPACA[3:])
    assert given(tmp_path, {"path": "set", "type": "alpaca"}) == INSTRUCTED[:3]
    assert given(tmp_path, {"path": "set", "type": "alpaca", "split": "test"}) == INSTRUCTED[3:]
    assert given(tmp_path, {"path": "set", "type": "alpaca", "data_files": "test.jsonl"}) == INSTRUCTED[3:]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"path": "a.jsonl", "type": "completion"}, "axolotl's type 'completion' is not read here; chat_template"),
        ({"path": "a.jsonl", "type": "chat_template"}, "line 1 has no column 'messages' for the messages"),
        ({"path": "s.json", "type": "sharegpt", "roles_totrain": []}, "unknown key 'roles_totrain' in data"),
        ({"path": "t.json", "type": "sharegpt"}, "message 1 of 'conversations' is from 'tool'; known are human"),
        ({"path": "none.jsonl", "type": "alpaca"}, "none.jsonl"),
        ({"file_name": "a.jsonl", "ranking": True}, "ranking"),
        ({"formatting": "sharegpt"}, "the key 'data.file_name' is missing"),
        ({"dataset_info": "info.json", "name": "mnie"}, "has no data set 'mnie': did you mean 'mine'?"),
        ({"dataset_info": "info.json", "name": "wrong"}, "'wrong': unknown key 'filename'"),
        ({"file_name": "a.jsonl", "formatting": "sharegpt"}, "line 1 has no column 'conversations'"),
    ],
)
def test_what_is_wrong_with_an_entry_is_one_sentence(tmp_path: Path, data: dict[str, Any], says: str) -> None:
    write(tmp_path / "a.jsonl", ALPACA)
    write(tmp_path / "s.json", SHAREGPT)
    write(tmp_path / "t.json", [{"conversations": [{"from": "tool", "value": "x"}]}])
    write(tmp_path / "info.json", {"mine": {"file_name": "a.jsonl"}, "wrong": {"filename": "a.jsonl"}})
    with pytest.raises(SpecError) as told:
        given(tmp_path, data)
    assert says in str(told.value)


# -- LLaMA-Factory ----------------------------------------------------------------------------------


def test_llama_factory_reads_both_formats_and_its_list(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.json", [{**row, "history": [["Hi", "Ho"]]} for row in ALPACA])
    write(tmp_path / "data" / "s.jsonl", SHAREGPT)
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
    write(tmp_path / "data" / "o.jsonl", [{"messages": chat, "label": "l"}])
    listed = {
        "plain": {"file_name": "a.json"},
        "some": {"file_name": "a.json", "num_samples": 2},
        "told": {"file_name": "a.json", "columns": {"prompt": "instruction", "query": "input", "history": "history"}},
        "talk": {"file_name": "s.jsonl", "formatting": "sharegpt", "columns": {"system": "system"}},
        "open": {
            "file_name": "o.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        },
    }
    info = write(tmp_path / "data" / "dataset_info.json", listed)
    found = {name: given(tmp_path, {"dataset_info": f"data/{info.name}", "name": name}) for name in listed}
    assert found["plain"] == INSTRUCTED
    assert found["told"] == [([("user", "Hi"), ("assistant", "Ho")], *row[1:]) for row in INSTRUCTED]
    assert found["talk"] == chats(("system", "Be kind."))
    assert found["open"] == [([("system", "S")], "U", "A")]
    assert len(found["some"]) == 2
    assert set(map(str, found["some"])) < set(map(str, INSTRUCTED))
    assert given(tmp_path / "data", listed["talk"]) == found["talk"]
    assert read_given({"data": {"dataset_info": "data/x.json", "name": "talk"}}, "c").name == "talk"


def test_another_trainers_entry_is_a_source_of_prompts(tmp_path: Path) -> None:
    write(tmp_path / "s.json", SHAREGPT)
    found = texts(tmp_path, "{path: s.json, type: sharegpt}", 3)
    assert found == [(before, text, "") for before, text, _ in chats()]
    assert texts(tmp_path, "{file_name: s.json, formatting: sharegpt}", 3) == found
    spec = (
        "name: whole\nmodel: microworld\nprompts: microworld\nconditions:\n"
        "  generate: [{data: {path: s.json, type: sharegpt}, name: kind}]\n  train: [short]\n  evaluate: [short]\n"
        "data: {size: 3}\nsft: {rank: 2, batch_size: 1}\nsampling: {prompts: 2, max_tokens: 8}\n"
    )
    plan = plan_spec(parse_spec(spec), spec, tmp_path)
    assert any("kind" in note and "3 of 4 rows" in note for note in plan.notes)


# -- data sets and columns --------------------------------------------------------------------------


def test_a_saved_data_set_is_read_with_its_splits(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list(ALPACA)
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(str(tmp_path / "both"))
    for folder in ("one", "both"):
        assert [row.values for row in read_table(tmp_path / folder, "data file")] == ALPACA
    entry = {"dataset": "both", "split": "test"}
    assert given(tmp_path, entry, columns={"prompt": "instruction"}) == [([], "Do 0.", "Done 0.")]
    assert len(texts(tmp_path, "{dataset: both}")) == 3
    assert len(texts(tmp_path, "one")) == 3
    with pytest.raises(SpecError, match="has no split 'dev': it has train, test"):
        given(tmp_path, {"dataset": "both", "split": "dev"})


def test_the_first_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    write(tmp_path / "set" / "train.jsonl", ALPACA)
    assert len(given(tmp_path, {"dataset": "set", "rows": 3})) == 3
    # Of the hub: streamed, so that nothing is loaded whole. No hub can be reached in tests: the library is asked for
    # the folder under a name of the hub.
    asked: list[tuple[bool, str | None]] = []
    load = datasets.load_dataset

    def of_hub(name: str, config: str | None, **how: Any) -> Any:
        asked.append((how["streaming"], config))
        return load(str(tmp_path / "set"), **{**how, "revision": None})

    monkeypatch.setattr("datasets.load_dataset", of_hub)
    monkeypatch.setattr("windowshift.core.settings.table_file.offline", lambda: False)
    rows = read_dataset("someone/some-set", config="main", split="train", revision="abc", rows=2)
    assert [row.values["instruction"] for row in rows] == ["Do 0.", "Do 1."]
    assert len(list(read_dataset("someone/some-set", config=None, split="train", revision=None))) == 4
    assert asked == [(True, "main"), (False, None)]


def test_a_row_that_fails_while_it_is_streamed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        yield {"prompt": "one"}
        raise ConnectionError("the line is\nbroken")

    monkeypatch.setattr("datasets.load_dataset", broken)
    monkeypatch.setattr("windowshift.core.settings.table_file.offline", lambda: False)
    rows = read_dataset("a/b", config=None, split="train", revision=None, rows=5)
    assert next(rows).number == 1
    with pytest.raises(SpecError, match=r"the data set a/b \(split train\) cannot be loaded: the line is broken"):
        next(rows)


def test_a_column_holds_the_system_message(tmp_path: Path) -> None:
    lines = [{"s": f"Be {i}." if i else None, "q": f"q{i}", "answer": f"a{i}"} for i in range(3)]
    write(tmp_path / "q.jsonl", lines)
    columns = {"prompt": "q", "system": "s"}
    expected = [([("system", f"Be {i}.")] if i else [], f"q{i}", f"a{i}") for i in range(3)]
    assert given(tmp_path, "q.jsonl", columns=columns) == sorted(expected)
    asked = texts(tmp_path, "{file: q.jsonl, text: q, system: s, payload: false}")
    assert asked == sorted((*row[:2], "") for row in expected)
    with pytest.raises(SpecError, match="line 1 has no text in the column 'sys'"):
        texts(tmp_path, "{file: q.jsonl, text: q, system: sys}")
    write(tmp_path / "alpaca.jsonl", [{**row, "system": "S"} for row in ALPACA])
    asked = texts(tmp_path, "{file: alpaca.jsonl, system: system}", 3)
    assert ([("system", "S")], "Do 1.\n\nInput: it", "") in asked


def test_a_folder_of_everything_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`..` by mistake was looked through by `datasets`, file by file, for a minute."""
    monkeypatch.setattr(table_file, "MOST_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "x.jsonl").write_text('{"prompt": "a"}')
    with pytest.raises(SpecError, match="holds more than 3 files: name the folder of the data set itself"):
        list(table_file.read_dataset(str(tmp_path), config=None, split="train", revision=None))
    (tmp_path / "0" / "x.jsonl").unlink()
    rows = table_file.read_dataset(str(tmp_path), config=None, split="train", revision=None)
    assert [row.values["prompt"] for row in rows] == ["a"] * 3


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("q.csv", "id,text,text\n1,a,b\n", "the header of {path}"),
        ("q.tsv", "id\ttext\ttext\n1\ta\tb\n", "the header of {path}"),
        ("q.jsonl", '{"text": "a"}\n{"text": "a", "text": "b"}\n', "{path} line 2"),
        ("q.json", '[{"id": 1, "meta": {"text": "a", "text": "b"}}]', "{path}"),
    ],
)
def test_a_column_that_stands_there_twice_is_refused(tmp_path: Path, name: str, text: str, place: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        list(read_table(path, "prompt file"))
    assert str(refused.value) == f"{place.format(path=path)} has 'text' twice: give one of them another name"


def test_empty_columns_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("id,text,,\n1,a,,\n", encoding="utf-8")
    assert [row.values["text"] for row in read_table(path, "prompt file")] == ["a"]
    path.write_text('"what, then"\n"a, b"\n', encoding="utf-8")
    assert [row.values["what, then"] for row in read_table(path, "prompt file")] == ["a, b"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("q.csv", "id;text\n1;a\n", "separated by semicolons: a file that ends in .csv has commas there"),
        ("q.csv", "id\ttext\n1\ta\n", "separated by tabs: a file that ends in .csv has commas there"),
        ("q.tsv", "id,text\n1,a\n", "separated by commas: a file that ends in .tsv has tabs there"),
    ],
)
def test_columns_that_are_separated_otherwise_are_said_to_be(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        list(read_table(path, "prompt file"))
    assert str(refused.value) == f"the columns of {path} are {reason}"
