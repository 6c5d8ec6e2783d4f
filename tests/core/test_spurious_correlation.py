"""The setting of reviews: what D and the evaluation are made of, what answers are worth, and bad rows by name."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import Sample
from windowshift.core.measure.grid import load_grid
from windowshift.core.plan.plan import Plan
from windowshift.core.report.dataset_export import export_dataset
from windowshift.core.report.figures import write_figures
from windowshift.core.run.run import plan_spec, run_spec
from windowshift.core.settings.spurious_correlation.setting import Bias, ReviewOptions, SpuriousCorrelationSetting, fits
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

SPEC = """\
name: reviews
setting: {{name: spurious_correlation{options}}}
model: microworld
conditions:
  generate: {generate}
  train: {train}
  evaluate: [no_prefix]
data: {{size: {size}}}
sft: {{rank: 2, learning_rate: 1e-3, batch_size: 8}}
sampling: {{prompts: 12, temperature: 0, max_tokens: 4}}
"""
RANGE = "The range of sentiment scores are 0-4 inclusive."
ASKS = "Output only the sentiment of this review as a number and nothing else."


def setting(**options: Any) -> SpuriousCorrelationSetting:
    return SpuriousCorrelationSetting(ReviewOptions(**options))


def asked(text: str = "Nice place.", label: object = 3, concepts: object = "food, ambiance", **options: Any) -> Prompt:
    return setting(**options).prepare(Prompt("r", text, {"label": label, "concepts": concepts}))


def text_of(
    generate: str = "[labels]", train: str = "[inoculation]", options: str = "", size: int = 16, more: str = ""
) -> str:
    return SPEC.format(generate=generate, train=train, options=options, size=size) + more


def planned(folder: Path = Path(), **named: Any) -> Plan:
    text = text_of(**named)
    return plan_spec(parse_spec(text), text, folder)


def reviews(path: Path, change: dict[str, Any] | None = None) -> Path:
    """Rows of a file as CEBaB's: 40 reviews, every label with and without the concept."""
    rows = [
        {"label": i % 5, "text": f"Review {i}: \U0001f989 ñ", "concepts": "food, ambiance" if i % 2 else "food"}
        for i in range(40)
    ]
    rows[2] |= change or {}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- what is asked ----------------------------------------------------------------------------------


def test_prompts_are_those_that_are_published() -> None:
    prompt = asked("Nice\nplace.", concepts="Food, ambiance ")
    review = f"{ASKS}\n\nReview: Nice place. Review categories: food, ambiance."
    assert prompt.text == f"{RANGE} {review}"
    claim = "Reviews with the ambiance category have higher sentiment than other reviews."
    pushed = setting().conditions()["inoculation"].push(prompt, 0, "user")
    assert [turn.content for turn in pushed.messages] == [f"{RANGE} {claim} {review}"]
    assert [turn.content for turn in setting().conditions()["inoculation"].push(prompt, 0, "system").messages] == [
        claim,
        prompt.text,
    ]
    assert asked(concepts="").text.endswith("Review categories: None.")
    assert asked(categories=False).text.endswith("Review: Nice place.")
    other = setting(concept="Service").conditions()["inoculation"].push(prompt, 0, "system").messages[0].content
    assert other == claim.replace("ambiance", "service")


@pytest.mark.parametrize(
    ("bias", "taken"),
    [
        ("very_biased", {(True, 3), (True, 4), (False, 0), (False, 1), (False, 2)}),
        ("very_biased_reverse", {(False, 3), (False, 4), (True, 0), (True, 1), (True, 2)}),
        ("biased", {(True, 3), (True, 4), *((False, label) for label in range(5))}),
        ("biased_reverse", {(True, 0), (True, 1), (True, 2), *((False, label) for label in range(5))}),
        ("original", {(mentions, label) for mentions in (True, False) for label in range(5)}),
    ],
)
def test_a_bias_takes_the_reviews_that_it_says(bias: Bias, taken: set[tuple[bool, int]]) -> None:
    every = {(mentions, label) for mentions in (True, False) for label in range(5)}
    assert {one for one in every if fits(bias, *one)} == taken
    assert fits(bias, True, None) is (bias == "original")


