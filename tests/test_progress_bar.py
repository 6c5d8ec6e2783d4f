"""What a headless run says while it goes on."""

from __future__ import annotations

import pytest

from windowshift import progress_bar as module
from windowshift.core.contract.progress import Pace, Progress, Work
from windowshift.core.contract.service import Queue

LABELS = ("train med_short under long", "train med_short under short")


def at(rows: int, examples: int) -> Progress:
    work = (Work("rows", rows, 1000, True), Work("examples", examples, 60, examples > 0))
    return Progress(1, 4, 3, 9, 0, LABELS, work=work)


def test_a_log_has_a_line_every_ten_seconds_with_rows_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    with module.progress_bar("grid", quiet=False) as show:
        show(at(100, 0))
        for second in range(60):
            clock += 1.0
            # No cell ends meanwhile: rows within one are news enough.
            show(at(100 + 5 * (second + 1), 0))
        lines = capsys.readouterr().err.splitlines()
        show(at(400, 0))
        clock += 10.0
        show(at(400, 30))
        both = capsys.readouterr().err
        clock += 1.0
        queues = (("vllm", Queue(3, 2, 60.0, None, 120.0, "cache 5%")),)
        show(Progress(2, 4, 8, 9, 1, (), queues))
        last = capsys.readouterr().err
    assert len(lines) == 7
    now = "train med_short under long and 1 more"
    assert lines[0] == f"grid: 1/4 cells, 3/9 jobs, 100/1,000 rows, 0/60 examples, 0 s; {now}"
    assert lines[-1] == f"grid: 1/4 cells, 3/9 jobs, 400/1,000 rows (5.0/s), 0/60 examples, 60 s; {now}"
    assert "400/1,000 rows (4.3/s), 30/60 examples (3.0/s), 70 s, about 2 min left" in both
    assert last.startswith("grid: 2/4 cells, 8/9 jobs, 1 job failed, 71 s; vllm: 5 requests waiting")


def test_a_run_without_news_has_a_line_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    with module.progress_bar("grid", quiet=False) as show:
        for _ in range(300):
            show(at(0, 0))
            clock += 0.2
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with module.progress_bar("grid", quiet=True) as show:
        show(at(1, 1))
    assert capsys.readouterr().err == ""


def test_the_time_left_is_not_known_before_every_kind_was_seen() -> None:
    pace = Pace()
    assert pace.seconds_left() is None
    pace.see((Work("rows", 500, 1000, True), Work("examples", 0, 60, False)), 0.0)
    assert pace.seconds_left() is None  # what an earlier run did says nothing of this one
    pace.see((Work("rows", 600, 1000, False), Work("examples", 0, 60, True)), 10.0)
    assert pace.rate("rows") == 10
    assert pace.seconds_left() is None
    pace.see((Work("rows", 600, 1000, False), Work("examples", 30, 60, False)), 20.0)
    assert pace.rate("rows") == 10  # it was not in work in the second half
    assert pace.seconds_left() == 40 + 10
    pace.see((Work("rows", 1000, 1000, False), Work("examples", 60, 60, False)), 30.0)
    assert pace.seconds_left() == 0


def test_rows_that_are_asked_for_again_are_no_negative_rate() -> None:
    pace = Pace()
    pace.see((Work("rows", 10, 20, True),), 0.0)
    pace.see((Work("rows", 4, 20, True),), 1.0)
    assert pace.rate("rows") is None
    pace.see((Work("rows", 8, 20, True),), 2.0)
    assert pace.rate("rows") == 2
