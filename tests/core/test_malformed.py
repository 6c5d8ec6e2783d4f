"""Specs and inputs that are wrong: each gets one clear sentence that names the place and the remedy."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_models import tokenizer
from windowshift.core.contract.errors import SpecError, WindowshiftError
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.settings.rubric import load_rubric
from windowshift.core.spec.sections import (
    Channels,
    Checkpoints,
    Conditions,
    Data,
    LimitsSection,
    SamplingSection,
    SftSection,
)
from windowshift.core.spec.spec import Spec, load_spec, parse_spec

GOOD = """\
name: good
model: {model}
prompts: {prompts}
conditions:
  generate: [med_short]
  train: [short, no_prefix]
  evaluate: [short, no_prefix]
data: {{size: 4}}
sampling: {{prompts: 2, max_tokens: 8}}
"""


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A folder with a model folder (whose weights are never loaded) and a prompt file."""
    model = tmp_path / "model"
    shutil.copytree(tokenizer_folder, model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").write_bytes(b"\0" * 64)
    rows = [json.dumps({"id": i, "prompt": f"What is {i}?"}) for i in range(8)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    return tmp_path


def good(folder: Path) -> str:
    return GOOD.format(model=folder / "model", prompts="prompts.jsonl")


def plan_file(path: Path) -> Plan:
    spec, text = load_spec(path)
    return plan_spec(spec, text, path.parent)


def check(folder: Path, text: str | bytes) -> str:
    path = folder / "spec.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(WindowshiftError) as caught:
        plan_file(path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_the_good_one_is_good(folder: Path) -> None:
    path = folder / "spec.yaml"
    path.write_text(good(folder))
    assert plan_file(path).counts() == {"generate": 1, "score": 7, "evaluate": 6, "train": 2}


# (what is put in place of what, what the sentence must say)
SPECS: list[tuple[str, str, list[str]]] = [
    ("name: good", "naem: good", ["unknown key 'naem'", "did you mean 'name'"]),
    ("name: good\n", "", ["'name' is missing"]),
    ("name: good", "name: ''", ["name may hold letters"]),
    ("name: good", "name: a/b", ["name may hold letters", "a/b"]),
    ("name: good", "name: 3", ["name must be text", "3"]),
    ("name: good", "name: good\nname: other", ["line 2", "'name' stands there twice"]),
    ("name: good", "name: good\nsetting: lenght", ["no setting 'lenght'", "did you mean 'length'"]),
    ("name: good", "name: good\nbackend: lokal", ["no backend 'lokal'", "did you mean 'local'"]),
    ("name: good", "name: good\nbackend: {train: local}", ["backend.generate", "missing"]),
    ("name: good", "name: good\nbackend_options: {devise: cpu}", ["devise", "did you mean 'device'"]),
    ("name: good", "name: good\nseeds: []", ["seeds must not be empty"]),
    ("name: good", "name: good\nseeds: 3", ["seeds must be a list"]),
    ("name: good", "name: good\nseeds: [1, 1]", ["seeds", "once only"]),
    ("name: good", "name: good\nseeds: [a]", ["seeds[0] must be a whole number", "'a'"]),
    ("name: good", "name: good\nchannel: {train: usr}", ["channel.train", "'user' or 'system'", "usr"]),
    ("name: good", "name: good\nchannel: user", ["channel must be a mapping"]),
    ("name: good", "name: good\nchanel: {}", ["unknown key 'chanel'", "'channel'"]),
    ("name: good", "name: good\nsft: {rnak: 8}", ["unknown key 'rnak' in sft", "'rank'"]),
    ("name: good", "name: good\nsft: {rank: 0}", ["sft.rank must be above 0"]),
    ("name: good", "name: good\nsft: {rank: 8.5}", ["sft.rank must be a whole number"]),
    ("name: good", "name: good\nsft: {learning_rate: fast}", ["sft.learning_rate must be a number", "fast"]),
    ("name: good", "name: good\nsft: {learning_rate: -1}", ["sft.learning_rate must be above 0"]),
    ("name: good", "name: good\nsft: {betas: [0.9]}", ["sft.betas"]),
    ("name: good", "name: good\nsft: {betas: [0.9, 1.5]}", ["sft.betas[1]", "below 1"]),
    ("name: good", "name: good\nsft: {schedule: linaer}", ["sft.schedule", "'linear'"]),
    ("size: 4", "size: 0", ["data.size must be above 0"]),
    ("size: 4", "size: -3", ["data.size must be above 0"]),
    ("size: 4", "size: 4.5", ["data.size must be a whole number"]),
    ("size: 4", "size: many", ["data.size must be a whole number", "many"]),
    ("size: 4", "size: 400", ["prompts.jsonl has 8 distinct prompts", "402", "lower"]),
    ("size: 4", "size: 4, sede: 1", ["unknown key 'sede' in data", "'seed'"]),
    ("size: 4", "size: 4, filter: {candidates: 1}", ["data.filter.candidates", "above 1"]),
    ("size: 4", "size: 4, filter: {judge: {modl: x}}", ["unknown key 'modl'", "'model'"]),
    ("prompts: 2", "prompts: 0", ["sampling.prompts must be above 0"]),
    ("max_tokens: 8", "max_tokens: 0", ["sampling.max_tokens must be above 0"]),
    ("max_tokens: 8", "max_tokens: 8, temperature: -1", ["sampling.temperature must be at least 0"]),
    ("max_tokens: 8", "max_tokens: 8, top_p: 0", ["sampling.top_p must be above 0"]),
    ("max_tokens: 8", "max_tokens: 8, temprature: 1", ["unknown key 'temprature'", "'temperature'"]),
    ("generate: [med_short]", "generate: []", ["conditions.generate must not be empty"]),
    ("generate: [med_short]", "generate: med_short", ["conditions.generate must be a list"]),
    ("generate: [med_short]", "generate: [medshort]", ["no condition 'medshort'", "did you mean 'med_short'"]),
    ("generate: [med_short]", "generate: [med_short, med_short]", ["conditions.generate", "twice"]),
    ("train: [short, no_prefix]", "train: [short, short]", ["conditions.train", "twice"]),
    ("train: [short, no_prefix]", "train: [3]", ["conditions.train[0]", "3"]),
    ("train: [short, no_prefix]", "train: [base]", ["no condition 'base'"]),
    ("train: [short, no_prefix]", "train: [{phrases: ['Be kind:']}]", ["conditions.train[0]", "needs a name"]),
    ("train: [short, no_prefix]", "train: [{name: kind, phrases: []}]", ["kind", "one phrase or more"]),
    ("train: [short, no_prefix]", "train: [{name: kind, phrases: ['']}]", ["kind", "not empty"]),
    ("train: [short, no_prefix]", "train: [{name: kind, prases: [a]}]", ["conditions.train[0]", "phrases"]),
    ("train: [short, no_prefix]", "train: [{name: m, mix: []}]", ["mix", "must not be empty"]),
    (
        "train: [short, no_prefix]",
        "train: [{name: m, mix: [{fraction: 0.5, generate: short, train: long}]}]",
        ["conditions.train[0]", "add up to 0.5"],
    ),
    (
        "train: [short, no_prefix]",
        "train: [{name: m, mix: [{fraction: 1, generate: shrt, train: long}]}]",
        ["mix[0].generate", "did you mean 'short'"],
    ),
    (
        "train: [short, no_prefix]",
        "train: [{name: m, mix: [{fraction: 0.01, generate: short, train: long},"
        " {fraction: 0.99, generate: short, train: short}]}]",
        ["mix 'm'", "no example", "data.size 4"],
    ),
    ("evaluate: [short, no_prefix]", "evaluate: [short, no_prefix]\n  groups: {kind: []}", ["kind", "phrase"]),
    ("evaluate: [short, no_prefix]", "evaluate: [short, no_prefix]\n  groups: {base: [a]}", ["reserved"]),
    ("evaluate: [short, no_prefix]", "evaluate: [short, no_prefix]\n  grups: {}", ["'grups'", "'groups'"]),
    ("name: good", "name: good\ncheckpoints: {every: 0}", ["checkpoints.every must be above 0"]),
    ("name: good", "name: good\ncheckpoints: {every: 4}", ["checkpoints.every is 4", "lower it"]),
    ("name: good", "name: good\ncheckpoints: {every: 2, evaluate: [shrt]}", ["checkpoints.evaluate", "'short'"]),
    ("prompts: prompts.jsonl", "prompts: none.jsonl", ["no prompt file at none.jsonl"]),
    ("prompts: prompts.jsonl", "prompts: .", ["folder"]),
    ("prompts: prompts.jsonl", "prompts: {fil: x}", ["unknown key 'fil'", "'file'"]),
    (
        "prompts: prompts.jsonl",
        "prompts: {file: prompts.jsonl, text: question}",
        ["line 1", "'question'", "id, prompt"],
    ),
    ("prompts: prompts.jsonl", "prompts: {file: prompts.jsonl, id: key}", ["line 1", "'key'"]),
    ("prompts: prompts.jsonl", "prompts: 7", ["prompts must be"]),
    ("prompts: prompts.jsonl", "prompts: spec.yaml", [".jsonl, .csv or .tsv"]),
    ("data: {size: 4}", "data: [", ["not valid YAML", "line"]),
    ("data: {size: 4}", "data: !!python/object:os.system {}", ["not valid YAML"]),
]


@pytest.mark.parametrize(("old", "new", "says"), SPECS, ids=[f"{i}-{new[-30:]}" for i, (_, new, _) in enumerate(SPECS)])
def test_spec(folder: Path, old: str, new: str, says: list[str]) -> None:
    text = good(folder)
    assert old in text
    message = check(folder, text.replace(old, new, 1))
    for part in says:
        assert part in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "not a list"),
        (b"just text", "not a text"),
        (b"name: \xff\xfe", "line 1 is not UTF-8"),
        (b"name: a\n\tmodel: b", "not valid YAML"),
        (b"a: &a [*a, *a]\n", "stands inside what it repeats"),
        (b"[" * 5000, "YAML"),
    ],
)
def test_whole_file(folder: Path, text: bytes, says: str) -> None:
    assert says in check(folder, text)


