"""What passes take of the memory: predicted on the meta device, against what they take; and the rows that gives."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import ARCHITECTURES, build
from windowshift.backends.local import row_limit
from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.decode_row import Row
from windowshift.backends.local.forecast import forecast
from windowshift.backends.local.memory_trial import Alive, TrialModel, sampling_bytes, training_bytes
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.row_limit import RowLimit, most_rows
from windowshift.backends.local.sampler import decode
from windowshift.backends.local.shared_batch import SharedBatch
from windowshift.core.contract.memory import MemoryAsked
from windowshift.core.contract.training import Sft

LARGER = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 1000}
SFT = Sft(rank=8, batch_size=2)


def profiled(run: Any) -> int:
    """Bytes that the allocator gave out at most, by torch's own profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    path = Path("trace.json")
    found.export_chrome_trace(str(path))
    events = [each for each in json.loads(path.read_text())["traceEvents"] if each.get("name") == "[memory]"]
    totals = [each["args"]["Total Allocated"] for each in sorted(events, key=lambda each: each["ts"])]
    return int(max(totals) - totals[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CausalLM]:
    folder = build(tmp_path_factory.mktemp("models") / "llama", **LARGER)
    return folder, load(str(folder), None, LocalOptions(threads=1))


def trial(folder: Path, *, exact: bool = True) -> TrialModel:
    found = TrialModel.made(json.loads((folder / "config.json").read_text()), torch.float32, "cpu")
    found.sampled = torch.float64 if exact else None
    return found


def steps(lm: CausalLM, jobs: int, tokens: int, learned: int) -> None:
    made = [AdapterWeights(lm.adapters, SFT, seed) for seed in range(jobs)]
    optimizers = [torch.optim.AdamW([each.flat], fused=True) for each in made]
    row = TrainingTokens([5] * (tokens - learned), [6] * learned)
    parts = [BatchLoss(lm, (), [row] * SFT.batch_size, each) for each in made]
    for _ in range(2):
        for each in made:
            each.forget_gradients()
        torch.autograd.backward(torch.stack(losses(lm, [part.batch(range(SFT.batch_size)) for part in parts])).sum())
        for each, optimizer in zip(made, optimizers, strict=True):
            torch.nn.utils.clip_grad_norm_([each.flat], 1.0)
            optimizer.step()
    for each in made:
        lm.adapters.drop(each.name)


@pytest.mark.parametrize(("jobs", "tokens", "learned"), [(1, 64, 32), pytest.param(4, 96, 24, marks=pytest.mark.slow)])
def test_training_takes_what_was_predicted(
    model: tuple[Path, CausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, tokens: int, learned: int
) -> None:
    folder, lm = model
    monkeypatch.chdir(tmp_path)
    steps(lm, 1, 8, 4)
    found = profiled(lambda: steps(lm, jobs, tokens, learned))
    predicted, held = training_bytes(trial(folder), SFT, jobs, tokens, learned)
    assert abs(predicted / found - 1) < 0.1
    assert 0 < held < predicted


@pytest.mark.parametrize("asked", [(8, 40, 12), pytest.param((24, 30, 300), marks=pytest.mark.slow)])
def test_sampling_takes_what_was_predicted(
    model: tuple[Path, CausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[int, int, int]
) -> None:
    (folder, lm), (rows, prompt, completion) = model, asked
    monkeypatch.chdir(tmp_path)

    def drawn(tokens: int) -> None:
        given = [Row(i, [5] * prompt, i, 1.0, 1.0, tokens) for i in range(rows)]
        for _ in decode(
            lm.sampling_forward(None), iter(given), end_ids=frozenset(), cache_plan=lm.cache_plan, batch_rows=rows
        ):
            pass

    drawn(2)
    found = profiled(lambda: drawn(completion))
    assert abs(sampling_bytes(trial(folder), rows, prompt, completion) / found - 1) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_any_architecture_can_be_tried(kind: str, tmp_path: Path) -> None:
    found = trial(build(tmp_path / kind, kind))
    small, held = training_bytes(found, SFT, 1, 24, 8)
    large, _ = training_bytes(found, SFT, 3, 24, 8)
    assert large - small > held  # gradients are of each
    few, many = (sampling_bytes(found, rows, 20, 20) for rows in (4, 16))
    assert many > 2 * few


def test_what_a_person_knows_already_is_not_counted() -> None:
    before = torch.zeros(1000)
    with Alive("cpu", [before]) as alive:
        view = before.t()
        one = torch.zeros(1000)
        two = one.view(10, 100)
        del one
    assert alive.now == 4032  # in blocks of 64 bytes
    del two, view
    assert alive.now == 0
    assert alive.peak == 4032


def test_a_forecast_has_the_weights_and_what_is_beside_them(tmp_path: Path) -> None:
    config = json.loads((build(tmp_path / "llama", **LARGER) / "config.json").read_text())
    asked = MemoryAsked(SFT, 5, 24, 8, 10, 10, 8)
    options = LocalOptions(device="cpu")
    found = forecast(config, options, asked)
    assert "float64 to sample" in found.device
    assert found.training is not None
    assert found.sampling is not None
    assert found.jobs == 5
    assert found.rows == 10
    assert found.weights < found.training < found.together
    assert found.weights < found.sampling < found.together
    untrained = forecast(config, options, MemoryAsked(None, 0, 0, 0, 10, 10, 8))
    assert untrained.training is None
    assert "training" not in untrained.words


@pytest.mark.slow
def test_layers_computed_again_take_less(tmp_path: Path) -> None:
    found = trial(build(tmp_path / "llama", **LARGER))
    once, _ = training_bytes(found, SFT, 1, 96, 24)
    found.recomputes = True
    assert training_bytes(found, SFT, 1, 96, 24)[0] < 0.8 * once


def test_rows_are_as_many_as_the_memory_holds(model: tuple[Path, CausalLM], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "windowshift.local")
    _, lm = model
    room = 200 * 2**20
    limit = RowLimit(lm, 0, lambda _: room, counted=True)
    limit.most = row_limit.MOST_ROWS
    rows = limit.begin(60, 60, 500)
    assert 1 < rows < row_limit.MOST_ROWS
    folder_trial = limit._tried()
    assert sampling_bytes(folder_trial, rows, 64, 64) <= room
    assert sampling_bytes(folder_trial, 2 * rows + 32, 64, 64) > 0.7 * room
    assert limit.begin(60, 400, 500) < rows  # longer ones take more
    assert limit.halve(rows) == rows // 2
    assert limit.begin(60, 60, 500) == rows // 2
    assert "rows at a time" in caplog.text
    assert RowLimit(lm, 7, lambda _: room, counted=True).begin(60, 60, 500) == 7  # a person's choice


def test_what_a_batch_took_corrects_the_next_one(model: tuple[Path, CausalLM], monkeypatch: pytest.MonkeyPatch) -> None:
    _, lm = model
    limit = RowLimit(lm, 0, lambda _: 200 * 2**20, counted=True)
    limit.most = row_limit.MOST_ROWS
    rows = limit.begin(60, 60, 500)
    monkeypatch.setattr(limit, "_peak", lambda: int(1.5 * limit._predicted))
    limit.ended(rows)
    fewer = limit.begin(60, 60, 500)
    assert fewer < rows
    monkeypatch.setattr(limit, "_peak", lambda: int(9 * limit._predicted))
    limit.ended(fewer)  # somebody else's
    assert limit.begin(60, 60, 500) == fewer


def test_a_batch_chooses_its_rows_when_it_begins(model: tuple[Path, CausalLM], monkeypatch: pytest.MonkeyPatch) -> None:
    _, lm = model
    begun: list[tuple[int, int, int]] = []
    ended: list[int] = []

    class Told(RowLimit):
        def begin(self, prompt: int, completion: int, waiting: int) -> int:
            begun.append((prompt, completion, waiting))
            return 3

        def ended(self, rows: int) -> None:
            ended.append(rows)

    monkeypatch.setattr("windowshift.backends.local.shared_batch.RowLimit", Told)
    batch = SharedBatch(lm, 0)
    for _ in range(2):
        member = batch.join()
        member.rows.extend(Row(i, [5] * (4 + i), i, 1.0, 1.0, 6) for i in range(5))
        found = 0
        while found < 5:
            ready, failed = member.advance()
            assert not failed
            found += len(ready)
        batch.leave(member)
    assert begun == [(8, 6, 5)] * 2
    assert ended == [3, 3]


def test_rows_fill_the_room_in_sizes_that_are_recorded() -> None:
    assert most_rows(100, 10, 1000 / row_limit.FREE_SHARE, 512) == 64
    assert most_rows(100, 10, 300 / row_limit.FREE_SHARE, 512) == 20
    assert most_rows(100, 10, 0, 512) == 1
    assert most_rows(0, 1, 1e9, 512) == 512


async def test_what_a_run_took_is_logged_beside_what_was_predicted(
    model: tuple[Path, CausalLM], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.backend_contract import Subject, answers, request
    from windowshift.core.contract.generation import Model, Sampling

    caplog.set_level(logging.INFO, "windowshift.local")
    folder, _ = model
    asked = MemoryAsked(None, 0, 0, 0, 4, 40, 30)
    subject = Subject(lambda: LocalBackend({"workers": 1, "threads": 1}), Model(str(folder)), "./no", "word")
    backend = LocalBackend({"workers": 1, "threads": 1})
    assert backend.memory(str(folder), None, asked) is None  # so small a model takes next to nothing
    monkeypatch.setattr("windowshift.backends.local.run_memory.tiny", lambda *_: False)
    backend.expect(str(folder), None, asked)
    await answers(backend, [request(subject, "r", "Why?", sampling=Sampling(1.0, 1.0, 4))])
    await backend.aclose()
    assert "GiB at its peak" in caplog.text
    assert "predicted" in caplog.text


def test_quantised_weights_take_what_bitsandbytes_keeps_of_them(tmp_path: Path) -> None:
    config = json.loads((build(tmp_path / "llama", **LARGER) / "config.json").read_text())
    asked = MemoryAsked(SFT, 2, 24, 8, 10, 10, 8)
    dense, eight, four = (
        forecast(config, LocalOptions(device="cpu", dtype="bfloat16", quantise=kind), asked)
        for kind in ("none", "8bit", "4bit")
    )
    shapes = [
        (module.out_features, module.in_features)
        for path, module in trial(tmp_path / "llama").model.named_modules()
        if isinstance(module, torch.nn.Linear) and path != "lm_head"
    ]
    count = sum(height * width for height, width in shapes)
    assert dense.weights - eight.weights == count - 4 * sum(height for height, _ in shapes)
    assert abs((dense.weights - four.weights) / count - (2 - 0.5 - 1 / 64 - 4 / 64 / 256)) < 1e-3
    assert four.training is not None
    assert dense.training is not None
    assert four.training < dense.training
    assert "quantised to 4bit" in four.device
