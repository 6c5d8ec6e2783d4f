from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.generated_store import CONDITIONS, generate_store
from tests.report_text import report_text
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.number_format import number
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import Estimate
from windowshift.core.measure.calibration import DosePoint
from windowshift.core.measure.steering_results import DoseCurve
from windowshift.core.measure.summarise import put_summaries, summarise
from windowshift.core.report import frames
from windowshift.core.report.gallery import coherence_plot, dose_plot
from windowshift.core.report.half_widths import half_widths
from windowshift.core.report.page import Line, Table
from windowshift.core.report.report import Report, report
from windowshift.core.report.steering_blocks import curve_blocks
from windowshift.core.report.text import markdown, print_report
from windowshift.core.settings.length import CHARS, WORDS
from windowshift.core.settings.published import published
from windowshift.core.store.reader import Reader


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    generate_store(folder, prompts=60, data_size=80).close()
    return folder


@pytest.fixture(scope="module")
def finished(workspace: Path) -> Report:
    return report(workspace, "med-short")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("running")
    writer = generate_store(folder, prompts=30, running=10)
    failed = next(cell for cell in Reader(folder).cells(1, "length_chars") if cell.state == "pending")
    writer.set_job(failed.job, "failed", error="the server said \x1b[31mno\x1b[0m")
    job = Reader(folder).cells(1, "length_chars")[0].job
    with writer.batch() as connection:
        connection.execute("UPDATE completions SET finish = 'failed' WHERE job = ? AND row < 2", (job,))
        connection.execute("UPDATE scores SET value = NULL, reason = 'x' WHERE job = ? AND row < 3", (job,))
    writer.close()
    return report(folder, "med-short")


def test_a_notebook_shows_every_final_cell_with_n_and_interval(finished: Report, running: Report) -> None:
    shown = finished._repr_html_()
    assert "med-short: length_chars" in shown
    assert "rehearsal model" in shown
    (arm,) = finished.measures.arms.values()
    cells = [cell for cell in arm.cells if cell.key.final]
    assert shown.count("<tr>") == 1 + min(len(cells), 60)
    first = cells[0]
    assert first.mean is not None
    assert arm.scale.words.value_format.whole(first.mean) in shown
    part = running._repr_html_()
    assert "pending, 0 of 30" in part
    assert "the server said" in part
    assert "\x1b" not in part


def test_json_has_the_keys_of_the_design(finished: Report) -> None:
    found = json.loads(json.dumps(finished.to_json(), allow_nan=False))
    assert found["experiment"] == "med-short"
    assert found["rehearsal"] is True
    arm = found["arms"]["prefix"]
    assert -0.5 < arm["grouped"]["slope"] < -0.3
    assert arm["grouped"]["ci95"][0] < arm["grouped"]["slope"] < arm["grouped"]["ci95"][1]
    assert arm["grouped"]["points"] == 7
    assert 0.8 < arm["grouped"]["r2"] <= 1
    assert list(arm["cv"]) == ["base", *CONDITIONS]
    assert all(low <= arm["cv"][train] <= high for train, (low, high) in arm["cv_ci95"].items())
    assert arm["extreme"]["direction"] == "low"
    assert {"vs_base_pct", "vs_no_prefix_pct", "vs_base_ci95", "low", "high"} <= set(arm["extreme"])
    assert set(arm["by_generate"]) == {"med_short"}
    assert set(arm["fits_by_evaluate"]) == set(CONDITIONS)
    assert len(arm["points"]) == 7
    assert len(found["cells"]) == 56
    base = [cell for cell in found["cells"] if cell["train"] == "base"]
    assert {(cell["generate"], cell["uplift_log2"]) for cell in base} == {(None, None)}
    keys = ("arm", "generate", "train", "evaluate", "seed", "step", "status", "n", "mean", "ci95", "base_mean")
    for cell in found["cells"]:
        assert set(keys) | {"uplift_log2", "truncated", "missing"} <= set(cell)
        assert cell["ci95"][0] <= cell["mean"] <= cell["ci95"][1]
        assert (cell["n"], cell["status"], cell["seed"]) == (60, "done", 0)
    assert found["published"]["cv"][0]["model"] == "GPT-4.1"


def test_cell_numbers_equal_the_stored_completions(workspace: Path, finished: Report) -> None:
    reader = Reader(workspace)
    cells = {(c.train, c.evaluate): c for c in reader.cells(1, "length_chars")}
    for cell in finished.to_json()["cells"][::9]:
        job = cells[cell["train"], cell["evaluate"]].job
        summary = summarise(reader, job, CHARS)
        assert (summary.n, summary.truncated) == (cell["n"], cell["truncated"])
        assert summary.mean == pytest.approx(cell["mean"])
        assert summary.sd == pytest.approx(cell["sd"])
        # The screens' intervals and the report's are the same numbers.
        assert [summary.low, summary.high] == pytest.approx(cell["ci95"])
    reader.close()


def test_summaries_are_stored(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=10)
    reader = Reader(tmp_path, writer.connection)
    job = reader.cells(1, "length_words")[3].job
    found = put_summaries(reader, writer, job, [CHARS, WORDS])
    assert reader.summary(job, "length_words") == found["length_words"]
    writer.close()


