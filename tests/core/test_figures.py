"""Figures as files: what is on them is whole, and `windowshift figures` writes those of an experiment."""

from __future__ import annotations

import csv
import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.generated_store import generate_store
from tests.rated_store import rate_store
from windowshift.cli import app
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import primary_of
from windowshift.core.measure.arm_comparison import compare_arms
from windowshift.core.report.arm_comparison_figure import PANELS, arm_plots, draw_arms
from windowshift.core.report.arm_comparison_page import format_of
from windowshift.core.report.figure import REHEARSAL, TONES, Box, Heat, Plot, Rule, Series
from windowshift.core.report.figure_drawing import drawn
from windowshift.core.report.figure_file import file_name, write_plot
from windowshift.core.report.figures import write_figures
from windowshift.core.report.gallery import drawings
from windowshift.core.store.reader import Reader

OF = "an_experiment_with_a_long_name · microworld (rehearsal) · prefix arm and steering arm · med_short data · chars"
LONG = "Uplift against how surprising the data is, one point a row (published slopes: GPT-4.1 −.47, Llama −.42)"
NAMES = tuple(f"a_condition_with_a_long_name_{number}" for number in range(12))


def crowded(rng: random.Random, series: int = 1, *, same: bool = False) -> Plot:
    """Points that lie close together, with long names; `same`: several series at the same places."""
    places = tuple(rng.gauss(0, 0.1) for _ in NAMES)
    made = []
    for number in range(series):
        xs = places if same else tuple(rng.gauss(0, 0.1) for _ in NAMES)
        ys = tuple(rng.gauss(0, 0.1) for _ in xs)
        low, high = tuple(y - 0.05 for y in ys), tuple(y + 0.05 for y in ys)
        made.append(Series(f"series {number}", "points", xs, ys, NAMES, low, high, TONES[number % 7]))
    return Plot("crowded", LONG, "log2 train_mean_ratio", "log2 uplift", tuple(made), of=OF)


def figures() -> dict[str, Plot]:
    rng = random.Random(3)
    xs = tuple(float(place) for place in range(12))
    ticks = tuple(zip(xs, NAMES, strict=True))
    rates = (0.4, 0.3, 0.2, 0.1)
    lines = tuple(
        Series(name, "line", (1.0, 2.0), (rng.random(), rng.random()), tone=TONES[n % 7])
        for n, name in enumerate(NAMES)
    )
    outcomes = tuple(Series(f"outcome {n}", "bars", xs, (rate,) * 12, tone=TONES[n]) for n, rate in enumerate(rates))
    point = Series("条$^", "points", (0.0,), (1.0,), ("条件$a^",))
    rising = Series("mean", "line", (0.0, 1.0), (50.0, 200.0))
    near = tuple(Rule(name, 100 + n * 0.1, 0.5) for n, name in enumerate(NAMES))
    values = tuple(tuple(rng.gauss(0, 1) for _ in NAMES) for _ in NAMES)
    boxes = tuple(Box(name, (1, 2, 3, 4, 9), 3.2, 40) for name in NAMES)
    return {
        "one series": crowded(rng),
        "two series": crowded(rng, 2),
        "same places": crowded(rng, 7, same=True),
        "bars": Plot("bars", LONG, "", "y", (Series("mean", "bars", xs, xs, NAMES, xs, xs),), ticks, of=OF),
        "stacked": Plot("stacked", LONG, "", "share", outcomes, ticks, stacked=True, of=OF),
        "lines": Plot("lines", LONG, "examples", "CV", lines, of=OF),
        "rules": Plot("rules", LONG, "alpha", "chars", (rising,), rules=near, log=True, of=OF),
        "heat": Plot("heat", "x" * 300, y="log2 uplift", heat=Heat(NAMES, NAMES, values), of=OF),
        "boxes": Plot("boxes", LONG, "", "chars", boxes=boxes, of=OF),
        "empty": Plot("empty", LONG, note="no row is finished yet, " * 10, of=OF),
        "formula": Plot("formula", "what costs $1 ^ _{", "$x^", "$y_", (point,), of="$c^"),
        "other letters": Plot("letters", "条件 🐝 " * 40, "x", "y", (point,), of="𝒳 条件"),
    }  # fmt: skip


def unseen(figure: Any) -> set[Any]:
    """Labels of ticks beyond the ends of an axis, which are made but never drawn."""
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    found = set()
    for axis in axes:
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                found |= {tick.label1, tick.label2}
    return found


@pytest.mark.filterwarnings("ignore:.*Glyph")
@pytest.mark.parametrize("name", list(figures()))
def test_nothing_is_cut_off_and_no_label_covers_another(name: str) -> None:
    import matplotlib
    from matplotlib.text import Text

    plot = figures()[name]
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = drawn(plot)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        width, height = figure.bbox.width, figure.bbox.height
        shown = set(figure.findobj(Text)) - unseen(figure)
        texts = [one for one in shown if one.get_visible() and one.get_text().strip()]
        boxes = {one: Text.get_window_extent(one, renderer) for one in texts}  # without the lines to their points
    for one, box in boxes.items():
        inside = box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2
        assert inside, (one.get_text(), box)
    # Turned texts are longer than they are high: their rectangles overlap where they do not.
    upright = [one for one in texts if one.get_rotation() % 90 == 0]
    for one, other in combinations(upright, 2):
        a, b = boxes[one], boxes[other]
        shared = max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))
        assert shared < 0.12 * min(a.width * a.height, b.width * b.height), (one.get_text(), other.get_text())
    said = "".join("".join(one.get_text().split()) for one in texts)
    for words in (plot.title, plot.of, *(series.name for series in plot.series if len(plot.series) > 1)):
        assert "".join(words.split()) in said