def test_no_spec(tmp_path: Path) -> None:
    with pytest.raises(WindowshiftError, match="there is no spec at"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(WindowshiftError, match="is a folder"):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", b"", ["is empty"]),
        ("p.jsonl", b"\n\n", ["is empty"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": ', ["line 2", "not JSON"]),
        ("p.jsonl", b'"text"\n', ["line 1", "object"]),
        ("p.jsonl", b'{"prompt": ""}\n', ["line 1", "not empty"]),
        ("p.jsonl", b'{"prompt": 3}\n', ["line 1", "must be text"]),
        ("p.jsonl", b'{"words": "a"}\n', ["line 1", "none of the columns", "words"]),
        ("p.jsonl", b'{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n', ["line 2", "'1'", "line 1"]),
        ("p.jsonl", b'{"id": null, "prompt": "a"}\n', ["line 1", "'id'"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', ["line 2", "not UTF-8"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "a"}\n', ["1 distinct prompts"]),
        ("p.jsonl", b"PAR1\x15\x04\xff", ["is, by its content, a Parquet file", "ends in .parquet"]),
        ("p.csv", b"PAR1\x15\x04\xff", ["is, by its content, a Parquet file"]),
        ("p.jsonl", b"ARROW1\0\0\xff", ["is, by its content, an Arrow file", "as Parquet or JSON Lines"]),
        ("p.jsonl", gzip.compress(b'{"prompt": "a"}', mtime=0), ["compressed by gzip", "unpack it"]),
        ("p.csv", b"PK\x03\x04\xff", ["a zip archive", "save a spreadsheet as CSV"]),
        ("p.csv", "prompt\nGrüße\n".encode("utf-16"), ["UTF-16 text", "save it as UTF-8"]),
        ("p.jsonl", b"version https://git-lfs.github.com/spec/v1\n", ["pointer of Git LFS", "git lfs pull"]),
        ("p.jsonl", b"\n<!DOCTYPE html>\n<html>", ["is, by its content, a web page", "download the file itself"]),
        ("p.csv", b"", ["is empty"]),
        ("p.csv", b"id,prompt\n", ["is empty"]),
        ("p.csv", b"id,words\n1,a\n", ["line 2", "none of the columns"]),
        ("p.csv", b"id,prompt\n1,a,b\n", ["line 2", "more values"]),
        ("p.csv", b'id,prompt\n1,"a\n', ["not valid CSV"]),
        ("p.csv", b"id,prompt\n1,a\n1,b\n", ["line 3", "'1'", "line 2"]),
    ],
)
def test_prompt_file(folder: Path, name: str, content: bytes, says: list[str]) -> None:
    (folder / name).write_bytes(content)
    message = check(folder, good(folder).replace("prompts.jsonl", name))
    assert name in message
    for part in says:
        assert part in message


def _without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _without_config(model: Path) -> None:
    (model / "config.json").unlink()


def _broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def _without_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("breaking", "says"),
    [
        (_without_weights, "weights"),
        (_without_config, "config.json"),
        (_broken_config, "config.json"),
        (_without_tokenizer, "tokenizer"),
    ],
)
def test_model_folder(folder: Path, breaking: Callable[[Path], None], says: str) -> None:
    breaking(folder / "model")
    message = check(folder, good(folder))
    assert says in message
    assert "model" in message


def test_model_folder_that_is_not_there(folder: Path) -> None:
    message = check(folder, good(folder).replace(str(folder / "model"), "./no-such-model"))
    assert "no-such-model" in message


BOMB = "".join(f"  {name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghij"))

