"""Steering doses: how a spec writes them, what they are called, what they push, and what identifies them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowshift.core.contract.conditions import NoPrefix, is_neutral, prefix_groups
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message, Steering
from windowshift.core.contract.prompts import Prompt
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.dose import SteeringDose, read_steering
from windowshift.core.spec.spec import parse_spec

SPEC = """\
name: x
model: microworld
prompts: microworld
conditions:
  generate: [med_short]
  train: {train}
  evaluate: {evaluate}
data: {{size: 10}}
sampling: {{prompts: 4}}
vectors:
  length: {{positive: long, negative: short, layer: 2, prompts: 4}}
"""


def read(**entry: Any) -> list[SteeringDose]:
    found = read_steering(entry, "conditions.train[0]")
    assert all(isinstance(one, SteeringDose) for one in found)
    return [one for one in found if isinstance(one, SteeringDose)]


def one(**entry: Any) -> SteeringDose:
    (found,) = read(**entry)
    return found


def planned(train: str = "[no_prefix]", evaluate: str = "[short, no_prefix]") -> Plan:
    text = SPEC.format(train=train, evaluate=evaluate)
    return plan_spec(parse_spec(text), text, Path())


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"alpha": [-2, 0, 1.5]}, ["v-2", "v+0", "v+1.5"]),
        ({"alpha": 3}, ["v+3"]),
        ({"dose": [0.25, -0.5]}, ["v×+0.25", "v×-0.5"]),
        ({"match": ["short", "very_long"]}, ["v=short", "v=very_long"]),
        ({"sample": [-1, 0, 2]}, ["v(-1,0,2)"]),
        ({"sample": [0.5], "unit": "dose"}, ["v×(0.5)"]),
        ({"range": [-2, 2]}, ["v[-2..2]"]),
        ({"range": [0, 0.5], "unit": "dose", "tokens": "response"}, ["v×[0..0.5]@response"]),
        ({"ablate": True}, ["v⊥"]),
        ({"ablate": True, "prefix": "short", "tokens": "prompt"}, ["v⊥@prompt+short"]),
        ({"alpha": 1, "tokens": "prompt"}, ["v+1@prompt"]),
        ({"alpha": 1, "prefix": "long"}, ["v+1+long"]),
        ({"alpha": [1], "name": "mine"}, ["mine"]),
    ],
)
def test_every_way_to_write_a_dose_makes_conditions_with_names_of_their_own(
    entry: dict[str, Any], names: list[str]
) -> None:
    found = read(steer="v", **entry)
    assert [dose.name for dose in found] == names
    assert all(dose.vectors == ("v",) and dose.arm == "steering" and dose.kind == "steering" for dose in found)
    assert all(dose.unit == ("dose" if "dose" in str(entry) else "alpha") for dose in found)
    assert all(dose.tokens == entry.get("tokens", "all") for dose in found)


def test_several_vectors_are_pushed_together() -> None:
    dose = one(steer=["a", "b"], alpha=2, tokens="response")
    assert dose.name == "a&b+2@response"
    expected = (Steering("a", 2.0, tokens="response"), Steering("b", 2.0, tokens="response"))
    assert dose.push(Prompt("", "Why?"), 0, "user").steering == expected
    both = one(steer=["a", "b"], ablate=True).push(Prompt("", "Why?"), 0, "user").steering
    assert [(push.vector, push.ablate) for push in both] == [("a", True), ("b", True)]


def test_a_prefix_goes_beside_the_push() -> None:
    dose = one(steer="v", alpha=2, prefix="short")
    phrases = prefix_groups()["short"].phrases
    for index in (0, 1, len(phrases)):
        pushed = dose.push(Prompt("", "Why?"), index, "user")
        assert pushed.phrase == phrases[index % len(phrases)]
        assert pushed.messages == (Message("user", f"{pushed.phrase}\n\nWhy?"),)
        assert pushed.steering == (Steering("v", 2.0),)
    assert dose.push(Prompt("", "Why?"), 0, "system").messages == (
        Message("system", phrases[0]),
        Message("user", "Why?"),
    )
    assert one(steer="v", alpha=2).push(Prompt("", "Why?"), 0, "system").messages == (Message("user", "Why?"),)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "give one of alpha, dose, match, iso_kl, sample, range, or ablate: true"),
        ({"alpha": 1, "dose": 1}, "give one of alpha, dose"),
        ({"ablate": True, "alpha": 1}, "leave 'alpha' away"),
        ({"alpha": []}, "'alpha' must not be empty"),
        ({"match": []}, "'match' must not be empty"),
        ({"sample": []}, "'sample' must not be empty"),
        ({"range": [1]}, "range needs at least 2 entries"),
        ({"range": [1, 2, 3]}, "too many entries"),
        ({"alpha": 1, "unit": "dose"}, "'unit' goes with sample and range"),
        ({"ablate": True, "unit": "dose"}, "'unit' goes with sample and range"),
        ({"match": ["short"], "unit": "dose"}, "'unit' goes with sample and range"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"alpha": "much"}, "alpha[0] must be a number, but it is 'much'"),
        ({"alpha": True}, "alpha[0]: a number is wanted, but it is true"),
        ({"alpha": [1, False]}, "alpha[1]: a number is wanted, but it is false"),
        ({"match": "short"}, "match must be a list"),
        ({"alpha": 1, "tokens": "promt"}, "tokens must be 'all', 'prompt' or 'response'"),
        ({"alpha": 1, "prefix": "shrt"}, "there is no prefix group 'shrt': did you mean 'short'?"),
        ({"alpha": [1, 2], "name": "mine"}, "makes 2; leave it out"),
        ({"alpah": 1}, "unknown key 'alpah': did you mean 'alpha'?"),
        ({"alpha": 1, "name": ""}, "name must not be empty"),
    ],
)
def test_a_dose_that_makes_no_sense_is_refused_in_one_sentence(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(steer="v", **entry)
    assert says in str(caught.value)
    assert str(caught.value).startswith("conditions.train[0]")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"steer": [], "alpha": 1}, "steer must not be empty"),
        ({"steer": "", "alpha": 1}, r"steer\[0\] must not be empty"),
        ({"steer": 3, "alpha": 1}, r"steer\[0\] must be text, but it is 3"),
        ({"steer": ["a", "b"], "match": ["short"]}, "combine several under 'vectors' first"),
    ],
)
def test_what_is_steered_with_is_named(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_steering(entry, "here")


def test_the_place_in_the_spec_is_named() -> None:
    with pytest.raises(SpecError, match=r"conditions\.evaluate\[1\]: give one of alpha"):
        planned(evaluate="[short, {steer: length}]")
    with pytest.raises(SpecError, match=r"conditions\.evaluate: 'length\+1' stands there twice"):
        planned(evaluate="[{steer: length, alpha: [1, 1.0]}]")


def test_a_dose_of_0_is_no_push_and_shares_the_jobs_of_no_prefix() -> None:
    zero = one(steer="v", alpha=0)
    assert zero.neutral
    assert is_neutral(zero)
    assert zero.identity() == NoPrefix().identity()
    assert zero.push(Prompt("", "Why?"), 3, "user") == NoPrefix().push(Prompt("", "Why?"), 3, "user")
    assert not one(steer="v", ablate=True).neutral
    assert not one(steer="v", sample=[0, 1]).neutral
    behind = one(steer="v", alpha=0, prefix="short")
    assert behind.neutral
    assert not is_neutral(behind)
    assert behind.identity() == prefix_groups()["short"].identity()
    plain = planned(evaluate="[short, no_prefix]")
    both = planned(evaluate="[short, no_prefix, {steer: length, alpha: 0}, {steer: length, alpha: 0, prefix: short}]")
    assert {job.id for job in both.jobs} == {job.id for job in plain.jobs}
    named = {cell.evaluate: cell.job for cell in both.cells if cell.train == "base"}
    assert named["length+0"] == named["no_prefix"]
    assert named["length+0+short"] == named["short"]


def test_identity_tells_apart_everything_but_the_name() -> None:
    plain = one(steer="v", alpha=1)
    assert replace(plain, name="other").identity() == plain.identity()
    others: list[dict[str, Any]] = [
        {"alpha": 2},
        {"dose": 1},
        {"sample": [1, 2]},
        {"sample": [1, 2], "unit": "dose"},
        {"range": [1, 2]},
        {"match": ["short"]},
        {"match": ["long"]},
        {"ablate": True},
        {"alpha": 1, "tokens": "prompt"},
        {"alpha": 1, "prefix": "short"},
    ]
    identities = [str(one(steer="v", **entry).identity()) for entry in others]
    identities += [str(plain.identity()), str(one(steer="w", alpha=1).identity())]
    assert len(set(identities)) == len(identities)


@given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=5), index=st.integers(0, 10_000))
def test_a_list_is_gone_through_in_turn(values: list[float], index: int) -> None:
    dose = one(steer="v", sample=values)
    assert dose.amount(index) == values[index % len(values)]


@given(start=st.integers(0, 100_000), count=st.integers(8, 200), low=st.floats(-5, 5), width=st.floats(0.1, 10))
def test_a_range_is_covered_evenly_by_any_stretch_of_examples(start: int, count: int, low: float, width: float) -> None:
    dose = one(steer="v", range=[low, low + width])
    found = sorted((dose.amount(index) - low) / width for index in range(start, start + count))
    assert found[0] >= -1e-9
    assert found[-1] <= 1 + 1e-9
    gaps = [found[0], *(b - a for a, b in pairwise(found)), 1 - found[-1]]
    # Three-distance theorem: no gap of a golden sequence is wider than 1 + 1/golden over the count.
    assert max(gaps) <= 2.7 / count
    assert abs(sum(found) / count - 0.5) < 2 / count


def test_a_range_may_be_written_the_other_way_round() -> None:
    back, forth = one(steer="v", range=[2, -1]), one(steer="v", range=[-1, 2])
    assert {round(back.amount(k) + forth.amount(k), 9) for k in range(20)} == {1.0}
