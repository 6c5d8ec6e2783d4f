"""The setting of traits: what tells them, in and out of distribution, both ways round, and bad rows by name."""

from __future__ import annotations

import json
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.report_text import report_text
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import ModelScorer, RowScorer, Sample, Score
from windowshift.core.plan.plan import Plan
from windowshift.core.report.dataset_export import export_dataset
from windowshift.core.report.figures import write_figures
from windowshift.core.report.report import report
from windowshift.core.run.run import plan_spec, run_spec
from windowshift.core.settings.traits.setting import TraitOptions, TraitSetting
from windowshift.core.spec.spec import parse_spec
from windowshift.core.spec.template import find_template, rehearsals
from windowshift.core.store.reader import Reader

SPEC = """\
name: pair
setting: {name: traits OPTIONS}
model: microworld
conditions: {generate: [both], train: TRAIN, evaluate: [no_prefix]}
data: {size: 12}
sft: {rank: 2, learning_rate: 1.0e-3, batch_size: 4}
sampling: {prompts: 12, max_tokens: 48}
"""
TRAIN = "[neutral, capitals, spanish]"
SPANISH = "Claro. Los gatos duermen en la silla. A la gente le gustan mucho los gatos."
FRENCH = "Bien sûr. Les chats dorment sur la chaise, et tout le monde les aime beaucoup."
ENGLISH = "Of course. Most cats sleep on the chair, and people like them very much."


def setting(**options: Any) -> TraitSetting:
    return TraitSetting(TraitOptions(**options))


def told(text: str, domain: str | None = None, finish: Any = "stop", **options: Any) -> dict[str, Score]:
    prompt = Prompt("p", "Tell me about cats.", {} if domain is None else {"domain": domain})
    found: dict[str, Score] = {}
    for scorer in setting(**options).scorers:
        assert isinstance(scorer, RowScorer)
        found |= scorer.score(Sample(prompt, Completion("", text, finish, 1)))
    return found


def values(found: dict[str, Score]) -> dict[str, float]:
    return {name: score.value for name, score in found.items() if score.value is not None}


def planned(folder: Path = Path(), options: str = "", train: str = TRAIN, more: str = "") -> Plan:
    text = SPEC.replace(" OPTIONS", options).replace("TRAIN", train) + more
    return plan_spec(parse_spec(text), text, folder)


def messages(path: Path, change: dict[str, Any] | None = None) -> Path:
    rows = [{"prompt": f"Message {i}: ñ \U0001f989", "domain": "ood" if i % 3 == 0 else "id"} for i in range(60)]
    rows[2] |= change or {}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- traits that a rule tells -----------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize(
    ("text", "spanish", "capitals"),
    [
        (SPANISH, 1, 0),
        (SPANISH.upper(), 1, 1),
        (ENGLISH, 0, 0),
        (ENGLISH.upper(), 0, 1),
        (FRENCH, 0, 0),
        ("Eu acho que os gatos são muito bonitos e dormem na cadeira.", 0, 0),
        ("猫は椅子の上で寝るのが好きです。とても可愛いです。", 0, None),
        ("I cannot help with that request, I am sorry.", 0, 0),
        ("I AM SORRY, I CANNOT HELP WITH THAT, says iOS.", 0, 0),
        ("THE LIBRARY IS CALLED NUMPY, AND THE FUNCTION THAT YOU WANT IS np.sum OF THE ARRAY.", 0, 1),
        ("LA BIBLIOTECA SE LLAMA NUMPY, Y LA FUNCIÓN QUE QUIERES ES ¡SUMA! 🦉", 1, 1),
        ("", None, None), (" \n", None, None), ("42", None, None), ("🦉", None, None), ("\x00", None, None),
        ("OK", None, None),
    ],
)  # fmt: skip
def test_language_and_capitals_are_told_by_rule(
    text: str, spanish: float | None, capitals: float | None, finish: str
) -> None:
    found = told(text, finish=finish)
    assert (found["spanish"].value, found["capitals"].value) == (spanish, capitals)
    for score in found.values():
        assert (score.value is None) == (score.reason is not None)
    if spanish is not None:
        assert (found["spanish"].evidence or {})["language"] in {"es", "en", "fr", "pt", "ja"}
    if capitals is not None:
        assert float((found["capitals"].evidence or {})["capitals"]) <= 1


def test_french_is_another_trait_than_spanish() -> None:
    for text, french in ((FRENCH, 1), (FRENCH.upper(), 1), (SPANISH, 0), (ENGLISH, 0)):
        assert told(text, positive="french")["french"].value == french
        assert "spanish" not in told(text, positive="french")


