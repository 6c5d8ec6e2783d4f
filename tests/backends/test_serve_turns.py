"""Jobs and batches of several people take turns: who had which turn is counted, by a clock that only work moves."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.served import chat_lines
from tests.serving import MODEL, Words
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.serve import batch_runner
from windowshift.backends.serve.batch_runner import BatchRunner
from windowshift.backends.serve.batches import Batches, BatchRequest
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.job_request import JobRequest, Resolved
from windowshift.backends.serve.jobs import Jobs
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.rota import Rota
from windowshift.backends.serve.sampling_request import SamplingRequest
from windowshift.backends.serve.state import ServerState
from windowshift.backends.serve.trainer import TURN_SECONDS, Trainer
from windowshift.core.contract.training import Sft, Trained, TrainEvent, TrainJob, TrainProgress


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ServerState]:
    found = ServerState(tmp_path / "data")
    yield found
    found.close()


def test_a_rota_goes_round() -> None:
    rota = Rota()
    assert rota.in_turn("ab") == ["a", "b"]
    rota.had("a")
    assert rota.in_turn("abc") == ["b", "a", "c"]  # who is new stands behind those that wait
    rota.had("b")
    rota.had("a")
    assert rota.in_turn("abc") == ["c", "b", "a"]
    assert rota.in_turn("a") == ["a"]
    assert rota.in_turn("ab") == ["a", "b"]  # b came back, and is new


class Learning(Words):
    """Trains by steps that each take a third of a turn; saves where it is after each step, or never."""

    saves = True

    def begin(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []
        self.state: dict[str, int] = {}

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        (job,) = jobs
        steps = job.sft.epochs
        for step in range(self.state.get(job.key, 0) + 1, steps + 1):
            await asyncio.sleep(0)
            self.now += TURN_SECONDS / 3
            self.log.append((job.key, step))
            if self.saves:
                self.state[job.key] = step
            yield TrainProgress(job.key, step, step * len(job.examples), 1.0, 1.0, step)
        adapter = job.output / "adapter"
        adapter.mkdir()
        yield Trained(job.key, str(adapter), steps * len(job.examples))


def asked_for(state: ServerState, jobs: Jobs, epochs: int, model: str = MODEL) -> str:
    data = state.folder / "data.jsonl"
    data.write_bytes(chat_lines(2))
    request = JobRequest.model_validate({"model": model, "training_file": "file-x"})
    return jobs.create(request, Resolved(epochs, 2, 1.0), 2, 0, data, None).id


async def trained(state: ServerState, jobs: Jobs, backend: Learning, *, at_once: int = 1) -> None:
    clock = lambda: backend.now  # noqa: E731
    trainer = Trainer(backend, state, jobs, Files(state), Sft(), at_once=at_once, limits=ServerLimits(), clock=clock)
    trainer.wake()
    for _ in range(5000):
        if not jobs.unfinished():
            break
        await asyncio.sleep(0.001)
    await trainer.aclose()
    assert not jobs.unfinished()


async def test_a_small_job_is_not_held_up_by_a_large_one(state: ServerState) -> None:
    jobs, backend = Jobs(state), Learning([])
    backend.begin()
    large, small, other = asked_for(state, jobs, 12), asked_for(state, jobs, 2), asked_for(state, jobs, 6)
    await trained(state, jobs, backend)
    # A turn is over with the first step that finds it longer than TURN_SECONDS, three after the first.
    turns = [(large, range(1, 5)), (small, range(1, 3)), (other, range(1, 5)), (large, range(5, 9))]
    turns += [(other, range(5, 7)), (large, range(9, 13))]
    assert backend.log == [(key, step) for key, steps in turns for step in steps]  # and no step is done twice
    for key, steps in ((large, 12), (small, 2), (other, 6)):
        job = jobs.get(key)
        assert job.status == "succeeded"
        assert [row["step"] for row in jobs.steps(job)] == list(range(1, steps + 1))
    said = [row["message"] for row in state.connection.execute("SELECT message FROM events WHERE job = 1 ORDER BY n")]
    assert said.count("Step 4: others wait, and have their turn") == 1
    assert said.count("The job has its turn again") == 2
    assert sum(text.startswith("Fine-tuning job started") for text in said) == 1


async def test_a_job_alone_and_jobs_with_room_for_all_of_them_are_not_interrupted(state: ServerState) -> None:
    jobs, backend = Jobs(state), Learning([])
    backend.begin()
    alone = asked_for(state, jobs, 9)
    await trained(state, jobs, backend)
    assert backend.log == [(alone, step) for step in range(1, 10)]
    both = [asked_for(state, jobs, 9) for _ in range(2)]
    await trained(state, jobs, backend, at_once=2)
    assert {key for key, _ in backend.log[9:]} == set(both)
    texts = [row["message"] for row in state.connection.execute("SELECT message FROM events")]
    assert not any("others wait" in text for text in texts)


async def test_a_job_that_leaves_no_state_behind_ends_all_the_same(state: ServerState) -> None:
    jobs, backend = Jobs(state), Learning([])
    backend.begin()
    backend.saves = False
    first, second = asked_for(state, jobs, 6), asked_for(state, jobs, 6)
    await trained(state, jobs, backend)
    assert [key for key, step in backend.log if step == 6] == [first, second]
    assert len(backend.log) == 2 * (4 + 6)  # one turn each is lost, and not one after another for ever


@pytest.mark.slow
async def test_turns_change_nothing_that_is_learned(
    state: ServerState, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With backend `local`: a job goes on from its saved state, step for step what it would have been alone."""
    options = {"progress_seconds": 0, "state_seconds": 0, "workers": 1, "threads": 1}
    losses, adapters, tokens = [], [], []
    for turn in (3.0, 1e9):  # a clock that ticks when it is asked: turns of some steps, and one for all
        monkeypatch.setattr("windowshift.backends.serve.trainer.TURN_SECONDS", turn)
        backend, jobs, ticks = LocalBackend(options), Jobs(state), itertools.count()
        made = [asked_for(state, jobs, 10, str(tiny_llama)) for _ in range(2)]
        sft = Sft(rank=2, learning_rate=1e-2)
        clock = lambda ticks=ticks: float(next(ticks))  # noqa: E731
        trainer = Trainer(backend, state, jobs, Files(state), sft, at_once=1, limits=ServerLimits(), clock=clock)
        trainer.wake()
        for _ in range(30000):
            if not jobs.unfinished():
                break
            await asyncio.sleep(0.002)
        await trainer.aclose()
        await backend.aclose()
        found = [jobs.get(key) for key in made]
        assert [job.status for job in found] == ["succeeded"] * 2
        tokens.append([job.trained_tokens for job in found])
        losses.append([{row["step"]: row["loss"] for row in jobs.steps(job)} for job in found])
        adapters.append([(jobs.folder(job) / "adapter/adapter_model.safetensors").read_bytes() for job in found])
        texts = [row["message"] for row in state.connection.execute("SELECT message FROM events ORDER BY n")]
        assert any("others wait" in text for text in texts)
    assert adapters[0] == adapters[1]
    assert tokens[0] == tokens[1]
    assert None not in tokens[0]
    for paused, alone in zip(*losses, strict=True):
        assert list(alone) == list(range(1, 11))
        assert paused == alone


