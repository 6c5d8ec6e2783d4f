"""A job's turn: put first or last, paused and let go on, by people, while the run works."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_plan import SPEC, planned
from tests.runs import completions, start, wait_until, windowshift, write_spec
from tests.tui_pilot import NOW, app, arrive, screen_text, settle, store, until
from windowshift.core.contract.records import JobRow
from windowshift.core.run.ledger import Ledger
from windowshift.core.store import control
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer
from windowshift.tui.read.job_snapshot import folded
from windowshift.tui.read.pace import pace
from windowshift.tui.screens.jobs.screen import JobsScreen


def test_first_takes_its_parents_along_and_stays(tmp_path: Path) -> None:
    plan = planned(SPEC)
    with closing(Writer(tmp_path)) as writer:
        ledger = Ledger(plan, writer)
        data = next(job for job in plan.jobs if job.kind == "generate")
        *_, chosen = (job for job in plan.jobs if job.kind == "evaluate" and job.parents)
        base = ledger.ready()[0]
        assert ledger.move(ledger.number(chosen), first=True)
        assert ledger.ready()[0] == data
        assert ledger.move(ledger.number(base), first=False)
        assert ledger.ready()[-1] == base
        order = [job.id for job in ledger.ready()]
        again = Ledger(plan, writer)  # as the next run finds it
        assert [job.id for job in again.ready()] == order
        for job in plan.jobs:
            if job.kind in ("generate", "train"):
                again.finish(job)
        assert again.ready()[0] == chosen
        assert not again.move(again.number(data), first=True)
        assert not again.move(999, first=True)


def test_a_paused_job_waits_until_it_may_go_on(tmp_path: Path) -> None:
    plan = planned(SPEC)
    with closing(Writer(tmp_path)) as writer:
        ledger = Ledger(plan, writer)
        job = ledger.ready()[0]
        number = ledger.number(job)
        assert not ledger.resume(number)
        assert ledger.pause(number)
        assert not ledger.pause(number)
        assert ledger.held()
        assert job not in ledger.ready()
        assert ledger.resume(number)
        assert ledger.ready()[0] == job
        assert not ledger.held()


def test_a_run_obeys(tiny_llama: Path, tmp_path: Path) -> None:
    """A real run, held while its controls are written: the moved job is the first, the paused one the last."""
    spec, workspace = write_spec(tmp_path, tiny_llama), tmp_path / "ws"
    process = start("run", spec, "--workspace", workspace)
    wait_until(lambda: completions(workspace) > 0)
    with closing(Reader(workspace)) as reader:
        control.request(workspace, 1, "pause")
        wait_until(lambda: not any(job.state == "running" for job in reader.jobs(1)))
        *_, last = (job for job in reader.jobs(1) if job.kind == "evaluate")
        waiting = next(job for job in reader.jobs(1) if job.kind == "evaluate" and job.state == "pending")
        windowshift("control", "small", "first", "--job", str(last.n), "--workspace", workspace)
        control.request(workspace, 1, "pause", waiting.n)
        held = max(event.id for event in reader.events(limit=10_000))  # what ran before the pause is no matter
        control.request(workspace, 1, "resume")
        kept = {waiting.n, *(job.n for job in reader.jobs(1) if waiting.id in job.parents)}  # its score waits too
        wait_until(lambda: {job.state for job in reader.jobs(1) if job.n not in kept} == {"done"})
        assert reader.job(waiting.n).state == "paused"
        assert process.poll() is None
        trained = [
            event.job
            for event in reader.events(after=held, limit=10_000)
            if event.kind == "state" and event.data["state"] == "running"
        ]
        # Two adapters are trained side by side, and either may be ready first: only those of its own are behind it.
        rivals = [job.n for job in reader.jobs(1) if job.kind == "evaluate" and job.parents == last.parents]
        assert len(rivals) == 2
        assert next(n for n in trained if n in rivals) == last.n
        control.request(workspace, 1, "resume", waiting.n)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert reader.job(waiting.n).state == "done"


def test_a_job_that_is_moved_disturbs_no_other_lane(tiny_llama: Path, tmp_path: Path) -> None:
    """What is trained meanwhile goes on: an interruption would cost the steps since its last state."""
    spec, workspace = write_spec(tmp_path, tiny_llama, train="[short]"), tmp_path / "ws"
    text = spec.read_text(encoding="utf-8").replace("batch_size: 4", "batch_size: 4, epochs: 300")
    spec.write_text(text, encoding="utf-8")
    process = start("run", spec, "--workspace", workspace)
    wait_until(lambda: completions(workspace) > 0)
    with closing(Reader(workspace)) as reader:
        (train,) = (job.n for job in reader.jobs(1) if job.kind == "train")
        *_, last = (job.n for job in reader.jobs(1) if job.kind == "evaluate")
        wait_until(lambda: reader.job(train).done > 0)
        control.request(workspace, 1, "last", last)
        control.request(workspace, 1, "pause", last)
        wait_until(lambda: reader.job(last).state == "paused")
        assert reader.job(train).state == "running"
        control.request(workspace, 1, "resume", last)
        process.communicate(timeout=120)
        assert process.returncode == 0
        begun = [event for event in reader.events(limit=10_000) if event.kind == "state" and event.job == train]
        assert [event.data["state"] for event in begun] == ["running", "done"]


def test_first_needs_a_job(tmp_path: Path) -> None:
    done = windowshift("control", "small", "first", "--workspace", tmp_path, check=2)
    assert "'first' moves one job: name it with --job NUMBER" in done.stderr


# -- on screen ----------------------------------------------------------------------------------


def job(n: int, kind: str, state: str, **more: object) -> JobRow:
    fields = {"done": 10 if state == "done" else 0, "total": 10, "loss": None, "rate": None, "usd": None, "error": None}
    times = {"started": None, "ended": None}
    return JobRow(n=n, id=str(n), kind=kind, label=f"{kind} {n}", state=state, **{**fields, **times, **more})  # type: ignore[arg-type]


def test_pace() -> None:
    done = [job(n, "evaluate", "done", started=0.0, ended=40.0, usd=0.5) for n in (1, 2)]
    half = job(3, "evaluate", "running", started=40.0, done=5)
    left = pace([*done, half, job(4, "evaluate", "pending")], 60.0)
    assert left.seconds == 60.0 * 15 / 25  # 25 rows took a minute, 15 are left
    assert left.usd == 2.0
    assert pace([*done, job(4, "train", "pending")], 60.0) == pace([], 0.0).__class__(None, None)
    assert pace(done, 60.0).seconds is None
    assert pace(done, 60.0).usd == 1.0
    beside = [
        job(1, "train", "done", started=0.0, ended=40.0),
        job(2, "evaluate", "done", started=0.0, ended=40.0),
        job(3, "train", "pending"),
        job(4, "evaluate", "pending"),
    ]
    assert pace(beside, 40.0).seconds == 40.0  # what ran side by side goes on side by side


@given(st.lists(st.sampled_from(["score done", "score failed", "score pending", "evaluate done"]), max_size=12))
def test_folding_loses_no_row(kinds: list[str]) -> None:
    jobs = [job(n + 1, *kind.split()) for n, kind in enumerate(kinds)]
    shown = folded(jobs)
    many = {kind for kind in ("score done", "score pending") if kinds.count(kind) > 1}
    assert [one for one in shown if one.n > 0] == [one for one in jobs if f"{one.kind} {one.state}" not in many]
    assert {f"{one.kind} {one.state}" for one in shown if one.n <= 0} == many
    assert len({one.n for one in shown}) == len(shown)
    assert sum(one.total for one in shown) == sum(one.total for one in jobs)


async def test_jobs_are_moved_folded_and_paced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store(tmp_path, monkeypatch, running=10)
    writer.connection.execute(
        "UPDATE jobs SET kind = 'score', label = 'score ' || n WHERE label LIKE 'base %' OR label LIKE '%: short %'"
    )
    async with app(tmp_path, "med-short", now=NOW).run_test(size=(120, 40)) as pilot:
        await pilot.press("J")
        screen: JobsScreen = await arrive(pilot, JobsScreen)
        folded_count = screen.lines.count
        await pilot.press("end")
        await settle(pilot)
        assert "14 score jobs, all done (f unfolds)" in screen_text(pilot)
        await pilot.press("plus")
        await until(pilot, lambda: "f shows each" in str([note.message for note in pilot.app._notifications]))
        await pilot.press("enter")
        assert screen.lines.count == folded_count + 13
        await pilot.press("f", "end", "up", "plus")
        chosen = screen.selected
        assert chosen is not None
        await until(pilot, lambda: "do this job first" in str([note.message for note in pilot.app._notifications]))
        await pilot.press("minus")
        await until(pilot, lambda: "do this job last" in str([note.message for note in pilot.app._notifications]))
        assert writer.take_controls(1) == [("first", chosen.n), ("last", chosen.n)]
        writer.set_priority(chosen.n, 1)
        await until(pilot, lambda: f"↑ {chosen.label}" in screen_text(pilot))
        await settle(pilot)
        assert "left" in screen.query_one("#counts").text  # type: ignore[attr-defined]
    writer.close()
