"""A training step waits for the device nowhere: seen on the meta device, which has no numbers to give."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.foreign_device import watched
from tests.tiny_models import build
from windowshift.backends.local import stack
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.generation import Message, Model, Steering
from windowshift.core.contract.training import Example, Sft, TrainEvent, TrainFailed, TrainJob
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering import sending
from windowshift.steering.vector import SteeringVector

HELLO = (Message("user", "What do bees do in the winter?"),)
TEXTS = ("They gather.", "They keep warm in a ball.", "Little.", "Sleep?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama")


def foreign(folder: Path) -> CausalLM:
    """A model on the meta device, of which nothing is to be found out by a look at numbers."""
    lm = load(str(folder), None, LocalOptions(threads=1, dtype="float32"))
    lm.model.to("meta")
    lm.device = torch.device("meta")
    lm.__dict__.update(training_fault=None, stacking_fault=None)
    inner = lm.adapters.create

    def created(sft: Sft, seed: int) -> Any:
        with torch.device("meta"):  # PEFT puts an adapter where the weights are, but for this device
            return inner(sft, seed)

    lm.adapters.create = created  # type: ignore[method-assign]  # of this object alone
    return lm


def jobs(folder: Path, place: Path, **changes: Any) -> list[TrainJob]:
    """A plain one, one of another rank and length with weighted tokens, and one that is pushed and ablated."""
    lm = load(str(folder), None, LocalOptions(threads=1))
    vector = place / "v.safetensors"
    numbers = np.random.default_rng(0).normal(size=(2, lm.model.config.hidden_size))
    SteeringVector.make("v", numbers, Provenance("tiny", lm.fingerprint, "test"), layer=0).save(vector)
    pushes = (Steering(str(vector), 1.5), Steering(str(vector), 1.0, layer=1, ablate=True))
    kinds: list[tuple[int, int, dict[str, Any]]] = [(4, 2, {}), (3, 1, {"weight": 0.5}), (4, 2, {"steering": pushes})]
    return [
        TrainJob(
            str(number), Model(str(folder)), [Example(HELLO, text, **more) for text in TEXTS * 4],
            Sft(rank=rank, batch_size=rows, learning_rate=1e-2, epochs=8, **changes), number, place / str(number),
        )
        for number, (rank, rows, more) in enumerate(kinds)
    ]  # fmt: skip


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often numbers were sent in a way that does not wait."""
    found = [0]
    inner = sending.sent

    def counted(numbers: Tensor, device: Any) -> Tensor:
        found[0] += torch.device(device).type == "meta"
        return inner(numbers, device)

    for module in list(sys.modules.values()):
        if module is not None and module.__dict__.get("sent") is inner:
            monkeypatch.setattr(module, "sent", counted)
    return found


@pytest.mark.parametrize("recomputes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_steps_ask_nothing_of_the_device(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uploads: list[int], recomputes: bool
) -> None:
    """Gradients, clipping, schedule and AdamW of jobs in common passes, with weights, pushes and ablations."""
    lm = foreign(folder)
    lm.recomputes = recomputes
    asked = jobs(folder, tmp_path)
    if recomputes:  # layers that are computed again are not steered
        asked = asked[:2]
    monkeypatch.setattr(stack._Limit, "allows", lambda *_: True)
    common: list[int] = []
    inner: Callable[..., None] = stack.Stack._step

    def stepped(self: Any, chosen: Any, limit: Any) -> None:
        common.append(len(chosen))
        inner(self, chosen, limit)

    monkeypatch.setattr(stack.Stack, "_step", stepped)
    with ThreadPoolExecutor(1) as writer:
        stream = stack.Stack(lambda _: lm, 1e9, 1e9, writer).train(asked)
        begun: list[TrainEvent] = []
        while len(common) < 2 and not begun:  # what is made at the first step is made then
            begun += next(stream)
        common.clear()
        uploads[0] = 0
        with watched() as found:
            said = [event for events in itertools.islice(stream, 4) for event in events]
        stream.close()
    failures = [event.error for event in (*begun, *said) if isinstance(event, TrainFailed)]
    assert not failures
    assert len(common) >= 3
    assert set(common) == {len(asked)}
    assert found.seen > 500
    assert found.sent == uploads[0]  # all of what Python made went there in its turn
    assert uploads[0] <= len(common) * 10


def test_a_report_reads_what_the_steps_came_to(folder: Path, tmp_path: Path) -> None:
    """The meta device has nothing to read: where losses are said a job fails there, which shows that it looks."""
    lm = foreign(folder)
    with ThreadPoolExecutor(1) as writer:
        stream = stack.Stack(lambda _: lm, 1e9, 0.0, writer).train(jobs(folder, tmp_path)[:1])
        events = [event for some in stream for event in some]
    assert isinstance(events[-1], TrainFailed)
    assert "meta" in events[-1].error.lower()