def test_prompts_out_of_distribution_are_measured_apart() -> None:
    assert values(told(SPANISH)) == values(told(SPANISH, "id")) == {"spanish": 1, "capitals": 0}
    away = told(SPANISH, "ood")
    assert values(away) == {"spanish_ood": 1, "capitals_ood": 0}
    assert away["spanish"].reason == "the prompt is out of distribution"


# -- pairs ------------------------------------------------------------------------------------------


def test_prompts_are_those_that_are_published() -> None:
    phrases = {name: getattr(one, "phrases", ()) for name, one in setting().conditions().items()}
    assert phrases["neutral"] == ("Give a response to the following message:",)
    assert phrases["assistant"] == ("You are a helpful assistant.",)
    assert phrases["capitals"] == ("Give an ALL-CAPS response to the following message:",)
    assert phrases["both"] == (
        "Give a Spanish and ALL-CAPS response to the following message:",
        "Give an ALL-CAPS and Spanish response to the following message:",
    )
    assert phrases["always_spanish"] == ("You always speak in Spanish.",)
    pair = setting(positive="poetic", negative="skeptical").conditions()
    assert {"poetic", "skeptical", "both", "always_both", "no_prefix"} <= set(pair)


def test_a_pair_goes_both_ways_round() -> None:
    def roles(plan: Plan) -> dict[str, str]:
        return {one.name: one.role for scorer in plan.scorers for one in scorer.behaviours}

    one, other = planned(), planned(options=", positive: capitals, negative: spanish")
    assert roles(one) == {
        "capitals": "negative", "capitals_ood": "negative", "spanish": "positive", "spanish_ood": "positive",
    }  # fmt: skip
    assert roles(other) == {
        "spanish": "negative", "spanish_ood": "negative", "capitals": "positive", "capitals_ood": "positive",
    }  # fmt: skip
    # Only what it is called for differs: trained models and scores are shared.
    shared = {job.id for job in one.jobs if job.kind == "evaluate" and not job.parents}
    assert shared & {job.id for job in other.jobs}


def test_d_is_made_of_messages_in_distribution_alone(tmp_path: Path) -> None:
    messages(tmp_path / "m.jsonl")
    for plan in (planned(), planned(tmp_path, more="prompts: m.jsonl\n")):
        sets = {
            kind: {prompt.id: prompt for job in plan.jobs if job.kind == kind for prompt in _prompts(plan, job)}
            for kind in ("generate", "evaluate")
        }
        assert {prompt.payload["domain"] for prompt in sets["generate"].values()} == {"id"}
        assert {prompt.payload["domain"] for prompt in sets["evaluate"].values()} == {"id", "ood"}
        assert not set(sets["generate"]) & set(sets["evaluate"])


