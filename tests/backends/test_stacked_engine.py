"""What the engine of common passes does beside its products: steps, memory, files, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.backends.test_stacked_training import OPTIONS, ending, examples, hand_losses, llama, train, unequal, written
from windowshift.backends.local import accelerators, sft, stack, throughput
from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.causal_lm import load
from windowshift.backends.local.encoding import encode
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.process_executor import ProcessExecutor
from windowshift.backends.shared.schedule import learning_rate
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Model
from windowshift.core.contract.records import Event
from windowshift.core.contract.training import (
    Sft,
    Trained,
    TrainEvent,
    TrainFailed,
    TrainJob,
    TrainMessage,
    TrainProgress,
)
from windowshift.tui.read.job_snapshot import device_words

__all__ = ["llama"]  # a fixture


async def test_steps_of_jobs_together_are_those_of_peft_and_torch(llama: Path, tmp_path: Path) -> None:
    """Two steps of each: clipping, schedule and AdamW over PEFT's own matrices, plain, pushed and ablated."""
    jobs = [
        TrainJob(job.key, job.model, job.examples[: 2 * job.sft.batch_size], job.sft, job.seed, job.output)
        for job in unequal(llama, tmp_path)
        if job.sft.epochs == 1
    ]
    events = await train(jobs)
    lm = load(str(llama), None, LocalOptions(threads=1))
    for job in jobs:
        end = ending(events, job.key)
        assert isinstance(end, Trained), end
        name, parameters = lm.adapters.create(job.sft, job.seed)
        mine = torch.optim.AdamW(parameters.values(), lr=1.0, betas=job.sft.betas, weight_decay=job.sft.weight_decay)
        for step in range(2):
            at = slice(step * job.sft.batch_size, (step + 1) * job.sft.batch_size)
            _, gradients = next(hand_losses(lm, job, name, at))
            for key, gradient in gradients.items():
                parameters[key].requires_grad_(True)
                parameters[key].grad = gradient.clone()
            if job.sft.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters.values(), job.sft.max_grad_norm)
            mine.param_groups[0]["lr"] = learning_rate(job.sft, step, 2)
            mine.step()
            mine.zero_grad()
        lm.adapters.save(name, tmp_path / "by hand" / job.key)
        found, wanted = (
            torch.cat([value.flatten() for value in _state(folder).values()])
            for folder in (Path(end.adapter), tmp_path / "by hand" / job.key)
        )
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5, job.key


