"""Jobs of one base train in common passes: to the byte what each of them comes to alone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.backend_contract import ending, gather
from tests.backends.test_steered_backend import hand_pushed, vector
from tests.tiny_models import build
from windowshift.backends.local import batched_linear, stack, stacked_linear
from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.batch_loss import BatchLoss, TrainingBatch, losses
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.encoding import encode
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.generation import Message, Model, Steering
from windowshift.core.contract.training import Example, Sft, Trained, TrainEvent, TrainFailed, TrainJob, TrainProgress
from windowshift.steering.architecture import find_decoder

torch.set_num_threads(1)
FILES = ("adapter_model.safetensors", "adapter_config.json")
OPTIONS = {"threads": 1, "workers": 1, "progress_seconds": 0.0}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama")


def examples(count: int, length: int, doses: Sequence[tuple[Steering, ...]] = ((),)) -> tuple[Example, ...]:
    return tuple(
        Example(
            (Message("user", f"Question {index}?" * (1 + index % 2)),),
            "Bees keep warm. " * (1 + (index * length) % 5),
            doses[index % len(doses)],
        )
        for index in range(count)
    )


def unequal(folder: Path, place: Path) -> list[TrainJob]:
    """Jobs that differ in all that they can differ in, plain, pushed and ablated."""
    one = vector(folder, place)
    model = Model(str(folder))
    pushed = [(Steering(one, 2.0),), (), (Steering(one, -1.0, 1, "response"),)]
    ablated = [(Steering(one, 0.0, ablate=True),), (Steering(one, 0.0, 1, "prompt", ablate=True),)]
    return [
        TrainJob("plain", model, examples(12, 1), Sft(4, batch_size=2, learning_rate=1e-2), 1, place / "plain", (5,)),
        TrainJob("wide", model, examples(9, 3), Sft(7, alpha=3, batch_size=4, schedule="cosine"), 2, place / "wide"),
        TrainJob("pushed", model, examples(8, 2, pushed), Sft(4, batch_size=3, epochs=2), 3, place / "pushed"),
        TrainJob("ablated", model, examples(6, 4, ablated), Sft(2, batch_size=2, weight_decay=0.1), 4, place / "abl"),
        TrainJob("free", model, examples(7, 5), Sft(8, batch_size=1, max_grad_norm=None), 5, place / "free"),
    ]


async def train(jobs: Sequence[TrainJob], **options: object) -> list[TrainEvent]:
    backend = LocalBackend({**OPTIONS, **options})
    events = await gather(backend.train(jobs))
    await backend.aclose()
    return events


def written(events: Sequence[TrainEvent], key: str) -> list[bytes]:
    end = ending(events, key)
    assert isinstance(end, Trained), end
    return [(Path(end.adapter) / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def alone(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """What each of the jobs comes to in a process of its own making."""
    place = tmp_path_factory.mktemp("alone")
    return {job.key: written(asyncio.run(train([job])), job.key) for job in unequal(llama, place)}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs shared each pass."""
    found: list[int] = []

    def counted(lm: CausalLM, batches: Sequence[TrainingBatch]) -> list[Tensor]:
        found.append(len(batches))
        return losses(lm, batches)

    monkeypatch.setattr(stack, "losses", counted)
    return found


@pytest.mark.parametrize("order", [1, -1])
async def test_bytes_do_not_depend_on_the_jobs_beside(
    llama: Path, tmp_path: Path, alone: dict[str, list[bytes]], passes: list[int], order: int
) -> None:
    events = await train(unequal(llama, tmp_path)[::order])
    assert {key: written(events, key) for key in alone} == alone
    assert max(passes) == 5
    for key in ("pushed", "ablated"):
        end = ending(events, key)
        assert isinstance(end, Trained)
        assert end.proofs
        assert all(proof.problem() is None for proof in end.proofs)
    plain = ending(events, "plain")
    assert isinstance(plain, Trained)
    assert plain.proofs == ()


