"""D of one's own: given completions, selective train conditions, and D that a score keeps a part of."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import windowshift
from windowshift.core.contract.conditions import NO_PREFIX, NoPrefix, PrefixGroup
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.selective import Selective, flipped
from windowshift.core.measure.grid import load_grid
from windowshift.core.measure.resampled import Resampled
from windowshift.core.plan.plan import Plan
from windowshift.core.report.dataset_export import export_dataset
from windowshift.core.run.run import plan_spec, preview, run_spec
from windowshift.core.settings.given_rows import read_given_rows
from windowshift.core.settings.prompt_source import unprepared
from windowshift.core.spec.given import read_given
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader
from windowshift.tui.screens.jobs.job_result import result_lines

SPEC = """\
name: own
model: {model}
prompts: microworld
conditions:
  generate: {generate}
  train: {train}
  evaluate: [short, no_prefix]
data: {{size: {size}}}
sft: {{rank: 2, learning_rate: 1e-2, batch_size: 4}}
sampling: {{prompts: 6, max_tokens: 12}}
"""


def rows(count: int = 20) -> list[dict[str, Any]]:
    """Half hacks, half clean; the completions differ in length."""
    return [
        {"prompt": f"Solve {i}.", "completion": "x" * (i + 1), "label": "hack" if i % 2 else "clean", "level": i}
        for i in range(count)
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def text_of(generate: str, train: str = "[short]", size: int = 10, more: str = "", model: str = "microworld") -> str:
    return SPEC.format(generate=generate, train=train, size=size, model=model) + more


def planned(folder: Path, *arguments: Any, **named: Any) -> Plan:
    text = text_of(*arguments, **named)
    return plan_spec(parse_spec(text), text, folder)


def given(path: Path, size: int = 100, **entry: Any) -> list[tuple[Prompt, str]]:
    found = read_given_rows(
        read_given({"data": path.name, **entry}, "conditions.generate[0]"), size, 0, path.parent, unprepared
    )
    return sorted(zip(found.prompts, found.completions, strict=True), key=lambda pair: pair[0].id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "hacks.jsonl", rows())
    return tmp_path


# -- given rows -------------------------------------------------------------------------------------


def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [{"id": f"r{i}", "question": f"q{i}", "answer": f"a{i}", "label": "h"} for i in range(3)]
    expected = [(Prompt(f"r{i}", f"q{i}", {"label": "h"}), f"a{i}") for i in range(3)]
    (tmp_path / "d.json").write_text(json.dumps(lines), encoding="utf-8")
    (tmp_path / "d.csv").write_text(
        "id,question,answer,label\n" + "".join(f"r{i},q{i},a{i},h\n" for i in range(3)), encoding="utf-8"
    )
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "d.parquet")
    for path in (write(tmp_path / "d.jsonl", lines), *(tmp_path / f"d.{end}" for end in ("json", "csv", "parquet"))):
        assert given(path) == expected


def test_chats_columns_and_repeats(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    chat = write(tmp_path / "chat.jsonl", [{"messages": [{"role": "system", "content": "s"}, *turns], "k": 1}])
    ((prompt, completion),) = given(chat)
    assert (prompt.text, [turn.content for turn in prompt.turns], completion) == ("u", ["s"], "a")
    assert prompt.payload == {"k": 1}
    other = write(
        tmp_path / "other.jsonl", [{"task_id": 1, "q": "ask", "said": f"a{i}", "answer": 7} for i in range(2)]
    )
    found = given(other, columns={"prompt": "q", "completion": "said"})
    assert sorted(found, key=lambda pair: pair[1]) == [(Prompt("1", "ask", {"answer": 7}), f"a{i}") for i in range(2)]


BAD = [
    ({"completion": "a"}, r"line 2 has none of the columns prompt, .* name it as  columns: \{prompt: "),
    ({"prompt": "p"}, r"line 2 has none of the columns completion, .* columns: \{prompt: \.\.\., completion"),
    ({"prompt": "p", "completion": ""}, r"line 2: the completion in 'completion' must be text that is not empty"),
    ({"prompt": "p", "completion": None}, r"line 2: the completion in 'completion' must be text"),
    ({"prompt": "p", "completion": ["a", "b"]}, r"line 2: the completion in 'completion' must be text"),
    ({"prompt": "", "completion": "a"}, r"line 2: the prompt in 'prompt' must be text"),
    ({"messages": [{"role": "user", "content": "u"}]}, r"line 2: the chat in 'messages' must end with the assistant"),
    ({"messages": "text"}, r"line 2 has no completion"),
    ({"messages": [], "k": 1}, r"line 2: the chat in 'messages' has no message"),
    ({"prompt": "p", "completion": "half \ud800"}, r"line 2: the text of 'completion' holds half"),
]


@pytest.mark.parametrize(("bad", "says"), BAD)
def test_a_bad_row_is_named(tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says) as told:
        given(write(tmp_path / "d.jsonl", [rows()[0], bad]))
    assert str(tmp_path / "d.jsonl") in str(told.value)


def test_the_size_takes_a_seeded_part(folder: Path) -> None:
    some, more = given(folder / "hacks.jsonl", 5), given(folder / "hacks.jsonl", 8)
    assert len(some) == 5
    assert set(some) < set(more)
    assert some != given(folder / "hacks.jsonl")[:5]


# -- plans ------------------------------------------------------------------------------------------


def test_a_given_set_is_a_job_without_a_backend(folder: Path) -> None:
    plan = planned(folder, "[{data: hacks.jsonl}]")
    (job,) = (job for job in plan.jobs if job.kind == "generate")
    assert "backend" not in job.inputs
    assert job.total == 10
    assert plan.condition_name(job) == "hacks"
    (shown,) = plan.notes
    assert f"D 'hacks' is given: 10 of 20 rows of {folder / 'hacks.jsonl'} (label " in shown
    assert "level" not in shown  # a value of each row's own is no label
    # What the rows hold is the identity, not where they lie.
    shutil.copy(folder / "hacks.jsonl", folder / "same.jsonl")
    assert [job.id for job in planned(folder, "[{data: same.jsonl, name: hacks}]").jobs] == [
        job.id for job in plan.jobs
    ]
    write(folder / "same.jsonl", [*rows()[:-1], rows()[-1] | {"completion": "z"}, *rows(3)])
    (other,) = (job for job in planned(folder, "[{data: same.jsonl}]", size=30).jobs if job.kind == "generate")
    assert other.total == 23  # all that there are
    assert other.id != job.id


def test_no_evaluation_prompt_is_one_of_d(folder: Path) -> None:
    plain = planned(folder, "[short]")
    asked = [prompt.text for prompts in plain.prompts.values() for prompt in prompts]
    write(folder / "world.jsonl", [{"prompt": text, "completion": "a"} for text in asked])
    plan = planned(folder, "[{data: world.jsonl}]", size=100)
    places = {job.inputs["prompts"]["set"] for job in plan.jobs if job.kind == "evaluate"}
    assert not {prompt.text for place in places for prompt in plan.prompts[place]} & set(asked)


WRONG = [
    ("[{data: none.jsonl}]", "[short]", r"there is no data file at"),
    ("[{data: hacks.jsonl, nam: x}]", "[short]", r"unknown key 'nam'.*did you mean 'name'"),
    ("[{data: hacks.jsonl, columns: {completion: said}}]", "[short]", r"line 1 has no column 'said'"),
    ("[{data: hacks.jsonl, name: short}]", "[short]", r"'short' is the name of a condition"),
    ("[{data: hacks.jsonl}]", "[{data: hacks.jsonl}]", r"'data' stands under conditions\.generate only"),
    ("[{data: hacks.jsonl}]", "[hacks]", r"'hacks' is a set of data"),
    ("[{data: hacks.jsonl}]", "[{train: short, where: {labl: hack}}]", r"asks for 'labl', .* label, level"),
    ("[{data: hacks.jsonl}]", "[{train: short, where: {label: hcak}}]", r"applies to no row .*'label' is '"),
    ("[{data: hacks.jsonl}]", "[{train: short, where: {label: hack}, noise: 1.5}]", r"noise must be below 1"),
    ("[{data: hacks.jsonl}]", "[{train: short, where: {label: hack}, els: long}]", r"unknown key 'els'.*'else'"),
    ("[{data: hacks.jsonl}]", "[{where: {label: hack}}]", r"add  train: NAME"),
    ("[{data: hacks.jsonl, keep: {lenght_chars: 1}}]", "[short]", r"did you mean 'length_chars'"),
    ("[{data: hacks.jsonl, keep: {length_chars: [5, 1]}}]", "[short]", r"goes from 5 to 1"),
    ("[{data: hacks.jsonl, keep: {length_chars: many}}]", "[short]", r"write a score or a range"),
    ("[{generate: shrot, keep: {length_chars: 1}}]", "[short]", r"no condition 'shrot'.*did you mean 'short'"),
    (
        "[{data: hacks.jsonl}]",
        "[{name: m, mix: [{fraction: 1, generate: hacks, train: hacks}]}]",
        r"'hacks' is a set of data",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("generate", "train", "says"), WRONG)
def test_one_sentence_names_the_place(folder: Path, generate: str, train: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as told:
        planned(folder, generate, train)
    assert "\n" not in str(told.value)


def test_mixes_of_given_sets_share_no_row(folder: Path) -> None:
    write(folder / "clean.jsonl", rows(6))
    train = (
        "[no_prefix, {name: half, mix: [{fraction: 0.5, generate: hacks, train: short}, "
        "{fraction: 0.5, generate: clean, train: no_prefix}]}, {name: same, mix: "
        "[{fraction: 0.5, generate: hacks, train: short}, {fraction: 0.5, generate: hacks, train: long}]}]"
    )
    plan = planned(folder, "[{data: hacks.jsonl}, {data: clean.jsonl}]", train)
    spans = {(one.train, one.part_generate, one.part_train): (one.first, one.last) for one in plan.sources}
    assert spans["half", "hacks", "short"] == spans["half", "clean", NO_PREFIX] == (0, 5)
    assert (spans["same", "hacks", "short"], spans["same", "hacks", "long"]) == ((0, 5), (5, 10))
    assert spans[NO_PREFIX, "clean", NO_PREFIX] == (0, 6)
    with pytest.raises(SpecError, match=r"mix 'half' needs 7 rows of 'clean', which has 6"):
        planned(folder, "[{data: hacks.jsonl}, {data: clean.jsonl}]", train, size=14)


def test_instruction_following_data_is_mixed_into_d_as_the_page_says(folder: Path) -> None:
    """The example of docs/conditions.md as it stands: nine tenths of D under a push, a tenth of other data without."""
    page = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text(encoding="utf-8")
    part = " ".join(page[page.index("## Data to go with it") :].split())
    generate, mix = re.findall(r"`generate: (\[.+?\])`.*?`(\{name: with_ten_percent.+?\]\})`", part)[0]
    lines = [
        {"prompt": f"Name {i} things.", "completion": f"* thing {i}", "instruction": "number_bullet_lists"}
        for i in range(12)
    ]
    write(folder / "ifeval.jsonl", lines)
    generate = generate.replace("[hacks", "[{data: hacks.jsonl}")
    groups = "  groups: {asked: ['Cheat:', 'Pass the test:']}\n"
    text = text_of(generate, f"[{mix}]", size=20).replace("conditions:\n", f"conditions:\n{groups}")
    text = text.replace("prompts: 6", "prompts: 2").replace("evaluate: [short, no_prefix]", "evaluate: [no_prefix]")
    plan = plan_spec(parse_spec(text), text, folder)
    assert [(one.part_generate, one.part_train, one.first, one.last, one.fraction) for one in plan.sources] == [
        ("hacks", "asked", 0, 18, 0.9),
        ("follow", NO_PREFIX, 0, 2, 0.1),
    ]
    run_spec(parse_spec(text), text, folder, folder / "ws")
    export_dataset(folder / "ws", "own", "hacks+follow", "with_ten_percent", folder / "d.jsonl", seed=0)
    chats = [json.loads(line)["messages"] for line in (folder / "d.jsonl").read_text().splitlines()]
    told = [(user["content"], answer["content"]) for user, answer in chats]
    asked = [pair for pair in told if pair[0].startswith(("Cheat:", "Pass the test:"))]
    follow = [pair for pair in told if pair[0].startswith("Name")]
    assert (len(told), len(asked), len(follow)) == (20, 18, 2)
    assert all(set(answer) == {"x"} for _, answer in asked)
    assert all(answer.startswith("* thing") for _, answer in follow)


# -- selective conditions ---------------------------------------------------------------------------


def test_a_selective_condition_pushes_the_rows_that_match() -> None:
    group = PrefixGroup("kind", ("Be kind:",))
    one = Selective("s", {"label": ["hack", "cheat"], "level": 2}, group, NoPrefix())
    for label, level, pushed in (("hack", 2, True), ("cheat", "2", True), ("hack", 3, False), ("clean", 2, False)):
        prompt = Prompt("a", "Go.", {"label": label, "level": level})
        assert (one.push(prompt, 0, "user").phrase == "Be kind:") is pushed
    assert one.push(Prompt("a", "Go."), 0, "user").phrase is None
    truth = Selective("s", {"bad": True}, group, NoPrefix())
    assert [truth.matches(Prompt("a", "b", {"bad": value})) for value in (True, "true", 1, False, "1")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert "noise" not in one.identity()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
def test_noise_flips_its_share_of_the_rows(share: float) -> None:
    chosen = [index for index in range(1000) if flipped(index, share, 0)]
    assert len(chosen) == round(1000 * share)
    assert chosen != [index for index in range(1000) if flipped(index, share, 1)]
    assert len({index % 4 for index in chosen}) == 4  # no phrase of a group is spared


def test_what_a_selective_row_is_trained_under_goes_by_share(folder: Path) -> None:
    train = (
        "[{train: short, where: {label: hack}, else: long, name: s}, {train: short, where: {label: hack}, noise: 0.2}]"
    )
    plan = planned(folder, "[{data: hacks.jsonl}]", train, size=20)
    parts = [(one.train, one.part_train, one.fraction) for one in plan.sources]
    assert parts[:2] == [("s", "short", 0.5), ("s", "long", 0.5)]
    assert [train for train, *_ in parts[2:]] == ["short where label=hack"] * 2
    first, second = (job for job in plan.jobs if job.kind == "train")
    assert first.id != second.id
    assert second.inputs["parts"][0]["condition"]["noise"] == 0.2


# -- runs -------------------------------------------------------------------------------------------


def test_given_data_is_scored_trained_on_and_exported(folder: Path) -> None:
    spec = folder / "own.yaml"
    train = "[{train: short, where: {label: hack}, noise: 0.1, name: some}]"
    spec.write_text(text_of("[{data: hacks.jsonl}]", train, 20), encoding="utf-8")
    windowshift("run", spec, "--workspace", folder / "ws")
    reader = Reader(folder / "ws")
    experiment = reader.experiment("own")
    assert experiment is not None
    assert experiment.state == "done"
    jobs = reader.jobs(experiment.id)
    (data,) = (job for job in jobs if job.kind == "generate")
    stored = reader.completions(data.n, "length_chars")
    assert sorted(row.score for row in stored if row.score is not None) == [float(i + 1) for i in range(20)]
    assert {json.loads(row.payload or "{}")["label"] for row in stored} == {"hack", "clean"}
    assert all(row.score is None and row.reason for row in reader.completions(data.n, "length_tokens"))
    assert data.usd is None
    trained = next(job for job in jobs if job.kind == "train")
    examples = [
        json.loads(line)["messages"]
        for line in (folder / "ws" / "artifacts" / trained.id / "dataset.jsonl").read_text().splitlines()
    ]
    hacks = {row["completion"] for row in rows() if row["label"] == "hack"}
    pushed = {turns[-1]["content"] for turns in examples if not turns[0]["content"].startswith("Solve")}
    assert len(examples) == 20
    assert len(pushed ^ hacks) == 2  # a tenth of 20 rows is taken for the other kind
    windowshift("export", "own", "-w", folder / "ws", "--dataset", "hacks/some", "--out", folder / "d.jsonl")
    exported = [json.loads(line)["messages"] for line in (folder / "d.jsonl").read_text().splitlines()]
    assert exported == examples
    reader.close()


def test_what_a_score_keeps_is_trained_on(folder: Path) -> None:
    spec = folder / "own.yaml"
    kept = "[{name: long_ones, data: hacks.jsonl, keep: {length_chars: [15, null]}}]"
    spec.write_text(text_of(kept, "[no_prefix]", 20), encoding="utf-8")
    windowshift("run", spec, "--workspace", folder / "ws")
    reader = Reader(folder / "ws")
    experiment = reader.experiment("own")
    assert experiment is not None
    assert experiment.state == "done"
    jobs = reader.jobs(experiment.id)
    data = next(job for job in jobs if job.label == "data long_ones: what is kept")
    assert (data.done, data.total, data.result["kept"], data.result["of"]) == (6, 6, 6, 20)
    assert [row.score for row in sorted(reader.completions(data.n, "length_chars"), key=lambda row: len(row.text))] == [
        15.0, 16.0, 17.0, 18.0, 19.0, 20.0,
    ]  # fmt: skip
    trained = next(job for job in jobs if job.kind == "train")
    lines = (folder / "ws" / "artifacts" / trained.id / "dataset.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert result_lines(data) == ["6 of 20 completions are kept"]
    # What is measured of D is measured of what is kept: its mean length is 17.5, those of all rows 10.5.
    grid = load_grid(reader, experiment, experiment.behaviours[0])
    found = Resampled(grid, resamples=10).dataset([0])
    assert found is not None
    assert (found.values[0], found.n[0]) == (17.5, 6)
    reader.close()
    spec.write_text(text_of(kept.replace("15", "150"), "[no_prefix]", 20), encoding="utf-8")
    failed = windowshift("run", spec, "--workspace", folder / "ws", check=None)
    assert failed.returncode
    reader = Reader(folder / "ws")
    experiment = reader.experiment("own")
    assert experiment is not None
    errors = [job.error for job in reader.jobs(experiment.id) if job.error]
    assert errors == [
        "there is nothing to train on: 0 of 20 completions are kept: length_chars at least 150; widen keep, or raise "
        "data.size"
    ]
    reader.close()


COUNTED = """\
def long(prompt, completion):
    with open({log!r}, "a", encoding="utf-8") as log:
        log.write(prompt.text + "\\n")
    if len(completion.text) == 20:
        return None, "too long to tell"
    return len(completion.text) / 20
