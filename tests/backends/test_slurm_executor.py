"""`executor: slurm` through submitit, with jobs that are processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import psutil
import pytest
from submitit.local.local import LocalJobEnvironment

from tests.backend_contract import answers, ending, gather, job, request
from tests.backends.test_local_backend import subject_of
from tests.runs import tiny_llama  # noqa: F401  # a fixture
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.cluster import slurm_station
from windowshift.backends.local.cluster.slurm_executor import SlurmExecutor
from windowshift.backends.local.cluster.slurm_station import StationJob
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Trained, TrainMessage

pytestmark = pytest.mark.slow
WEIGHTS = "adapter_model.safetensors"


def over_slurm(model: Path, folder: Path, **options: object) -> LocalBackend:
    section = {"cluster": "local", "folder": str(folder), **options}
    made = subject_of(model, executor="slurm", workers=2, slurm=section, state_seconds=0, progress_seconds=0).make()
    assert isinstance(made, LocalBackend)
    return made


def executor_of(backend: LocalBackend) -> SlurmExecutor:
    found = backend._crews["slurm"].executor
    assert isinstance(found, SlurmExecutor)
    return found


def preempt(job: Any) -> None:
    """What Slurm does when a job's time is nearly over, or when its machine is wanted."""
    for process in psutil.Process(job._process.pid).children(recursive=True):
        process.send_signal(LocalJobEnvironment._usr_sig())


async def test_jobs_whose_time_is_over_are_queued_again_and_lose_nothing(tiny_llama: Path, tmp_path: Path) -> None:  # noqa: F811
    alone = subject_of(tiny_llama)
    one, many = alone.make(), over_slurm(tiny_llama, tmp_path / "slurm")
    requests = [request(alone, str(seed), seed=seed) for seed in range(500)]
    expected = await answers(one, requests)
    got = {}
    interrupted = 0
    async with contextlib.aclosing(many.generate(requests)) as stream:
        async for completion in stream:
            assert completion.key not in got
            got[completion.key] = completion
            if interrupted < 2 and len(got) >= 50 * (interrupted + 1):
                preempt(executor_of(many)._jobs[interrupted])
                interrupted += 1
    assert {key: each.text for key, each in got.items()} == {key: each.text for key, each in expected.items()}
    wanted = job(alone, tmp_path / "alone", examples=400)
    whole = ending(await gather(one.train([wanted])))
    events = []
    async with contextlib.aclosing(many.train([dataclasses.replace(wanted, output=tmp_path / "there")])) as stream:
        async for event in stream:
            events.append(event)
            if len(events) == 1:
                for each in executor_of(many)._jobs.values():
                    preempt(each)
    end = ending(events)
    assert any(isinstance(event, TrainMessage) and "goes on from the state" in event.text for event in events)
    assert isinstance(whole, Trained)
    assert isinstance(end, Trained)
    assert (Path(end.adapter) / WEIGHTS).read_bytes() == (Path(whole.adapter) / WEIGHTS).read_bytes()
    assert (Path(end.adapter)).parent == tmp_path / "there"
    jobs = executor_of(many)._jobs
    await many.aclose()
    await one.aclose()
    # What a shell starts in the background ignores SIGINT: then a job ends by itself, once it called in vain.
    assert all(each.done() or each._process.wait(60) is not None for each in jobs.values())


async def test_jobs_that_die_before_they_call_are_replaced(tiny_llama: Path, tmp_path: Path) -> None:  # noqa: F811
    alone = subject_of(tiny_llama)
    one, many = alone.make(), over_slurm(tiny_llama, tmp_path / "slurm")
    requests = [request(alone, str(seed), seed=seed) for seed in range(4)]
    answering = asyncio.create_task(answers(many, requests))
    while "slurm" not in many._crews or not executor_of(many)._jobs:
        await asyncio.sleep(0.01)
    for each in list(executor_of(many)._jobs.values()):
        while not (tasks := psutil.Process(each._process.pid).children()):
            await asyncio.sleep(0.01)
        for task in tasks:
            task.kill()
    got, expected = await answering, await answers(one, requests)
    assert {key: each.text for key, each in got.items()} == {key: each.text for key, each in expected.items()}
    await many.aclose()
    await one.aclose()


async def test_a_stranger_is_not_answered_and_no_slurm_is_a_sentence(tmp_path: Path) -> None:
    executor = SlurmExecutor(over_slurm(tmp_path, tmp_path / "s")._options.slurm, 1, {})
    await executor.open()
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client(executor._address, authkey=b"somebody")
    await executor.aclose()
    other = over_slurm(tmp_path, tmp_path / "t", cluster="slurm")._options.slurm
    with pytest.raises(BackendError, match=r"executor: slurm: .*srun"):
        await SlurmExecutor(other, 1, {}).open()


def test_a_job_whose_driver_is_gone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_station.time, "sleep", lambda _: None)
    StationJob(0, ("127.0.0.1", 1), b"k", str(tmp_path), {})()
