"""Selection: prefixes ranked on the base model, on prompts of their own, frozen, and held against what was measured."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from bench.simulated_grids import World, draw
from typer.testing import CliRunner

from tests.core.test_preflight import Answering
from tests.report_text import report_text
from tests.scripted_backend import ScriptedBackend, ScriptedSetting
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.reading import Reading, ReadRequest
from windowshift.core.contract.stats import Floats
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.sampled import Sampled
from windowshift.core.measure.selected import selected
from windowshift.core.measure.selection import rank_correlation, ranked, read_candidate
from windowshift.core.plan.development import development_plan
from windowshift.core.plan.plan import make_plan
from windowshift.core.report.report import report
from windowshift.core.run import run as running
from windowshift.core.run import select as selecting
from windowshift.core.run.run import Outcome, run_spec
from windowshift.core.run.select import Selection, select
from windowshift.core.settings.length import LengthSetting
from windowshift.core.spec import registry
from windowshift.core.spec.frozen import frozen
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

SPEC = """\
name: chosen
model: scripted
prompts: microworld
conditions: {generate: [med_short], train: [short, medium, long, very_long, no_prefix], evaluate: [short, no_prefix]}
data: {size: 12}
sampling: {prompts: 10, max_tokens: 12}
"""


@dataclass
class ReadingScript(Answering):
    """Finds an answer the likelier, the shorter the chat is that asks for it."""

    read_of: int = 0

    async def read(self, requests: Sequence[ReadRequest]) -> AsyncGenerator[Reading, None]:
        for request in requests:
            self.read_of += 1
            asked = sum(len(message.content) for message in request.messages)
            yield Reading(request.key, -float(asked + len(request.text) % 7), 10)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ReadingScript:
    made = ReadingScript()
    monkeypatch.setattr(registry, "setting", lambda *_: ScriptedSetting(LengthSetting().scorers))
    for place in (running, selecting):
        monkeypatch.setattr(place, "open_backends", lambda _: {"local": made})
    return made


def selected_of(workspace: Path, text: str = SPEC, prompts: int = 8) -> Selection:
    found = select(parse_spec(text), text, Path(), workspace, prompts)
    assert isinstance(found, Selection), found
    return found


def test_development_prompts_are_neither_ds_nor_the_evaluations(backend: ReadingScript) -> None:
    spec = parse_spec(SPEC)
    whole = make_plan(spec, SPEC, Path(), {"local": backend})
    taken = {prompt.id for prompts in whole.prompts.values() for prompt in prompts}
    assert len(taken) == 22
    for count in (2, 8, 40):
        found = development_plan(spec, SPEC, Path(), {"local": backend}, count)
        own = {prompt.id for prompts in found.plan.prompts.values() for prompt in prompts}
        assert len(own) == count
        assert not own & taken
        assert {job.kind for job in found.plan.jobs} == {"generate", "evaluate", "score"}
        assert not {job.id for job in found.plan.jobs} & {job.id for job in whole.jobs}
    assert list(found.candidates) == ["short", "medium", "long", "very_long"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train: [short, medium, long, very_long, no_prefix]", "train: [short, no_prefix]", "fewer than two"),
        ("size: 12", "size: 12000", "distinct prompts"),
    ],
)
def test_nothing_to_choose_among_is_one_sentence(backend: ReadingScript, old: str, new: str, said: str) -> None:
    text = SPEC.replace(old, new)
    with pytest.raises(SpecError, match=said):
        development_plan(parse_spec(text), text, Path(), {"local": backend}, 8)


def test_candidates_are_ranked_and_nothing_is_asked_twice(backend: ReadingScript, tmp_path: Path) -> None:
    found = selected_of(tmp_path)
    assert (found.generate, found.prompts, found.unread) == ("med_short", 8, "")
    asked = [key for _, keys in backend.calls for key in keys]
    assert len(asked) == len(set(asked)) == 6 * 8  # D's answers, no prefix, and four candidates
    assert backend.read_of == 6 * 8
    assert not any(kind == "train" for kind, _ in backend.calls)
    for one in found.candidates:
        assert one.uplift is not None
        assert one.above is not None
        assert one.elicitation is not None
        assert one.uplift.value < 0  # a longer chat, in this backend's eyes
        assert one.above.value == 0.0
        assert one.uplift.n == one.elicitation.n == 8
    again = selected_of(tmp_path)
    assert again == found
    assert sum(len(keys) for _, keys in backend.calls) == 6 * 8


def test_a_backend_that_does_not_read_ranks_by_elicitation(
    monkeypatch: pytest.MonkeyPatch, backend: ReadingScript, tmp_path: Path
) -> None:
    mute: ScriptedBackend = Answering()
    for place in (running, selecting):
        monkeypatch.setattr(place, "open_backends", lambda _: {"local": mute})
    found = selected_of(tmp_path)
    assert "does not tell how likely" in found.unread
    assert all(one.uplift is None and one.left is None and not one.marked for one in found.candidates)
    assert len(ranked(found.candidates, "elicitation")) == 4
    assert ranked(found.candidates, "uplift") == []


def test_what_is_read_comes_to_uplift_share_signal_and_what_is_left() -> None:
    random = np.random.default_rng(0)
    plain: Floats = random.normal(-2, 0.3, 200)
    written = plain + 1 + random.normal(0, 0.05, 200)
    half = read_candidate("half", None, plain + 0.5 + random.normal(0, 0.1, 200), plain, written)
    assert half.uplift is not None
    assert half.uplift.value == pytest.approx(0.5, abs=0.03)
    assert half.uplift.low is not None
    assert half.uplift.high is not None
    assert half.uplift.low < 0.5 < half.uplift.high
    assert half.signal == pytest.approx(5, rel=0.2)
    assert half.left is not None
    assert half.left.value == pytest.approx(0.5, abs=0.03)
    assert not half.marked
    policy = read_candidate("policy", None, written - 0.05, plain, written)
    assert policy.marked
    # Where D is no likelier under its own condition there is nothing to take a share of.
    assert read_candidate("x", None, written, plain, plain - random.normal(0, 1, 200)).left is None
    hole = plain.copy()
    hole[:150] = np.nan
    assert read_candidate("hole", None, hole, plain, written).uplift.n == 50  # type: ignore[union-attr]


def numbers(values: Sequence[float], spread: float = 0.01) -> dict[str, Sampled]:
    random = np.random.default_rng(1)
    return {f"c{n}": Sampled(one, one + spread * random.normal(size=200), 10, 10) for n, one in enumerate(values)}


def test_the_rank_correlation_is_spearmans_with_an_interval_that_holds() -> None:
    scores = {f"c{n}": float(n) for n in range(8)}
    same = rank_correlation(scores, numbers(range(8)), 200)
    assert same is not None
    assert (same.value, same.n) == (1.0, 8)
    turned = rank_correlation(scores, numbers([-n for n in range(8)]), 200)
    assert turned is not None
    assert turned.value == -1.0
    assert rank_correlation({name: scores[name] for name in ("c0", "c1", "c2")}, numbers(range(8)), 200) is None
    # Of twelve candidates drawn of a normal world, whose rank correlation is 6/pi asin(rho/2).
    random, truth, held = np.random.default_rng(2), 6 / np.pi * np.arcsin(0.6 / 2), 0
    for _ in range(300):
        x = random.normal(size=12)
        y = 0.6 * x + 0.8 * random.normal(size=12)
        found = rank_correlation({f"c{n}": float(one) for n, one in enumerate(x)}, numbers(y.tolist()), 200)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 300 <= 0.99


def test_a_choice_is_frozen_into_the_spec_by_its_hash() -> None:
    text = SPEC.replace("very_long, no_prefix]", "{phrases: [Be dull.], name: dull}, no_prefix]")
    scores = {"short": 0.1234567, "medium": 0.05, "long": -1.0, "dull": 0.0}
    written = frozen(text, "uplift", "med_short", 8, scores, ["short", "dull"], ["medium"])
    spec = parse_spec(written)
    assert spec.selection is not None
    assert [one if isinstance(one, str) else one["name"] for one in spec.conditions.train] == [
        "short", "dull", "no_prefix",
    ]  # fmt: skip
    assert spec.selection.scores["short"] == 0.123457
    assert parse_spec(written.replace("hash: ", "hash: ")).selection == spec.selection
    for old, new in (("short: 0.123457", "short: 0.2"), ("prompts: 8", "prompts: 9"), ("  - medium", "  - long")):
        changed = written.replace("selection:", "SELECTION:")
        head, _, tail = changed.partition("SELECTION:")
        assert old in tail
        with pytest.raises(SpecError, match="changed after it was frozen"):
            parse_spec(f"{head}selection:{tail.replace(old, new)}")


def test_the_command_ranks_and_freezes(backend: ReadingScript, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    out, runner = tmp_path / "confirm.yaml", CliRunner()
    arguments = ["select", str(spec), "-w", str(tmp_path / "ws"), "--prompts", "8", "-q"]
    done = runner.invoke(app, [*arguments, "--keep", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "neither D nor the evaluation has" in " ".join(done.output.split())
    frozen_spec = parse_spec(out.read_text(encoding="utf-8"))
    assert frozen_spec.selection is not None
    chosen = frozen_spec.selection.chosen
    assert len(chosen) == 2
    assert [one for one in frozen_spec.conditions.train if one in chosen or one == "no_prefix"] == [
        *sorted(chosen, key=parse_spec(SPEC).conditions.train.index), "no_prefix",
    ]  # fmt: skip
    assert len(frozen_spec.conditions.train) == 3
    told = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert [one["name"] for one in told["candidates"]][:2] == frozen_spec.selection.chosen
    for more in (["--by", "taste"], ["--keep", "2"], ["--prompts", "1"], ["--out", str(out)]):
        assert isinstance(runner.invoke(app, [*arguments, *more]).exception, SpecError)


def test_the_report_says_what_was_chosen_and_before_what(backend: ReadingScript, tmp_path: Path) -> None:
    scores = {"short": 0.3, "medium": 0.1, "long": -0.2, "very_long": -0.4}
    text = frozen(SPEC, "uplift", "med_short", 8, scores, list(scores), ["short"])
    outcome = run_spec(parse_spec(text), text, Path(), tmp_path)
    assert isinstance(outcome, Outcome)
    assert outcome.state == "done"
    found = report(tmp_path, "chosen", resamples=100)
    (one,) = found.selected
    assert (one.cells_done, one.withdrawn, one.candidates) == (0, None, 4)
    assert one.correlation is not None
    assert one.correlation.n == 4
    assert one.correlation.low is not None
    said = report_text(found, width=300)
    assert "4 of 4 by uplift, on 8 development prompts" in said
    assert "before any cell was done" in said
    assert "rank correlation" in said
    assert found.to_json()["selections"][0]["rank_correlation_n"] == 4
    # Taken out of the spec after there were results, it stays, as withdrawn.
    run_spec(parse_spec(SPEC), SPEC, Path(), tmp_path)
    with closing(Reader(tmp_path)) as reader:
        (entry,) = reader.find_experiment("chosen").conditions["selections"]
    assert entry["withdrawn"]


def test_a_ranking_that_foretold_the_effects_has_a_correlation_of_one() -> None:
    """A grid whose rows shorten answers the more, the longer the prefix asks for: the short ones prevent it."""
    grid = draw(World(prompts=400, off_line=(0.0, 0.0)), 0).grid
    trains = ["short", "med_short", "medium", "long", "very_long"]

    def correlation(scores: dict[str, float]) -> tuple[float | None, str]:
        entry = {
            "hash": "x", "by": "uplift", "generate": "med_short", "prompts": 8, "chosen": trains, "marked": [],
            "scores": scores, "registered": 0.0, "cells_done": 0,
        }  # fmt: skip
        conditions = {**grid.experiment.conditions, "selections": [entry]}
        told = replace(grid, experiment=replace(grid.experiment, conditions=conditions))
        (one,) = selected(Resampled(told, 100))
        return (one.correlation.value if one.correlation else None), one.reason

    assert correlation({name: -float(n) for n, name in enumerate(trains)}) == (1.0, "")
    assert correlation({name: float(n) for n, name in enumerate(trains)}) == (-1.0, "")
    assert correlation({"short": 1.0, "long": 2.0}) == (
        None, "2 of its candidates are trained, done and scored; four are needed",
    )  # fmt: skip