async def test_a_job_whose_loss_is_no_number_fails_alone(
    llama: Path, tmp_path: Path, alone: dict[str, list[bytes]]
) -> None:
    jobs = unequal(llama, tmp_path)
    bad = dataclasses.replace(
        jobs[0], key="bad", sft=Sft(4, batch_size=2, learning_rate=1e30, max_grad_norm=None), output=tmp_path / "bad"
    )
    events = await train([bad, *jobs])
    end = ending(events, "bad")
    assert isinstance(end, TrainFailed)
    assert "learning rate" in end.error
    assert {key: written(events, key) for key in alone} == alone


class AtOnce(Executor):
    """Does what it is given before it says so."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        found: Future[Any] = Future()
        found.set_result(call(*args, **more))
        return found


def test_jobs_join_while_others_are_under_way_and_leave(
    llama: Path, tmp_path: Path, alone: dict[str, list[bytes]], passes: list[int]
) -> None:
    """Two calls by turns in one thread, as the backend's streams go, but in an order that no clock decides."""
    first, *others = unequal(llama, tmp_path)
    long = dataclasses.replace(first, key="long", examples=examples(60, 1), output=tmp_path / "long", checkpoints=())
    lm = load(str(llama), None, LocalOptions(threads=1))
    under_way = stack.Stack(lambda _: lm, 0.0, 0.0, AtOnce())
    calls = [under_way.train([long, first])]
    while len(passes) < 2:
        next(calls[0])
    assert passes == [2, 2]
    calls.append(under_way.train(others))
    events: list[TrainEvent] = []
    while len([each for each in events if isinstance(each, Trained)]) < len(others):
        next(calls[0])
        events += next(calls[1])
    assert max(passes) == 6  # with the two of the first call
    assert {key: written(events, key) for key in alone if key != first.key} == {
        key: value for key, value in alone.items() if key != first.key
    }
    calls[0].close()  # type: ignore[attr-defined]  # a generator
    # What the first call left goes on where it was, without those beside.
    rest = [event for some in under_way.train([first, long]) for event in some]
    assert written(rest, first.key) == alone[first.key]
    told = [event for event in rest if isinstance(event, TrainProgress) and event.key == "long"]
    steps = [event.step for event in told if not event.again]
    assert min(steps) > 1
    assert [event.step for event in told if event.again] == list(range(1, min(steps)))
    assert max(steps) == 30


