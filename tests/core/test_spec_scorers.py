"""Scorers in a spec: what each way measures, what is missing, what identifies a score, what plan refuses."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import windowshift, write_spec
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.setting import BatchScorer, Sample, Score, Scores
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.settings.spec_scorers import PATIENCE, scorers_of
from windowshift.core.spec.scorer_section import ScorerSection
from windowshift.core.spec.spec import parse_spec
from windowshift.core.spec.template import find_template
from windowshift.core.store.reader import Reader

SPEC = """\
name: x
model: microworld
prompts: microworld
conditions: {generate: [short], train: [short], evaluate: [short]}
data: {size: 2}
sampling: {prompts: 2}
"""


def scorer(folder: Path = Path(), **entry: Any) -> Any:
    (made,) = scorers_of([ScorerSection.model_validate({"name": "it", **entry})], folder, [])
    return made


def score(made: Any, prompt: Prompt, text: str) -> Score:
    sample = Sample(prompt, Completion("", text, "stop", 3))
    scores: Scores = made.score_batch([sample])[0] if isinstance(made, BatchScorer) else made.score(sample)
    return scores["it"]


def measured(made: Any, text: str, prompt: Prompt | None = None) -> float | None:
    found = score(made, prompt or Prompt("a", "b"), text)
    assert (found.value is None) == (found.reason is not None)
    return found.value


def why(made: Any, text: str) -> str:
    found = score(made, Prompt("a", "b", {"claim": 3}), text)
    assert found.value is None
    return str(found.reason)


def plan(more: str, folder: Path = Path()) -> Plan:
    return plan_spec(parse_spec(SPEC + more), SPEC + more, folder)


RATES = """\
scorers:
  - {name: brief, within: {words: [null, 8]}, role: primary}
  - {name: capitals, characters: capitals}
  - {name: four, python: 'own:length', scale: ratio}
  - {name: odd, python: 'own:never'}
