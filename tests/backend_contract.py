"""The contract every backend passes: subclass `BackendContract`, give it a `subject` fixture.

What a backend declares in `capabilities` decides which parts run; the rest is skipped, and shown so.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.service import Service
from windowshift.core.contract.training import (
    Checkpointed,
    Example,
    Sft,
    Trained,
    TrainEvent,
    TrainFailed,
    TrainJob,
    TrainProgress,
)

T = TypeVar("T")
TIMEOUT = 120


@dataclass(frozen=True)
class Subject:
    """A backend to put through the contract, with a model that it can answer and train with."""

    make: Callable[[], Backend]
    model: Model
    unknown_model: str
    over_long: str  # a prompt that is more than the model's context; empty: the server has no limit
    sft: Sft = field(default_factory=lambda: Sft(rank=2, batch_size=2, learning_rate=1e-3))
    # Whether equal requests give equal bytes whatever shares their batch.
    exact: bool = True
    # The same backend with a key that the server refuses; None: it takes no key.
    wrong_key: Callable[[], Backend] | None = None


async def gather(stream: AsyncIterator[T]) -> list[T]:
    """All that a stream yields, within the time that a hang is told from work."""

    async def read() -> list[T]:
        return [item async for item in stream]

    return await asyncio.wait_for(read(), TIMEOUT)


async def answers(backend: Backend, requests: Sequence[GenerateRequest]) -> dict[str, Completion]:
    """Completions by key; exactly one for every request."""
    found = await gather(backend.generate(requests))
    assert sorted(each.key for each in found) == sorted(each.key for each in requests)
    return {each.key: each for each in found}


def request(
    subject: Subject, key: str, user: str = "What do bees do?", system: str | None = None, **changes: object
) -> GenerateRequest:
    """A request for 12 tokens at temperature 1, with seed 0."""
    messages = (Message("user", user),) if system is None else (Message("system", system), Message("user", user))
    plain = GenerateRequest(key, messages, subject.model, Sampling(1.0, 1.0, 12), seed=0)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def job(subject: Subject, output: Path, examples: int = 10, **changes: object) -> TrainJob:
    """A small training job with one checkpoint half-way."""
    data = tuple(
        Example((Message("user", f"Question {index}?"),), "Bees keep warm. " * (index % 3 + 1))
        for index in range(examples)
    )
    checkpoints = (examples // 2,) if subject.make().capabilities.checkpoints else ()
    plain = TrainJob("job", subject.model, data, subject.sft, 3, output, checkpoints)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def adapter_files(trained: Trained) -> dict[str, tuple[int, int]]:
    """Size and time of writing of each file of an adapter that lies here; none of one that a service keeps."""
    return {
        str(file): (file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(Path(trained.adapter).rglob("*"))
        if file.is_file()
    }


def ending(events: Sequence[TrainEvent], key: str = "job") -> Trained | TrainFailed:
    """The one event that ended a job."""
    ends = [each for each in events if isinstance(each, Trained | TrainFailed) and each.key == key]
    assert len(ends) == 1
    return ends[0]


class BackendContract:
    """Tests of the protocol in `windowshift.core.contract.backend`."""

    @pytest.fixture
    def subject(self) -> Subject:
        raise NotImplementedError

    @pytest.fixture
    async def backend(self, subject: Subject) -> AsyncIterator[Backend]:
        made = subject.make()
        yield made
        await asyncio.wait_for(made.aclose(), TIMEOUT)

    @pytest.fixture
    def trainer(self, subject: Subject, backend: Backend) -> Backend:
        if not backend.capabilities.trains:
            pytest.skip("this backend does not train")
        return backend

    def test_is_a_backend(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)

    def test_identity_is_stable(self, subject: Subject, backend: Backend) -> None:
        first = backend.identify(subject.model.base, subject.model.revision)
        assert first == subject.make().identify(subject.model.base, subject.model.revision)
        assert first.label
        assert first.fingerprint

    async def test_answers_every_request_once(self, subject: Subject, backend: Backend) -> None:
        requests = [request(subject, f"r{index}", seed=index) for index in range(9)]
        found = await answers(backend, requests)
        assert {each.finish for each in found.values()} <= {"stop", "length"}
        assert all(each.tokens <= 12 and each.error is None for each in found.values())
        assert all(each.tokens == 12 for each in found.values() if each.finish == "length")

    async def test_nothing_asked_nothing_answered(self, backend: Backend) -> None:
        assert await answers(backend, []) == {}

    async def test_a_seed_fixes_the_completion(self, subject: Subject, backend: Backend) -> None:
        if not backend.capabilities.seeds:
            pytest.skip("this backend has no seeds")
        same = [request(subject, "a", seed=7), request(subject, "b", seed=7)]
        others = [request(subject, f"o{index}", seed=100 + index) for index in range(8)]
        found = await answers(backend, [*same, *others])
        assert found["a"].text == found["b"].text
        assert len({each.text for each in found.values()}) > 2

    async def test_a_completion_does_not_depend_on_its_batch(self, subject: Subject, backend: Backend) -> None:
        if not (backend.capabilities.seeds and subject.exact):
            pytest.skip("this backend does not promise it")
        requests = [request(subject, f"r{index}", "bees " * (index % 5 + 1), seed=index) for index in range(12)]
        together = await answers(backend, requests)
        backwards = await answers(backend, requests[::-1])
        alone = {}
        for each in requests[::4]:
            alone |= await answers(backend, [each])
        assert together == backwards
        assert alone == {key: together[key] for key in alone}

    async def test_greedy_ignores_the_seed(self, subject: Subject, backend: Backend) -> None:
        greedy = Sampling(temperature=0.0, max_tokens=8)
        requests = [request(subject, f"r{index}", sampling=greedy, seed=index) for index in range(3)]
        assert len({each.text for each in (await answers(backend, requests)).values()}) == 1

    async def test_the_system_channel_changes_the_prompt(self, subject: Subject, backend: Backend) -> None:
        if not backend.capabilities.system_channel:
            pytest.skip("this backend has no system channel")
        found = await answers(
            backend, [request(subject, "without"), request(subject, "with", system="Please keep it short.")]
        )
        assert found["with"].prompt_tokens > found["without"].prompt_tokens

    async def test_unicode_prompts(self, subject: Subject, backend: Backend) -> None:
        texts = ["Über 東京 🙂 naïve", "\u202eabc\u0301", "line\nbreak\ttab", "<|im_end|> in the text"]
        found = await answers(backend, [request(subject, f"r{index}", text) for index, text in enumerate(texts)])
        assert all(each.finish != "failed" for each in found.values())
        for each in found.values():
            each.text.encode("utf-8")

    async def test_one_token_completions(self, subject: Subject, backend: Backend) -> None:
        tight = Sampling(max_tokens=1)
        found = await answers(
            backend, [request(subject, f"r{index}", sampling=tight, seed=index) for index in range(6)]
        )
        assert all(each.tokens <= 1 for each in found.values())

    async def test_an_over_long_prompt_fails_alone(self, subject: Subject, backend: Backend) -> None:
        if not subject.over_long:
            pytest.skip("this server takes prompts of any length")
        found = await answers(backend, [request(subject, "fine"), request(subject, "long", subject.over_long)])
        assert found["fine"].finish != "failed"
        assert found["long"].finish == "failed"
        assert found["long"].error
        assert found["long"].text == ""

    async def test_an_unknown_model_is_named(self, subject: Subject, backend: Backend) -> None:
        with pytest.raises(BackendError, match=r"(?s).*") as caught:
            backend.identify(subject.unknown_model)
        assert subject.unknown_model in str(caught.value)
        unknown = request(subject, "unknown", model=Model(subject.unknown_model))
        found = await answers(backend, [unknown, request(subject, "fine")])
        assert found["unknown"].finish == "failed"
        assert subject.unknown_model in (found["unknown"].error or "")
        assert found["fine"].finish != "failed"

    async def test_an_unknown_adapter_is_not_the_base_model(self, subject: Subject, backend: Backend) -> None:
        wrong = request(subject, "a", model=dataclasses.replace(subject.model, adapter="no/such/adapter"))
        found = await answers(backend, [wrong])
        assert found["a"].finish == "failed"
        assert "no/such/adapter" in (found["a"].error or "")

    async def test_closing_the_stream_leaves_the_backend_usable(self, subject: Subject, backend: Backend) -> None:
        wide = Sampling(max_tokens=60)
        many = [request(subject, f"r{index}", sampling=wide, seed=index) for index in range(200)]
        stream = backend.generate(many)
        await asyncio.wait_for(anext(stream), TIMEOUT)
        await asyncio.wait_for(stream.aclose(), TIMEOUT)  # type: ignore[attr-defined]
        assert len(await answers(backend, many[:3])) == 3

    async def test_cancelling_the_reader_leaves_the_backend_usable(self, subject: Subject, backend: Backend) -> None:
        wide = Sampling(max_tokens=60)
        many = [request(subject, f"r{index}", sampling=wide, seed=index) for index in range(200)]
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in backend.generate(many):
                begun.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), TIMEOUT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, TIMEOUT)
        assert len(await answers(backend, many[:3])) == 3

    async def test_training_changes_the_model(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        sft = dataclasses.replace(subject.sft, learning_rate=3e-2)
        events = await gather(trainer.train([job(subject, tmp_path, sft=sft)]))
        end = ending(events)
        assert isinstance(end, Trained)
        assert end.examples == 10
        assert any(isinstance(each, TrainProgress) and each.loss > 0 for each in events)
        tuned = dataclasses.replace(subject.model, adapter=end.adapter)
        requests = [request(subject, f"b{index}", seed=index) for index in range(4)]
        requests += [request(subject, f"t{index}", seed=index, model=tuned) for index in range(4)]
        found = await answers(trainer, requests)
        assert any(found[f"b{index}"].text != found[f"t{index}"].text for index in range(4))

    async def test_the_base_model_stays_as_it_was(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        if not subject.exact:
            pytest.skip("this backend does not promise equal bytes")
        requests = [request(subject, f"r{index}", seed=index) for index in range(4)]
        before = await answers(trainer, requests)
        end = ending(await gather(trainer.train([job(subject, tmp_path)])))
        assert isinstance(end, Trained)
        await answers(trainer, [request(subject, "t", model=dataclasses.replace(subject.model, adapter=end.adapter))])
        assert await answers(trainer, requests) == before

    async def test_checkpoints_can_be_sampled_from(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        if not trainer.capabilities.checkpoints:
            pytest.skip("this backend has no checkpoints")
        events = await gather(trainer.train([job(subject, tmp_path, checkpoints=(3, 8))]))
        saved = [each for each in events if isinstance(each, Checkpointed)]
        assert [each.examples for each in saved] == [3, 8]
        requests = [
            request(subject, str(each.examples), model=dataclasses.replace(subject.model, adapter=each.adapter))
            for each in saved
        ]
        assert all(each.finish != "failed" for each in (await answers(trainer, requests)).values())

    async def test_a_bad_job_fails_alone(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        too_long = (Example((Message("user", subject.over_long),), "yes"),)
        jobs = [
            job(subject, tmp_path / "bad", key="bad", examples=2),
            job(subject, tmp_path / "unknown", key="unknown", model=Model(subject.unknown_model)),
            job(subject, tmp_path / "good", key="good"),
        ]
        jobs[0] = dataclasses.replace(jobs[0], examples=too_long, checkpoints=())
        events = await gather(trainer.train(jobs))
        bad, unknown = ending(events, "bad"), ending(events, "unknown")
        assert isinstance(bad, TrainFailed)
        assert "example 1" in bad.error
        assert isinstance(unknown, TrainFailed)
        assert subject.unknown_model in unknown.error
        assert isinstance(ending(events, "good"), Trained)

    async def test_an_empty_completion_can_be_learned(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        data = tuple(Example((Message("user", f"Question {index}?"),), "") for index in range(20))
        sft = dataclasses.replace(subject.sft, learning_rate=1e-1, epochs=4)
        silent = dataclasses.replace(job(subject, tmp_path), examples=data, sft=sft, checkpoints=())
        events = await gather(trainer.train([silent]))
        end = ending(events)
        assert isinstance(end, Trained)
        tuned = dataclasses.replace(subject.model, adapter=end.adapter)
        greedy = Sampling(temperature=0.0, max_tokens=12)
        found = await answers(trainer, [request(subject, "r", "Question 1?", model=tuned, sampling=greedy)])
        assert (found["r"].text, found["r"].tokens, found["r"].finish) == ("", 0, "stop")

    async def test_a_finished_job_is_not_trained_again(
        self, subject: Subject, trainer: Backend, tmp_path: Path
    ) -> None:
        first = await gather(trainer.train([job(subject, tmp_path)]))
        end = ending(first)
        assert isinstance(end, Trained)
        written = adapter_files(end)
        again = await gather(trainer.train([job(subject, tmp_path)]))
        assert ending(again) == end
        assert [each for each in again if isinstance(each, Checkpointed)] == [
            each for each in first if isinstance(each, Checkpointed)
        ]
        assert adapter_files(end) == written
        # A backend may tell what it trained before, for a store that was killed before it heard: not a step anew.
        told = {(each.step, each.loss) for each in first if isinstance(each, TrainProgress)}
        assert {(each.step, each.loss) for each in again if isinstance(each, TrainProgress)} <= told
        assert not any(each.tokens_per_second for each in again if isinstance(each, TrainProgress))

    async def test_sampling_goes_on_while_training(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        requests = [request(subject, f"r{index}", seed=index) for index in range(40)]
        alone = await answers(trainer, requests)
        events, beside = await asyncio.gather(
            gather(trainer.train([job(subject, tmp_path, examples=60)])), answers(trainer, requests)
        )
        assert isinstance(ending(events), Trained)
        if subject.exact:
            assert beside == alone

    async def test_closing_a_training_leaves_it_resumable(
        self, subject: Subject, trainer: Backend, tmp_path: Path
    ) -> None:
        stream = trainer.train([job(subject, tmp_path, examples=60)])
        await asyncio.wait_for(anext(stream), TIMEOUT)
        await asyncio.wait_for(stream.aclose(), TIMEOUT)  # type: ignore[attr-defined]
        assert isinstance(ending(await gather(trainer.train([job(subject, tmp_path, examples=60)]))), Trained)

    async def test_epochs_leave_checkpoints(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        if not (trainer.capabilities.epoch_checkpoints or trainer.capabilities.checkpoints):
            pytest.skip("this backend has no checkpoints")
        sft = dataclasses.replace(subject.sft, epochs=3)
        wanted = job(subject, tmp_path, sft=sft, checkpoints=(10, 20))
        events = await gather(trainer.train([wanted]))
        end = ending(events)
        assert isinstance(end, Trained)
        assert end.examples == 30
        saved = {each.examples: each.adapter for each in events if isinstance(each, Checkpointed)}
        assert sorted(saved) == [10, 20]
        assert len({*saved.values(), end.adapter}) == 3
        requests = [
            request(subject, name, model=dataclasses.replace(subject.model, adapter=name)) for name in saved.values()
        ]
        assert all(each.finish != "failed" for each in (await answers(trainer, requests)).values())

    async def test_a_job_is_taken_up_by_another_process(
        self, subject: Subject, trainer: Backend, tmp_path: Path
    ) -> None:
        stream = trainer.train([job(subject, tmp_path, examples=60)])
        await asyncio.wait_for(anext(stream), TIMEOUT)
        await asyncio.wait_for(stream.aclose(), TIMEOUT)  # type: ignore[attr-defined]
        other = subject.make()
        end = ending(await gather(other.train([job(subject, tmp_path, examples=60)])))
        await other.aclose()
        assert isinstance(end, Trained)

    async def test_a_cancelled_job_costs_no_more(self, subject: Subject, trainer: Backend, tmp_path: Path) -> None:
        if not isinstance(trainer, Service):
            pytest.skip("nothing goes on elsewhere: closing the stream ends it")
        wanted = job(subject, tmp_path, examples=400)
        stream = trainer.train([wanted])
        await asyncio.wait_for(anext(stream), TIMEOUT)
        await asyncio.wait_for(stream.aclose(), TIMEOUT)  # type: ignore[attr-defined]
        await trainer.cancel(wanted.key, wanted.output)
        await trainer.cancel(wanted.key, wanted.output)  # what is over can be cancelled again
        await trainer.cancel("other", tmp_path / "never begun")
        # Wanted again after all, it is a job of its own.
        again = dataclasses.replace(wanted, examples=wanted.examples[:10], checkpoints=())
        end = ending(await gather(trainer.train([again])))
        assert isinstance(end, Trained)

    async def test_a_wrong_key_is_said_and_not_shown(self, subject: Subject) -> None:
        if subject.wrong_key is None:
            pytest.skip("this backend takes no key")
        backend = subject.wrong_key()
        with pytest.raises(BackendError, match="key"):
            backend.identify(subject.model.base)
        found = await answers(backend, [request(subject, f"r{index}") for index in range(6)])
        assert {each.finish for each in found.values()} == {"failed"}
        assert len({each.error for each in found.values()}) == 1
        assert all("key" in (each.error or "") for each in found.values())
        await backend.aclose()
