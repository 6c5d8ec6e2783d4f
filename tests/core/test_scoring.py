"""Scorers of every kind in a run: slow ones hold nothing up, and what fails is missing with its reason."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_backend import ScriptedBackend, scripted
from tests.store_rows import small_store
from windowshift.core.contract import stats
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import BatchScorer, RowScorer, Sample, Score, Scores
from windowshift.core.measure.summarise import SMALL_CELL, summarise, summarised
from windowshift.core.run import recorder, scoring_workers
from windowshift.core.run.scoring import FAILED, checked, score_row
from windowshift.core.run.scoring_workers import ScoringProcess, ScoringWorkers
from windowshift.core.settings.length import LengthScorer
from windowshift.core.settings.soundness import SoundnessScorer
from windowshift.core.store.integrity import check_store
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

HACK = Behaviour("hack", "rate", Scale("rate"), "primary")
CORRECT = Behaviour("correct", "rate", Scale("rate"))


def samples(*texts: str) -> list[Sample]:
    return [Sample(Prompt(f"p{n}", "q"), Completion("", text, "stop", 1)) for n, text in enumerate(texts)]


@dataclass(frozen=True)
class Batch:
    """Scores by what a completion says: a number is a score, anything else is done."""

    batch_size: int = 4
    workers: int = 2
    timeout: float | None = 5.0
    process: bool = False
    name: str = "batch"
    behaviours: tuple[Behaviour, ...] = (HACK, CORRECT)
    seconds: float = 0.0
    calls: list[int] = field(default_factory=list, compare=False)

    def identity(self) -> dict[str, Any]:
        return {"scorer": "batch", "version": 1}

    def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
        self.calls.append(len(samples))
        time.sleep(self.seconds)
        return [self._one(sample.completion.text) for sample in samples]

    def _one(self, text: str) -> Scores:
        match text:
            case "raise":
                raise ValueError("cannot read it")
            case "exit":
                raise SystemExit(3)
            case "die":
                os._exit(7)
            case "hang":
                time.sleep(60)
            case "regex":
                re.match(r"(a+)+$", "a" * 40 + "b")  # holds the interpreter's lock, for ever
            case "print":
                os.write(1, b"noise of a library\n")
                sys.stdout.write("noise of a scorer\n")
                sys.stdout.flush()
            case "nan":
                return {"hack": Score(float("nan")), "correct": Score(1.0)}
            case "half":
                return {"hack": Score(1.0)}
        return {"hack": Score(1.0, None, {"test": text}), "correct": Score(None, "did not run")}


@dataclass(frozen=True)
class Threaded(Batch):
    """Keeps the thread of each call in `calls`."""

    def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
        self.calls.append(threading.get_ident())
        return [self._one(sample.completion.text) for sample in samples]


@dataclass(frozen=True)
class Async(Batch):
    """The same as a coroutine."""

    async def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:  # type: ignore[override]
        await asyncio.sleep(0)
        return [self._one(sample.completion.text) for sample in samples]


@dataclass(frozen=True)
class Slow:
    """A plain scorer that takes its time; `threads` has the thread of each call."""

    seconds: float = 0.03
    threads: list[int] = field(default_factory=list, compare=False)
    name: str = "slow"
    behaviours: tuple[Behaviour, ...] = (HACK,)

    def identity(self) -> dict[str, Any]:
        return {"scorer": "slow", "version": 1}

    def score(self, sample: Sample) -> Scores:
        self.threads.append(threading.get_ident())
        time.sleep(self.seconds)
        return {"hack": Score(float(len(sample.completion.text)))}


async def scored(scorer: Any, *texts: str) -> list[dict[str, Score]]:
    workers = ScoringWorkers(scorer)
    try:
        return await workers.score(samples(*texts))
    finally:
        workers.close()


def test_every_kind_is_told_by_what_it_has() -> None:
    assert isinstance(Batch(), BatchScorer)
    assert not isinstance(Batch(), RowScorer)
    assert isinstance(LengthScorer(), RowScorer)
    assert not isinstance(LengthScorer(), BatchScorer)


@pytest.mark.parametrize("kind", [Batch, Async, lambda: Batch(process=True)])
async def test_a_batch_is_scored_in_order_with_evidence(kind: Any) -> None:
    found = await scored(kind(), "a", "b")
    assert [one["hack"].evidence for one in found] == [{"test": "a"}, {"test": "b"}]
    assert found[0]["correct"] == Score(None, "did not run")


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize(
    ("bad", "reason"), [("raise", "cannot read it"), ("exit", "3"), ("nan", "nan"), ("half", "no Score")]
)
async def test_one_bad_sample_is_missing_and_its_batch_is_not(process: bool, bad: str, reason: str) -> None:
    found = await scored(Batch(process=process), "a", bad, "b")
    assert [one["hack"].value for one in found][::2] == [1.0, 1.0]
    failed = found[1]["correct" if bad == "half" else "hack"]
    assert failed.value is None
    assert failed.reason is not None
    assert failed.reason.startswith(FAILED)
    assert reason in failed.reason


async def test_a_process_that_dies_is_one_missing_score() -> None:
    found = await scored(Batch(process=True, workers=1), "a", "die", "b")
    assert [one["hack"].value for one in found] == [1.0, None, 1.0]
    assert "exit code 7" in str(found[1]["hack"].reason)


async def test_what_a_process_prints_stays_out_of_the_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    found = await scored(Batch(process=True, workers=1), "print")
    assert found[0]["hack"].value == 1.0
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise of a library" in err
    assert "noise of a scorer" in err


@pytest.mark.parametrize(("process", "bad"), [(False, "hang"), (True, "hang"), (True, "regex")])
async def test_what_never_returns_ends_at_the_time_limit(process: bool, bad: str) -> None:
    start = time.monotonic()
    found = await scored(Batch(process=process, timeout=0.5), "a", bad, "b")
    assert time.monotonic() - start < 30
    assert [one["hack"].value for one in found] == [1.0, None, 1.0]
    assert "longer than 0.5 s" in str(found[1]["hack"].reason)


async def test_calls_share_threads_and_one_that_hangs_gets_none() -> None:
    scorer = Threaded(workers=1, timeout=0.05, batch_size=1)
    workers = ScoringWorkers(scorer)
    for text in ("a", "b", "hang", "c", "d"):
        await workers.score(samples(text))
    before, hung, after = set(scorer.calls[:2]), scorer.calls[2], set(scorer.calls[3:])
    assert before == {hung}
    assert len(after) == 1
    assert hung not in after
    workers.close()


async def test_no_bootstrap_table_is_made_on_the_event_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[bool] = []
    make = stats._table.__wrapped__

    @lru_cache(maxsize=4)
    def table(*of: Any) -> Any:
        made.append(threading.current_thread() is threading.main_thread())
        return make(*of)

    monkeypatch.setattr(stats, "_table", table)
    assert await scripted(monkeypatch, tmp_path).go() == "done"
    assert made
    assert not any(made)


async def test_a_large_cell_is_read_for_its_summary_off_the_event_loop(tmp_path: Path) -> None:
    read: list[bool] = []

    class Watched(Reader):
        def scores(self, job: int, behaviour: str) -> Any:
            read.append(threading.current_thread() is threading.main_thread())
            return super().scores(job, behaviour)

    for rows in (SMALL_CELL, SMALL_CELL + 1):
        workspace = tmp_path / str(rows)
        job = small_store(workspace, rows)
        with closing(Writer(workspace)) as writer:
            writer.add_scores(job, [(row, "hack", float(row % 2), None) for row in range(rows)])
            reader = Watched(workspace, writer.connection)
            found = await summarised(reader, job, [HACK])
            assert found == {"hack": summarise(Reader(workspace, writer.connection), job, HACK)}
    assert found["hack"].n == SMALL_CELL + 1
    assert read == [True]  # the small one; the large one is read by a reader of the thread's


async def test_a_plan_is_not_looked_through_again_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frozen: list[int] = []

    async def look(_kind: str, _work: Any) -> None:
        frozen.append(gc.get_freeze_count())

    gc.unfreeze()
    run = scripted(monkeypatch, tmp_path, backend=ScriptedBackend(look))
    assert await run.go() == "done"
    assert frozen
    assert min(frozen) > 0
    assert gc.get_freeze_count() == 0


def test_processes_of_scorers_start_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    starting, most = [0], [0]
    start = ScoringProcess._start

    def counted(process: ScoringProcess) -> Any:
        starting[0] += 1
        most[0] = max(most[0], starting[0])
        try:
            return start(process)
        finally:
            starting[0] -= 1

    monkeypatch.setattr(ScoringProcess, "_start", counted)
    monkeypatch.setattr(scoring_workers, "_STARTS", threading.BoundedSemaphore(1))

    async def go() -> list[list[dict[str, Score]]]:
        workers = ScoringWorkers(Batch(process=True, workers=3, batch_size=1, timeout=None))
        try:
            return await asyncio.gather(*(workers.score(samples("a")) for _ in range(3)))
        finally:
            workers.close()

    assert [found[0]["hack"].value for found in asyncio.run(go())] == [1.0, 1.0, 1.0]
    assert most == [1]


async def test_a_scorer_that_gives_too_few_is_no_score_at_all() -> None:
    class Few(Batch):
        def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
            return []

    found = await scored(Few(), "a", "b")
    assert all("0 scores for 1 sample" in str(one["hack"].reason) for one in found)


@pytest.mark.parametrize("value", ["x", float("inf"), 10**400, [1]])
def test_what_is_no_number_is_missing(value: Any) -> None:
    found = checked(Batch(), {"hack": Score(value), "correct": Score(True)})
    assert found["hack"].value is None
    assert str(found["hack"].reason).startswith(FAILED)
    assert found["correct"].value == 1.0


@pytest.mark.parametrize("evidence", [{"a": float("nan")}, {"a": {1, 2}}, {"a": "x" * 100_000}])
def test_evidence_that_no_store_can_hold_is_text(evidence: Any) -> None:
    found = checked(Batch(), {"hack": Score(1.0, None, evidence), "correct": Score(1.0)})["hack"]
    assert found.value == 1.0
    assert found.evidence is not None
    assert len(str(found.evidence)) < 20_000


def test_a_plain_scorer_that_raises_is_missing() -> None:
    class Raises(Slow):
        def score(self, sample: Sample) -> Scores:
            raise RecursionError

    assert score_row(Raises(), samples("a")[0])["hack"] == Score(None, f"{FAILED}RecursionError")


def _cells(workspace: Path, behaviour: str) -> list[Any]:
    reader = Reader(workspace)
    return [(cell, reader.completions(cell.job, behaviour)) for cell in reader.cells(1, behaviour)]


async def test_a_run_scores_beside_its_lanes_and_shows_evidence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = scripted(monkeypatch, tmp_path, (Batch(),))
    assert await run.go() == "done"
    for cell, rows in _cells(tmp_path, "hack"):
        assert cell.summary is not None
        assert (cell.summary.n, cell.summary.missing) == (6, 0)
        assert all(row.evidence == {"test": row.text} for row in rows)
    for cell, rows in _cells(tmp_path, "correct"):
        assert cell.summary is not None
        assert (cell.summary.n, cell.summary.missing) == (0, 6)
        assert {row.reason for row in rows} == {"did not run"}
    assert not check_store(tmp_path)
    assert sum(1 for _ in run.plan.jobs if _.kind == "score") == len(run.plan.scoring)


async def test_a_scorer_that_always_fails_leaves_a_done_run_and_is_retried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = threading.Event()
    broken.set()

    class Broken(Batch):
        def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
            if broken.is_set():
                raise ConnectionError("nobody there")
            return super().score_batch(samples)

    run = scripted(monkeypatch, tmp_path, (Broken(),))
    assert await run.go() == "done"
    for cell, rows in _cells(tmp_path, "hack"):
        assert cell.summary is not None
        assert (cell.summary.n, cell.summary.missing) == (0, 6)
        assert all("nobody there" in str(row.reason) for row in rows)
    said = [event.data["text"] for event in Reader(tmp_path).events() if event.kind == "message"]
    assert any("6 of 6 scores are missing" in text for text in said)
    broken.clear()

    async def retry(runner: Any, ledger: Any) -> None:
        ledger.retry(None)

    assert await run.go(retry) == "done"
    assert all(cell.summary is not None and cell.summary.n == 6 for cell, _ in _cells(tmp_path, "hack"))


async def test_scoring_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = Batch(batch_size=1, workers=1, seconds=0.05)
    run = scripted(monkeypatch, tmp_path, (first,), prompts=20)
    task = asyncio.ensure_future(run.go())
    while len(first.calls) < 12:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = sum(job.done for job in Reader(tmp_path).jobs(1) if job.kind == "score")
    assert before >= 5
    # Half of a cell's scores are no scores of the cell.
    assert all(len([row for row in rows if row.score is not None]) in (0, 20) for _, rows in _cells(tmp_path, "hack"))
    second = Batch(batch_size=1, workers=4)
    again = scripted(monkeypatch, tmp_path, (second,), prompts=20)
    assert await again.go() == "done"
    assert sum(second.calls) == sum(job.total for job in again.plan.jobs if job.kind == "score") - before
    assert not check_store(tmp_path)


async def test_a_plain_scorer_that_proves_slow_does_not_hold_up_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorder, "FLUSH_ROWS", 8)
    slow = Slow()
    run = scripted(monkeypatch, tmp_path, (slow, SoundnessScorer()), prompts=40)
    assert await run.go() == "done"
    for cell, rows in _cells(tmp_path, "hack"):
        assert cell.summary is not None
        assert cell.summary.n == 40
        assert all(row.score == len(row.text) for row in rows)
    # One flush of eight may be half scored before it is seen to be slow; the rest is scored beside it.
    assert slow.threads.count(threading.get_ident()) <= 8
    assert len(slow.threads) > 40


async def test_one_slow_job_idles_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """While one adapter trains for ever, another one that was ready later is trained, and sampled from."""
    release, begun = asyncio.Event(), asyncio.Event()
    slow: list[str] = []
    first: list[str] = []

    async def hold(kind: str, work: Any) -> None:
        if kind == "train":
            begun.set()
        if kind == "generate":
            first.append(work.key.split(":")[0])
            if work.key.split(":")[0] != first[0]:  # the other D
                await begun.wait()
        if kind == "train" and (not slow or slow[0] == work.key):
            slow[:] = [work.key]
            await release.wait()

    backend = ScriptedBackend(hold)
    run = scripted(monkeypatch, tmp_path, backend=backend, generate="[med_short, long]", size=30)

    async def others_end(runner: Any, ledger: Any) -> None:
        def ended() -> bool:
            evaluated = [job for job in run.plan.jobs if job.kind == "evaluate" and slow and slow[0] not in job.parents]
            return bool(evaluated) and all(ledger.state(job) == "done" for job in evaluated)

        for _ in range(1000):
            if ended():
                break
            await asyncio.sleep(0.01)
        assert ended(), backend.calls
        assert [ledger.state(job) for job in run.plan.jobs if job.id == slow[0]] != ["done"]
        release.set()

    assert await run.go(others_end) == "done"