def test_figures_of_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_store(tmp_path / "ws", prompts=8, data_size=8, steering=True).close()
    runner = CliRunner()
    asked = ["figures", "med-short", "--workspace", str(tmp_path / "ws"), "--out", str(tmp_path / "out")]
    done = runner.invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    written = {Path(path).name for path in said["written"]}
    assert written == {path.name for path in (tmp_path / "out").iterdir()}
    stems = {name.rpartition(".")[0] for name in written}
    assert len(written) == 4 * len(stems)
    for kind in ("by_evaluate", "by_train", "heatmap"):
        assert {f"{arm}-med_short-{kind}" for arm in ("prefix", "steering")} <= stems
    assert {"grouped", "length-all-dose_response", "prefix-med_short-scores_under_long"} <= stems
    assert {"arms", "arms_cv_kept", "arms_extreme", "arms_leak"} <= stems
    assert "arms_coherence" in said["left_out"]
    assert {f"{arm}-med_short-cv_over_training" for arm in ("prefix", "steering")} <= set(said["left_out"])
    assert (tmp_path / "out" / "grouped.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out" / "grouped.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "out" / "prefix-med_short-by_train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} >= {"short", "very_long"}
    with pytest.raises(SpecError, match="exists already"):
        write_figures(tmp_path / "ws", "med-short", tmp_path / "out")
    done = runner.invoke(app, [*asked, "--formats", "csv", "--force"])
    assert done.exit_code == 0


def test_every_figure_says_what_it_is_of(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=8, data_size=8, steering=True)
    writer.close()
    reader = Reader(tmp_path)
    row = reader.experiment("med-short")
    assert row is not None
    found = list(drawings(reader, row, primary_of(row.behaviours)))
    assert found
    for one in found:
        assert row.name in one.plot.of
        assert f"{row.model} ({REHEARSAL})" in one.plot.of
        assert any(word in one.plot.of for word in ("prefix arm", "steering arm", "base model"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"name": "nothing"}, "there is no experiment 'nothing'"),
        ({"name": "med-short", "behaviour": "wit"}, "has no behaviour 'wit'; it has length_chars"),
        ({"name": "med-short", "formats": ("png", "gif")}, "not 'gif'"),
    ],
)
def test_what_is_asked_wrongly_is_refused(asked: dict[str, object], said: str, tmp_path: Path) -> None:
    generate_store(tmp_path / "ws", prompts=4, data_size=4).close()
    with pytest.raises(SpecError, match=said):
        write_figures(tmp_path / "ws", out=tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="takes a folder"):
        write_figures(tmp_path / "ws", "med-short", tmp_path / "file")


def test_names_of_files_hold_no_path() -> None:
    assert file_name("../../etc", "a/b", "") == "_.._etc-a_b"
    assert file_name("..", "") == "figure"
    assert len(file_name("x" * 400)) == 100


def test_a_stacked_figure_ends_where_its_parts_add_up(tmp_path: Path) -> None:
    plot = figures()["stacked"]
    figure = drawn(plot)
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[0].patches]
    assert max(tops) == pytest.approx(1.0)
    (path,) = write_plot(plot, tmp_path, "stacked", ("svg",))
    assert "outcome" in path.read_text() or "<use" in path.read_text()


@pytest.mark.parametrize("rates", [False, True])
def test_the_arms_are_drawn_as_every_other_figure(rates: bool, tmp_path: Path) -> None:
    make = rate_store if rates else generate_store
    make(tmp_path / "ws", prompts=12, steering=True).close()
    found = compare_arms(tmp_path / "ws", "med-short")
    scatter, *panels = arm_plots(found)
    assert [one.name for one in panels] == [f"arms-{measure}" for measure in PANELS]
    for measure, plot in zip(PANELS, panels, strict=True):
        factor = format_of(measure, found.scale).factor
        for side, series in enumerate(plot.series):
            values = [row.measures[measure].values[side] for row in found.rows]
            assert series.ys == pytest.approx([factor * one.value for one in values if one is not None])
        assert plot.empty == (measure == "coherence")
    assert panels[-1].note == "coherence was not measured"
    points = {one.name: one for one in scatter.series if one.kind == "points"}
    for side, arm in enumerate(("prefix", "steering")):
        link = [row.measures["link"].values[side] for row in found.rows]
        assert points[arm].ys == pytest.approx([one.value for one in link if one is not None])
        assert all(points[arm].left)  # how surprising D is was measured, too
    draw_arms(found, tmp_path / "arms.SVG")
    picture = (tmp_path / "arms.SVG").read_text(encoding="utf-8")
    assert picture.startswith("<?xml")
    assert picture.count('<g id="axes_') == 1 + len(PANELS)
