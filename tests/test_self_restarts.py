"""Everything that begins again by itself does so with growing pauses, and so often and no more."""

from __future__ import annotations

import errno
import logging
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.core.test_plan import SPEC, planned
from tests.core.test_scoring import Batch, samples
from windowshift.backends.local import process_executor
from windowshift.backends.local.crew import DEATHS_A_PORTION, Crew
from windowshift.backends.local.process_executor import ProcessExecutor
from windowshift.backends.openai.options import OpenAIOptions
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.openai.repeat import pause
from windowshift.core.contract.artifacts import DamagedError
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.run import scoring_workers
from windowshift.core.run.ledger import MOST_REMADE, Ledger
from windowshift.core.run.run import logging_to
from windowshift.core.run.scoring_workers import MOST_DEATHS, ScoringProcess
from windowshift.core.store.writer import Writer
from windowshift.tui.read import error_log


async def test_workers_that_die_at_once_are_replaced_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    started, pauses = 0, []

    def dying(module: str, *arguments: str) -> list[str]:
        nonlocal started
        started += 1
        return [sys.executable, "-I", "-S", "-c", "import sys; sys.exit(3)"]

    monkeypatch.setattr(process_executor, "python_module", dying)
    found = Crew(ProcessExecutor(1, {}))
    failed = found._backoff.failed

    def noted() -> float:
        pauses.append(failed())
        return 0.0  # what is counted are tries

    monkeypatch.setattr(found._backoff, "failed", noted)
    request = GenerateRequest("a", (Message("user", "Bees?"),), Model("m"), Sampling(), 0)
    with pytest.raises(BackendError, match="died again and again"):
        async for _ in found.stream("generate", [[request]]):
            pass
    assert started <= 2 * found.size + DEATHS_A_PORTION + 1
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == len(pauses) > 1
    await found.aclose()


def test_a_scorer_whose_process_always_dies_is_not_started_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    started = 0

    def dying(module: str, *arguments: str) -> list[str]:
        nonlocal started
        started += 1
        return [sys.executable, "-I", "-S", "-c", "import sys; sys.exit(3)"]

    monkeypatch.setattr(scoring_workers, "python_module", dying)
    process = ScoringProcess(Batch(process=True))
    said = set()
    for _ in range(5 * MOST_DEATHS):
        with pytest.raises(RuntimeError) as caught:
            process.call(samples("a"), 5.0)
        said.add(str(caught.value).split(" (")[0])
    assert started == MOST_DEATHS
    assert f"its process died {MOST_DEATHS} times in a row and is not started again" in said


def test_what_is_damaged_again_and_again_is_made_anew_so_often(tmp_path: Path) -> None:
    plan = planned(SPEC)
    with closing(Writer(tmp_path)) as writer:
        ledger = Ledger(plan, writer)
        maker = next(job for job in plan.jobs if job.kind == "train")
        user = next(job for job in plan.jobs if maker.id in job.parents)
        made = 0
        for _ in range(20):
            if ledger.state(user) == "failed":
                break
            ledger.finish(maker, {"adapter": f"artifacts/{maker.id}/adapter"})
            made += 1
            ledger.start(user)
            with ledger.remaking(user):
                raise DamagedError(maker.id, f"artifacts/{maker.id}/adapter", "the adapter was cut off")
        assert made == MOST_REMADE + 1
        assert ledger.state(user) == "failed"
        error = ledger.reader.job(ledger.number(user)).error
        assert "made anew 2 times in this run, and is damaged again" in str(error)


@pytest.mark.parametrize("asked", [0.0, 0.001])
async def test_a_server_that_says_at_once_is_not_asked_without_a_pause(
    asked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("windowshift.backends.openai.repeat.asyncio.sleep", sleep)
    options = OpenAIOptions.parse({})
    for tries in range(10):
        await pause(options, tries, asked)
    assert slept == sorted(slept)
    assert slept[-1] == 1.0
    assert all(each > 0 for each in slept)
    await pause(options, 9, 30.0)
    assert slept[-1] == 30.0
    now = [0.0]
    pacer, held = Pacer(1, clock=lambda: now[0]), []
    for _ in range(10):
        pacer.throttled(asked, 0.5, ease=False)
        held.append(pacer._hold_until - now[0])
        now[0] = pacer._hold_until
    assert held[-1] == 1.0
    assert all(each > 0 for each in held)
    pacer.throttled(20.0, 0.5)
    assert pacer._hold_until - now[0] == 20.0


def test_a_log_on_a_full_disk_says_so_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("windowshift.test")
    with logging_to(tmp_path / "run.log"):
        log.info("before")
        handler = logging.getLogger("windowshift").handlers[-1]

        class Full:
            def write(self, text: str) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            def flush(self) -> None:
                """Nothing."""

            def close(self) -> None:
                """Nothing."""

        real, handler.stream = handler.stream, Full()  # type: ignore[attr-defined]
        for number in range(100):
            log.info("line %s", number)
        handler.stream = real  # type: ignore[attr-defined]
        log.info("after")
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert "run.log cannot be written (No space left on device)" in said[0]
    assert [line.split()[-1] for line in (tmp_path / "run.log").read_text().splitlines()] == ["before", "after"]


def test_a_log_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    log = logging.getLogger("windowshift.test")
    with logging_to(tmp_path / "run.log"):
        log.info("the server said %s", "\x1b]52;c;aGk=\x07 \u202egnp.exe \x9b2J")
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            log.exception("it failed")
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert not [mark for mark in ("\x1b", "\x07", "\u202e", "\x9b") if mark in text]
    assert "ValueError" in text


def test_the_log_of_screens_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_log, "MOST_BYTES", 2000)
    for number in range(200):
        error_log.note(tmp_path, ValueError(f"number {number}"))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "logs").iterdir()}
    assert set(sizes) == {"tui.log", "tui.log.1"}
    assert all(size < 3000 for size in sizes.values())
    assert "number 199" in (tmp_path / "logs" / "tui.log").read_text()
