"""Power before a run: the audit's figures, and variances from a pilot whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench.simulated_grids import PLAIN, World, draw

from tests.generated_store import generate_store
from windowshift.core.contract.errors import SpecError
from windowshift.core.measure.power import SHIPPED, Variances, detectable, power, seeds_for, variances
from windowshift.core.run.power_page import power_lines, power_page
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec

SPEC = """\
name: x
model: microworld
conditions:
  generate: [med_short]
  train: [short, no_prefix]
  evaluate: [short, no_prefix]
data: {size: 10}
sampling: {prompts: 100}
"""


@pytest.mark.parametrize(("run", "effect"), [(0.0, 0.13), (0.05, 0.19), (0.14, 0.41)])
def test_one_seed_of_a_hundred_prompts_sees_what_the_audit_found(run: float, effect: float) -> None:
    assert detectable(SHIPPED, run, 1, 100) == pytest.approx(effect, abs=0.006)


def test_with_noise_between_runs_seeds_help_more_than_prompts() -> None:
    for run in (0.05, 0.14):
        assert detectable(SHIPPED, run, 5, 100) < detectable(SHIPPED, run, 1, 500)
    assert detectable(SHIPPED, 0.0, 3, 100) == pytest.approx(0.075, abs=0.002)
    assert detectable(SHIPPED, 0.14, 2, 100) > detectable(SHIPPED, 0.14, 3, 100)  # Student's t of one degree is wide


def test_what_is_needed_for_an_effect_sees_it() -> None:
    for effect in (0.1, 0.2, 0.5):
        seeds = seeds_for(SHIPPED, 0.05, effect, 100)
        assert seeds is not None
        assert detectable(SHIPPED, 0.05, seeds, 100) <= effect
        assert seeds == 1 or detectable(SHIPPED, 0.05, seeds - 1, 100) > effect
    assert seeds_for(SHIPPED, 0.5, 0.01, 100) is None


def test_a_pilots_variances_are_those_of_its_world() -> None:
    """Five runs whose rows differ by 0.14 (log2), of prompts that differ by what the completions do."""
    world = World(prompts=100, seeds=5, row_run=0.1, cell_run=0.0)
    found = [variances([("pilot", draw(world, seed).grid)], 200) for seed in range(3)]
    runs = [one.run for one in found if one is not None and one.run is not None]
    assert len(runs) == 3
    assert sum(runs) / 3 == pytest.approx(0.1 / 0.693, rel=0.35)
    single = variances([("pilot", draw(World(prompts=100), 0).grid)], 200)
    assert single is not None
    assert single.run is None
    assert len(power(single, 1, 100)) == 3
    assert len(power(Variances(0.4, 0.1, 3, ""), 2, 100)) == 1


def test_completions_of_runs_that_are_there_are_no_noise_between_runs() -> None:
    """Three runs that differ by their completions alone, of which the last lacks a cell in every row."""
    found = []
    for seed in range(4):
        grid = draw(World(prompts=60, seeds=3), seed).grid
        lacking = {cell for cell in grid.cells if cell.seed == 2 and cell.train != "base" and cell.evaluate == PLAIN}
        cells = tuple(replace(cell, state="running") if cell in lacking else cell for cell in grid.cells)
        found.append(variances([("pilot", replace(grid, cells=cells))], 200))
    runs = [one.run for one in found if one is not None and one.run is not None]
    assert len(runs) == 4
    assert sum(runs) / 4 < 0.02  # with what the completions vary by in it: 0.055


def test_plan_shows_it_from_a_pilot_or_from_shipped_variances(tmp_path: Path) -> None:
    spec = parse_spec(SPEC)
    plan = plan_spec(spec, SPEC, Path())
    page = power_page(plan, tmp_path, 0.1)
    text = "\n".join(power_lines(page))
    assert "1 seed × 100 prompts" in text
    assert "the shipped demo's variances" in text
    assert "runs' sd 0.14: an effect of 0.41 or more" in text
    assert "one training run; run-to-run noise is not included" in text
    assert "to see 0.1 at a runs' sd of 0.05:" in text
    assert json.loads(json.dumps(page.to_json(), allow_nan=False))["rows"][0]["effect"] == pytest.approx(0.13, abs=0.01)
    generate_store(tmp_path, prompts=30, data_size=20).close()
    found = power_page(plan, tmp_path).found
    assert (found.source, found.rows) == ("med-short", 7)
    assert 0.1 < found.prompt < 2
    for odd in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(SpecError, match="--effect is a size above 0"):
            power_page(plan, tmp_path, odd)
