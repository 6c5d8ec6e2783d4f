from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windowshift.core.contract.records import Behaviour, CellRow, ExperimentRow, SourceRow
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.grid import Grid, Tally, tabulate
from windowshift.core.measure.grid_measures import measure
from windowshift.core.measure.measures import ArmMeasures

Place = tuple[str, str, str]  # generate, train, evaluate
Values = Sequence[float]
NAN = float("nan")
RATIO = Scale.ratio()


def grid(
    cells: Mapping[Any, Values],
    data: Mapping[tuple[str, str], Sequence[tuple[float, str, Values]]],
    *,
    scale: Scale = RATIO,
    states: Mapping[Place, str] | None = None,
) -> Grid:
    """A grid of given scores by (generate, train, evaluate[, seed[, checkpoint step]]); prompt i is number i."""
    names: dict[str, dict[str, None]] = {"generate": {}, "train": {}, "evaluate": {}}
    rows = []
    for number, (place, values) in enumerate(cells.items()):
        generate, train, evaluate = place[:3]
        seed = place[3] if len(place) > 3 else 0
        step = place[4] if len(place) > 4 else None
        if train != "base":
            names["generate"][generate] = names["train"][train] = names["evaluate"][evaluate] = None
        state: Any = (states or {}).get((generate, train, evaluate), "done")
        examples = 0 if train == "base" else 100 if step is None else step
        rows.append(
            CellRow(number, "prefix", generate, train, evaluate, seed, examples, step is None, number, state,
                    len(values), len(values), None)
        )  # fmt: skip
    sources: list[SourceRow] = []
    parts = []
    for (generate, train), pieces in data.items():
        for part, (fraction, under, values) in enumerate(pieces):
            sources.append(
                SourceRow("prefix", generate, train, 0, part, fraction, generate, under, len(sources), 0, len(values))
            )
            parts.append((np.arange(len(values)), np.array(values, dtype=float)))
    arrays = [(np.arange(len(values)), np.array(values, dtype=float)) for values in cells.values()]
    sums, counts = tabulate(arrays)
    data_sums, data_counts = tabulate(parts)
    finite = [values[np.isfinite(values)] for _, values in arrays]
    conditions = {
        part: [{"name": name, "kind": "prefix", "arm": "prefix"} for name in found] for part, found in names.items()
    }
    experiment = ExperimentRow(
        1, "x", "done", "length", "m", False, "local", (Behaviour("b", "u", scale),), conditions,
        {"train": "user", "evaluate": "user"}, 100, 0.0, None, None, None,
    )  # fmt: skip
    return Grid(
        experiment, Behaviour("b", "u", scale), tuple(rows), tuple(Tally(len(v), 0, 0, 0) for v in finite),
        np.array([v.std(ddof=1) if len(v) > 1 else NAN for v in finite]), sums, counts, tuple(sources),
        data_sums, data_counts,
    )  # fmt: skip


def arm(found: Grid, resamples: int = 200) -> ArmMeasures:
    return measure(found, resamples=resamples).arms["prefix"]


BASE = {"short": 10.0, "long": 40.0, "no_prefix": 20.0}


def small(scale: float = 1.0, noise: np.ndarray[Any, np.dtype[np.float64]] | None = None) -> Grid:
    """Base 10, 40, 20; D of mean 10; each row the base's means times (x ** -0.5)."""
    shape = np.ones(4) if noise is None else noise
    cells: dict[Any, Values] = {("", "base", e): list(BASE[e] * scale * shape) for e in BASE}
    for train, mean in BASE.items():
        uplift = (mean / 10.0) ** -0.5
        cells |= {("short", train, e): list(BASE[e] * scale * uplift * shape) for e in BASE}
    data = {("short", train): [(1.0, train, [10.0 * scale] * 5)] for train in BASE}
    return grid(cells, data)


