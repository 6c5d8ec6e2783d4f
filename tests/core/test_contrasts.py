"""Contrasts: named in the spec, registered before the run, reported first, and kept when the spec changes."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from bench.simulated_grids import World, draw

from tests.core.test_plan import SPEC
from tests.generated_store import generate_store
from tests.report_text import report_text
from windowshift.core.contract.confidence import Z
from windowshift.core.contract.errors import SpecError
from windowshift.core.measure.contrasts import ContrastMeasure, contrasts
from windowshift.core.measure.family import Reach
from windowshift.core.measure.grid_measures import measure_resampled
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.sampled import Sampled
from windowshift.core.plan.plan import Plan
from windowshift.core.report.report import report
from windowshift.core.run.register import register
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

NAMED = "contrasts:\n  - {name: inoculation, of: short, against: no_prefix, evaluate: no_prefix}\n"


def planned(text: str) -> Plan:
    return plan_spec(parse_spec(text), text, Path())


def test_contrasts_change_no_job_and_are_in_the_plan() -> None:
    plain, named = planned(SPEC), planned(SPEC + NAMED)
    assert [job.id for job in named.jobs] == [job.id for job in plain.jobs]
    (one,) = named.contrasts
    assert one == {
        "name": "inoculation", "arm": "prefix", "generate": "med_short", "of": "short", "against": "no_prefix",
        "evaluate": ["no_prefix"], "behaviour": "length_chars", "hash": one["hash"],
    }  # fmt: skip
    assert any(one["hash"] in note and "inoculation" in note for note in named.notes)
    # The hash is of what is compared, whatever it is called.
    (other,) = planned(SPEC + NAMED.replace("name: inoculation, ", "")).contrasts
    assert (other["hash"], other["name"]) == (one["hash"], "short against no_prefix under no_prefix")
    (third,) = planned(SPEC + NAMED.replace("evaluate: no_prefix", "evaluate: short")).contrasts
    assert third["hash"] != one["hash"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{of: shrt, against: base}", "contrasts[0].of: the grid has no train condition 'shrt': did you mean 'short'?"),
        ("{of: short, against: nothing}", "contrasts[0].against: the grid has no train condition 'nothing'"),
        ("{of: short, against: short}", "'short' is compared with itself"),
        (
            "{of: short, against: base, evaluate: [short, long]}",
            "contrasts[0].evaluate: the grid has no eval condition",
        ),
        ("{of: short, against: base, behaviour: length}", "contrasts[0].behaviour: the grid has no behaviour 'length'"),
        ("{of: short, against: base, generate: long}", "contrasts[0].generate: the grid has no D of 'short' 'long'"),
        ("{of: short}", "contrasts[0].against"),
        ("{of: short, against: base, evaluate: []}", "contrasts[0].evaluate"),
        ("{of: short, against: base, margin: 0}", "contrasts[0].margin"),
        ("{of: short, against: base, margin: .nan}", "contrasts[0].margin"),
        ("{of: short, against: base, prompts: 3}", "prompts"),
        ("{of: short, against: base}\n  - {of: short, against: base}", "stands there twice"),
    ],
)
def test_a_contrast_that_the_grid_cannot_answer_is_one_sentence(entry: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        planned(f"{SPEC}contrasts:\n  - {entry}\n")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_sets_of_data_need_a_name() -> None:
    two = SPEC.replace("generate: [med_short]", "generate: [med_short, long]")
    with pytest.raises(SpecError, match="add  generate: NAME"):
        planned(f"{two}contrasts:\n  - {{of: short, against: base}}\n")
    (one,) = planned(f"{two}contrasts:\n  - {{of: short, against: base, generate: long}}\n").contrasts
    assert one["generate"] == "long"


def test_the_store_knows_what_was_named_before_there_was_any_result(tmp_path: Path) -> None:
    later = NAMED + "  - {of: short, against: base}\n"
    with closing(Writer(tmp_path)) as writer:
        register(planned(SPEC + NAMED), writer)
        before = stored(tmp_path)
        assert [(one["name"], one["cells_done"]) for one in before] == [("inoculation", 0)]
        # As long as nothing is done, a spec may change its mind.
        register(planned(SPEC), writer)
        assert stored(tmp_path) == []
        register(planned(SPEC + NAMED), writer)
        kept = stored(tmp_path)
        job = Reader(tmp_path).cells(1, "length_chars")[0].job
        writer.set_job(job, "done")
        register(planned(SPEC + later), writer)
        first, second = stored(tmp_path)
        assert first == kept[0]
        assert second["cells_done"] >= 1
        register(planned(SPEC + later.replace(NAMED, "contrasts:\n")), writer)
        own, gone = stored(tmp_path)
        assert own == second
        assert gone["name"] == "inoculation"
        assert gone["withdrawn"] >= gone["registered"] == first["registered"]


def stored(workspace: Path) -> list[dict[str, Any]]:
    with closing(Reader(workspace)) as reader:
        return reader.find_experiment("x").conditions.get("contrasts", [])


def entry(of: str, against: str, evaluate: list[str] | None) -> dict[str, Any]:
    return {
        "name": f"{of} against {against}", "arm": "prefix", "generate": "med_short", "of": of, "against": against,
        "evaluate": evaluate, "behaviour": "score", "hash": f"{of}{against}", "registered": 0.0, "cells_done": 0,
    }  # fmt: skip


def measured(world: World, *entries: dict[str, Any]) -> tuple[Resampled, tuple[ContrastMeasure, ...]]:
    grid = draw(world, 1).grid
    experiment = replace(grid.experiment, conditions={**grid.experiment.conditions, "contrasts": list(entries)})
    r = Resampled(replace(grid, experiment=experiment), 400)
    return r, contrasts(r)


@pytest.mark.parametrize("world", [World(), World(seeds=3, row_run=0.05, cell_run=0.05), World("rate")])
def test_a_contrast_is_the_difference_of_effects(world: World) -> None:
    r, found = measured(
        world, entry("short", "base", None), entry("short", "long", ["medium"]), entry("short", "no_prefix", None)
    )
    arm = measure_resampled(r).arms["prefix"]
    points = {point.train: point for point in arm.whole.points}
    cells = {(cell.key.train, cell.key.evaluate): cell for cell in arm.cells}
    whole, cell, rows = (one.effect for one in found)
    effects = [points["short"].effect, points["no_prefix"].effect]
    under = [cells[train, "medium"].effect for train in ("short", "long")]
    assert None not in (whole, cell, rows, *effects, *under)
    assert whole is not None
    assert cell is not None
    assert rows is not None
    assert effects[0] is not None
    assert effects[1] is not None
    assert under[0] is not None
    assert under[1] is not None
    assert whole.value == pytest.approx(effects[0].value)
    assert cell.value == pytest.approx(under[0].value - under[1].value)
    assert rows.value == pytest.approx(effects[0].value - effects[1].value)
    assert rows.seeds == world.seeds
    for one in found:
        assert one.effect is not None
        assert one.p is not None
        assert one.holm is not None
        assert one.effect.decided == (one.p < 0.05)
        assert one.p <= one.holm <= min(3 * one.p, 1) + 1e-12


def test_what_is_not_there_says_why_and_is_in_no_family() -> None:
    _, found = measured(World(), entry("short", "base", None), {**entry("gone", "base", None), "arm": "steering"},
                        entry("gone", "base", ["medium"]))  # fmt: skip
    assert found[0].holm == found[0].p
    assert [one.reason for one in found] == [
        "",
        "there is no steering arm any more",
        "gone: the cell under medium is not planned",
    ]
    assert found[1].effect is None


def test_the_report_begins_with_them(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=20, data_size=20)
    asked = {**entry("short", "no_prefix", None), "behaviour": "length_chars"}
    late = {**asked, "name": "an afterthought", "of": "long", "hash": "late", "cells_done": 7, "withdrawn": 86400.0}
    with writer.batch() as connection:
        (row,) = connection.execute("SELECT conditions FROM experiments").fetchone()
        conditions = json.dumps({**json.loads(row), "contrasts": [asked, late]})
        connection.execute("UPDATE experiments SET conditions = ?", (conditions,))
    writer.close()
    made = report(tmp_path, "med-short", resamples=200)
    text = report_text(made, 120)
    assert text.index("Contrasts that the spec names") < text.index("Mean chars")
    assert "registered 1970-01-01 00:00 UTC, before any cell was done" in text
    assert "WHEN 7 CELLS WERE DONE ALREADY; WITHDRAWN from the spec 1970-01-02 00:00 UTC" in " ".join(text.split())
    found = json.loads(json.dumps(made.to_json(), allow_nan=False))["contrasts"]
    assert [one["name"] for one in found] == ["short against no_prefix", "an afterthought"]
    assert found[0]["effect_ci95"][0] < found[0]["effect"] < found[0]["effect_ci95"][1]
    assert found[0]["effect_seeds"] == 1


def test_a_margin_is_part_of_what_is_compared() -> None:
    (plain,) = planned(SPEC + NAMED).contrasts
    (with_margin,) = planned(SPEC + NAMED.replace("evaluate: no_prefix", "evaluate: no_prefix, margin: 0.2")).contrasts
    assert "margin" not in plain
    assert with_margin["margin"] == 0.2
    assert with_margin["hash"] != plain["hash"]


def test_two_one_sided_tests_say_that_a_difference_is_as_good_as_none() -> None:
    random = np.random.default_rng(0)
    for value in (0.0, 0.05, -0.12):
        draws = value + random.normal(0, 0.1, 4000)
        ends = value - Z * 0.1, value + Z * 0.1
        reach = Reach.of_number(Sampled(value, draws, 100, 100, ends=ends))
        assert reach.within(0.3) == pytest.approx(NormalDist().cdf((abs(value) - 0.3) / 0.1), rel=1e-3)
        assert reach.within(abs(value) or 1e-9) >= 0.4
        assert reach.within(0.3) > reach.within(0.4)
    runs = tuple(Sampled(value, draws) for value in (-0.1, 0.1))
    apart = Reach.of_number(Sampled(0.0, draws, 100, 100, trained=True, ends=(-0.2, 0.2), runs=runs))
    assert apart.within(0.3) > Reach.of_number(Sampled(0.0, draws, 100, 100, ends=(-0.2, 0.2))).within(0.3)


def test_of_a_contrast_with_a_margin_one_claim_at_most_is_false_and_the_smaller_p_counts() -> None:
    grid = draw(World(prompts=400, off_line=(0.0, 0.0), slope=0.0), 0).grid  # nothing differs from anything
    entry = {
        "arm": "prefix", "generate": "med_short", "of": "short", "against": "long", "evaluate": None, "margin": 0.3,
        "behaviour": "score", "name": "alike", "hash": "1", "registered": 0.0, "cells_done": 0,
    }  # fmt: skip
    told = {**grid.experiment.conditions, "contrasts": [entry, {**entry, "margin": None, "name": "other", "hash": "2"}]}
    alike, other = contrasts(Resampled(replace(grid, experiment=replace(grid.experiment, conditions=told)), 200))
    assert alike.same is not None
    assert alike.p is not None
    assert (alike.p, other.same) == (other.p, None)
    assert alike.same < 0.01 < alike.p
    assert alike.holm == pytest.approx(2 * alike.same)
    assert other.holm == other.p