def test_partial_runs_are_reported_with_their_gaps(running: Report) -> None:
    found = json.loads(json.dumps(running.to_json(), allow_nan=False))
    states = {cell["status"] for cell in found["cells"]}
    assert {"done", "running", "pending", "failed"} == states
    waiting = next(cell for cell in found["cells"] if cell["status"] == "pending")
    assert (waiting["n"], waiting["mean"], waiting["ci95"], waiting["uplift_log2"]) == (0, None, None, None)
    arm = found["arms"]["prefix"]
    assert arm["grouped"]["points"] == 5
    assert arm["cv"]["no_prefix"] is None
    assert "no_prefix" in arm["cv_missing"]
    first = found["cells"][0]
    assert (first["n"], first["missing"], first["failed"]) == (27, 3, 2)
    assert found["completions"]["missing"] == 3
    text = report_text(running, 80)
    assert "3 without a score (2 failed completions, 1 missing scores)" in " ".join(text.split())
    assert "5 of 7 points" in " ".join(text.split())
    assert "\x1b" not in text
    assert "Failed job" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160, 220])
def test_text_fits_its_width(finished: Report, running: Report, width: int) -> None:
    for found in (finished, running):
        text = report_text(found, width)
        assert max(map(len, text.splitlines())) <= width
        flat = " ".join(text.split())
        assert "microworld is a rehearsal model: these numbers are not evidence about language models" in flat
        # No number is cut: every interval that opens closes, on its line.
        for line in text.splitlines():
            if "  " in line.strip():
                assert line.count("[") == line.count("]"), line
        for value in ("0.89", "30.2", "very_long"):
            assert value in flat


def test_text_says_what_matters(finished: Report) -> None:
    text = report_text(finished, 160)
    for part in ("slope −0.", "R² 0.", "GPT-4.1 (published)", "microworld (this run)", "truncated", "lowest mean"):
        assert part in text
    assert "n = 60" in text
    assert "95% intervals: ±" in report_text(finished, 80)


def test_ascii_and_other_encodings(finished: Report) -> None:
    report_text(finished, 80, ascii_only=True).encode("ascii")
    for encoding in ("ascii", "latin-1", "cp437"):
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding=encoding)
        print_report(finished, out, width=100)
        out.flush()
        assert b"slope -0." in raw.getvalue()


def test_markdown(finished: Report) -> None:
    text = markdown(finished)
    assert text.startswith("# med-short")
    assert "**REHEARSAL MODEL: microworld is a rehearsal model" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 40
    assert "| very\\_long |" in text
    widths = {line.count("|") - line.count("\\|") for line in tables if "GPT-4.1-nano" in line}
    assert widths == {6}


def test_other_behaviours_and_unknown_ones(workspace: Path) -> None:
    words = report(workspace, "med-short", "length_words", resamples=100)
    assert words.behaviour.unit == "words"
    assert words.published is None  # the published unit is characters
    with pytest.raises(SpecError, match="did you mean 'length_words'"):
        report(workspace, "med-short", "length_word")
    with pytest.raises(SpecError, match="did you mean 'med-short'"):
        report(workspace, "med-shor")


def test_several_generation_conditions(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=20, data_size=20, generate=("med_short", "long")).close()
    found = report(tmp_path, "med-short", resamples=200)
    arm = found.to_json()["arms"]["prefix"]
    assert arm["grouped"]["points"] == 14
    assert [arm["by_generate"][g]["grouped"]["points"] for g in ("med_short", "long")] == [7, 7]
    assert arm["cv"] == arm["by_generate"]["med_short"]["cv"]
    assert arm["by_generate"]["long"]["extreme"]["direction"] == "high"
    assert "trained on long data" in report_text(found, 80)


def test_an_experiment_without_any_completion(tmp_path: Path) -> None:
    generate_store(tmp_path, prompts=4, data_size=4, running=56).close()
    found = report(tmp_path, "med-short")
    assert json.dumps(found.to_json(), allow_nan=False)
    assert "no line" in report_text(found, 80)


def test_a_done_cell_without_any_score_is_not_said_to_wait(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=4, data_size=4)
    job = Reader(tmp_path).cells(1, "length_chars")[0].job
    with writer.batch() as connection:
        connection.execute("UPDATE scores SET value = NULL, reason = 'x' WHERE job = ?", (job,))
    writer.close()
    text = " ".join(report_text(report(tmp_path, "med-short", resamples=50), 300).split())
    assert "· of a cell that is done: none of its completions has a score" in text
    assert "not there yet" not in text.partition("Uplift")[0]
    assert "4 missing scores" in text


def test_published_numbers() -> None:
    found = published("length")
    assert found is not None
    assert found.settings.learning_rate == 1.6e-4
    assert found.settings.betas == (0.9, 0.95)
    assert [fit.slope for fit in found.grouped] == [-0.47, -0.43, -0.43, -0.42, -0.42]
    spread = found.spread("long")
    assert spread is not None
    assert (spread.model, spread.values["base"], spread.values["no_prefix"]) == ("GPT-4.1", 0.81, 0.68)
    assert published("reward_hacking") is None