async def test_a_pass_without_memory_is_taken_in_halves(
    llama: Path, tmp_path: Path, alone: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def short(lm: CausalLM, batches: Sequence[TrainingBatch]) -> list[Tensor]:
        tried.append(len(batches))
        found = losses(lm, batches)  # steering has tallied by then
        if len(batches) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(stack, "losses", short)
    events = await train(unequal(llama, tmp_path))
    assert {key: written(events, key) for key in alone} == alone
    assert tried.count(5) == 1
    assert sum(count > 2 for count in tried) <= 3


async def test_what_breaks_in_a_common_pass_breaks_the_job_that_it_is_of(
    llama: Path, tmp_path: Path, alone: dict[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(lm: CausalLM, batches: Sequence[TrainingBatch]) -> list[Tensor]:
        found = losses(lm, batches)
        if any(batch.adapter is not None and batch.adapter.flat.numel() == sizes[0] for batch in batches):
            raise RuntimeError("an index is out of bounds")
        return found

    lm = load(str(llama), None, LocalOptions(threads=1))
    sizes = [AdapterWeights(lm.adapters, Sft(8), 0).flat.numel()]
    monkeypatch.setattr(stack, "losses", broken)
    events = await train(unequal(llama, tmp_path))
    end = ending(events, "free")
    assert isinstance(end, TrainFailed)
    assert "an index is out of bounds" in end.error
    assert {key: written(events, key) for key in alone if key != "free"} == {
        key: value for key, value in alone.items() if key != "free"
    }


def hand_losses(
    lm: CausalLM, job: TrainJob, name: str, chosen: slice | None = None
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The loss of the job's first batch, or another, through PEFT's own layers, and the gradients of its matrices."""
    lm.adapters.use(name)
    parameters = {key: value for key, value in lm.model.named_parameters() if f".{name}." in key}
    for value in parameters.values():
        value.requires_grad_(True)
    *_, encoded = encode(lm.chat, job.examples[chosen or slice(job.sft.batch_size)], None)
    tokens = encoded.tokens
    total = torch.zeros(())
    for each, example in zip(tokens, encoded.examples, strict=True):

        def hook(layer: int, steering: tuple[Steering, ...], prompt: int) -> Any:
            own = [one for one in steering if (one.layer or 0) == layer]
            return lambda _module, _args, hidden: hand_pushed(hidden[0], own, prompt)[None]

        hooks = [
            layer.register_forward_hook(hook(number, example.steering, len(each.prompt)))
            for number, layer in enumerate(find_decoder(lm.model).layers)
        ]
        logits = lm.model(input_ids=torch.tensor([[*each.prompt, *each.completion]]), use_cache=False).logits[0]
        for one in hooks:
            one.remove()
        own = logits[len(each.prompt) - 1 : -1]
        total = total + nn.functional.cross_entropy(own, torch.tensor(each.completion), reduction="sum")
    loss = total / sum(len(each.completion) for each in tokens)
    loss.backward()  # type: ignore[no-untyped-call]
    yield loss.detach(), {key: value.grad for key, value in parameters.items() if value.grad is not None}
    for value in parameters.values():
        value.requires_grad_(False)
        value.grad = None
    lm.adapters.use(None)


@pytest.mark.parametrize("way", ["alike", "batched"])
@pytest.mark.parametrize("even", [True, False])
def test_gradients_are_those_of_peft_row_by_row(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, even: bool
) -> None:
    """Also on the way of devices that batch the adapters' products."""
    if way == "batched":
        monkeypatch.setattr(stacked_linear, "_Alike", batched_linear.Batched)
    lm = load(str(llama), None, LocalOptions(threads=1))
    jobs = unequal(llama, tmp_path)
    if even:
        jobs = [dataclasses.replace(job, sft=dataclasses.replace(job.sft, batch_size=3)) for job in jobs]
    made = [AdapterWeights(lm.adapters, job.sft, job.seed) for job in jobs]
    with torch.no_grad():
        for weights in made:
            for matrices in weights.layers.values():
                matrices.up.normal_(std=0.1)
    expected = [next(hand_losses(lm, job, weights.name)) for job, weights in zip(jobs, made, strict=True)]
    batches = []
    for job, weights in zip(jobs, made, strict=True):
        *_, encoded = encode(lm.chat, job.examples, None)
        loss = BatchLoss(lm, encoded.examples, encoded.tokens, weights)
        batches.append(loss.batch(range(job.sft.batch_size)))
    found = losses(lm, batches)
    torch.stack(found).sum().backward()  # type: ignore[no-untyped-call]
    for weights, value, (wanted, gradients) in zip(made, found, expected, strict=True):
        assert float(value.detach()) == pytest.approx(float(wanted), rel=1e-5)
        for path, matrices in weights.layers.items():
            for part, got in (("lora_A", matrices.down_gradient), ("lora_B", matrices.up_gradient)):
                theirs = gradients[f"{path}.{part}.{weights.name}.weight"]
                assert float((got - theirs).norm() / theirs.norm()) < 1e-5, (weights.name, path, part)


async def test_a_model_whose_rows_reach_past_themselves_trains_job_by_job(
    llama: Path, tmp_path: Path, alone: dict[str, list[bytes]], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward = LlamaMLP.forward

    def shared(self: Any, x: Tensor) -> Tensor:
        """As experts of a common capacity: what a row gets depends on how many there are."""
        return forward(self, x) * (1.0 if x.shape[0] < 5 else 0.5)

    monkeypatch.setattr(LlamaMLP, "forward", shared)
    events = await train(unequal(llama, tmp_path))
    assert set(passes) == {1}
    assert {key: written(events, key) for key in alone} == alone