# (lines that are added to a good spec, what the sentence must say)
HOSTILE = [
    ("limits: {usd: 2026-02-31}", ["line 10", "'2026-02-31' is not a date"]),
    ("limits: {usd: 2026-02-31 25:61:61}", ["line 10", "is not a date"]),
    (f"seeds: [{'9' * 5000}]", ["line 10", "is not a whole number"]),
    (f"seeds: [0x{'f' * 5000}]", ["line 10", "too large"]),
    (f"backend_options: {{x: {2**64}}}", ["line 10", "more than 64 bits"]),
    ("limits: {jobs: 1:30}", ["line 10", "YAML takes '1:30' for 90"]),
    ("limits: {jobs: 017}", ["line 10", "YAML takes '017' for 15", "in quotes"]),
    ("limits: {usd: 1:30.5}", ["line 10", "YAML takes '1:30.5' for 90.5"]),
    ("seeds: [!!int abc]", ["line 10", "'abc' is not a whole number"]),
    ("seeds: [!!float abc]", ["line 10", "'abc' is not a number"]),
    ("seeds: [!!bool abc]", ["line 10", "'abc' is not true or false"]),
    ("seeds: [!!timestamp abc]", ["line 10", "'abc' is not a date"]),
    ("seeds: [!!python/object:os.system x]", ["line 10", "tag"]),
    ("seeds: [!!binary a]", ["line 10", "base64"]),
    ("backend_options: &a {x: *a}", ["line 10", "alias '*a' stands inside what it repeats"]),
    ("backend_options:\n  a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + BOMB, ["more than 200,000 values"]),
    (f"backend_options: {{x: {'[' * 900 + ']' * 900}}}", ["line 10", "deeper than 40"]),
    (f"backend_options: {'[' * 100_000}", ["line 10", "deeper than 40"]),
    ('adapter: "a\\0b"', ["line 10", "NUL"]),
    ("adapter: a\0b", ["not valid YAML", "x0000"]),
    ('adapter: "\\UFFFFFFFF"', ["not valid YAML"]),
    ("sft: {epochs: 1000000000}", ["sft.epochs must be at most 10,000"]),
    ("sft: {rank: 1000000000}", ["sft.rank must be at most"]),
    ("sft: {weight_decay: .inf}", ["sft.weight_decay must be a finite number"]),
    ("sft: {learning_rate: .nan}", ["sft.learning_rate must be a finite number"]),
    ("limits: {rpm: 99999999999}", ["limits.rpm must be at most"]),
    ("checkpoints: {every: 1}\nsft: {epochs: 9999}", ["checkpoints.every 1 comes to more than 10,000"]),
    ("2026-01-01: x", ["key", "must be text"]),
    (f"{'k' * 900}: x", ["unknown key 'kkk"]),
]


@pytest.mark.parametrize(("more", "says"), HOSTILE, ids=[more[:40] for more, _ in HOSTILE])
def test_values_that_no_spec_can_take(folder: Path, more: str, says: list[str]) -> None:
    message = check(folder, good(folder) + more + "\n")
    for words in says:
        assert words in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("prompts: prompts.jsonl", "prompts: LONG"),
        ("prompts: prompts.jsonl", "prompts: {file: LONG}"),
        ("prompts: prompts.jsonl", "prompts: {dataset: LONG}"),
        ("generate: [med_short]", "generate: [{data: LONG.jsonl}]"),
        ("generate: [med_short]", "generate: [{data: {path: LONG, type: alpaca}}]"),
        ("generate: [med_short]", "generate: [{data: {dataset_info: LONG.json, name: mine}}]"),
        ("name: good", "name: good\nadapter: LONG"),
        ("name: good", "name: good\nvectors: {v: {file: LONG.safetensors, layer: 1}}"),
        ("name: good", "name: good\nvectors: {v: {positive: {file: LONG.jsonl}, negative: short, layer: 1}}"),
        ("name: good", "name: good\njudges: [{name: j, model: m, rubric: LONG}]"),
        ("name: good", "name: good\nguards: [{setting: length, prompts: LONG}]"),
        ("name: good", "name: good\nscorers: [{name: q, words: {file: LONG}}]"),
        ("name: good", "name: good\nscorers: [{name: q, python: 'LONG.py:f'}]"),
        ("train: [short", "train: [{name: m, shots: LONG.jsonl, count: 1}, short"),
        ("train: [short", "train: [short, {control: rephrased, of: short, file: LONG.txt}"),
    ],
)
@pytest.mark.parametrize("name", ["x" * 300, "~nobody-of-that-name/x"], ids=["long", "of nobody"])
def test_a_name_that_is_of_no_file_is_one_sentence(folder: Path, old: str, new: str, name: str) -> None:
    check(folder, good(folder).replace(old, new.replace("LONG", name)))