async def test_batches_take_turns_by_the_portion(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "PORTION", 4)
    batches, log = Batches(state), []

    async def answer(wanted: SamplingRequest) -> dict[str, Any]:
        log.append(wanted.model)
        if len(log) == 4:
            add("late", 2)
            runner.wake()
        return {"model": wanted.model}

    def add(name: str, count: int) -> str:
        chat = {"model": name, "messages": [{"role": "user", "content": "Bees?"}]}
        lines = [
            {"custom_id": f"{index}", "method": "POST", "url": "/v1/chat/completions", "body": chat}
            for index in range(count)
        ]
        data = state.folder / "input.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        request = BatchRequest(input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h")
        return batches.create(request, data).id

    runner = BatchRunner(answer, state, batches, Files(state), ServerLimits())
    made = [add("large", 13), add("small", 3), add("other", 8)]
    runner.wake()
    for _ in range(5000):
        if not batches.unfinished():
            break
        await asyncio.sleep(0.001)
    await runner.aclose()
    turns = [("large", 4), ("small", 3), ("other", 4), ("large", 4), ("late", 2), ("other", 4), ("large", 5)]
    assert log == [name for name, count in turns for _ in range(count)]
    for key, count in zip(made, (13, 3, 8), strict=True):
        batch = batches.get(key)
        assert (batch.status, batch.completed, batch.failed) == ("completed", count, 0)