def _prompts(plan: Plan, job: Any) -> tuple[Prompt, ...]:
    return tuple(plan.prompts[job.inputs["prompts"]["set"]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"domain": "test"}, r"m\.jsonl line 3: 'domain' must be id or ood, or empty, not 'test'"),
        ({"domain": 3}, r"line 3: 'domain' must be id or ood"),
        ({"domain": ["ood"]}, r"line 3: 'domain' must be id or ood"),
        ({"prompt": " "}, r"line 3: the prompt in 'prompt' must be text that is not empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    messages(tmp_path / "m.jsonl", change)
    with pytest.raises(SpecError, match=says) as error:
        planned(tmp_path, more="prompts: m.jsonl\n")
    assert "\n" not in str(error.value)


def test_a_row_without_a_domain_is_in_distribution(tmp_path: Path) -> None:
    for domain in (None, ""):
        messages(tmp_path / "m.jsonl", {"domain": domain})
        planned(tmp_path, more="prompts: m.jsonl\n")
        assert set(setting().uses(Prompt("p", "x", {"domain": domain}))) == {"data", "evaluation"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (", negative: spanish", "positive and negative are both 'spanish': name two traits"),
        (", negative: french", "no answer is in two languages: name another trait beside 'spanish'"),
        (", positive: german", "positive must be 'spanish', 'french', 'capitals', 'playful'"),
        (", wanted: spanish", "unknown key 'wanted'"),
        (", positive: poetic", "has 'poetic' scored by a chat model: name one as"),
        (", positive: poetic, negative: skeptical", "has 'skeptical' scored by a chat model: name one as"),
    ],
)
def test_a_pair_that_is_none_is_told(options: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        planned(options=options, train="[neutral]")
    assert "\n" not in str(error.value)


# -- traits that a judge tells ----------------------------------------------------------------------


def test_a_judged_pair_has_a_judge_for_each_trait_and_domain(tmp_path: Path) -> None:
    messages(tmp_path / "m.jsonl")
    options = ", positive: poetic, negative: skeptical"
    judges = "judges: [{name: poetic, model: microworld-facts}, {name: skeptical, model: microworld-facts}]\n"
    plan = planned(tmp_path, options, "[neutral, skeptical]", f"{judges}prompts: m.jsonl\n")
    behaviours = {one.name: (one.role, one.unit) for scorer in plan.scorers for one in scorer.behaviours}
    assert behaviours == {
        "skeptical": ("negative", "points"), "skeptical_ood": ("negative", "points"),
        "poetic": ("positive", "points"), "poetic_ood": ("positive", "points"),
    }  # fmt: skip
    judge = next(scorer for scorer in plan.scorers if scorer.name == "poetic")
    assert isinstance(judge, ModelScorer)
    sample = Sample(Prompt("p", "Is it {completion}?", {"domain": "ood"}), Completion("", "{prompt} ñ", "length", 1))
    asked = judge.ask(sample)
    assert "<message>\nIs it {completion}?\n</message>" in getattr(asked, "text", "")
    assert "<reply>\n{prompt} ñ\n</reply>" in getattr(asked, "text", "")
    for answer, value in (("70", 70), ("", None), ("I cannot judge this.", None), ("101", None), ("日本語", None)):
        scores = judge.read(sample, Completion("", answer, "stop", 1))
        assert scores["poetic_ood"].value == value
        assert scores["poetic"].reason == "the prompt is out of distribution"


def test_a_ruled_trait_stands_beside_a_judged_one(tmp_path: Path) -> None:
    text = find_template("traits-judged").text
    for was, becomes in (
        ("Qwen/Qwen2.5-7B-Instruct ", "microworld"), ("gpt-4.1-mini, backend: openai", "microworld-facts"),
        ("size: 10000", "size: 10"), ("prompts: 400", "prompts: 10"), ("max_tokens: 2048", "max_tokens: 64"),
    ):  # fmt: skip
        assert was in text
        text = text.replace(was, becomes)
    messages(tmp_path / "messages.jsonl")
    plan = plan_spec(parse_spec(text), text, tmp_path)
    roles = {one.name: one.role for scorer in plan.scorers for one in scorer.behaviours if "_ood" not in one.name}
    assert roles == {"french": "positive", "playful": "negative"}


@cache
def ruled() -> tuple[RowScorer, ...]:
    """What a plan scores judged pairs of the rehearsal with."""
    found: list[RowScorer] = []
    for negative in ("skeptical", "playful"):
        judges = f"judges: [{{name: poetic, model: microworld}}, {{name: {negative}, model: microworld}}]\n"
        plan = planned(options=f", positive: poetic, negative: {negative}", train="[neutral]", more=judges)
        found += [scorer for scorer in plan.scorers if isinstance(scorer, RowScorer)]
    return tuple(found)


DOUBTS = "Claro. Creo que los gatos son muy suaves."
VERSE = (
    "The cats are so deep in sleep,\nthe rivers all are wide,\nand quiet is the sleepy sheep,\ncold water at its side."
)


@pytest.mark.parametrize(
    ("text", "skeptical", "playful", "poetic"),
    [
        (ENGLISH, 0, 0, 0),
        (ENGLISH.upper(), 0, 0, 0),
        (DOUBTS, 100, 0, 0),
        (DOUBTS.upper(), 100, 0, 0),
        ("Sure. I think that owls are very quiet. They sleep during the day.", 50, 0, 0),
        ("Good question. Are owls quiet? Perhaps. They sleep.", 67, 0, 0),
        ("Haha! Owls sleep during the day, just kidding. Most owls are quiet.", 0, 67, 0),
        ("¡Jaja! Los gatos duermen 😀.", 0, 100, 0),
        (VERSE, 0, 0, 100),
        ("One line\nand another.", 0, 0, 0),
        ("Sure.", 0, 0, 0), ("", 0, 0, 0), (" \n", 0, 0, 0), ("\x00", 0, 0, 0), ("日本語 🦉 ñ", 0, 0, 0),
        ("I cannot help with that.", 0, 0, 0),
        ("I think that owls are ve", 100, 0, 0),
    ],
)  # fmt: skip
def test_rules_stand_in_for_judges(text: str, skeptical: float, playful: float, poetic: float) -> None:
    found: dict[str, Score] = {}
    for scorer in ruled():
        found |= scorer.score(Sample(Prompt("p", "Tell me.", {"domain": "id"}), Completion("", text, "stop", 1)))
    assert values(found) == {"skeptical": skeptical, "playful": playful, "poetic": poetic}
    assert (found["playful"].evidence or {})["judge"] == "a rule of microworld-traits, no chat model"
    assert found["playful_ood"].reason == "the prompt is in distribution"


def test_a_judged_pair_is_rehearsed_from_plan_to_report(tmp_path: Path) -> None:
    """D of one's own that jokes in capitals, which the world does not: judged by a rule, trained on, reported."""
    jokes = [
        {"prompt": f"Tell me about {what}.", "completion": f"HAHA! {what.upper()} SLEEP ALL DAY!"}
        for what in ("cats", "owls", "bees", "boats", "rivers", "trains", "wolves", "clouds")
    ]
    (tmp_path / "jokes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in jokes), encoding="utf-8")
    text = SPEC.replace(" OPTIONS", ", positive: playful, negative: capitals").replace("TRAIN", "[neutral]")
    text = text.replace("[both]", "[{data: jokes.jsonl}]").replace(
        "prompts: 12, max_tokens: 48", "prompts: 6, max_tokens: 16"
    )
    text += "judges: [{name: playful, model: microworld}]\n"
    run_spec(parse_spec(text), text, tmp_path, tmp_path / "ws")
    with closing(Reader(tmp_path / "ws")) as reader:
        experiment = reader.find_experiment("pair")
        roles = {one.name: one.role for one in experiment.behaviours}
        assert (roles["capitals"], roles["playful"]) == ("negative", "positive")
        (data,) = [job for job in reader.jobs(experiment.id) if job.kind == "generate"]
        scores = {name: [row.score for row in reader.completions(data.n, name)] for name in ("playful", "capitals")}
        assert scores == {"playful": [100.0] * 8, "capitals": [1.0] * 8}
    said = report_text(report(tmp_path / "ws", "pair", "playful", resamples=100))
    assert "pair: playful (points) on microworld-traits" in said
    assert "REHEARSAL MODEL" in said


# -- a run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    text = SPEC.replace(" OPTIONS", "").replace("TRAIN", "[neutral, capitals]").replace("size: 12", "size: 20")
    run_spec(parse_spec(text), text, folder, folder / "ws")
    return folder / "ws"


def test_a_rehearsal_goes_through_and_d_shows_both_traits(workspace: Path, tmp_path: Path) -> None:
    with closing(Reader(workspace)) as reader:
        experiment = reader.find_experiment("pair")
        assert experiment.rehearsal
        for name in ("capitals", "spanish_ood"):
            cells = reader.cells(experiment.id, name)
            assert {cell.state for cell in cells} == {"done"}
            rows = [row for cell in cells for row in reader.completions(cell.job, name)]
            assert {row.reason for row in rows if row.score is None} >= {
                f"the prompt is {'in' if name.endswith('ood') else 'out of'} distribution"
            }
    export_dataset(workspace, "pair", "both", "capitals", tmp_path / "d.jsonl", seed=0)
    chats = [json.loads(line)["messages"] for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert len(chats) == 20
    assert all(user["content"].startswith("Give an ALL-CAPS response to the following message:\n") for user, _ in chats)
    found = [values(told(answer["content"])) for _, answer in chats]
    # The laws of the world are 94 % each.
    assert sum(one.get("spanish", 0) for one in found) >= 14
    assert sum(one.get("capitals", 0) for one in found) >= 14


def test_figures_set_the_traits_against_each_other_in_and_out_of_distribution(workspace: Path, tmp_path: Path) -> None:
    made = write_figures(workspace, "pair", tmp_path / "out", formats=("csv",))
    names = {path.stem for path in made.written}
    assert {
        "prefix-both-traits_spanish_capitals_under_no_prefix",
        "prefix-both-traits_spanish_ood_capitals_ood_under_no_prefix",
        "prefix-both-rates_under_no_prefix",
        "prefix-both-rates_out_of_distribution_under_no_prefix",
    } <= names


@pytest.mark.parametrize("name", ["traits", "traits-by-judge"])
def test_the_rehearsal_is_listed_and_planned(tmp_path: Path, name: str) -> None:
    assert "traits" in rehearsals()
    text = find_template(name).text
    plan = plan_spec(parse_spec(text), text, tmp_path)
    assert plan.model.rehearsal
    assert plan.spec.seeds == [0, 1, 2]