@pytest.mark.parametrize("key", ["size: 4", "prompts: 2", "max_tokens: 8"])
def test_numbers_have_an_upper_end(folder: Path, key: str) -> None:
    name = key.partition(":")[0]
    assert f"{name} must be at most" in check(folder, good(folder).replace(key, f"{name}: 1000000000000"))


def test_a_rubric_is_read_within_the_same_bounds(tmp_path: Path) -> None:
    path = tmp_path / "rubric.yaml"
    path.write_text("question: 2026-02-31\nscale: []\n")
    with pytest.raises(SpecError, match=r"line 1 .*is not a date"):
        load_rubric(path)


SECTIONS = {
    "conditions": Conditions, "data": Data, "sft": SftSection, "sampling": SamplingSection, "limits": LimitsSection,
    "channel": Channels, "checkpoints": Checkpoints,
}  # fmt: skip
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=8)
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_SCALARS, inner, max_size=4), max_leaves=12
)
_PIECES = st.lists(
    st.sampled_from(
        ["a", "name", "conditions", "seeds", ":", ": ", "\n", "\n  ", "- ", "? ", "[", "]", "{", "}", ", ", "&a ", "*a",
         "!!int ", "!!float ", "!!timestamp ", "!!set ", "!!omap ", "!!binary ", "!", "|", ">", "\'", '"', "\\", "<<: ",
         "=", "%YAML 1.1\n---\n", "...", "1e9", "0x", "1:60", ".nan", "2026-02-30", "\t", "\0", "\x85", "#", "@", "`"]
    ),
    max_size=30,
)  # fmt: skip


