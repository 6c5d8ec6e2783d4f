"""The steering arm on screen: its grid page, the screen Steering, doses in cells, completions and jobs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot

from tests.generated_steering import LAYER, NOT_MADE, OUT_OF_REACH, alpha_of
from tests.tui_pilot import app, arrive, screen_text, settle, store, until
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.vector_file import read_vector
from windowshift.core.measure.calibration import DosePoint
from windowshift.core.measure.iso_kl import KlPoint
from windowshift.core.measure.steering_results import DoseCurve, IsoKlDose
from windowshift.core.measure.vector_cosines import cosines_across, cosines_at
from windowshift.core.report.figure_file import write_plot
from windowshift.core.report.gallery import coherence_plot, dose_plot
from windowshift.core.settings.length import CHARS
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer
from windowshift.tui.read import cell_labels
from windowshift.tui.read.column_heads import column_heads
from windowshift.tui.read.fits import spread_in
from windowshift.tui.read.snapshot import CellKey, GridChoice, GridSnapshot, Page, read_experiment, read_grid
from windowshift.tui.read.steering_snapshot import read_steering
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.compare.aligned import BesideChoice, read_beside
from windowshift.tui.screens.compare.screen import CompareScreen
from windowshift.tui.screens.compare.table import CompareTable
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.jobs.job_result import result_lines
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.steering.parts import PARTS, Shown, SteeringPart, part_lines
from windowshift.tui.screens.steering.screen import SteeringScreen
from windowshift.tui.text.theme import DARK, ink
from windowshift.tui.widgets.pane import Pane
from windowshift.tui.widgets.phrase_table import PhraseTable
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.plot_terminal import draw
from windowshift.tui.widgets.sheet import Sheet


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("windowshift.tui.widgets.clipboard.system_clipboard", lambda text: False)
    store(tmp_path, monkeypatch, steering=True).close()
    return tmp_path


def page(workspace: Path, arm: Any, generate: str = "med_short") -> GridSnapshot:
    with closing(Reader(workspace)) as reader:
        found = read_grid(reader, "med-short", GridChoice(Page(arm, generate)))
    assert found is not None
    return found


async def opened(pilot: Pilot[None], part: str = "vectors") -> SteeringScreen:
    await arrive(pilot, GridScreen)
    await pilot.press("s")
    screen: SteeringScreen = await arrive(pilot, SteeringScreen)
    await settle(pilot)
    for _ in range(PARTS.index(part)):  # type: ignore[arg-type]
        await pilot.press("right")
    await settle(pilot)
    assert screen.part == part
    return screen


def left(screen: SteeringScreen) -> str:
    return screen.query_one("#left", Sheet).text


# -- the grid -----------------------------------------------------------------------------------


def test_a_steering_page_has_its_own_conditions_first(workspace: Path) -> None:
    grid = page(workspace, "steering")
    assert grid.columns == ("no_prefix", "length=short", "length=medium", "length=long", "short")
    assert [head.crossed for head in grid.heads] == [False, False, False, False, True]
    assert [(head.band, head.leaf) for head in grid.heads[1:]] == [
        ("length =", "short"),
        ("length =", "medium"),
        ("length =", "long"),
        ("prefix", "short"),
    ]
    assert [row.train for row in grid.rows] == ["length=short", "length=medium", "length=long", "length+0"]
    assert all(cell is not None and cell.mean for cell in grid.base.cells)
    assert all(row.surprise(CHARS.scale) for row in grid.rows)
    # CV is over the arm's own conditions, so it does not wait for crossed ones.
    means = np.array([cell.mean for cell in grid.rows[0].cells[:4] if cell and cell.mean])
    assert spread_in(grid, grid.rows[0], None) == pytest.approx(means.std() / means.mean())
    assert all(column < 4 for place in cell_labels.extremes(grid) if place for column in place[1:])


def test_a_prefix_page_leaves_controls_and_foreign_doses_out(workspace: Path) -> None:
    grid = page(workspace, "prefix")
    assert grid.columns[-1] == "length=short"
    assert [head.name for head in grid.heads if head.crossed] == ["length=short"]
    assert not {"random=short", "length=very_long", "length=long"} & set(grid.columns)
    assert sum(1 for cell in grid.rows[0].own_cells if cell) == 7


def test_cells_that_a_spec_leaves_out_are_blank(workspace: Path) -> None:
    with closing(Writer(workspace)) as writer:
        writer.connection.execute(
            "DELETE FROM cells WHERE arm = 'steering' AND train = 'length=long' AND evaluate = 'short'"
        )
    grid = page(workspace, "steering")
    model = cell_labels.model(grid, "uplift")
    row = [row.train for row in grid.rows].index("length=long")
    assert model.rows[row].faces[-1] == cell_labels.Face("", kind="none")
    assert model.rows[row].faces[0].kind == "done"
    assert model.rows[row].summary[1].text != "·"


def test_heads_of_other_ways_to_push(workspace: Path) -> None:
    with closing(Reader(workspace)) as reader:
        view = read_experiment(reader, "med-short")
    assert view is not None
    plain = {"arm": "steering", "kind": "steering", "vectors": ["length"], "match": None}
    entries = [
        {**plain, "name": "length+1"},
        {**plain, "name": "named"},
        {"name": "length+0", "arm": "steering", "kind": "none"},
        {"name": "no_prefix", "arm": "prefix", "kind": "none"},
    ]
    view.row.conditions["evaluate"] = entries
    heads = column_heads(view.row, "steering", [str(entry["name"]) for entry in entries])
    assert [(head.name, head.band, head.leaf, head.crossed) for head in heads] == [
        ("length+1", "length", "+1", False),
        ("named", "", "named", False),
        ("length+0", "", "length+0", False),
        ("no_prefix", "prefix", "no_prefix", True),  # the arm has one of its own that pushes nowhere
    ]


async def test_the_arm_key_and_what_the_page_says(workspace: Path) -> None:
    async with app(workspace).run_test(size=(80, 24)) as pilot:
        screen = await arrive(pilot, GridScreen)
        await pilot.press("a")
        await until(pilot, lambda: screen.snapshot.page.arm == "steering")
        await settle(pilot)
        text = screen_text(pilot)
        assert "length =" in text
        assert "┊" in text
        await pilot.press("end")
        await settle(pilot)
        assert "crossed: not in CV and fit" in screen_text(pilot)
        column = screen.matrix.column
        region = screen.matrix.cell_region(screen.matrix.row, column)
        assert screen.matrix.view().cell_at(region.x + 1, region.y) == (screen.matrix.row, column)
        await pilot.press("Y")
        await until(pilot, lambda: "short (crossed)" in pilot.app._clipboard)
        await pilot.resize_terminal(180, 30)
        await settle(pilot)
        assert "published for prefixes: GPT-4.1" in screen_text(pilot)
        await pilot.press("a")
        await until(pilot, lambda: screen.snapshot.page.arm == "prefix")


@pytest.mark.parametrize(
    ("link", "train", "evaluate"),
    [
        ("med-short/med_short/length=long/short", "length=long", "short"),
        ("med-short/med_short/base/length=medium", "base", "length=medium"),
    ],
)
async def test_a_link_finds_the_arm(workspace: Path, link: str, train: str, evaluate: str) -> None:
    async with app(workspace, link).run_test() as pilot:
        screen = await arrive(pilot, CellScreen)
        assert (screen.key.train, screen.key.evaluate, screen.key.arm) == (train, evaluate, "steering")


# -- the screen ---------------------------------------------------------------------------------


async def test_vectors_tell_where_they_come_from(workspace: Path) -> None:
    async with app(workspace).run_test(size=(100, 40)) as pilot:
        screen = await opened(pilot)
        text = left(screen)
        assert "very_long − short · response tokens · n 32 + 32 rows" in text
        assert "random, seed 0, norm-matched, control of length" in text
        assert NOT_MADE in " ".join(text.split())
        assert "microworld (rehearsal)" in screen_text(pilot)
        assert screen.vector == "length"
        await pilot.press("v")
        assert screen.vector == "random"
        assert "random: layer by layer" in left(screen)


def vector_file(workspace: Path, name: str) -> Path:
    """Where the store has a vector of the generated workspace."""
    with closing(Reader(workspace)) as reader:
        return workspace / next(job.result["vector"] for job in reader.jobs(1) if job.label == f"vector {name}")


async def test_cosines_by_hand(workspace: Path) -> None:
    async with app(workspace).run_test(size=(100, 40)) as pilot:
        screen = await opened(pilot, "cosines")
        directions = [read_vector(vector_file(workspace, name))[1] for name in ("length", "random")]
        a, b = (one[LAYER].astype(float) for one in directions)
        cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert cosines_at(directions, LAYER)[0, 1] == pytest.approx(cosine)
        assert cosines_across(directions[0]).diagonal() == pytest.approx([1.0] * 3)
        assert f"Cosines between vectors at layer {LAYER}" in left(screen)
        assert f"{abs(cosine):.2f}".removeprefix("0") in left(screen)
        await pilot.press("v", "v")
        assert "vector 'tone' cannot be compared: the two sides of vector 'tone' do not differ" in left(screen)
        await pilot.press("Y")
        await until(pilot, lambda: any("no table" in note.message for note in pilot.app._notifications))


def test_cosines_that_cannot_be() -> None:
    zero, other = np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)
    assert np.isnan(cosines_at([zero, other], 0)).tolist() == [[True, True], [True, False]]
    assert np.isnan(cosines_at([np.ones((2, 3), np.float32), other], 1)).tolist() == [[False, True], [True, True]]
    assert np.isnan(cosines_at([other, np.ones((1, 4), np.float32)], 0)[0, 1])


async def test_a_damaged_vector_is_named(workspace: Path) -> None:
    file = vector_file(workspace, "length")
    file.write_bytes(file.read_bytes()[:-4])
    async with app(workspace).run_test(size=(100, 40)) as pilot:
        screen = await opened(pilot, "cosines")
        assert "is damaged" in left(screen)


async def test_layers_doses_and_matches(workspace: Path) -> None:
    async with app(workspace).run_test(size=(110, 40)) as pilot:
        screen = await opened(pilot, "layers")
        assert "Layer of length: 1" in left(screen)
        assert "text falls apart at alpha 2" in left(screen)
        await pilot.press("right")
        await settle(pilot)
        assert "Dose-response of the base model: length at layer 1" in left(screen)
        figure = screen.query_one("#dose-figure", Picture).text
        assert "short" in figure
        assert "◆ matched" in figure
        assert "nats a token" in screen.query_one("#coherence-figure", Picture).text
        await pilot.press("right")
        await settle(pilot)
        text = " ".join(left(screen).split())
        assert "out of reach: 57.4 … 459" in text
        assert OUT_OF_REACH in text
        assert f"{alpha_of('long'):.2f} [1.08, 1.88]" in text
        await pilot.press("v")
        assert "No dose of 'random' is matched." in left(screen)
        await pilot.press("left")
        await settle(pilot)
        assert "No dose curve of 'random' was measured" in left(screen)
        assert "no dose curve of 'random'" in screen.query_one("#dose-figure", Picture).text
        await pilot.press("left")
        assert "'random' controls 'length' and is used at its layer, 1." in left(screen)


def test_doses_of_equal_kl_stand_among_the_matches(workspace: Path) -> None:
    with closing(Reader(workspace)) as reader:
        found = read_steering(reader, "med-short")
    assert found is not None
    kl = Estimate(1.01, 0.9, 1.2, 512)
    points = (KlPoint(0.5, 0.1), KlPoint(1.0, 0.4), KlPoint(2.0, 1.6))
    dose = IsoKlDose("length", "all", 1.0, LAYER, 1.5, 1.4, None, 0.3, kl, 16, points)
    far = IsoKlDose("length", "all", -9.0, LAYER, None, None, None, None, None, 16, (), "out of reach: at alpha −6")
    found = replace(found, results=replace(found.results, iso_kl=(far, dose)))
    shown = Shown(found, "length", None, "", 0)

    def text(part: SteeringPart, width: int = 120) -> str:
        lines = part_lines(part, shown, width, ink(DARK.name))
        return "\n".join("".join(piece for piece, _ in line) for line in lines)

    matches = text("matches")
    row = next(line for line in matches.splitlines() if "1.50 [1.40, not measured]" in line)
    assert "1.01 [0.90, 1.20]" in row
    assert "16, 512" in row
    assert "out of reach: at alpha −6" in matches
    # In the dose-response each alpha within what was measured has its KL, and the others none.
    curve = next(one for one in found.results.curves if one.vector == "length")
    table = text("doses")
    assert "KL" in table
    for point in curve.points:
        known = found.results.kl_at("length", "all", point.alpha)
        inside = point.alpha == 0 or 0.5 <= point.alpha <= 2.0
        assert (known is not None) == inside
    assert max(map(len, text("matches", 80).splitlines())) <= 80


async def test_controls_and_proofs(workspace: Path) -> None:
    async with app(workspace).run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, "controls")
        text = left(screen)
        assert "random=short" in text
        assert "share" in text
        assert "length, layer 1" in text
        assert "1,040 of 1,040" in text  # 26 jobs of 40 hook calls
        assert "Proof of steering: in" in text


async def test_both_arms_and_a_pair_to_compare(workspace: Path) -> None:
    async with app(workspace).run_test(size=(120, 44)) as pilot:
        screen = await opened(pilot, "arms")
        await until(pilot, lambda: screen.arms is not None)
        await settle(pilot)
        assert "Average over 3 matched pairs under a push" in left(screen)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "coherence —: no matched pair has it in both arms" in left(screen))
        await pilot.resize_terminal(120, 44)
        await settle(pilot)
        assert "no matched pair has it in both arms" in left(screen)  # coherence was not measured
        await pilot.press("right_square_bracket")
        assert screen.part == "pairs"
        assert "Trained under medium | length=medium" in left(screen)
        (row,) = (row for row in screen.arms.rows if row.pair.prefix == "medium") if screen.arms else ()
        assert row.dose is not None
        assert "Base model, dose / prefix: " in left(screen)
        assert {"matched": "matched, within ±10%", "off": "NOT matched", "open": "open, ±10%"}[
            str(row.dose.verdict)
        ] in left(screen)
        assert "Every pair: steering − prefix" in left(screen)
        await pilot.press("ctrl+y")
        await until(pilot, lambda: "long | length=long\tmed_short\tuplift" in pilot.app._clipboard)
        await pilot.press("y")
        await until(pilot, lambda: pilot.app._clipboard.startswith(" Trained under medium"))
        await pilot.press("c")
        compare = await arrive(pilot, CompareScreen)
        assert [(key.arm, key.train, key.evaluate) for key in compare.pinned] == [
            ("prefix", "medium", "no_prefix"),
            ("steering", "length=medium", "no_prefix"),
        ]
        await until(pilot, lambda: compare.found is not None)
        assert compare.found.comparison.measure("uplift").difference is not None
        assert compare.found.dose == row.dose
        word = {"matched": "matched", "off": "not matched", "open": "open"}[str(row.dose.verdict)]
        assert f"dose: {word}" in compare.query_one(CompareTable).text


async def test_wide_screens_show_parts_side_by_side(workspace: Path) -> None:
    async with app(workspace).run_test(size=(160, 50)) as pilot:
        screen = await opened(pilot, "matches")
        right = screen.query_one("#right", Sheet)
        assert right.display
        assert "Matched doses" in right.text
        assert "Controls on the base model" in right.text
        assert "Dose-response" in left(screen)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "Matched doses" in left(screen))
        assert not screen.query_one("#steering-right").display


async def test_the_dose_response_is_written(workspace: Path) -> None:
    async with app(workspace).run_test() as pilot:
        screen = await opened(pilot)
        await pilot.press("e")
        written = workspace / "plots" / "med_short-length-dose_response.svg"
        await until(pilot, written.is_file)
        rows = written.with_suffix(".csv").read_text().splitlines()
        assert sum(row.startswith("mean (n 40),") for row in rows) == 6
        assert any(row.startswith("very_long,,,5") for row in rows)
        await pilot.press("v", "e")
        await until(pilot, lambda: any("Nothing to write" in note.message for note in pilot.app._notifications))
        assert screen.vector == "random"


async def test_what_is_not_done_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch, steering=True)
    connection = writer.connection
    connection.execute("UPDATE jobs SET state = 'pending', result = '{}' WHERE kind IN ('sweep', 'dose', 'match')")
    async with app(tmp_path).run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "layers")
        assert "The layer sweep of 'length' is not done." in left(screen)
        assert "layers and doses of length: pending" in left(screen)
        await pilot.press("right")
        assert "The dose curve of 'length' is not measured yet." in left(screen)
        ((number,),) = connection.execute("SELECT n FROM jobs WHERE kind = 'sweep'").fetchall()
        writer.set_job(number, "failed", error="no layer moves the behaviour", experiment=1)
        await pilot.press("left")
        await until(pilot, lambda: "layers and doses of length: failed: no layer moves" in left(screen))
    writer.close()


async def test_an_experiment_that_does_not_steer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, monkeypatch, prompts=8, data_size=8).close()
    async with app(tmp_path).run_test() as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("a")
        await until(pilot, lambda: any("one arm" in note.message for note in pilot.app._notifications))
        await pilot.press("s")
        screen = await arrive(pilot, SteeringScreen)
        assert "does not steer" in screen_text(pilot)
        await pilot.press("right", "v", "e", "c", "right_square_bracket", "y", "Y")
        assert pilot.app.screen is screen
        await pilot.press("escape")
        await arrive(pilot, GridScreen)


async def test_the_screen_is_opened_again(workspace: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    async with app(workspace, state=state).run_test() as pilot:
        await opened(pilot)
        await pilot.press("q")
    async with app(workspace, None, state=state).run_test() as pilot:
        assert (await arrive(pilot, SteeringScreen)).experiment == "med-short"


# -- cells, completions, jobs -------------------------------------------------------------------


async def test_a_cell_says_its_dose(workspace: Path) -> None:
    async with app(workspace, "med-short/med_short/length=long/length=short").run_test(size=(120, 40)) as pilot:
        cell = await arrive(pilot, CellScreen)
        assert cell.snapshot.push.startswith("length α −2.89 at layer 1, dose ")
        assert cell.snapshot.push.endswith("all tokens, matched to short")
        assert cell.snapshot.train_push.startswith("length α +1.48 at layer 1")
        assert "pushed by length α −2.89 at layer 1" in screen_text(pilot)
        assert "trained under length α +1.48" in screen_text(pilot)
        assert cell.query_one(PhraseTable).text.splitlines()[1].startswith(" length α −2.89 at layer 1")
        await pilot.press("enter")
        screen = await arrive(pilot, CompletionScreen)
        assert "length α −2.89 at layer 1" in screen_text(pilot)
        assert screen.snapshot.base is not None
        assert screen.query_one("#base", Pane).display


async def test_the_base_model_stands_beside_itself_without_a_push(workspace: Path) -> None:
    async with app(workspace, "med-short/med_short/base/length=short").run_test(size=(120, 40)) as pilot:
        cell = await arrive(pilot, CellScreen)
        assert (cell.snapshot.push[:8], cell.snapshot.train_push) == ("length α", "")
        await pilot.press("enter")
        screen = await arrive(pilot, CompletionScreen)
        assert "base model, same prompt, no push" in screen_text(pilot)
        assert screen.snapshot.base.prompt_id == screen.snapshot.completion.prompt_id
        assert screen.snapshot.base.text != screen.snapshot.completion.text


def test_a_matched_dose_stands_beside_its_prefix(workspace: Path) -> None:
    pins = (
        CellKey("prefix", "med_short", "long", "medium", 0, 60),
        CellKey("steering", "med_short", "length=long", "no_prefix", 0, 60),
    )
    with closing(Reader(workspace)) as reader:
        for keys, evaluate, beside in [
            (pins, "medium", "length=medium"),
            (pins[::-1], "length=medium", "medium"),
            (pins, "short", "short"),  # crossed: both have it
        ]:
            found = read_beside(reader, "med-short", BesideChoice(keys, None, evaluate, 0, False))
            assert found is not None
            assert [column.key.evaluate for column in found.columns] == [evaluate, beside]


async def test_jobs_of_vectors(workspace: Path) -> None:
    async with app(workspace).run_test(size=(120, 40)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("J")
        screen = await arrive(pilot, JobsScreen)
        await pilot.press("slash", *"match alpha", "enter")
        await until(pilot, lambda: screen.lines.count == 4)
        await settle(pilot)
        assert "length = short" in screen_text(pilot)
        assert "alpha −2.89 [−3.29, −2.49] at layer 1" in screen_text(pilot)
        await pilot.press("end")
        await settle(pilot)
        assert "out of reach: the base model's mean under 'very_long' is 570" in screen_text(pilot)
        await pilot.press("enter")
        await arrive(pilot, SteeringScreen)


def test_results_in_a_line(workspace: Path) -> None:
    with closing(Reader(workspace)) as reader:
        jobs = {job.label: job for job in reader.jobs(1)}
    for label, said in [
        ("vector length", f"3 layers of width 8: {vector_file(workspace, 'length').relative_to(workspace)}"),
        ("vector random", "3 layers of width 8, random control of length: "),
        ("vector tone", None),
        ("layers and doses of length", "layer 1 of 3: largest ratio"),
        ("dose curve of length", "6 points at layer 1: alpha −3.00 to 2.00, mean 57 to 459; n 40 each"),
        ("base → length=long", "pushed with length, alpha 1.48, layer 1: 40 of 40 calls, 900 of 900 tokens changed"),
        ("train med_short under length=long", "adapter artifacts/"),
        ("base → short", None),
    ]:
        lines = result_lines(jobs[label])
        assert (lines[0] if lines else None) == said or (said is not None and lines[0].startswith(said)), label


# -- figures ------------------------------------------------------------------------------------


def test_a_dose_curve_without_intervals_or_coherence(tmp_path: Path) -> None:
    points = tuple(DosePoint(float(alpha), float(alpha), None, None) for alpha in (-1, 0, 1))
    curve = DoseCurve("v", 2, "all", points)
    plot = dose_plot(curve, (), CHARS)
    assert not plot.log  # a mean of 0 or less has no power
    assert len(draw(plot, 60, 12, ink(DARK.name))) == 12
    assert write_plot(plot, tmp_path, "dose")[1].read_bytes().startswith(b"\x89PNG")
    assert coherence_plot(curve).empty
    assert "not measured" in draw(coherence_plot(curve), 60, 12, ink(DARK.name))[0][0][0]


def test_every_sweep_of_a_vector_is_shown_with_the_tokens_that_it_pushed(workspace: Path) -> None:
    with closing(Reader(workspace)) as reader:
        found = read_steering(reader, "med-short")
    assert found is not None
    (sweep,) = found.sweeps("length")
    both = replace(found, results=replace(found.results, sweeps=(sweep, replace(sweep, tokens="response"))))
    lines = part_lines("layers", Shown(both, "length", None, "", 0), 120, ink(DARK.name))
    text = "\n".join("".join(piece for piece, _ in line) for line in lines)
    assert f"Layer of length: {sweep.layer}" in text
    assert f"Layer of length, response tokens: {sweep.layer}" in text