"""

RULES: list[tuple[dict[str, Any], str, float | None]] = [
    ({"regex": r"\bno+\b"}, "Nooo, he said.", 1),
    ({"regex": r"\bno+\b", "ignore_case": False}, "Nooo, he said.", 0),
    ({"regex": "a", "measure": "count"}, "banana", 3),
    ({"regex": "an", "measure": "share"}, "banana", 4 / 6),
    ({"regex": "an", "measure": "share"}, "", None),
    ({"regex": "an", "measure": "count"}, "", 0),
    ({"keywords": ["yes", "of course"]}, "Of course!", 1),
    ({"keywords": ["yes"]}, "yesterday eyes", 0),
    ({"keywords": ["c++", "yes"], "measure": "all"}, "C++? Yes.", 1),
    ({"keywords": ["yes", "no"], "measure": "all"}, "yes", 0),
    ({"keywords": ["yes", "no"], "measure": "count"}, "yes no YES", 3),
    ({"characters": "capitals"}, "ABc 12!", 2 / 3),
    ({"characters": "capitals"}, "12 !", None),
    ({"characters": "capitals"}, "", None),
    ({"characters": "capitals"}, "ÄÖß", 2 / 3),
    ({"characters": "capitals"}, "日本", None),
    ({"characters": "capitals", "measure": "count"}, "ABc", 2),
    ({"characters": "digits"}, "a1 b2", 0.5),
    ({"characters": "punctuation"}, "a! ¿b", 0.5),
    ({"characters": "spaces"}, "a b ", 0.5),
    ({"characters": "non_ascii"}, "aé", 0.5),
    ({"characters": {"any_of": "xy"}}, "xyz z", 0.5),
    ({"words": ["perhaps", "maybe"]}, "Maybe, maybe not.", 2 / 3),
    ({"words": ["perhaps"], "measure": "count"}, "perhaps Perhaps", 2),
    ({"words": ["don't"], "measure": "any"}, "Don't!", 1),
    ({"words": ["perhaps"]}, "... !", None),
    ({"is_json": True}, ' {"a": [1]} ', 1),
    ({"is_json": True}, "NaN", 0),
    ({"is_json": True}, '{"a": 1} and so on', 0),
    ({"is_json": True}, "[" * 100_000, 0),
    ({"is_json": "object"}, "[1]", 0),
    ({"is_json": "array"}, "[1]", 1),
    ({"within": {"words": [2, 3]}}, "one two three", 1),
    ({"within": {"words": [2, 3], "characters": [None, 5]}}, "one two three", 0),
    ({"within": {"tokens": [4, None]}}, "one two three", 0),
    ({"within": {"lines": [1, 1]}}, "one\ntwo", 0),
]


@pytest.mark.parametrize(("entry", "text", "value"), RULES)
def test_rules(entry: dict[str, Any], text: str, value: float | None) -> None:
    made = scorer(**entry)
    assert measured(made, text) == (value if value is None else pytest.approx(value))
    assert measured(pickle.loads(pickle.dumps(made)), text) == measured(made, text)  # a worker's copy


def test_a_length_in_tokens_that_nobody_counted_is_missing() -> None:
    uncounted = Sample(Prompt("a", "b"), Completion("", "one two", "stop", None))
    missing = Score(None, "the server does not say how many tokens it used")
    assert scorer(within={"tokens": [None, 5]}).score(uncounted)["it"] == missing
    assert scorer(within={"words": [2, 2]}).score(uncounted)["it"] == Score(1.0)


@pytest.mark.parametrize("measure", ["any", "count", "share"])
def test_an_expression_that_runs_away_is_missing_and_the_run_goes_on(measure: str) -> None:
    made = scorer(regex=r"(a|aa)+$", measure=measure, timeout=0.05)
    began = time.monotonic()
    assert "more than 0.05 s" in why(made, "a" * 5000 + "b")
    for _ in range(PATIENCE + 500):
        reason = why(made, "a" * 5000 + "b")
    assert f"took too long on {PATIENCE} completions" in reason
    assert time.monotonic() - began < 60  # each one of these expressions never ends


def test_word_files(tmp_path: Path) -> None:
    (tmp_path / "hedges.txt").write_text("# hedges\nperhaps\n\nmaybe\n", encoding="utf-8")
    made = scorer(tmp_path, words={"file": "hedges.txt"})
    assert measured(made, "Perhaps so") == 0.5
    assert made.identity() == scorer(words=["maybe", "perhaps"]).identity()
    with pytest.raises(SpecError, match=r"there is no word file at .*none\.txt"):
        scorer(tmp_path, words={"file": "none.txt"})


OWN = """
class Own:
    pass
def length(prompt, completion):
    return len(completion.text)
def claim(prompt, completion):
    return float(str(prompt.payload["claim"]) in completion.text)
def given(prompt, completion):
    return {"number": 2.5, "yes": True, "none": None, "why": (None, "no tests"), "both": (0.5, None), "text": "x",
            "nan": float("nan"), "large": 7, "odd": (1, 2, 3), "silent": (None, None)}.get(completion.text)
def one(prompt):
    return 1
def never(prompt, completion):
    return None, "no odd completions here"
async def later(prompt, completion):
    return 1
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    return tmp_path


def test_a_function_of_ones_own(own: Path) -> None:
    assert measured(scorer(own, python="own:length"), "four") == 4
    assert measured(scorer(own, python="own.py:claim"), "it is 3", Prompt("a", "b", {"claim": 3})) == 1
    assert measured(scorer(own, python=f"{own / 'own.py'}:length"), "four") == 4
    made = scorer(own, python="own:given", scale="rate")
    assert [measured(made, text) for text in ("yes", "both")] == [1, 0.5]
    for text, says in (
        ("none", "own:given gave no score"), ("why", "no tests"), ("text", "which is no number"),
        ("nan", "gave nan"), ("large", "gave 7, but a rate is between 0 and 1"), ("odd", "neither a number nor"),
        ("silent", "neither a number nor"),
    ):  # fmt: skip
        assert says in why(made, text)
    assert measured(scorer(own, python="own:given"), "large") == 7
    missing = score(scorer(own, python="own:claim"), Prompt("a", "b"), "x")
    assert missing == Score(None, "own:claim raised KeyError: 'claim' (line 7 of own.py)")


