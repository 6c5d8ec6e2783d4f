"""Prediction: cells that are not trained, from the base model and the rows that are, with intervals that hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.simulated_grids import CONDITIONS as SIMULATED
from bench.simulated_grids import World, draw
from scipy.stats import t
from typer.testing import CliRunner

from tests.core.test_plan import SPEC
from tests.generated_store import CONDITIONS, generate_store
from windowshift.cli import app
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.prediction import PredictedRows, extrapolated, most_informative, predicted
from windowshift.core.measure.resampled import Resampled


def without(grid: Grid, rows: tuple[str, ...]) -> Grid:
    """A grid before some of its rows were trained."""
    return replace(grid, cells=tuple(replace(one, state="pending") if one.train in rows else one for one in grid.cells))


def rows_of(grid: Grid) -> PredictedRows:
    (found,) = predicted(Resampled(grid, 40))
    return found


@pytest.mark.parametrize(
    ("world", "out"),
    [
        (World(prompts=60), 1),
        (World(prompts=60, off_line=(0.2, 0.1)), 2),
        (World(prompts=50, seeds=2, row_run=0.1), 2),
        (World(kind="rate"), 1),
    ],
    ids=["one row", "rows far off the line", "runs that differ", "rates"],
)
def test_ninety_five_of_a_hundred_cells_that_were_held_out_are_within(world: World, out: int) -> None:
    held: list[bool] = []
    for seed in range(30):
        grid = draw(world, seed).grid
        names = list(dict.fromkeys(one.train for one in grid.cells if one.train != "base"))
        left = tuple(np.random.default_rng(seed).choice(names, out, replace=False))
        truth, found = Resampled(grid, 4), rows_of(without(grid, left))
        arm = ArmAxes(truth, "prefix")
        assert len(found.cells) == 6 * out
        for one in found.cells:
            assert one.uplift is not None
            assert one.uplift.interval is not None
            column = arm.column(found.generate, one.train, one.evaluate, None)
            assert column is not None
            low, high = one.uplift.interval
            held.append(bool(low <= truth.uplifts.values[column] <= high))
    assert 0.90 <= np.mean(held) <= 0.99


def test_the_interval_is_that_of_a_new_response() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.1, -0.3, -0.9, -1.4])
    found = extrapolated(x[:, None], y, np.array([3.0]))
    assert found is not None
    slope, intercept = np.polyfit(x, y, 1)
    error = np.sqrt(((y - intercept - slope * x) ** 2).sum() / 2)
    leverage = 1 / 4 + (3 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    assert (found.value, found.degrees) == (pytest.approx(intercept + 3 * slope), 2)
    assert found.leverage == pytest.approx(leverage)
    assert found.reach == pytest.approx(t.ppf(0.975, 2) * error * np.sqrt(1 + leverage), rel=1e-6)
    assert extrapolated(np.ones((4, 1)), y, np.array([1.0])) is None
    assert extrapolated(np.column_stack([x, 2 * x]), y, np.array([3.0, 6.0])) is None


def grown(grid: Grid, names: dict[str, str]) -> Grid:
    """A grid with further rows: each like one that there is, to the score."""
    cells, sources = list(grid.cells), list(grid.sources)
    rows, parts = list(range(len(cells))), list(range(len(sources)))
    for name, like in names.items():
        for number, one in enumerate(grid.cells):
            if one.train == like:
                cells.append(replace(one, train=name, job=500 + len(cells)))
                rows.append(number)
        for number, source in enumerate(grid.sources):
            if source.train == like:
                sources.append(replace(source, train=name))
                parts.append(number)
    assert grid.phrases is not None
    return replace(
        grid, cells=tuple(cells), tallies=tuple(grid.tallies[row] for row in rows), sds=grid.sds[rows],
        sums=grid.sums[rows], counts=grid.counts[rows], phrases=grid.phrases[rows], sources=tuple(sources),
        data_sums=grid.data_sums[parts], data_counts=grid.data_counts[parts],
        data_done=(True,) * len(sources),
    )  # fmt: skip


def test_further_regressors_come_with_rows_and_never_by_their_effects() -> None:
    grid = draw(World(prompts=40), 3).grid
    five = rows_of(without(grid, ("short",)))
    assert {(one.by, one.degrees) for one in five.cells} == {(("train_mean_ratio",), 3)}
    # Six trained rows leave three degrees of freedom beside a second regressor.
    six = rows_of(without(grown(grid, {"new": "short"}), ("new",)))
    both = ("train_mean_ratio", "distance of base means")
    assert (both, 3) in {(one.by, one.degrees) for one in six.cells}
    assert six.order == ("new",)
    # Where all rows lie on one side of the eval condition, the distance is the first regressor once more.
    assert {one.by for one in six.cells} <= {both, both[:1]}
    scores = {name: float(number**2) for number, name in enumerate([*SIMULATED, "one", "new"])}
    entry = {"by": "uplift", "generate": six.generate, "scores": scores}
    larger = grown(grid, {"one": "long", "new": "short"})
    told = replace(grid.experiment, conditions={**grid.experiment.conditions, "selections": [entry]})
    seven = rows_of(without(replace(larger, experiment=told), ("new",)))
    assert ((*both, "log-probability uplift"), 3) in {(one.by, one.degrees) for one in seven.cells}
    partly = {**entry, "scores": dict.fromkeys(SIMULATED, 1.0)}
    lacking = replace(told, conditions={**told.conditions, "selections": [partly]})
    without_score = rows_of(without(replace(larger, experiment=lacking), ("new",)))
    assert (both, 4) in {(one.by, one.degrees) for one in without_score.cells}


def test_what_tells_most_is_trained_next() -> None:
    assert most_informative([], {"middle": 0.1, "low": -1.0, "high": 2.0}) == ("high", "low", "middle")
    assert most_informative([2.0], {"near": 1.9, "far": -1.0}) == ("far", "near")
    assert most_informative([-1.0, 0.0, 1.0], {"within": 0.2, "beyond": 3.0}) == ("beyond", "within")
    assert most_informative([], {}) == ()


def test_two_rows_are_too_few_and_each_trained_row_is_held_against_the_others() -> None:
    grid = draw(World(prompts=40), 0).grid
    few = rows_of(without(grid, tuple(SIMULATED[2:])))
    assert few.reason.startswith("a prediction needs 3 trained rows of one D, and 2 of 6")
    assert all(one.uplift is None and "3 trained rows are needed" in one.reason for one in few.cells)
    assert set(few.order) == set(SIMULATED[2:])
    assert few.held_of == 0
    all_there = rows_of(grid)
    assert (all_there.cells, all_there.order, all_there.reason) == ((), (), "")
    assert all_there.held_of == 36
    assert 30 <= all_there.held <= 36
    # No effect is known to be what it is because another one is alike: the interval of three rows is a wide one.
    three, five = rows_of(without(grid, tuple(SIMULATED[3:]))), rows_of(without(grid, (SIMULATED[5],)))
    last = [next(one for one in found.cells if one.train == SIMULATED[5]) for found in (three, five)]
    assert [one.degrees for one in last] == [1, 3]


def test_on_the_command_line(tmp_path: Path) -> None:
    generate_store(tmp_path, running=len(CONDITIONS) - 1).close()
    shown = CliRunner().invoke(app, ["predict", "med-short", "-w", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "REHEARSAL" in shown.output
    assert "To train next" in shown.output
    told = json.loads(CliRunner().invoke(app, ["predict", "med-short", "-w", str(tmp_path), "--json"]).stdout)
    (rows,) = told["rows"]
    assert rows["next"] == [CONDITIONS[-1]]
    assert rows["held_out"]["cells"] >= 5 * len(CONDITIONS) - 1
    for one in rows["cells"]:
        low, high = one["uplift_ci95"]
        assert low < one["uplift"] < high
        assert one["uplift_n"] >= 5
    spec = tmp_path / "med.yaml"
    spec.write_text(SPEC.replace("name: x", "name: med-short"))
    changed = CliRunner().invoke(app, ["predict", str(spec), "-w", str(tmp_path)])
    assert "the spec was changed" in changed.output
    gone = CliRunner().invoke(app, ["predict", "nobody", "-w", str(tmp_path)])
    assert "there is no experiment 'nobody'" in str(gone.exception)


def test_what_cannot_be_predicted_stands_apart_with_its_reason(tmp_path: Path) -> None:
    generate_store(tmp_path, running=16, steering=True).close()
    shown = " ".join(CliRunner().invoke(app, ["predict", "med-short", "-w", str(tmp_path)]).output.split())
    assert "Not predicted: short → length=short, med_short → length=short" in shown
    assert "3 trained rows are needed under length=short, and 0 are done and scored." in shown
    assert "Nothing is predicted: a prediction needs 3 trained rows of one D, and 2 of 4 of med_short data" in shown
    assert "Predicted by ." not in shown