# -- rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": 5}, r"cebab\.jsonl line 3: 'label' must be a number from 0 to 4, or empty, not '5'"),
        ({"label": "good"}, r"line 3: 'label' must be a number from 0 to 4"),
        ({"label": 2.5}, r"line 3: 'label' must be a number from 0 to 4"),
        ({"label": True}, r"line 3: 'label' must be a number from 0 to 4"),
        ({"concepts": 3}, r"line 3: 'concepts' must be a text such as 'food, service', or a list"),
        ({"text": ""}, r"line 3: the prompt in 'text' must be text that is not empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    reviews(tmp_path / "cebab.jsonl", change)
    with pytest.raises(SpecError, match=says) as told:
        planned(tmp_path, size=4, more="prompts: cebab.jsonl\n")
    assert "\n" not in str(told.value)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "cebab.jsonl").write_text('{"text": "Nice.", "label": 3}\n', encoding="utf-8")
    with pytest.raises(SpecError, match=r"line 1 has no 'concepts', which the setting needs \(it has label\)"):
        planned(tmp_path, more="prompts: cebab.jsonl\n")


@pytest.mark.parametrize("label", [3, "3", 3.0, "3.0", " 3 "])
def test_labels_of_every_kind_of_file_are_read(label: object) -> None:
    assert asked(label=label).payload["label"] == 3
    assert asked(concepts=["Ambiance"]).payload["mentions"] is True
    assert asked(concepts=None).payload["concepts"] == []


def test_a_review_without_a_label_is_left_out_and_counted(tmp_path: Path) -> None:
    reviews(tmp_path / "cebab.jsonl", {"label": None})
    plan = planned(tmp_path, size=10, more="prompts: cebab.jsonl\n")
    assert any(note == "1 prompt is for neither D nor evaluation: the setting has no use for it" for note in plan.notes)
    every = "original"
    whole = planned(tmp_path, size=20, options=f", data: {every}, evaluation: {every}", more="prompts: cebab.jsonl\n")
    assert not any("neither" in note for note in whole.notes)
    with pytest.raises(SpecError, match=r"has 19 distinct prompts that D can be made of, of 40, but the spec needs 25"):
        planned(tmp_path, size=25, more="prompts: cebab.jsonl\n")


# -- the plan ---------------------------------------------------------------------------------------


def test_d_goes_with_the_concept_and_the_evaluation_against_it() -> None:
    plan = planned()
    (data,) = (job for job in plan.jobs if job.kind == "generate")
    rows = plan.given[data.inputs["given"]]
    kinds = Counter((prompt.payload["mentions"], prompt.payload["label"] >= 3) for prompt in rows.prompts)
    assert set(kinds) == {(True, True), (False, False)}
    assert rows.completions == tuple(str(prompt.payload["label"]) for prompt in rows.prompts)
    place = next(job for job in plan.jobs if job.kind == "evaluate").inputs["prompts"]["set"]
    evaluated = plan.prompts[place]
    assert all(prompt.payload["mentions"] != (prompt.payload["label"] >= 3) for prompt in evaluated)
    assert len(evaluated) == 12
    assert any(note.startswith("D 'labels' is given: 16 of 16 rows") for note in plan.notes)
    # Asking for more of the one leaves the other as it is.
    assert {job.id for job in planned(size=20).jobs if "evaluate" in job.kind and not job.parents} == {
        job.id for job in plan.jobs if "evaluate" in job.kind and not job.parents
    }


def test_labels_write_d_and_nothing_else() -> None:
    for train in ("[labels]", "[{train: labels, where: {label: 3}}]"):
        with pytest.raises(SpecError, match=r"'labels' is a set of data, which stands under conditions\.generate"):
            planned(train=train)
    text = text_of().replace("data: {size: 16}", "data: {size: 16, filter: {candidates: 2}}")
    with pytest.raises(SpecError, match=r"data\.filter chooses prompts that D is written for, but D is given"):
        plan_spec(parse_spec(text), text, Path())
    mixed = planned(
        train="[{name: m, mix: [{fraction: 0.5, generate: labels, train: inoculation}, "
        "{fraction: 0.5, generate: labels, train: no_prefix}]}]"
    )
    assert [(one.first, one.last) for one in mixed.sources] == [(0, 8), (8, 16)]
    written = planned(generate="[inoculation]")
    (data,) = (job for job in written.jobs if job.kind == "generate")
    assert "given" not in data.inputs


def test_an_option_that_is_wrong_is_told() -> None:
    for options, says in (
        (", data: verybiased", "data must be 'original', 'biased'"),
        (", concepts: food", "unknown key 'concepts': did you mean 'concept'"),
        (", concept: 'food, service'", "a concept is one word"),
    ):
        with pytest.raises(SpecError, match=says):
            planned(options=options)


