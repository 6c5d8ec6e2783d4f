"""Ctrl-C: what hears it, what does not, and that nothing is waited for which has nothing to lose."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.processes import line
from windowshift import cli
from windowshift.backends.local import process_executor
from windowshift.backends.local.crew import Crew
from windowshift.backends.local.process_executor import ProcessExecutor, ProcessPost
from windowshift.core.contract.child import deaf_to_interrupts
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.run.stopping import INTERRUPTED, Stopping

TALKS = "print('there', flush=True); input(); print('on', flush=True)"


def test_a_child_does_not_hear_ctrl_c_not_even_before_its_first_line() -> None:
    with deaf_to_interrupts():
        child = subprocess.Popen(
            [sys.executable, "-c", TALKS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    with child:
        child.send_signal(signal.SIGINT)  # it is starting
        assert line(child) == "there"
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate("\n", timeout=20)
    assert (out.strip(), errors, child.returncode) == ("on", "", 0)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # this process hears it as before


async def test_a_worker_that_is_still_starting_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        process_executor,
        "python_module",
        lambda *_: [sys.executable, "-I", "-S", "-c", "import threading; threading.Event().wait()"],
    )
    found = Crew(ProcessExecutor(2, {}))
    request = GenerateRequest("a", (Message("user", "Bees?"),), Model("m"), Sampling(), 0)
    stream = found.stream("generate", [[request], [request]])
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    started = [worker.post.process for worker in found._workers if isinstance(worker.post, ProcessPost)]
    reading.cancel()
    done, _ = await asyncio.wait([reading], timeout=20)
    assert done
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    await found.aclose()
    assert not found._calls


def test_before_there_is_work_ctrl_c_is_what_it_always_is() -> None:
    said: list[bool] = []
    with pytest.raises(KeyboardInterrupt), Stopping(said.append):
        signal.raise_signal(signal.SIGINT)
    assert not said
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_one_ends_the_process_while_the_loop_waits_for_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bool] = []
    ended: list[int] = []
    loading = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        loading.set()

    monkeypatch.setattr(os, "_exit", end)

    async def work(stopping: Stopping) -> str:
        task = asyncio.ensure_future(asyncio.to_thread(loading.wait, 60))
        stopping.cancels(task)
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGINT)
        try:
            await task
        except asyncio.CancelledError:  # the thread goes on, and asyncio.run waits for it
            asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGINT)
        return "interrupted"

    with Stopping(said.append) as stopping:
        assert asyncio.run(work(stopping)) == "interrupted"
    assert said == [False, True]
    assert ended == [INTERRUPTED]


@pytest.mark.parametrize("command", [["plan", "x.yaml"], ["vectors", "list"], ["export", "x", "--out", "o.csv"]])
def test_every_command_says_that_it_was_interrupted(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from windowshift.core.spec import spec
    from windowshift.core.store import reader

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spec, "load_spec", interrupted)
    monkeypatch.setattr(reader.Reader, "__init__", interrupted)
    monkeypatch.setattr(sys, "argv", ["windowshift", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "windowshift: interrupted\n"