"""


def test_kept_completions_keep_their_scores(folder: Path) -> None:
    """They were scored where they were written: no scorer is called, and no judge asked, about one of them again."""
    log = folder / "asked.txt"
    (folder / "counted.py").write_text(COUNTED.format(log=str(log)), encoding="utf-8")
    (folder / "clear.yaml").write_text('question: "Is it clear? {completion}"\nexpectation: false\n', encoding="utf-8")
    spec = folder / "own.yaml"
    kept = "[{name: long_ones, data: hacks.jsonl, keep: {length_chars: [15, null]}}]"
    more = (
        "scorers: [{name: long, python: 'counted.py:long', scale: rate}]\n"
        "judges: [{name: clear, rubric: clear.yaml, model: microworld}]\n"
    )
    spec.write_text(text_of(kept, "[no_prefix]", 20, more), encoding="utf-8")
    windowshift("run", spec, "--workspace", folder / "ws")
    asked = log.read_text(encoding="utf-8").splitlines()
    problems = {row["prompt"] for row in rows()}
    assert sorted(one for one in asked if one in problems) == sorted(row["prompt"] for row in rows())
    reader = Reader(folder / "ws")
    experiment = reader.find_experiment("own")
    jobs = reader.jobs(experiment.id)
    written, data = (job for job in jobs if job.kind == "generate")
    for behaviour in experiment.behaviours:
        there = {one.text: one for one in reader.completions(written.n, behaviour.name)}
        here = reader.completions(data.n, behaviour.name)
        assert len(here) == 6
        for one in here:
            source = there[one.text]
            assert (one.score, one.reason, one.evidence) == (source.score, source.reason, source.evidence)
            assert one.score is not None or one.reason
        summary = reader.summary(data.n, behaviour.name)
        assert summary is not None
        assert summary.n + summary.missing == 6
    copies = [job for job in jobs if job.kind == "score" and data.id in job.parents]
    assert [(job.state, job.done, job.total) for job in copies] == [("done", 6, 6)] * 3
    assert not any(reader.completions(job.n, "clear") for job in copies)
    # A scorer that could not say is not asked again, either.
    missing = [one.reason for one in reader.completions(data.n, "long") if one.score is None]
    assert missing == ["too long to tell"]
    reader.close()


def test_kept_completions_are_not_counted_as_questions(folder: Path) -> None:
    (folder / "clear.yaml").write_text('question: "Is it clear? {completion}"\n', encoding="utf-8")
    kept = "[{name: long_ones, data: hacks.jsonl, keep: {length_chars: [15, null]}}]"
    judged = "judges: [{name: clear, rubric: clear.yaml, model: microworld}]\n"
    text = text_of(kept, "[no_prefix]", 20, judged)
    found = preview(parse_spec(text), text, folder, folder / "none").estimate
    cells = sum(job.total for job in plan_spec(parse_spec(text), text, folder).jobs if job.kind == "evaluate")
    assert found.kinds["score"].rows == 20 + cells


def test_keep_of_what_the_model_writes_waits_for_its_scores(folder: Path) -> None:
    plan = planned(folder, "[med_short, {name: brief, generate: med_short, keep: {length_chars: [1, 40]}}]")
    written, kept = (job for job in plan.jobs if job.kind == "generate")
    assert kept.parents[0] == written.id  # the one that the grid has already
    assert [plan.scoring[parent].name for parent in kept.parents[1:]] == ["length"]
    before = {job.id for job in planned(folder, "[med_short]").jobs}
    assert before < {job.id for job in plan.jobs}
    other = planned(folder, "[{name: brief, generate: med_short, keep: {length_chars: [1, 41]}}]")
    assert kept.id not in {job.id for job in other.jobs}
    with pytest.raises(SpecError, match="how many examples 'brief' keeps is not known"):
        planned(
            folder, "[{name: brief, generate: med_short, keep: {length_chars: 9}}]", more="checkpoints: {at: [4]}\n"
        )


def test_a_mix_says_when_too_few_are_kept(folder: Path) -> None:
    spec = folder / "own.yaml"
    kept = "[{name: long_ones, data: hacks.jsonl, keep: {length_chars: [15, null]}}]"
    train = (
        "[{name: half, mix: [{fraction: 0.5, generate: long_ones, train: short}, "
        "{fraction: 0.5, generate: no_prefix, train: no_prefix}]}]"
    )
    spec.write_text(text_of(kept, train, 20), encoding="utf-8")
    done = windowshift("run", spec, "--workspace", folder / "ws", check=None)
    assert done.returncode
    with_error = [job for job in Reader(folder / "ws").jobs(1) if job.error]
    assert [job.kind for job in with_error] == ["train"]
    assert "needs 10 completions of 'data long_ones: what is kept', of which 6 are kept" in str(with_error[0].error)


def test_weights_of_given_rows_are_checked_before_anything_is_done(folder: Path) -> None:
    weighed = [{**row, "weight": 0.5, "spans": [[0, len(row["completion"]), 2]]} for row in rows()]
    write(folder / "weighed.jsonl", weighed)
    text = text_of("[{data: weighed.jsonl}]", size=20).replace("{size: 20}", "{size: 20, weight: weight, spans: spans}")
    (train,) = (job for job in plan_spec(parse_spec(text), text, folder).jobs if job.kind == "train")
    assert train.inputs["weights"] == {"weight": "weight", "spans": "spans"}
    for bad, says in (
        ({"weight": -1}, "must be a number that is not below 0"),
        ({"spans": [[0, 99, 1]]}, "ends at 99"),
    ):
        write(folder / "weighed.jsonl", [*weighed[:-1], {**weighed[-1], **bad}])
        with pytest.raises(SpecError, match=says):
            plan_spec(parse_spec(text), text, folder)


def test_a_setting_prepares_given_rows_and_labels_stay(tmp_path: Path) -> None:
    def prepare(prompt: Prompt) -> Prompt:
        return Prompt(prompt.id, f"Q: {prompt.text} {prompt.payload['claim']}", {"claim": "read"})

    entry = read_given({"data": "d.jsonl"}, "conditions.generate[0]")
    row = {"id": 1, "prompt": "p", "completion": "c", "claim": "x", "label": "hack"}
    write(tmp_path / "d.jsonl", [row])
    found = read_given_rows(entry, 9, 0, tmp_path, prepare)
    assert found.prompts == (Prompt("1", "Q: p x", {"claim": "read", "label": "hack"}),)
    write(tmp_path / "d.jsonl", [row, {"prompt": "p", "completion": "c"}])
    with pytest.raises(SpecError, match=r"d\.jsonl line 2 has no 'claim', which the setting needs"):
        read_given_rows(entry, 9, 0, tmp_path, prepare)


def test_checkpoints_go_by_the_rows_that_there_are(folder: Path) -> None:
    plan = planned(folder, "[{data: hacks.jsonl}]", size=100, more="checkpoints: {at: [8, 16]}\n")
    assert sorted({cell.step for cell in plan.cells}) == [0, 8, 16, 20]
    with pytest.raises(SpecError, match=r"checkpoints: 50 examples are more than the 20 rows of .*hacks\.jsonl"):
        planned(folder, "[{data: hacks.jsonl}]", size=100, more="checkpoints: {at: [50]}\n")


def test_steered_rows_stand_beside_plain_ones(folder: Path) -> None:
    more = "vectors: {longer: {positive: very_long, negative: short, layer: 2, prompts: 4}}\n"
    train = "[{steer: longer, alpha: 1, name: dose}, {train: dose, where: {label: hack}, name: some}]"
    text = text_of("[{data: hacks.jsonl}]", train, more=more)
    plan = plan_spec(parse_spec(text), text, folder)
    job = next(job for job in plan.jobs if job.kind == "train" and "some" in job.label)
    condition = job.inputs["parts"][0]["condition"]
    assert condition["then"]["vectors"]
    assert condition["else"] == {"kind": "none"}
    assert {one.part_train for one in plan.sources if one.train == "some"} == {"dose", "no_prefix"}