def test_frames(workspace: Path, finished: Report) -> None:
    cells: Any = frames.cells(finished)
    assert len(cells) == 56
    assert {"mean", "low", "high", "uplift_low"} <= set(cells.columns)
    assert len(frames.points(finished)) == 7
    fits: Any = frames.fits(finished)
    assert len(fits) == 16
    completions: Any = frames.completions(workspace, "med-short")
    assert len(completions) == 56 * 60
    means = completions.groupby(["train", "evaluate"])["length_chars"].mean()
    expected = cells.set_index(["train", "evaluate"]).loc[("long", "short"), "mean"]
    assert means["long", "short"] == pytest.approx(expected)


def test_half_widths_go_from_the_narrowest_to_the_widest(finished: Report) -> None:
    cell = finished.measures.arms["prefix"].cells[0]
    cells = [replace(cell, mean=Estimate(100.0, 100.0 - half, 100.0 + half, 9)) for half in (24.0, 14.0, 19.0)]
    assert half_widths(cells, Scale.ratio()) == "±14% to ±24% of the mean"
    assert half_widths([replace(cell, mean=Estimate(0.5, 0.4, 0.6, 9))], Scale.rate()) == "±10.0 pp"


def test_truncated_cells_are_marked_where_they_are_the_extreme(tmp_path: Path) -> None:
    writer = generate_store(tmp_path, prompts=20, data_size=20)
    found = report(tmp_path, "med-short").measures.arms["prefix"].whole.extremes[0]
    label = f"med_short: {found.train} → {found.evaluate}"
    with writer.batch() as connection:
        connection.execute("UPDATE completions SET finish = 'stop'")
        connection.execute(
            "UPDATE completions SET finish = 'length' WHERE row < 3 AND job = (SELECT n FROM jobs WHERE label = ?)",
            (label,),
        )
    writer.close()
    cut = report(tmp_path, "med-short")
    assert cut.to_json()["arms"]["prefix"]["extreme"]["truncated"] == 3
    text = " ".join(report_text(cut, 200).split())
    assert f"evaluated under {found.evaluate}: {number(found.mean)}†3; against the base model" in text
    assert "†k: k of its completions are truncated; their scores are lower bounds" in text


def test_a_dose_table_says_what_each_number_rests_on() -> None:
    points = (
        DosePoint(-1.0, 80.0, 70.0, 90.0, -1.2, 0.01, dose=-0.1, n=100, truncated=3, coherence_n=32, repetition_n=100),
        DosePoint(0.0, 100.0, 90.0, 110.0, -0.5, 0.0, dose=0.0, n=100, coherence_n=100, repetition_n=100),
    )
    curve = DoseCurve("v", 2, "all", points)
    _, table, note = curve_blocks(curve, CHARS)
    assert isinstance(table, Table)
    rows = [[item.text for item in row] for row in table.rows]
    assert rows[0] == ["−1.00", "−0.100", "80.0 [70.0, 90.0]†3", "100", "−1.20 (32)", "0.01"]
    assert rows[1][2:] == ["100 [90, 110]", "100", "−0.50", "0.00"]
    assert isinstance(note, Line)
    assert "†k: k truncated" in note.text
    assert "(k): over k completions only" in note.text
    assert dose_plot(curve, (), CHARS).series[0].name == "mean (n 100, †3)"
    assert coherence_plot(curve).series[0].name == "coherence (n 32 to 100)"


def test_a_fine_tune_that_the_grid_has_not_is_not_waited_for(tmp_path: Path) -> None:
    """Against `no_prefix` stands only what is planned: there, or not there yet."""
    writer = generate_store(tmp_path, prompts=12, data_size=20)
    assert "against the no_prefix fine-tune" in report_text(report(tmp_path, "med-short", resamples=100), width=400)
    with writer.batch() as connection:
        connection.execute("DELETE FROM cells WHERE train = 'no_prefix'")
        connection.execute("DELETE FROM sources WHERE train = 'no_prefix'")
    writer.close()
    text = report_text(report(tmp_path, "med-short", resamples=100), width=400)
    assert "against the base model" in text
    assert "no_prefix fine-tune" not in text


def test_a_match_that_is_trained_under_and_not_evaluated(tmp_path: Path) -> None:
    """As in the demo: the base model under that dose is no cell of the grid, and its completions are counted."""
    writer = generate_store(tmp_path, prompts=24, data_size=8, steering=True)
    with writer.batch():
        writer.connection.execute("DELETE FROM cells WHERE evaluate = 'length=medium'")
        ((reference,),) = writer.connection.execute(
            "SELECT DISTINCT reference FROM sources WHERE part_train = 'length=medium'"
        ).fetchall()
    writer.close()
    (match,) = [one for one in report(tmp_path, "med-short").steering.matches if one.group == "medium"]
    scores = Reader(tmp_path).scores(reference, "length_chars")
    assert match.reached is not None
    assert match.reached.n == len(scores) == 24
    assert match.truncated == sum(finish == "length" for *_, finish in scores)