def test_by_hand() -> None:
    found = arm(small())
    whole = found.whole
    assert found.scale.link == "log2"
    assert [point.ratio.value for point in whole.points if point.ratio] == pytest.approx([1.0, 4.0, 2.0])
    assert [point.y.value for point in whole.points if point.y] == pytest.approx([0.0, -1.0, -0.5])
    assert whole.grouped.slope is not None
    assert whole.grouped.r2 is not None
    assert whole.grouped.intercept is not None
    assert whole.grouped.slope.value == pytest.approx(-0.5)
    assert whole.grouped.r2.value == pytest.approx(1.0)
    assert whole.grouped.intercept.value == pytest.approx(0.0, abs=1e-12)
    assert whole.grouped.points == 3
    assert set(whole.by_evaluate) == set(BASE)
    means = [10.0, 40.0, 20.0]
    cv = np.std(means) / np.mean(means)
    assert [spread.train for spread in whole.spreads] == ["base", "short", "long", "no_prefix"]
    assert [s.value.value for s in whole.spreads if s.value] == pytest.approx([cv] * 4)
    assert [s.kept.value for s in whole.spreads if s.kept] == pytest.approx([1.0] * 4)


def test_extremes_by_hand() -> None:
    low, high = arm(small()).whole.extremes
    # D's mean, 10, lies below the base's no_prefix mean, 20: low is the primary direction.
    assert (low.direction, low.train, low.evaluate) == ("low", "long", "short")
    assert low.mean == pytest.approx(5.0)
    assert low.vs_base is not None
    assert low.vs_no_prefix is not None
    assert low.vs_base.value == pytest.approx(-50.0)
    assert low.vs_no_prefix.value == pytest.approx(100 * (5.0 / (10 / math.sqrt(2)) - 1))
    assert (high.direction, high.train, high.evaluate) == ("high", "short", "long")
    assert high.vs_base is not None
    assert high.vs_base.value == pytest.approx(0.0)
    assert (low.cells, low.planned) == (6, 6)  # the no_prefix row takes no part


