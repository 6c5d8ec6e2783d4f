"""What a headless run says while it goes on."""

from __future__ import annotations

import pytest

from windowshift import progress_bar as module
from windowshift.core.contract.progress import Progress
from windowshift.core.contract.service import Queue

AT_WORK = Progress(1, 4, 3, 9, 0, ("train med_short under long", "train med_short under short"))


def test_a_log_is_told_of_news_and_that_work_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    with module.progress_bar("grid", quiet=False) as show:
        show(AT_WORK)
        for _ in range(59):
            clock += 1.0
            show(AT_WORK)
        first = capsys.readouterr().err
        clock += 1.0
        show(AT_WORK)
        later = capsys.readouterr().err
        clock += 10.0
        queues = (("vllm", Queue(3, 2, 60.0, None, 120.0, "cache 5%")),)
        show(Progress(2, 4, 4, 9, 1, (), queues))
        last = capsys.readouterr().err
    assert first == "grid: 1/4 cells, 3/9 jobs, 0 s; train med_short under long and 1 more\n"
    assert later == "grid: 1/4 cells, 3/9 jobs, 60 s; train med_short under long and 1 more\n"
    assert last.startswith("grid: 2/4 cells, 4/9 jobs, 1 job failed, 70 s; vllm: 5 requests waiting")


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with module.progress_bar("grid", quiet=True) as show:
        show(AT_WORK)
    assert capsys.readouterr().err == ""