def test_the_text_of_the_module_is_the_identity_of_its_scores(own: Path) -> None:
    first = scorer(own, python="own:length")
    assert first.identity() == scorer(own, python="own.py:length").identity()
    (own / "own.py").write_text(OWN.replace("len(completion.text)", "len(completion.text) + 1"), encoding="utf-8")
    second = scorer(own, python="own:length")
    assert first.identity() != second.identity()
    assert (measured(first, "four"), measured(second, "four")) == (4, 5)
    assert measured(pickle.loads(pickle.dumps(second)), "four") == 5


REFUSED = [
    ("{name: it}", "scorers[0]: give one of regex, keywords"),
    ("{name: it, regex: a, keywords: [a]}", "not regex and keywords"),
    ("{name: It, regex: a}", "scorers[0].name may hold"),
    ("{name: it, regx: a}", "unknown key 'regx' in scorers[0]: did you mean 'regex'?"),
    ("{name: it, regex: '(a'}", "scorers[0].regex is not a regular expression: missing )"),
    ("{name: it, regex: a, measure: all}", "'regex' can measure any, count, share"),
    ("{name: it, is_json: true, measure: any}", "'is_json' takes no 'measure'"),
    ("{name: it, is_json: false}", "is_json is true, object or array"),
    ("{name: it, characters: capitls}", "scorers[0].characters"),
    ("{name: it, words: [two words]}", "'two words' is not one word"),
    ("{name: it, within: {}}", "scorers[0].within: give a least and a largest length"),
    ("{name: it, within: {words: [3, 2]}}", "'words' goes from 3 to 2"),
    (
        "{name: it, keywords: [no]}",
        "scorers[0].keywords[0] must be text, but it is False (as YAML reads yes, no, on and off)",
    ),
    ("{name: it, keywords: []}", "scorers[0].keywords must not be empty"),
    ("{name: it, keywords: [a], measure: count, scale: rate}", "a count is not between 0 and 1"),
    ("{name: length_chars, regex: a}", "scorers[0]: 'length_chars' is measured already"),
    ("{name: it, regex: a, scale: rates}", "scorers[0].scale must be 'ratio', 'difference' or 'rate'"),
    ("{name: it, python: own}", "must be module:function"),
    ("{name: it, python: 'own:lenght'}", "'own' has no function 'lenght': did you mean 'length'?"),
    ("{name: it, python: 'own:Own'}", "must take two arguments"),
    ("{name: it, python: 'own:one'}", "must take two arguments"),
    ("{name: it, python: 'own:later'}", "is not a plain function"),
    ("{name: it, python: 'nowhere_to_be_found:one'}", "there is no module 'nowhere_to_be_found' beside the spec"),
    ("{name: it, python: 'none.py:one'}", "there is no scorer at"),
    ("{name: it, python: 'broken:one'}", "broken.py line 2 is not Python"),
    ("{name: it, python: 'raising:one'}", "'raising' cannot be imported: RuntimeError: no (line 1 of raising.py)"),
    ("{name: it, python: 'math:sqrt'}", "has no Python source"),
]


@pytest.mark.parametrize(("entry", "says"), REFUSED)
def test_what_plan_refuses(own: Path, entry: str, says: str) -> None:
    (own / "broken.py").write_text("\ndef one(:\n", encoding="utf-8")
    (own / "raising.py").write_text("raise RuntimeError('no')\n", encoding="utf-8")
    with pytest.raises(SpecError) as told:
        plan(f"scorers: [{entry}]\n", own)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_scorers_add_score_jobs_and_change_no_other(own: Path) -> None:
    bare, more = plan(""), plan("scorers: [{name: it, python: 'own:length'}, {name: other, keywords: ['no']}]\n", own)
    added = {job.id for job in more.jobs} - {job.id for job in bare.jobs}
    assert {job.id for job in bare.jobs} < {job.id for job in more.jobs}
    assert {job.kind for job in more.jobs if job.id in added} == {"score"}
    assert [scorer.name for scorer in more.scorers] == ["length", "it", "other"]