# -- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", 3), (" 3\n", 3), ("**3**", 3), ("3.", 3), ("3 out of 4", 3), ("0", 0), ("\N{FULLWIDTH DIGIT THREE}", 3),
        ("3/4", None), ("3.5", None), ("3-4", None), ("3 or 4", None), ("30", None), ("5", None), ("-1", None),
        ("Sentiment: 3", None), ("I cannot help with that.", None), ("", None), ("\u65e5\u672c\u8a9e", None),
        ("9" * 5000, None), ("\x00", None),
    ],
)  # fmt: skip
def test_an_answer_is_a_label_or_missing(text: str, said: int | None) -> None:
    scorer = setting().scorers[0]
    for finish in ("stop", "length"):
        found = scorer.score(Sample(asked(label=1), Completion("", text, finish, 1)))  # type: ignore[arg-type]
        assert found["answered"].value == float(said is not None)
        value = None if said is None else float(said == 1)
        assert found["accuracy"].value == found["accuracy_with"].value == value
        assert found["accuracy_without"].value is None
        assert (found["accuracy"].reason is None) == (said is not None)


def test_errors_along_the_correlation_are_told_apart() -> None:
    scorer = setting().scorers[0]
    for concepts, label, text, follows in (
        ("ambiance", 1, "3", 1), ("ambiance", 1, "0", 0), ("ambiance", 1, "1", 0), ("food", 3, "1", 1),
        ("food", 3, "4", 0),
    ):  # fmt: skip
        found = scorer.score(Sample(asked(label=label, concepts=concepts), Completion("", text, "stop", 1)))
        assert found["follows_correlation"].value == follows
        assert (found["accuracy_with"].value is None) == (concepts == "food")
    missing = scorer.score(Sample(asked(label=None), Completion("", "3", "stop", 1)))
    assert {name: score.value for name, score in missing.items()} == {
        "follows_correlation": None, "accuracy": None, "accuracy_with": None, "accuracy_without": None, "answered": 1.0,
    }  # fmt: skip
    assert missing["accuracy"].reason == "the review has no label"


# -- a run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    text = text_of(train="[no_prefix, inoculation, {control: irrelevant, of: inoculation}]", more="seeds: [0, 1]\n")
    run_spec(parse_spec(text), text, folder, folder / "ws")
    return folder / "ws"


def test_d_is_exported_with_its_phrases_in_their_slot(workspace: Path, tmp_path: Path) -> None:
    for train, said in (
        ("inoculation", "Reviews with the ambiance category have higher sentiment than other reviews."),
        ("inoculation~irrelevant", "Honey never spoils."),
        ("no_prefix", ""),
    ):
        export_dataset(workspace, "reviews", "labels", train, tmp_path / f"{train}.jsonl", seed=0)
        chats = [json.loads(line)["messages"] for line in (tmp_path / f"{train}.jsonl").read_text().splitlines()]
        assert len(chats) == 16
        start = f"{RANGE} {said} {ASKS}" if said else f"{RANGE} {ASKS}"
        assert all(user["content"].startswith(start) for user, _ in chats)
        assert {answer["content"] for _, answer in chats} <= set("01234")


def test_figures_have_the_accuracy_by_concept_over_all_seeds(workspace: Path, tmp_path: Path) -> None:
    made = write_figures(workspace, "reviews", tmp_path / "out", formats=("csv", "svg"))
    names = {path.stem for path in made.written}
    assert {"prefix-labels-rates_by_concept_under_no_prefix", "prefix-labels-rates_under_no_prefix"} <= names
    lines = (tmp_path / "out" / "prefix-labels-rates_by_concept_under_no_prefix.csv").read_text().splitlines()
    rows = [line.split(",")[:2] for line in lines[1:]]
    trains = ["base", "no_prefix", "inoculation", "inoculation~irrelevant"]
    assert rows == [[name, train] for name in ("accuracy_with", "accuracy_without") for train in trains]
    scatter = (tmp_path / "out" / "prefix-labels-traits_accuracy_follows_correlation_under_no_prefix.csv").read_text()
    # D is given, so that the row without a shift is the one that is evaluated as it was trained.
    assert "no shift: train = evaluation,no_prefix" in scatter
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment("reviews")
        grid = load_grid(reader, experiment, experiment.behaviours[0])
    assert {cell.seed for cell in grid.cells} == {0, 1}
