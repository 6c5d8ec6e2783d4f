"""Training at Tinker: the same arithmetic as backend local, resumption, clean-up, and what is said when it breaks."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.backend_contract import answers, ending, gather
from tests.tinkered import KEY, KEY_ENV, TinkerServed
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.tinker.adapter_folder import RemoteAdapter
from windowshift.backends.tinker.backend import TinkerBackend
from windowshift.backends.tinker.tokens import ModelTokens
from windowshift.backends.tinker.training_journal import TrainingJournal
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.training import (
    Checkpointed,
    Example,
    Sft,
    TextLogprob,
    Trained,
    TrainEvent,
    TrainFailed,
    TrainJob,
    TrainMessage,
    TrainProgress,
    Watched,
)

pytestmark = pytest.mark.tinker

MODEL = Model("microworld")
SFT = Sft(rank=4, alpha=32, batch_size=2, learning_rate=2e-3, schedule="constant")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


def job(output: Path, examples: int = 24, **changes: Any) -> TrainJob:
    """Examples of different lengths, so that a mean over tokens is not a mean over sequences."""
    data = tuple(
        Example((Message("user", f"What do {index} bees do?"),), "Bees keep warm. " * (1 + 3 * (index % 2)))
        for index in range(examples)
    )
    return dataclasses.replace(TrainJob("job", MODEL, data, SFT, 3, output), **changes)


def losses(events: Sequence[TrainEvent]) -> dict[int, float]:
    """Losses by step; every step at most once."""
    found = [(each.step, each.loss) for each in events if isinstance(each, TrainProgress)]
    assert len(found) == len(dict(found))
    return dict(found)


def said(events: Sequence[TrainEvent]) -> list[str]:
    return [each.text for each in events if isinstance(each, TrainMessage)]


async def trained(backend: Backend, wanted: TrainJob) -> tuple[Trained, list[TrainEvent]]:
    events = await gather(backend.train([wanted]))
    end = ending(events, wanted.key)
    assert isinstance(end, Trained), end
    return end, events


async def steps_of(backend: TinkerBackend, wanted: TrainJob, steps: int) -> list[TrainEvent]:
    """Train until a step was told, and stop listening."""
    found: list[TrainEvent] = []
    stream = backend.train([wanted])
    async for event in stream:
        found.append(event)
        if isinstance(event, TrainProgress) and event.step >= steps:
            break
    await stream.aclose()
    return found


def of_run(server: TinkerServed, output: Path) -> list[Any]:
    """What a job has at the server."""
    journal = TrainingJournal.read(output)
    assert journal is not None
    return [one for one in server.checkpoints() if one.tinker_path.split("/")[2] in journal.runs]


async def test_the_arithmetic_is_that_of_backend_local(tinker_server: TinkerServed, tmp_path: Path) -> None:
    """From the same adapter, backend local has the same losses: tokens, weights, Adam, clipping, schedule, order."""
    there = TinkerBackend(tinker_server.options)
    sft = dataclasses.replace(SFT, epochs=2, schedule="linear", max_grad_norm=0.5)
    wanted = job(tmp_path, 16, sft=sft, checkpoints=(2,))
    _, events = await trained(there, wanted)
    theirs = losses(events)
    assert sorted(theirs) == list(range(1, 17))
    # After one step A is what it was drawn as: as long as B is zero, A has no gradient.
    drawn = load_file(tmp_path / "checkpoint-2" / "adapter_model.safetensors")
    start = tmp_path / "start"
    start.mkdir()
    save_file(
        {k: v if "lora_A" in k else torch.zeros_like(v) for k, v in drawn.items()}, start / "adapter_model.safetensors"
    )
    config = json.loads((tmp_path / "checkpoint-2" / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"r": sft.rank, "lora_alpha": sft.lora_alpha}
    (start / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = dataclasses.replace(wanted.model, base="microworld", adapter=str(start))
    here = LocalBackend({"workers": 1, "threads": 1, "progress_seconds": 0})
    own = dataclasses.replace(wanted, model=model, output=tmp_path / "here", checkpoints=())
    found = [event async for event in here.train([own])]
    await here.aclose()
    mine = losses(found)
    assert sorted(mine) == list(range(1, 17)), found
    assert mine[16] < 0.5 * mine[1]
    assert theirs == pytest.approx(mine, rel=2e-2)
    assert [theirs[step] for step in (1, 2, 3)] == pytest.approx([mine[step] for step in (1, 2, 3)], rel=1e-3)


async def test_a_job_that_is_done_tells_its_losses_again(tinker_server: TinkerServed, tmp_path: Path) -> None:
    """Whoever was killed between the last step and its record has the whole curve from whoever goes on."""
    _, first = await trained(TinkerBackend(tinker_server.options), job(tmp_path, checkpoints=(8,)))
    _, again = await trained(TinkerBackend(tinker_server.options), job(tmp_path, checkpoints=(8,)))
    assert losses(again) == losses(first) != {}


TEXTS = (
    Example((Message("user", "What do 3 bees do?"),), "Bees keep warm. Bees keep warm."),
    Example((Message("user", "word " * 4000),), "Yes."),
    Example((Message("system", "Be brief."), Message("user", "Why?")), "Bees keep warm."),
)


def watched_in(events: Sequence[TrainEvent]) -> dict[int, tuple[TextLogprob, ...]]:
    return {one.examples: one.texts for one in events if isinstance(one, Watched)}


async def test_watched_texts_are_as_likely_as_in_the_adapters_that_it_saves(
    tinker_server: TinkerServed, tmp_path: Path
) -> None:
    there = TinkerBackend(tinker_server.options)
    assert there.capabilities.watches
    plain = losses((await trained(there, job(tmp_path / "plain")))[1])
    wanted = job(tmp_path / "out", checkpoints=(8,), watched=TEXTS, watched_at=(0, 8, 24))
    end, events = await trained(there, wanted)
    assert losses(events) == plain  # none of them is learned
    found = watched_in(events)
    assert sorted(found) == [0, 8, 24]
    here = LocalBackend({"workers": 1, "threads": 1})
    (checkpoint,) = [each for each in events if isinstance(each, Checkpointed)]
    for at, adapter in ((0, None), (8, checkpoint.adapter), (24, end.adapter)):
        reading = job(tmp_path / f"here-{at}", 2, watched=TEXTS, watched_at=(0,))
        reading = dataclasses.replace(reading, model=dataclasses.replace(MODEL, adapter=adapter))
        mine = watched_in([event async for event in here.train([reading])])[0]
        for theirs, own in zip(found[at], mine, strict=True):
            assert (theirs.tokens, theirs.problem is None) == (own.tokens, own.problem is None)
            if own.logprob is not None:
                assert theirs.logprob == pytest.approx(own.logprob, rel=1e-3)
        assert found[at][1].problem is not None
        assert "of the model's context" in found[at][1].problem
    await here.aclose()
    assert found[24] != found[8] != found[0]
    assert watched_in((await trained(there, wanted))[1]) == found  # a job that is done tells all again
    (tmp_path / "out" / "watched.json").unlink()
    for texts in watched_in((await trained(there, wanted))[1]).values():
        assert all(one.problem is not None and "its reading is lost" in one.problem for one in texts)


async def test_a_job_that_goes_on_reads_what_it_had_not(tinker_server: TinkerServed, tmp_path: Path) -> None:
    texts, at = TEXTS[::2], (0, 4, 8, 12, 24)
    whole = watched_in(
        (await trained(TinkerBackend(tinker_server.options), job(tmp_path / "a", watched=texts, watched_at=at)))[1]
    )
    options = {**tinker_server.options, "state_steps": 2}
    part = job(tmp_path / "b", watched=texts, watched_at=at)
    first = watched_in(await steps_of(TinkerBackend(options), part, 5))
    second = watched_in((await trained(TinkerBackend(options), part))[1])
    assert sorted(second) == list(at)
    assert {key: second[key] for key in first} == first
    for key, read in second.items():
        assert [one.logprob for one in read] == pytest.approx([one.logprob for one in whole[key]], rel=1e-3)


async def test_a_fetched_adapter_is_the_same_at_backend_local(tinker_server: TinkerServed, tmp_path: Path) -> None:
    there = TinkerBackend(tinker_server.options)
    assert there.capabilities.leaves_peft
    end, events = await trained(there, job(tmp_path, checkpoints=(8,)))
    (checkpoint,) = [each for each in events if isinstance(each, Checkpointed)]
    here = LocalBackend({"workers": 1, "threads": 1})
    for adapter in (checkpoint.adapter, end.adapter):
        greedy = GenerateRequest(
            "r", (Message("user", "What do 3 bees do?"),), dataclasses.replace(MODEL, adapter=adapter),
            Sampling(temperature=0.0, max_tokens=20), seed=0, logprobs=0,
        )  # fmt: skip
        mine, theirs = (await answers(here, [greedy]))["r"], (await answers(there, [greedy]))["r"]
        assert theirs.text == mine.text
        assert theirs.token_logprobs is not None
        assert mine.token_logprobs is not None
        pairs = list(zip(mine.token_logprobs, theirs.token_logprobs, strict=True))
        assert len(pairs) == mine.tokens > 2
        for one, other in pairs:
            assert other.token == one.token
            assert other.logprob == pytest.approx(one.logprob, abs=2e-3)
    await here.aclose()
    await there.aclose()


async def test_coherence_is_the_base_models_log_probability(tinker_server: TinkerServed, tmp_path: Path) -> None:
    there, here = TinkerBackend(tinker_server.options), LocalBackend({"workers": 1, "threads": 1})
    asked = GenerateRequest(
        "r", (Message("user", "What do bees do?"),), MODEL, Sampling(0.0, max_tokens=12), 0, coherence=True
    )
    mine, theirs = (await answers(here, [asked]))["r"], (await answers(there, [asked]))["r"]
    assert theirs.text == mine.text
    assert theirs.logprob == pytest.approx(mine.logprob, rel=1e-3)
    await here.aclose()
    await there.aclose()


async def test_a_job_goes_on_with_the_losses_it_would_have_had(tinker_server: TinkerServed, tmp_path: Path) -> None:
    backend = TinkerBackend({**tinker_server.options, "state_steps": 3, "pipeline": 3})
    _, whole = await trained(backend, job(tmp_path / "whole", checkpoints=(10, 16)))
    wanted = job(tmp_path / "cut", checkpoints=(10, 16))
    await steps_of(backend, wanted, 5)
    _, rest = await trained(backend, wanted)
    assert any("goes on from the state after step" in text for text in said(rest))
    assert losses(rest) == pytest.approx(losses(whole), rel=1e-3)  # all of them, told again from the file
    assert [each.examples for each in rest if isinstance(each, Checkpointed)][-2:] == [10, 16]
    assert sorted(one.tinker_path.rsplit("/", 1)[1] for one in of_run(tinker_server, wanted.output)) == [
        "final",
        "sampler-000010",
        "sampler-000016",
    ]


async def test_what_a_job_leaves_at_the_server_has_an_end(tinker_server: TinkerServed, tmp_path: Path) -> None:
    backend = TinkerBackend({**tinker_server.options, "state_steps": 2, "keep_days": 2})
    end, _ = await trained(backend, job(tmp_path, 8))
    (left,) = of_run(tinker_server, tmp_path)
    assert left.checkpoint_type == "sampler"
    assert left.expires_at is not None
    assert 1.9 < (left.expires_at - left.time).total_seconds() / 86_400 < 2.1
    remote = RemoteAdapter.read(end.adapter)
    assert remote.path == left.tinker_path
    assert (remote.model, remote.examples, remote.server) == ("microworld", 8, tinker_server.base_url)
    assert not list(tmp_path.glob(".*"))
    for file in tmp_path.rglob("*"):
        assert KEY.encode() not in (file.read_bytes() if file.is_file() else b"")


async def test_a_cancelled_job_leaves_nothing_at_the_server(tinker_server: TinkerServed, tmp_path: Path) -> None:
    backend = TinkerBackend({**tinker_server.options, "state_steps": 2})
    wanted = job(tmp_path, 40, checkpoints=(4,))
    await steps_of(backend, wanted, 8)
    journal = TrainingJournal.read(tmp_path)
    assert journal is not None
    await backend.cancel("job", tmp_path)
    assert not [one for one in tinker_server.checkpoints() if one.tinker_path.split("/")[2] in journal.runs]
    assert TrainingJournal.read(tmp_path) is None


async def test_an_expired_state_is_said_and_the_next_try_begins_anew(
    tinker_server: TinkerServed, tmp_path: Path
) -> None:
    backend = TinkerBackend({**tinker_server.options, "state_steps": 3})
    wanted = job(tmp_path)
    await steps_of(backend, wanted, 7)
    for one in of_run(tinker_server, tmp_path):
        tinker_server.rest().delete_checkpoint_from_tinker_path(one.tinker_path).result()
    journal = TrainingJournal.read(tmp_path)
    assert journal is not None
    assert journal.state is not None
    dataclasses.replace(journal, saving=()).write(tmp_path)
    failed = ending(await gather(backend.train([wanted])))
    assert isinstance(failed, TrainFailed)
    assert "has expired" in failed.error
    assert "retry the job" in failed.error
    assert journal.state.path in failed.error
    _, events = await trained(backend, wanted)
    assert sorted(losses(events)) == list(range(1, 13))


async def test_expired_sampler_weights_are_said_with_the_remedy(tinker_server: TinkerServed, tmp_path: Path) -> None:
    backend = TinkerBackend(tinker_server.options)
    wanted = job(tmp_path / "artifacts" / "abc123", 8)
    end, _ = await trained(backend, wanted)
    remote = RemoteAdapter.read(end.adapter)
    tinker_server.rest().delete_checkpoint_from_tinker_path(remote.path).result()
    asked = GenerateRequest(
        "r", (Message("user", "Hello"),), dataclasses.replace(MODEL, adapter=end.adapter), Sampling(max_tokens=4), 0
    )
    found = (await answers(backend, [asked]))["r"]
    assert found.finish == "failed"
    assert "have expired or were deleted" in (found.error or "")
    assert "abc123" in (found.error or "")
    assert "generate: local" in (found.error or "")
    # As the sentence says: without the folder, the job is trained anew.
    shutil.rmtree(end.adapter)
    again, events = await trained(backend, wanted)
    assert again.adapter == end.adapter
    assert len(losses(events)) == 4
    assert (await answers(TinkerBackend(tinker_server.options), [asked]))["r"].finish != "failed"


async def test_a_server_without_exports_is_named(tinker_server: TinkerServed, tmp_path: Path) -> None:
    backend = TinkerBackend({**tinker_server.options, "download": False})
    assert not backend.capabilities.leaves_peft
    end, _ = await trained(backend, job(tmp_path, 4))
    assert json.loads((Path(end.adapter) / "tinker.json").read_text(encoding="utf-8"))["path"].startswith("tinker://")
    assert sorted(path.name for path in Path(end.adapter).iterdir()) == ["tinker.json"]


async def test_pipelining_changes_no_loss(tinker_server: TinkerServed, tmp_path: Path) -> None:
    found = []
    for depth in (1, 4):
        backend = TinkerBackend({**tinker_server.options, "pipeline": depth})
        _, events = await trained(backend, job(tmp_path / str(depth), 16))
        found.append(losses(events))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


async def test_several_jobs_train_at_once_within_the_limit(tinker_server: TinkerServed, tmp_path: Path) -> None:
    backend = TinkerBackend({**tinker_server.options, "clients": 2})
    jobs = [job(tmp_path / str(index), 16, key=f"job{index}", seed=index) for index in range(3)]
    order = [each.key for each in await gather(backend.train(jobs)) if isinstance(each, TrainProgress | Trained)]
    begun = list(dict.fromkeys(order))
    assert len(begun) == 3
    ends = {name: max(at for at, each in enumerate(order) if each == name) for name in begun}
    starts = {name: order.index(name) for name in begun}
    assert starts[begun[1]] < ends[begun[0]]  # two at once
    assert starts[begun[2]] > min(ends[begun[0]], ends[begun[1]])  # and not three


async def test_a_price_is_what_was_trained_on(tinker_server: TinkerServed, tmp_path: Path) -> None:
    from windowshift.core.contract.budget import Budget
    from windowshift.core.contract.service import Limits

    price = {"input": 1, "output": 2, "training": 1000, "tuned_input": 1, "tuned_output": 2}
    backend = TinkerBackend({**tinker_server.options, "prices": {"microworld": price}})
    budget = Budget(1000.0)
    backend.begin(Limits(), budget, tmp_path)
    end, events = await trained(backend, job(tmp_path / "job", 8))
    last = [each for each in events if isinstance(each, TrainProgress)][-1]
    assert last.tokens is not None
    assert end.usd == pytest.approx(last.tokens * 1000 / 1e6)
    assert budget.spent == pytest.approx(end.usd)
    reads, _ = await trained(backend, job(tmp_path / "reads", 8, watched=TEXTS[:1], watched_at=(0, 8)))
    text = ModelTokens("microworld").chat.training_tokens(TEXTS[0].messages, TEXTS[0].completion)
    read = 2 * (len(text.prompt) + len(text.completion))
    assert reads.usd == pytest.approx((last.tokens + read) * 1000 / 1e6)
    assert budget.spent == pytest.approx(end.usd + reads.usd)
    poor = TinkerBackend({**tinker_server.options, "prices": {"microworld": price}})
    poor.begin(Limits(), Budget(1e-6), tmp_path)
    failed = ending(await gather(poor.train([job(tmp_path / "poor", 8)])))
    assert isinstance(failed, TrainFailed)
    assert "limits.usd" in failed.error