def test_a_primary_scorer_comes_first() -> None:
    first = plan("scorers: [{name: a, keywords: [a]}, {name: b, keywords: [b], role: primary}]\n")
    assert [scorer.name for scorer in first.scorers] == ["b", "length", "a"]
    with pytest.raises(SpecError, match=r"scorers\[1\]: 'a' is the primary behaviour already"):
        plan("scorers: [{name: a, keywords: [a], role: primary}, {name: b, keywords: [b], role: primary}]\n")


def test_rates_end_to_end(own: Path) -> None:
    """Rates of the embedded model, from a run that scored them to the report's numbers and the export."""
    spec = write_spec(own, "microworld", train="[short]", more=RATES)
    workspace = own / "ws"
    windowshift("run", spec, "-w", workspace, "-q")
    reader = Reader(workspace)
    experiment = reader.experiment("small")
    assert experiment is not None
    assert [behaviour.name for behaviour in experiment.behaviours] == [
        "brief", "length_chars", "length_words", "length_tokens", "capitals", "four", "odd",
    ]  # fmt: skip
    for cell in reader.cells(experiment.id, "brief"):
        rows = reader.completions(cell.job, "brief")
        assert [row.score for row in rows] == [float(len(row.text.split()) <= 8) for row in rows]
        odd = reader.completions(cell.job, "odd")
        assert {(row.score, row.reason) for row in odd} == {(None, "no odd completions here")}
        summary = reader.summary(cell.job, "brief")
        assert summary is not None
        assert summary.mean == pytest.approx(sum(row.score or 0 for row in rows) / len(rows))
    reader.close()
    told = json.loads(windowshift("report", "small", "-w", workspace, "--behaviour", "brief", "--json").stdout)
    assert all(0 <= cell["mean"] <= 1 for cell in told["cells"])
    windowshift("export", "small", "-w", workspace, "--out", own / "out.jsonl")
    lines = [json.loads(line) for line in (own / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["four"] == len(line["completion"]) and line["odd"] is None for line in lines)


def test_the_template_plans(tmp_path: Path) -> None:
    text = find_template("scorers").text
    found = plan_spec(parse_spec(text), text, tmp_path)
    assert {"number", "numbers", "also", "capitals", "hedges", "brief"} <= {scorer.name for scorer in found.scorers}


VERDICT = """\
scorers:
  - {name: agrees, keywords: ["yes"], group: verdict}
  - {name: refuses, regex: "^no", group: verdict}
"""


def test_outcomes_of_one_group() -> None:
    found = {one.name: one.group for scorer in plan(VERDICT).scorers for one in scorer.behaviours}
    assert (found["agrees"], found["refuses"], found["length_chars"]) == ("verdict", "verdict", "")
    # It is a matter of figures: what was scored stays scored.
    assert {job.id for job in plan(VERDICT).jobs} == {
        job.id for job in plan(VERDICT.replace(", group: verdict", "")).jobs
    }


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            VERDICT.replace("verdict}", "verdicts}", 1),
            "scorers[0]: nothing else is in the group 'verdicts': did you mean",
        ),
        (
            "scorers: [{name: a, keywords: [b], group: c}]",
            "scorers[0]: nothing else is in the group 'c'; a group is of",
        ),
        (
            "scorers: [{name: a, characters: digits, group: c}]",
            "a group is of rates that exclude each other: 'a' needs",
        ),
        ("scorers: [{name: a, keywords: [b], group: 'no group'}]", "group"),
    ],
)
def test_a_group_that_is_none(more: str, says: str) -> None:
    with pytest.raises(SpecError) as error:
        plan(more)
    assert says in str(error.value)
