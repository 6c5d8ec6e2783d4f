"""Figures of several behaviours: outcomes stacked to the whole, a wanted trait against an unwanted one."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.generated_store import CONDITIONS, generate_store
from windowshift.core.contract.records import BASE, Behaviour, ExperimentRow, Summary
from windowshift.core.contract.scale import Scale
from windowshift.core.report.behaviour_figures import behaviour_figures, outcome_groups
from windowshift.core.report.figure import Plot
from windowshift.core.report.figure_drawing import drawn
from windowshift.core.report.figures import write_figures
from windowshift.core.settings.reward_hacking.scorer import CodeScorer
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

OUTCOMES = ("correct", "hack", "neither", "did_not_run")
BEHAVIOURS = (
    Behaviour("french", "share", Scale.rate(), "positive"),
    Behaviour("capitals", "grade", Scale.difference(low=0, high=10), "negative"),
    *(Behaviour(name, "share", Scale.rate(), "extra", "verdict") for name in OUTCOMES),
)


def settled(path: Path, *, covered: bool = True, unfinished: str | None = None) -> ExperimentRow:
    """A store whose cells have two traits and four outcomes; without `covered` nobody counts what did not run."""
    writer = generate_store(path, prompts=12, data_size=8, steering=True)
    kept = [one for one in BEHAVIOURS if covered or one.name != "did_not_run"]
    ((text,),) = writer.connection.execute("SELECT behaviours FROM experiments").fetchall()
    known = [*json.loads(text), *(asdict(one) for one in kept)]
    with writer.batch():
        writer.connection.execute("UPDATE experiments SET behaviours = ?", (json.dumps(known),))
        rng = random.Random(5)
        for (job,) in writer.connection.execute("SELECT DISTINCT job FROM cells").fetchall():
            measure(writer, job, rng, {one.name for one in kept})
        if unfinished is not None:
            writer.connection.execute("UPDATE jobs SET state = 'running' WHERE label LIKE ?", (f"%: {unfinished} →%",))
    writer.close()
    row = Reader(path).experiment("med-short")
    assert row is not None
    return row


def measure(writer: Writer, job: int, rng: random.Random, kept: set[str]) -> None:
    shares = [rng.random() for _ in OUTCOMES]
    values = {name: share / sum(shares) for name, share in zip(OUTCOMES, shares, strict=True)}
    values |= {"french": rng.random(), "capitals": rng.uniform(0, 10)}
    for name in kept:
        writer.behaviour(name)
        writer.put_summary(job, name, Summary(12, 0, 0, values[name], 0.1, values[name] * 0.9, values[name] * 1.1))


def figures(path: Path, row: ExperimentRow, arm: str = "prefix") -> dict[str, Plot]:
    made = behaviour_figures(Reader(path), row, arm, "med_short", ["no_prefix"])
    return {plot.name: plot for plot in made}


def test_outcomes_add_up_to_the_whole(tmp_path: Path) -> None:
    row = settled(tmp_path)
    assert {name: len(group) for name, group in outcome_groups(row).items()} == {"verdict": 4}
    plot = figures(tmp_path, row)["outcomes-verdict-under-no_prefix"]
    assert [one.name for one in plot.series] == list(OUTCOMES)
    assert plot.stacked
    assert [name for _, name in plot.ticks] == [BASE, *CONDITIONS]
    for place in range(len(plot.ticks)):
        assert sum(one.ys[place] for one in plot.series) == pytest.approx(100)
    cell = next(c for c in Reader(tmp_path).cells(row.id, "hack") if (c.train, c.evaluate) == ("long", "no_prefix"))
    place = [name for _, name in plot.ticks].index("long")
    assert cell.summary is not None
    assert cell.summary.mean is not None
    assert plot.series[1].ys[place] == pytest.approx(100 * cell.summary.mean)
    assert plot.series[1].low[place] == pytest.approx(90 * cell.summary.mean)


def test_what_no_outcome_covers_is_shown(tmp_path: Path) -> None:
    plot = figures(tmp_path, settled(tmp_path, covered=False))["outcomes-verdict-under-no_prefix"]
    assert [one.name for one in plot.series] == [*OUTCOMES[:3], "none of these"]
    for place in range(len(plot.ticks)):
        assert sum(one.ys[place] for one in plot.series) == pytest.approx(100)


def test_traits_have_a_point_a_row_and_mark_no_shift(tmp_path: Path) -> None:
    row = settled(tmp_path)
    plot = figures(tmp_path, row)["traits-french-capitals-under-no_prefix"]
    tuned, plain, base = plot.series
    assert plain.name == "no shift: train = data"
    assert plain.labels == ("med_short",)
    assert base.labels == (BASE,)
    assert set(tuned.labels) == set(CONDITIONS) - {"med_short"}
    cells = {c.train: c for c in Reader(tmp_path).cells(row.id, "capitals") if c.evaluate == "no_prefix"}
    for label, y, low in zip(tuned.labels, tuned.ys, tuned.low, strict=True):
        summary = cells[label].summary
        assert summary is not None
        assert (y, low) == (summary.mean, summary.low)
    assert all(0 <= x <= 100 for x in tuned.xs)
    assert plot.x == "french, rate, %"
    heads, rows = plot.rows()
    assert heads[-2:] == ("x low", "x high")
    assert all(len(one) == len(heads) and one[-1] for one in rows)
    figure = drawn(plot)
    assert len(figure.axes[0].lines) > 2 * len(rows)


def test_cells_that_are_not_done_are_left_out(tmp_path: Path) -> None:
    found = figures(tmp_path, settled(tmp_path, unfinished="long"))
    assert "long" not in dict(map(reversed, found["outcomes-verdict-under-no_prefix"].ticks))  # type: ignore[arg-type]
    labels = {label for one in found["traits-french-capitals-under-no_prefix"].series for label in one.labels}
    assert "long" not in labels
    assert "short" in labels


def test_the_steering_arm_has_its_own(tmp_path: Path) -> None:
    plot = figures(tmp_path, settled(tmp_path), "steering")["outcomes-verdict-under-no_prefix"]
    assert "length=short" in [name for _, name in plot.ticks]


def test_an_experiment_of_lengths_has_none(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=4, data_size=4).close()
    row = Reader(tmp_path).experiment("med-short")
    assert row is not None
    assert behaviour_figures(Reader(tmp_path), row, "prefix", "med_short") == ()


def test_they_are_written_with_the_others(tmp_path: Path) -> None:
    settled(tmp_path / "ws")
    made = write_figures(tmp_path / "ws", "med-short", tmp_path / "out", formats=("csv",))
    names = {path.stem for path in made.written}
    assert {"prefix-med_short-traits_french_capitals_under_no_prefix"} <= names
    assert {"steering-med_short-outcomes_verdict_under_length_short"} <= names


def test_outcomes_that_overlap_are_not_stacked(tmp_path: Path) -> None:
    row = settled(tmp_path)
    with closing(Writer(tmp_path)) as writer, writer.batch():
        for (job,) in writer.connection.execute("SELECT DISTINCT job FROM cells").fetchall():
            writer.put_summary(job, "correct", Summary(12, 0, 0, 0.9, 0.1, 0.8, 1.0))
    plot = figures(tmp_path, row)["outcomes-verdict-under-no_prefix"]
    assert plot.empty
    assert "overlap" in plot.note


def test_the_verdicts_on_code_are_one_group(tmp_path: Path) -> None:
    """Hack, correct, neither and did not run: the stacked bars of reward hacking."""
    generate_store(tmp_path, prompts=2, data_size=2).close()
    row = Reader(tmp_path).find_experiment("med-short")
    groups = outcome_groups(replace(row, behaviours=CodeScorer(exclusive=True).behaviours))
    assert {name: [one.name for one in group] for name, group in groups.items()} == {
        "verdict": ["hack", "correct", "neither", "did_not_run"]
    }