def _state(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return dict(sorted(load_file(folder / "adapter_model.safetensors").items()))


async def test_layers_computed_again_give_the_same_bytes(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    calls: list[bool] = []
    forward = LlamaMLP.forward

    def counted(self: Any, x: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    found, counts = [], []
    for again in (False, True):
        jobs = unequal(llama, tmp_path / str(again))[:4]
        calls.clear()
        events = await train(jobs, gradient_checkpointing=again)
        found.append({job.key: written(events, job.key) for job in jobs})
        counts.append(sum(calls))
    assert found[0] == found[1]
    assert counts[1] > 1.5 * counts[0]  # as often again in each step; the checks at the first use are the rest


async def test_a_job_that_finds_no_memory_beside_the_others_waits_for_one_to_end(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[str] = []

    class Large(sft.Learner):
        def __init__(self, lm: Any, *args: Any) -> None:
            if sum(name in lm.adapters._peft.peft_config for name in alive) >= 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(lm, *args)
            alive.append(self.weights.name)

    expected = await train(unequal(llama, tmp_path / "all"))
    monkeypatch.setattr(sft, "Learner", Large)
    events = await train(unequal(llama, tmp_path / "by twos"))
    for job in unequal(llama, tmp_path):
        assert written(events, job.key) == written(expected, job.key)
    said = [each.text for each in events if isinstance(each, TrainMessage)]
    assert len(said) == 3
    assert said[-1] == "no memory beside 2 other jobs: it goes on once one of them has ended"


async def test_a_job_that_finds_no_memory_alone_says_what_takes_less(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stack, "losses", none)
    events = await train(unequal(llama, tmp_path)[:2])
    for key in ("plain", "wide"):
        end = ending(events, key)
        assert isinstance(end, TrainFailed)
        assert "gradient_checkpointing: true" in end.error
    assert any(isinstance(each, TrainMessage) and "half as much" in each.text for each in events)


class Later(Executor):
    """Keeps what it is given until it is told."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        found: Future[Any] = Future()
        self.given.append((found, lambda: call(*args, **more)))
        return found


def test_passes_go_on_while_an_adapter_is_written(llama: Path, tmp_path: Path) -> None:
    writer, lm = Later(), load(str(llama), None, LocalOptions(threads=1))
    model = Model(str(llama))
    jobs = [
        TrainJob(name, model, examples(count, 1), Sft(2, batch_size=2), 0, tmp_path / name)
        for name, count in (("short", 4), ("long", 12))
    ]
    events: list[TrainEvent] = []
    steps = stack.Stack(lambda _: lm, 1000.0, 0.0, writer).train(jobs)
    while len(writer.given) < 2:
        events += next(steps)
    assert not any(isinstance(each, Trained) for each in events)
    assert not (tmp_path / "short" / "adapter").exists()
    assert [each.step for each in events if isinstance(each, TrainProgress) and each.key == "long"][-1] == 6
    for waiting, call in writer.given:
        waiting.set_result(call())
    events += [event for some in steps for event in some]
    assert {each.key for each in events if isinstance(each, Trained)} == {"short", "long"}
    assert (tmp_path / "short" / "adapter" / "adapter_model.safetensors").is_file()


async def test_what_cannot_be_written_fails_its_job_alone(llama: Path, tmp_path: Path) -> None:
    jobs = unequal(llama, tmp_path)[:2]
    jobs[0].output.write_text("in the way")
    events = await train(jobs)
    end = ending(events, jobs[0].key)
    assert isinstance(end, TrainFailed)
    assert str(jobs[0].output.name) in end.error
    assert isinstance(ending(events, jobs[1].key), Trained)


def test_how_much_goes_into_a_pass_is_measured(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load(str(llama), None, LocalOptions(threads=1))
    limit = stack._Limit(lm)
    assert limit.has_room(1 << 60)  # a CPU's memory is not asked
    monkeypatch.setattr(limit, "_device", torch.device("cuda"))
    monkeypatch.setattr(limit, "_tokens", 0)
    monkeypatch.setattr(stack, "free_bytes", lambda _: 10_000)
    assert not limit.has_room(1)  # nothing is known before the first pass
    assert limit.measures(10)
    limit.measured(10, peak=1000, free=10_000)
    assert limit._tokens == 80
    assert not limit.measures(10)
    assert limit.measures(11)
    assert limit.has_room(7000)
    assert not limit.has_room(7001)
    limit.measured(40, peak=8000, free=10_000)  # attention takes more than its share in wide passes
    assert limit._tokens == 40


def test_mfu_counts_the_tokens_of_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 3 << 30)
    now = [0.0]
    model = SimpleNamespace(dtype=torch.bfloat16)
    lm: Any = SimpleNamespace(device=torch.device("cuda"), model=model, parameters=10**9)
    meter = throughput.Throughput(lm, lambda: now[0])
    for _ in range(10):
        now[0] += 1.0
        meter.passed(98_900)
    found = meter.said(TrainProgress("a", 1, 2, 0.5, 10.0))
    assert found.mfu == pytest.approx(0.4)
    assert found.memory == 3 << 30
    assert throughput.most_operations("NVIDIA H100 80GB HBM3", torch.float32) is None
    assert throughput.most_operations("NVIDIA L40S", torch.bfloat16) == 362e12
    assert throughput.most_operations("Some other card", torch.bfloat16) is None
    events = [Event(1, 0.0, 1, 1, "loss", {"loss": 1.0, "mfu": found.mfu, "memory": found.memory})]
    assert device_words(events) == "MFU 40 % · 3.0 GiB of GPU memory"
    assert device_words([Event(1, 0.0, 1, 1, "loss", {"loss": 1.0, "memory": 1 << 30})]).startswith("MFU unknown")
    assert device_words([Event(1, 0.0, 1, 1, "loss", {"loss": 1.0})]) == ""


class Packed(nn.Linear):
    """As quantised layers are: whole numbers that only the layer itself can multiply with."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense.in_features, dense.out_features, bias=False)
        self.scale = dense.weight.detach().abs().max() / 127
        self.weight = nn.Parameter((dense.weight.detach() / self.scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight.float() * self.scale).t()


def test_adapters_beside_packed_weights_have_the_gradients_of_those_beside_dense_ones(
    llama: Path, tmp_path: Path
) -> None:
    flat = []
    for packed in (True, False):
        lm = load(str(llama), None, LocalOptions(threads=1))
        for layer in lm.model.model.layers:
            mine = Packed(layer.mlp.up_proj)
            if packed:
                layer.mlp.up_proj = mine
            else:
                layer.mlp.up_proj.weight.data = mine.weight.float() * mine.scale
        lm.adapters.__init__(lm.model, "packed", str(llama))  # type: ignore[misc]  # the layers are others now
        made = []
        batches = []
        for job in unequal(llama, tmp_path)[:2]:
            weights = AdapterWeights(lm.adapters, job.sft, job.seed)
            with torch.no_grad():
                for number, matrices in enumerate(weights.layers.values()):
                    matrices.up.copy_(torch.randn(matrices.up.shape, generator=torch.Generator().manual_seed(number)))
            *_, encoded = encode(lm.chat, job.examples, None)
            batches.append(BatchLoss(lm, encoded.examples, encoded.tokens, weights).batch(range(2)))
            made.append(weights)
        torch.stack(losses(lm, batches)).sum().backward()  # type: ignore[no-untyped-call]
        flat.append([copy.deepcopy(weights.flat.grad) for weights in made])
    for one, other in zip(*flat, strict=True):
        assert one is not None
        assert other is not None
        assert float((one - other).norm() / other.norm()) < 1e-5


@pytest.mark.parametrize(("name", "value"), [("quantise", "4bit"), ("quantise", "8bit"), ("device_map", "auto")])
def test_what_needs_a_gpu_is_refused_in_a_sentence_before_anything_is_loaded(name: str, value: str) -> None:
    backend = LocalBackend({**OPTIONS, name: value, "device": "cpu"})
    with pytest.raises(BackendError, match=f"{name}: {value}  of backend 'local' needs a CUDA device"):
        backend.identify("microworld")
    with pytest.raises(BackendError, match="did you mean"):
        LocalBackend({name: value[:-1] + "x"})


def test_of_several_gpus_each_has_a_worker(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("windowshift.backends.local.backend.tiny", lambda *_: False)
    monkeypatch.setattr("windowshift.backends.local.backend.may_have_several", lambda: True)
    model = Model(str(llama))
    for options, devices in (({}, ["cuda:0", "cuda:1", "cuda:2"]), ({"workers": 2}, ["cuda:0", "cuda:1"])):
        crew = LocalBackend(options)._crew_for([model])
        assert crew is not None
        executor = crew.executor
        assert isinstance(executor, ProcessExecutor)
        assert [executor.options_of(place)["device"] for place in range(executor.size)] == devices
    for options in ({"workers": 1}, {"device_map": "auto"}, {"device": "cpu"}, {"device": "cuda:1"}):
        assert LocalBackend(options)._crew_for([model]) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert LocalBackend()._crew_for([model]) is None


def test_where_one_gpu_is_the_most_nobody_asks_torch_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windowshift.backends.local.backend.tiny", lambda *_: False)
    monkeypatch.setattr("windowshift.backends.local.accelerators._SEVERAL", ())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("torch was asked"))
    assert LocalBackend()._crew_for([Model("any")]) is None


def test_the_doctor_says_what_this_machine_computes_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, NVIDIA H100 80GB HBM3, 81559, 81000, 9.0'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    first, second = accelerators.machine()
    assert first == "GPU 0: NVIDIA H100 80GB HBM3, 80 GiB, 79 free, compute capability 9.0"
    assert second.startswith("compiled: torch ")
    assert "flash attention" in second
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert LocalBackend().machine()[0].startswith("GPU: none")
