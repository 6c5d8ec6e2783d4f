"""What was read inside the model, on screen: the part of the steering screen, and watched texts beside the loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.generated_inside import add_inside
from tests.tui_pilot import NOW, app, arrive, screen_text, settle, store
from windowshift.core.measure.inside_results import InsideResults
from windowshift.core.store.reader import Reader
from windowshift.tui.read.job_snapshot import read_jobs
from windowshift.tui.read.steering_snapshot import read_steering
from windowshift.tui.screens.experiments.screen import ExperimentsScreen
from windowshift.tui.screens.grid.screen import GridScreen
from windowshift.tui.screens.jobs.screen import JobsScreen
from windowshift.tui.screens.steering.parts import PARTS, parts_of
from windowshift.tui.screens.steering.screen import SteeringScreen
from windowshift.tui.widgets.picture import Picture
from windowshift.tui.widgets.watched_curve import WatchedCurve, drawn_lines


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inside") / "ws"
    with pytest.MonkeyPatch.context() as patch, closing(store(folder, patch, steering=True)) as writer:
        add_inside(writer)
    return folder


@pytest.fixture
def workspace(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.chdir(made.parent)
    return Path("ws")  # a relative one: the picture must not show where the test ran


async def to_steering(pilot: Pilot[None], keys: list[str]) -> SteeringScreen:
    await arrive(pilot, GridScreen)
    await pilot.press("s")
    screen: SteeringScreen = await arrive(pilot, SteeringScreen)
    for key in keys:
        await settle(pilot)
        await pilot.press(key)
    await settle(pilot)
    return screen


async def to_jobs(pilot: Pilot[None], *keys: str) -> JobsScreen:
    await arrive(pilot, GridScreen)
    await pilot.press("J")
    screen: JobsScreen = await arrive(pilot, JobsScreen)
    await settle(pilot)
    await pilot.press("slash", *"train", "enter")
    await settle(pilot)
    await pilot.press(*keys)
    await settle(pilot)
    return screen


@pytest.mark.slow
async def test_the_part_inside_shows_drift_and_gradient_of_the_chosen_vector(workspace: Path) -> None:
    pilot_app = app(workspace)
    async with pilot_app.run_test(size=(160, 50)) as pilot:
        screen = await to_steering(pilot, ["left"])  # behind the last one
        assert screen.part == "inside"
        text = screen_text(pilot)
        assert "drift along length, under no_prefix" in text
        assert "does the gradient of D point along length at layer 1?" in text
        assert "very_long (12)" in text
        assert "shift, % of the stream's RMS" in screen.query_one("#dose-figure", Picture).text
        assert "cos(−gradient, v)" in screen.query_one("#coherence-figure", Picture).text
        await pilot.press("v")
        await settle(pilot)
        text = screen_text(pilot)
        assert "drift along random, under no_prefix" in text
        assert "no gradient along 'random' was asked for" in text
        await pilot.press("v")
        await settle(pilot)
        assert "Nothing is read along 'tone'" in screen_text(pilot)
        copied = screen.copied()
        assert copied is not None
        assert copied[0] == "med-short-inside"
        await pilot.press("right")
        await settle(pilot)
        assert screen.part == PARTS[0]


async def test_the_part_goes_when_a_changed_spec_reads_nothing_any_more(workspace: Path) -> None:
    async with app(workspace).run_test(size=(80, 24)) as pilot:
        screen = await to_steering(pilot, ["left"])
        assert screen.part == "inside"
        assert screen.snapshot is not None
        screen.snapshot = replace(screen.snapshot, inside=InsideResults())
        screen.show(screen.snapshot)
        assert screen.part == PARTS[0]
        await pilot.press("right")
        assert screen.part == PARTS[1]


async def test_watched_texts_stand_below_the_loss_of_the_job_that_watches_them(workspace: Path) -> None:
    pilot_app = app(workspace)
    async with pilot_app.run_test(size=(160, 50)) as pilot:
        screen = await to_jobs(pilot, "down")
        curve = screen.query_one(WatchedCurve)
        assert curve.display
        text = screen_text(pilot)
        assert "train med_short under med_short" in text
        assert "facts (n 3) −0.2" in text
        assert "watched texts (n 1) −0.2" in text
        assert "[no interval] nats a token" in text
        assert "60 examples" in text
        await pilot.press("down", "down", "down")
        await settle(pilot)
        assert "facts: nothing read: nothing was read yet" in screen_text(pilot)
        await pilot.press("end")  # a row of the steering arm, which watches nothing
        await settle(pilot)
        assert not curve.display


@pytest.mark.slow
async def test_a_job_that_reads_leads_to_the_steering_screen(workspace: Path) -> None:
    pilot_app = app(workspace)
    async with pilot_app.run_test(size=(100, 30)) as pilot:
        await arrive(pilot, GridScreen)
        await pilot.press("J")
        await arrive(pilot, JobsScreen)
        await settle(pilot)
        await pilot.press("slash", *"gradient of", "enter", "enter")
        await arrive(pilot, SteeringScreen)


def test_snapshots_have_what_was_read_and_only_where_something_was(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Reader(workspace)) as reader:
        found = read_steering(reader, "med-short")
        assert found is not None
        assert parts_of(found) == (*PARTS, "inside")
        assert {one.vector for one in found.inside.drifts} == {"length", "random"}
        job = next(job for job in reader.jobs(1) if job.label == "train med_short under short")
        jobs = read_jobs(reader, "med-short", {}, frozenset(), job.n)
        assert jobs is not None
        assert [(one.group, one.texts) for one in jobs.watched] == [("facts", 3), ("", 1)]
        told, drawn = drawn_lines(jobs.watched, 60, 3)
        assert (len(told), drawn) == (2, [])  # no room for a curve
        assert len(drawn_lines(jobs.watched, 60, 8)[1]) == 6
    store(tmp_path, monkeypatch, steering=True, prompts=4, data_size=4).close()
    with closing(Reader(tmp_path)) as reader:
        plain = read_steering(reader, "med-short")
        assert plain is not None
        assert parts_of(plain) == PARTS


ROUTES: dict[str, Callable[[Pilot[None]], Any]] = {
    "inside": lambda pilot: to_steering(pilot, ["left"]),
    "watched": lambda pilot: to_jobs(pilot, "down"),
}


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=["80x24", "160x50"])
@pytest.mark.parametrize("route", ROUTES)
def test_picture(route: str, size: tuple[int, int], workspace: Path, snap_compare: Callable[..., bool]) -> None:
    async def go(pilot: Pilot[None]) -> None:
        await arrive(pilot, ExperimentsScreen)
        await pilot.press("enter")
        await ROUTES[route](pilot)
        await settle(pilot)

    assert snap_compare(app(workspace, None, now=NOW), terminal_size=size, run_before=go)