@settings(max_examples=10)
@given(st.floats(0.01, 1000.0))
def test_scaling_all_lengths_changes_no_measure(scale: float) -> None:
    noise = np.array([0.5, 0.8, 1.2, 1.5])
    one, other = arm(small(1.0, noise)).whole, arm(small(scale, noise)).whole
    assert one.grouped.slope is not None
    assert other.grouped.slope is not None
    assert other.grouped.slope.value == pytest.approx(one.grouped.slope.value)
    for a, b in zip(one.points, other.points, strict=True):
        assert a.y is not None
        assert b.y is not None
        assert b.y.value == pytest.approx(a.y.value)
    for c, d in zip(one.spreads, other.spreads, strict=True):
        assert c.value is not None
        assert d.value is not None
        assert [d.value.value, d.value.low] == pytest.approx([c.value.value, c.value.low])


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_permuting_prompts_changes_no_value(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    cells = {("", "base", e): list(rng.lognormal(math.log(BASE[e]), 0.3, 6)) for e in BASE}
    cells |= {("short", t, e): list(rng.lognormal(math.log(BASE[e]), 0.3, 6)) for t in BASE for e in BASE}
    data = {("short", t): [(1.0, t, [9.0, 11.0, 12.0])] for t in BASE}
    one = arm(grid(cells, data), 50)
    other = arm(grid({place: [values[i] for i in order] for place, values in cells.items()}, data), 50)
    assert one.whole.grouped.slope is not None
    assert other.whole.grouped.slope is not None
    assert other.whole.grouped.slope.value == pytest.approx(one.whole.grouped.slope.value)
    for a, b in zip(one.cells, other.cells, strict=True):
        assert (a.mean is None) == (b.mean is None)
        if a.mean and b.mean:
            assert b.mean.value == pytest.approx(a.mean.value)


@settings(max_examples=8)
@given(st.floats(-0.8, 0.5), st.integers(0, 10_000))
def test_a_planted_slope_is_recovered(slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = {"short": 50.0, "medium": 120.0, "long": 300.0, "no_prefix": 150.0}
    cells = {("", "base", e): list(m * rng.lognormal(0, 0.3, 300)) for e, m in base.items()}
    for train, mean in base.items():
        uplift = (mean / 50.0) ** slope
        cells |= {("short", train, e): list(m * uplift * rng.lognormal(0, 0.3, 300)) for e, m in base.items()}
    data = {("short", t): [(1.0, t, list(50.0 * rng.lognormal(0, 0.3, 400)))] for t in base}
    fit = arm(grid(cells, data)).whole.grouped
    assert fit.slope is not None
    assert fit.slope.value == pytest.approx(slope, abs=0.06)
    assert fit.slope.low is not None
    assert fit.slope.high is not None
    assert fit.slope.low <= fit.slope.value <= fit.slope.high


def test_the_slope_interval_covers() -> None:
    covered, trials, base = 0, 60, {"short": 50.0, "medium": 120.0, "long": 300.0}
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        prompt = rng.lognormal(0, 0.5, 80)  # what the prompts share over cells

        def draw(mean: float, rng: Any = rng, prompt: Any = prompt) -> list[float]:
            return list(mean * prompt / math.exp(0.125) * rng.lognormal(-0.045, 0.3, 80))

        cells = {("", "base", e): draw(m) for e, m in base.items()}
        cells |= {("short", t, e): draw(m * (n / 50) ** -0.4) for t, n in base.items() for e, m in base.items()}
        data = {("short", t): [(1.0, t, [50.0] * 40)] for t in base}
        slope = arm(grid(cells, data), 300).whole.grouped.slope
        assert slope is not None
        assert slope.low is not None
        assert slope.high is not None
        covered += slope.low <= -0.4 <= slope.high
    assert covered / trials >= 0.86


def test_partial_grids_have_gaps_and_no_guesses() -> None:
    states: dict[Place, Any] = {("short", "long", "no_prefix"): "pending"}
    full = small()
    whole = arm(full).whole
    cells = (replace(c, state=states.get((c.generate, c.train, c.evaluate), c.state)) for c in full.cells)
    found = arm(replace(full, cells=tuple(cells))).whole
    assert whole.grouped.points == 3
    assert found.grouped.points == 2
    assert found.grouped.slope is None
    assert found.grouped.reason == "a line needs 3 rows that are done and scored, and 2 of 3 are"
    point = next(point for point in found.points if point.train == "long")
    assert point.y is None
    assert point.ratio is not None
    assert point.reason == "2 of 3 eval cells done"
    spread = next(spread for spread in found.spreads if spread.train == "long")
    assert spread.value is None
    assert found.by_evaluate["short"].points == 3
    assert found.by_evaluate["no_prefix"].slope is None


def lacking(*places: Place, states: dict[Place, Any] | None = None) -> ArmMeasures:
    """The small grid, every score missing in some of its cells."""
    full = small()
    gone = [number for number, c in enumerate(full.cells) if (c.generate, c.train, c.evaluate) in places]
    sums, counts = full.sums.copy(), full.counts.copy()
    sums[gone] = counts[gone] = 0.0
    tallies = tuple(Tally(0, 0, 4, 0) if n in gone else tally for n, tally in enumerate(full.tallies))
    cells = (replace(c, state=(states or {}).get((c.generate, c.train, c.evaluate), c.state)) for c in full.cells)
    return arm(replace(full, cells=tuple(cells), tallies=tallies, sums=sums, counts=counts))


def test_done_cells_without_scores_are_not_said_to_be_open() -> None:
    one = ("short", "long", "short")
    found = lacking(one, ("short", "long", "no_prefix")).whole
    point = next(point for point in found.points if point.train == "long")
    assert point.reason == "2 of 3 eval cells, all done, without a score"
    assert next(spread for spread in found.spreads if spread.train == "long").reason == point.reason
    assert found.grouped.reason == "a line needs 3 rows that are done and scored, and 2 of 3 are"
    found = lacking(one, states={("short", "long", "no_prefix"): "running"}).whole
    point = next(point for point in found.points if point.train == "long")
    assert point.reason == "2 of 3 eval cells done, 1 of them without a score"


def test_the_base_model_s_cells_are_named_where_they_lack_scores() -> None:
    found = lacking(("", "base", "short")).whole
    assert {point.reason for point in found.points} == {
        "the base model's cell under the train condition short is done and has no score",
        "1 of 3 cells of the base model, all done, without a score",
    }
    assert all(spread.kept is None for spread in found.spreads)
    open_cell = lacking(states={("", "base", "short"): "pending"}).whole
    assert {point.reason for point in open_cell.points} == {
        "the base model's cell under the train condition short is not done",
        "2 of 3 cells of the base model done",
    }


def test_a_mean_of_0_has_no_ratio_and_says_so() -> None:
    full = small()
    which = [number for number, c in enumerate(full.cells) if (c.train, c.evaluate) == ("long", "short")]
    sums = full.sums.copy()
    sums[which] = 0.0
    found = arm(replace(full, sums=sums)).whole
    point = next(point for point in found.points if point.train == "long")
    assert point.reason == "a mean under short is 0, which has no ratio"


def test_nothing_is_estimated_before_it_is_done() -> None:
    """Short completions come first: the mean of those that are there already is another number."""
    here = ("short", "short", "short")
    cells: dict[Any, Values] = {("", "base", "short"): [10.0, 20.0, 1000.0], here: [5.0, 10.0]}
    for state in ("running", "paused", "failed", "cancelled"):
        found = arm(grid(cells, {("short", "short"): [(1.0, "short", [10.0])]}, states={here: state}))
        cell = found.cells[-1]
        assert (cell.status, cell.mean, cell.sd, cell.uplift, cell.effect) == (state, None, None, None, None)
        assert (cell.progress, cell.tally.n) == ((2, 2), 2)
        assert found.whole.points[0].y is None
        assert found.whole.extremes == ()
    base = arm(grid(cells, {}, states={("", "base", "short"): "running"})).cells[-1]
    assert base.mean is not None
    assert (base.base_mean, base.uplift) == (None, None)


def test_d_counts_once_all_of_it_is_there() -> None:
    cells: dict[Any, Values] = {("", "base", e): [m] * 3 for e, m in BASE.items()}
    cells |= {("short", t, e): [m / 2] * 3 for t in BASE for e, m in BASE.items()}
    whole = grid(cells, {("short", t): [(1.0, t, [10.0, 12.0])] for t in BASE})
    assert all(point.data and point.x for point in arm(whole).whole.points)
    found = arm(replace(whole, data_done=(False,) * len(whole.sources))).whole
    assert {(point.data, point.x) for point in found.points} == {(None, None)}
    assert (found.grouped.slope, found.extremes) == (None, ())


def test_pooled_seeds_wait_for_each_other() -> None:
    cells: dict[Any, Values] = {("", "base", "short", seed): [10.0, 20.0] for seed in (0, 1)}
    cells |= {("short", "short", "short", seed): [5.0, 10.0] for seed in (0, 1)}
    made = grid(cells, {})
    late = tuple(replace(c, state="running") if (c.train, c.seed) == ("short", 1) else c for c in made.cells)
    found = arm(replace(made, cells=late))
    assert [cell.mean for cell in found.cells if cell.key.train == "short"] == [None]
    known = {cell.key.seed: cell.mean is not None for cell in found.seed_cells if cell.key.train == "short"}
    assert known == {0: True, 1: False}


def test_one_prompt_has_no_interval() -> None:
    """It shows nothing of how prompts differ, on the page of the cell as in the grid."""
    found = arm(grid({("", "base", "short"): [10.0, NAN], ("short", "short", "short"): [5.0, NAN]}, {}))
    for one in (found.cells[-1].mean, found.cells[-1].uplift):
        assert one is not None
        assert one.interval is None


def test_missing_scores_are_left_out_on_both_sides() -> None:
    cells: dict[Any, Values] = {
        ("", "base", "short"): [10.0, 20.0, 30.0, NAN],
        ("short", "short", "short"): [NAN, 10.0, 15.0, 90.0],
    }
    cell = arm(grid(cells, {})).cells[-1]
    assert cell.mean is not None
    assert cell.mean.value == pytest.approx(115 / 3)
    assert cell.base_mean == pytest.approx(25.0)
    assert cell.uplift is not None
    assert cell.uplift.value == pytest.approx(-1.0)


def test_a_mix_weighs_base_means_by_fraction_and_pools_its_data() -> None:
    cells: dict[Any, Values] = {("", "base", e): [m] * 3 for e, m in BASE.items()}
    cells |= {("short", "half", e): [m] * 3 for e, m in BASE.items()}
    data = {("short", "half"): [(0.25, "short", [8.0]), (0.75, "long", [12.0, 12.0, 12.0])]}
    (point,) = arm(grid(cells, data)).whole.points
    assert point.ratio is not None
    assert point.ratio.value == pytest.approx((0.25 * 10 + 0.75 * 40) / 11)
    assert point.ratio.n == 4


def test_seeds_are_pooled_and_shown_apart() -> None:
    cells: dict[Any, Values] = {}
    for seed, shift in ((0, 1.0), (1, 2.0)):
        cells |= {("", "base", e, seed): [m, m] for e, m in BASE.items()}
        for train, mean in BASE.items():
            cells |= {("short", train, e, seed): [m * shift * (mean / 10) ** -0.5] * 2 for e, m in BASE.items()}
    found = arm(grid(cells, {("short", t): [(1.0, t, [10.0, 10.0])] for t in BASE}))
    assert found.seeds == (0, 1)
    pooled = next(c for c in found.cells if (c.key.train, c.key.evaluate) == ("short", "short"))
    assert pooled.key.seed is None
    assert pooled.mean is not None
    assert pooled.mean.value == pytest.approx(15.0)
    assert pooled.mean.n == 4
    assert len(found.seed_cells) == 2 * len(found.cells)
    ys = [p.y.value for p in found.by_seed[0].points if p.y]
    assert ys == pytest.approx([0.0, -1.0, -0.5])


def test_rates_use_log_odds_and_differences() -> None:
    base, tuned = [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]
    cells: dict[Any, Values] = {("", "base", e): base for e in ("a", "no_prefix")}
    cells |= {("a", t, e): tuned for t in ("a", "no_prefix") for e in ("a", "no_prefix")}
    data = {("a", t): [(1.0, t, [1.0, 1.0, 1.0, 1.0])] for t in ("a", "no_prefix")}
    found = arm(grid(cells, data, scale=Scale.rate()))
    assert found.scale.link == "log_odds"
    uplift = next(c.uplift for c in found.cells if c.key.train == "a")
    assert uplift is not None
    assert uplift.value == pytest.approx(math.log(3.5 / 1.5) - math.log(1.5 / 3.5))
    high = found.whole.extremes[0]
    assert high.direction == "high"
    assert high.vs_base is not None
    assert high.vs_base.value == pytest.approx(0.5)
    assert found.whole.points[0].ratio is None
    beyond = arm(grid({k: [v * 50 for v in values] for k, values in cells.items()}, {}, scale=Scale.difference()))
    assert beyond.scale.link == "difference"
    assert [c.uplift.value for c in beyond.cells if c.uplift] == pytest.approx([25.0] * 4)


def test_course_of_training() -> None:
    cells: dict[Any, Values] = {("", "base", e): [m] * 3 for e, m in BASE.items()}
    cells |= {("short", "long", e, 0, 50): [m / 2] * 3 for e, m in BASE.items() if e != "no_prefix"}
    cells |= {("short", "long", e): [m / 4] * 3 for e, m in BASE.items()}
    course = arm(grid(cells, {})).course
    assert [point.step for point in course] == [0, 50, 100]
    # All over the two eval conditions that the checkpoint has.
    assert [point.mean.value for point in course if point.mean] == pytest.approx([25.0, 12.5, 6.25])
    assert [point.cv.value for point in course if point.cv] == pytest.approx([0.6, 0.6, 0.6])


def test_a_mean_of_zero_has_no_log_ratio() -> None:
    cells: dict[Any, Values] = {("", "base", "short"): [0.0, 0.0], ("short", "short", "short"): [1.0, 2.0]}
    cell = arm(grid(cells, {})).cells[-1]
    assert cell.uplift is None
    assert cell.mean is not None


def test_measures_load_neither_pandas_nor_scipy() -> None:
    code = "import sys, windowshift.core.report.text, windowshift.core.report.export; " \
        "print([m for m in ('pandas', 'scipy', 'pyarrow', 'rich', 'torch') if m in sys.modules])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
