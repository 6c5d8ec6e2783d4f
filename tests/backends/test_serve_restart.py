"""A server that is killed goes on with its jobs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import openai
import pytest

from tests.processes import wait_until
from tests.served import Served, chat_lines, served

pytestmark = pytest.mark.slow  # a server is killed, and started again, in every one

SLOW = 120.0
EVERY_STEP = {"state_seconds": 0}


def start_job(server: Served, file: str, suffix: str) -> str:
    job = server.client().fine_tuning.jobs.create(
        model=server.model,
        training_file=file,
        suffix=suffix,
        seed=9,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 2}}},
    )
    return job.id


def steps(client: openai.OpenAI, job: str) -> list[tuple[int, float]]:
    events = client.fine_tuning.jobs.list_events(job, limit=100)
    return [(each.data["step"], each.data["train_loss"]) for each in events if each.type == "metrics"][::-1]  # type: ignore[index]


def weights(data: Path, job: str) -> bytes:
    return (data / "jobs" / job / "adapter" / "adapter_model.safetensors").read_bytes()


def succeeded(client: openai.OpenAI, job: str) -> bool:
    found = client.fine_tuning.jobs.retrieve(job)
    assert found.status in ("queued", "running", "succeeded"), found.error
    return found.status == "succeeded"


def test_a_killed_server_goes_on_with_its_jobs(tiny_llama: Path, tmp_path: Path) -> None:
    data = tmp_path / "killed"
    with served(tiny_llama, data, options=EVERY_STEP) as server:
        client = server.client()
        file = client.files.create(file=("bees.jsonl", chat_lines(40)), purpose="fine-tune").id
        first, second = start_job(server, file, "first"), start_job(server, file, "second")
        client.files.delete(file)
        seen = kill_after_more_steps(server, first)
    with served(tiny_llama, data, options=EVERY_STEP) as server:
        seen = [*seen, *kill_after_more_steps(server, first)]
    with served(tiny_llama, data, options=EVERY_STEP) as server:
        client = server.client()
        wait_until(lambda: succeeded(client, first) and succeeded(client, second), "both jobs", SLOW)
        reported = steps(client, first)
        tuned = client.fine_tuning.jobs.retrieve(first)
        assert len(tuned.result_files) == 1
        assert tuned.fine_tuned_model == f"ft:{server.model}:first:{first.removeprefix('ftjob-')[:8]}"
        assert [each.step_number for each in client.fine_tuning.jobs.checkpoints.list(first)] == [40, 20]
        assert len(list(client.fine_tuning.jobs.list())) == 2
        assert len(list(client.files.list())) == 2  # a result each
    with served(tiny_llama, tmp_path / "undisturbed", options=EVERY_STEP) as server:
        client = server.client()
        file = client.files.create(file=("bees.jsonl", chat_lines(40)), purpose="fine-tune").id
        job = start_job(server, file, "first")
        wait_until(lambda: succeeded(client, job), "the job", SLOW)
        undisturbed = steps(client, job)
        assert weights(server.data, job) == weights(data, first) == weights(data, second)
        assert client.fine_tuning.jobs.retrieve(job).trained_tokens == tuned.trained_tokens
    # Steps whose reports a kill took with it are told again; none is told twice, or otherwise.
    assert [step for step, _ in undisturbed] == list(range(1, 41))
    assert set(seen) <= set(reported)
    assert reported == undisturbed
    assert tuned.trained_tokens is not None


def kill_after_more_steps(server: Served, job: str) -> list[tuple[int, float]]:
    """Kill the server once it has told of further steps; the steps that were told."""
    client = server.client()
    before = len(steps(client, job))
    wait_until(lambda: len(steps(client, job)) > before + 4, "some steps", SLOW)
    seen = steps(client, job)
    server.process.kill()
    return seen


def test_a_folder_that_was_moved_still_serves_its_models(tiny_llama: Path, tmp_path: Path) -> None:
    with served(tiny_llama, tmp_path / "before") as server:
        client = server.client()
        file = client.files.create(file=("bees.jsonl", chat_lines(4)), purpose="fine-tune").id
        job = start_job(server, file, "moved")
        wait_until(lambda: succeeded(client, job), "the job", SLOW)
        name = client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    (tmp_path / "before").rename(tmp_path / "after")
    (tmp_path / "after" / "files" / "file-cut-short").write_bytes(b"what an upload left that a kill cut short")
    with served(tiny_llama, tmp_path / "after") as server:
        assert name
        answer = server.client().chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Question 1?"}], max_tokens=4
        )
        assert answer.model == name
        assert not (tmp_path / "after" / "files" / "file-cut-short").exists()


def test_a_job_whose_worker_dies_goes_on(tiny_llama: Path, tmp_path: Path) -> None:
    with served(tiny_llama, tmp_path / "data", options={"workers": 2, **EVERY_STEP}) as server:
        client = server.client()
        file = client.files.create(file=("bees.jsonl", chat_lines(40)), purpose="fine-tune").id
        job = start_job(server, file, "worker")
        wait_until(lambda: len(steps(client, job)) > 4, "some steps", SLOW)
        pid = server.process.pid
        for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
            os.kill(int(worker), signal.SIGKILL)
        wait_until(lambda: succeeded(client, job), "the job", SLOW)
        assert [event.message for event in client.fine_tuning.jobs.list_events(job) if event.level == "warn"]
        assert steps(client, job)[-1][0] == 40