def refused_or_read(text: str) -> None:
    try:
        parse_spec(text, "the spec")
    except SpecError as error:
        said = str(error)
    else:
        said = ""
    assert len(said) < 700
    assert "\n" not in said


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | _PIECES.map("".join))
def test_no_text_reaches_a_traceback(text: str) -> None:
    refused_or_read(text)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(Spec.model_fields)), _VALUES)
def test_no_value_under_a_key_reaches_a_traceback(key: str, value: object) -> None:
    read = yaml.safe_load(good(Path("x")))
    refused_or_read(yaml.safe_dump({**read, key: value}))


@pytest.mark.parametrize("odd", ["\n", "a\r\nb", "\x1b[2J", "\u2028", "\u202e"])
@pytest.mark.parametrize("key", ["backend", "prompts", "conditions", "data", "setting", "vectors"])
def test_an_odd_key_does_not_break_the_sentence(key: str, odd: str) -> None:
    read = yaml.safe_load(good(Path("x")))
    refused_or_read(yaml.safe_dump({**read, key: {odd: None}}))
    refused_or_read(yaml.safe_dump({**read, odd: None}))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["conditions", "data", "sft", "sampling", "limits", "channel", "checkpoints"]), st.data())
def test_no_value_in_a_section_reaches_a_traceback(section: str, data: st.DataObject) -> None:
    read = yaml.safe_load(good(Path("x")))
    fields = SECTIONS[section].model_fields
    key = data.draw(st.sampled_from(sorted(fields)))
    inside = {**(read.get(section) or {}), key: data.draw(_VALUES)}
    refused_or_read(yaml.safe_dump({**read, section: inside}))


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("{dataset: a, confg: b}", "unknown key 'confg' in prompts: did you mean 'config'?"),
        (
            "{dataset: a, splt: b, txt: c}",
            "unknown key 'splt' in prompts: did you mean 'split'? (1 more place is wrong)",
        ),
        ("{file: a, txt: b}", "unknown key 'txt' in prompts: did you mean 'text'?"),
        ("{dataset: 3}", "prompts.dataset must be text, but it is 3: put it in quotes"),
        ("3", "prompts must be"),
    ],
)
def test_a_wrong_key_is_told_for_what_was_meant(folder: Path, prompts: str, says: str) -> None:
    told = check(folder, good(folder).replace("prompts: prompts.jsonl", f"prompts: {prompts}"))
    assert says in told
    assert ("more place" in says) == ("more place" in told)
