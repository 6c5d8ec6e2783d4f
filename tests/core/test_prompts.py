"""Prompt sources and filters: what is drawn, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowshift.core.contract.errors import SpecError
from windowshift.core.settings.filtering import choose_by_judge, choose_by_variance, verdict
from windowshift.core.settings.prompt_source import draw
from windowshift.core.spec.sections import PromptDataset, PromptFile


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_data_and_evaluation_never_overlap_and_do_not_depend_on_each_other(
    data: int, evaluation: int, seed: int
) -> None:
    drawn = draw("microworld", data, evaluation, seed, Path())
    more = draw("microworld", data + 5, evaluation + 7, seed, Path())
    assert (len(drawn.data), len(drawn.evaluation)) == (data, evaluation)
    assert not set(drawn.data) & set(drawn.evaluation)
    assert more.data[:data] == drawn.data
    assert more.evaluation[:evaluation] == drawn.evaluation


def test_alpacas_two_fields_are_joined(tmp_path: Path) -> None:
    rows = [{"instruction": "Sort.", "input": "3, 1", "output": "x"}, {"instruction": "Say hello.", "input": ""}]
    path = write(tmp_path / "alpaca.jsonl", rows)
    drawn = draw(str(path), 1, 1, 0, tmp_path)
    assert {prompt.text for prompt in (*drawn.data, *drawn.evaluation)} == {"Sort.\n\nInput: 3, 1", "Say hello."}


def test_csv_and_jsonl_give_the_same_prompts(tmp_path: Path) -> None:
    texts = ['with "quotes", commas', "two\nlines", "emoji 🙂", "a\u2028separator"]
    jsonl = write(tmp_path / "p.jsonl", [{"id": f"x{i}", "prompt": text} for i, text in enumerate(texts)])
    quoted = ["id,prompt", *(f'x{i},"{text.replace(chr(34), chr(34) * 2)}"' for i, text in enumerate(texts))]
    csv = tmp_path / "p.csv"
    csv.write_text("\n".join(quoted), encoding="utf-8", newline="")
    assert draw(str(jsonl), 2, 2, 0, tmp_path) == draw(str(csv), 2, 2, 0, tmp_path)


def test_repeats_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": text} for text in "aabbc"])
    assert draw(str(path), 2, 1, 0, tmp_path).repeats == 2


def test_a_relative_file_is_found_next_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    write(folder / "p.jsonl", [{"prompt": "beside"}, {"prompt": "beside too"}])
    write(tmp_path / "q.jsonl", [{"prompt": "here"}, {"prompt": "here too"}])
    monkeypatch.chdir(tmp_path)
    assert draw("p.jsonl", 1, 1, 0, folder).data[0].text.startswith("beside")
    assert draw("q.jsonl", 1, 1, 0, folder).data[0].text.startswith("here")


def test_a_data_set_is_loaded_by_the_hub_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "alpaca"
    folder.mkdir()
    write(folder / "train.jsonl", [{"instruction": f"Do {i}.", "input": "", "output": ""} for i in range(6)])
    drawn = draw(PromptDataset(dataset=str(folder)), 4, 2, 0, tmp_path)
    assert {prompt.text for prompt in (*drawn.data, *drawn.evaluation)} == {f"Do {i}." for i in range(6)}
    assert drawn != draw(PromptDataset(dataset=str(folder)), 4, 2, 1, tmp_path)
    with pytest.raises(SpecError, match="cannot be loaded"):
        draw(PromptDataset(dataset=str(tmp_path / "none")), 1, 1, 0, tmp_path)


def test_named_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"q": "one", "k": "a"}, {"q": "two", "k": "b"}])
    drawn = draw(PromptFile(file=str(path), text="q", id="k"), 1, 1, 0, tmp_path)
    assert {(prompt.id, prompt.text) for prompt in (*drawn.data, *drawn.evaluation)} == {("a", "one"), ("b", "two")}


def test_the_variance_filter_keeps_the_prompts_whose_lengths_vary() -> None:
    lengths = {0: 10.0, 1: 10.0, 2: 10.0, 3: 500.0, 4: 100.0, 5: 120.0}
    choice = choose_by_variance(lengths, prompts=3, conditions=2, keep=2)
    assert choice.positions == (1, 2)
    assert (choice.refused, choice.missing) == (1, 0)


def test_a_prompt_with_a_missing_completion_is_not_kept() -> None:
    lengths = {0: 10.0, 2: 10.0, 3: 500.0, 4: 100.0, 5: 120.0}
    choice = choose_by_variance(lengths, prompts=3, conditions=2, keep=2)
    assert choice.positions == (1, 2)
    assert choice.missing == 1
    with pytest.raises(SpecError, match=r"left 2 prompts \(1 could not be judged\), but 3 are needed"):
        choose_by_variance(lengths, prompts=3, conditions=2, keep=3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", True),
        ("yes.", True),
        ("No!", False),
        ("**no**", False),
        ("", None),
        ("perhaps", None),
        ("yes and no", None),
    ],
)
def test_verdicts(answer: str, said: bool | None) -> None:
    assert verdict(answer) is said


def test_the_judge_filter_counts_what_could_not_be_judged() -> None:
    choice = choose_by_judge(["yes", None, "no", "hm", "Yes.", "yes"], keep=2)
    assert choice.positions == (0, 4)
    assert (choice.refused, choice.missing) == (1, 2)
    with pytest.raises(SpecError, match=r"raise data\.filter\.candidates"):
        choose_by_judge(["yes", "no"], keep=2)
