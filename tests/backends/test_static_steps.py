"""Decode steps in tensors of fixed places: the same texts as steps that grow, and nothing in them that waits."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backend_contract import request
from tests.backends.test_mixed_rows import adapters, folder, mixed, subject_of, told, vector
from tests.foreign_device import watched
from tests.tape import record
from tests.tiny_models import ARCHITECTURES, build
from windowshift.backends.local import shared_batch, static_steps
from windowshift.backends.local.adapters import sizes
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.decode_batch import CHECKED_EVERY, DecodeBatch
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.fixed_adapters import FixedAdapters
from windowshift.backends.local.fixed_forward import FixedForward
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.row_adapters import RowAdapter
from windowshift.backends.local.sampler import decode
from windowshift.backends.local.static_steps import StepCounts, bucket_of, columns_for, columns_of
from windowshift.core.contract.generation import Sampling, Steering
from windowshift.steering.intervene import Intervention

__all__ = ["adapters", "folder", "vector"]

OPTIONS = LocalOptions(threads=1)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return load(str(build(tmp_path_factory.mktemp("models") / request.param, request.param)), None, OPTIONS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return load(str(build(tmp_path_factory.mktemp("models") / "llama")), None, OPTIONS)


def rows(count: int, temperature: float = 1.0, longest: int = 60) -> list[Row]:
    return [
        Row(i, [3 + (i * 7 + j) % 300 for j in range(1 + i * 5 % 23)], i, temperature, (1.0, 0.8)[i % 2],
            1 + i * 13 % longest)
        for i in range(count)
    ]  # fmt: skip


def run(
    lm: CausalLM,
    given: Sequence[Row],
    batch_rows: int,
    end_ids: frozenset[int] = frozenset(),
    counts: StepCounts | None = None,
    *,
    static: bool = True,
) -> list[Decoded]:
    steps = decode(
        lm.sampling_forward(None),
        iter(given),
        end_ids=end_ids,
        cache_plan=lm.cache_plan,
        batch_rows=batch_rows,
        fixed=lambda slots: FixedForward(lm, slots) if static else None,
        counts=counts,
    )
    return sorted((each for step in steps for each in step), key=lambda each: each.row.index)


def test_texts_are_those_of_steps_that_grow(architecture: CausalLM) -> None:
    """Also past sliding windows, with rows coming and going, and rows that end between two looks."""
    given, ends = rows(9, longest=40), frozenset(range(100, 112))
    assert run(architecture, given, 5, ends) == run(architecture, given, 5, ends, static=False)


@pytest.mark.slow
@pytest.mark.parametrize("batch_rows", [1, 16])
def test_texts_are_those_of_steps_that_grow_in_any_batch(architecture: CausalLM, batch_rows: int) -> None:
    assert architecture.static_fault is None
    given, ends = rows(24), frozenset(range(100, 112))
    assert run(architecture, given, batch_rows, ends) == run(architecture, given, batch_rows, ends, static=False)


@pytest.mark.parametrize("kind", ["mamba", "qwen3_5_text"])
def test_recurrent_states_are_refused_with_a_reason(kind: str, tmp_path: Path) -> None:
    lm = load(str(build(tmp_path / kind, kind)), None, OPTIONS)
    assert lm.static_fault is not None
    assert "recurrent" in lm.static_fault


def test_log_probabilities_are_the_same(llama: CausalLM) -> None:
    given = [dataclasses.replace(row, logprobs=2) if row.index % 3 == 0 else row for row in rows(9, 0.0)]
    one, other = run(llama, given, 4), run(llama, given, 4, static=False)
    assert [each.ids for each in one] == [each.ids for each in other]
    for left, right in zip(one, other, strict=True):
        assert [each.id for each in left.drawn] == [each.id for each in right.drawn]
        for mine, theirs in zip(left.drawn, right.drawn, strict=True):
            assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-9)


def test_live_columns_move_and_buffers_grow_without_a_change(llama: CausalLM) -> None:
    """Many short rows behind a long one, and then one that is longer than the buffers."""
    given = [Row(0, [5, 6], 0, 1.0, 1.0, 30), *(Row(i, [7 + i], i, 1.0, 1.0, 9) for i in range(1, 40))]
    given.append(Row(60, [9 + i % 200 for i in range(150)], 60, 1.0, 1.0, 20))
    assert run(llama, given, 4) == run(llama, given, 4, static=False)


def test_logits_that_are_not_numbers_fail_their_row_only(llama: CausalLM) -> None:
    class Broken(FixedForward):
        def put(self, rows: Sequence[Row], bucket: int) -> Any:
            self.place = next((at for at, row in enumerate(rows) if row.index == 1), None)
            return super().put(rows, bucket)

        def __call__(self, *args: Any) -> torch.Tensor:
            logits = super().__call__(*args).clone()
            if self.place is not None:
                logits[self.place] = float("nan")
            return logits

    given = [dataclasses.replace(row, max_tokens=12) for row in rows(4)]
    steps = decode(
        llama.sampling_forward(None), iter(given), end_ids=frozenset(), cache_plan=llama.cache_plan, batch_rows=4,
        fixed=lambda slots: Broken(llama, slots),
    )  # fmt: skip
    found = sorted((each for step in steps for each in step), key=lambda each: each.row.index)
    assert [(each.row.index, each.ids) for each in found if each.finish == "failed"] == [(1, [])]
    expected = run(llama, given, 4, static=False)
    assert [each for each in found if each.row.index != 1] == [each for each in expected if each.row.index != 1]


def test_nobody_looks_at_a_step_in_between(llama: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of equal length are looked at every few steps, and when they reach their limits, at once."""
    looks = 0
    inner = torch.Tensor.tolist

    def counting(self: torch.Tensor) -> Any:
        nonlocal looks
        looks += 1
        return inner(self)

    monkeypatch.setattr(torch.Tensor, "tolist", counting)
    counts = StepCounts()
    given = [Row(i, [5, 6, 7 + i], i, 1.0, 1.0, 4 * CHECKED_EVERY + 1) for i in range(4)]
    assert {len(each.ids) for each in run(llama, given, 4, counts=counts)} == {4 * CHECKED_EVERY + 1}
    assert counts.launched == counts.steps == 4 * CHECKED_EVERY  # the first token is the prompt's
    assert looks <= 4 + 3  # the steps', and those of rows that come and leave


def test_who_reads_along_from_now_on_finds_no_row_that_ended_before(llama: CausalLM) -> None:
    """A call that follows its rows may wait for places while others' steps are not looked at."""

    class Late:
        """Follows from some step on."""

        wants_none = True
        steps = 0

        @property
        def follows(self) -> bool:
            self.steps += 1
            return self.steps > 3

        def unwanted(self, row: Row) -> bool:
            return False

        def begin(self, rows: Sequence[Row]) -> None:
            pass

        def take(self, rows: Sequence[Row], tokens: torch.Tensor, drawn: Mapping[int, Any]) -> list[int]:
            return []

    given, ends = [dataclasses.replace(row, max_tokens=40) for row in rows(6)], frozenset(range(0, 320, 4))
    steps = decode(
        llama.sampling_forward(None), iter(given), end_ids=ends, cache_plan=llama.cache_plan, batch_rows=6,
        watch=Late(), fixed=lambda slots: FixedForward(llama, slots),
    )  # fmt: skip
    found = sorted((each for step in steps for each in step), key=lambda each: each.row.index)
    expected = run(llama, given, 6, ends, static=False)
    assert found == expected
    assert any(1 < len(each.ids) < 6 for each in expected)  # some end while nobody looks


def test_sizes_are_few_and_hold_what_they_are_for() -> None:
    for slots in (1, 5, 64, 200):
        sizes = {bucket_of(rows, slots) for rows in range(1, slots + 1)}
        assert all(rows <= bucket_of(rows, slots) <= slots for rows in range(1, slots + 1))
        assert len(sizes) <= 6 + slots // 32
    assert all(columns_of(columns) >= columns for columns in range(1, 5000))
    assert len({columns_of(columns) for columns in range(1, 5000)}) <= 14
    assert columns_for(100) > 100


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
async def test_rows_of_any_adapter_and_dose_are_the_same(
    folder: Path, adapters: list[str], vector: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their proofs: what was asked of the rows of each step was done in it."""
    subject = subject_of(folder)
    requests = mixed(subject, adapters, vector, temperature)
    found: list[dict[str, Any]] = []
    counts: list[StepCounts] = []

    def fixed(self: Any, slots: int) -> FixedForward:
        counts.append(self.counts)
        return FixedForward(self._lm, slots, lambda: self._steer)

    for way in ("grown", "static", "recorded"):
        if way != "grown":
            monkeypatch.setattr(shared_batch.SharedBatch, "_fixed", fixed)
        if way == "recorded":
            monkeypatch.setattr(static_steps, "recorder_for", lambda _device: record)
        backend = subject.make()
        every = [each async for each in backend.generate(requests)]
        found.append({each.key: each for each in every})
        await backend.aclose()
    assert counts[0].played == counts[0].recorded == 0
    assert counts[-1].played > counts[-1].launched >= counts[-1].recorded > 5
    proofs = []
    for some in found:
        assert {key: told(each) for key, each in some.items()} == {key: told(each) for key, each in found[0].items()}
        proofs.append(
            sorted(
                (proof.vector, proof.layer, proof.alpha, proof.ablate, proof.tokens)
                for each in some.values()
                for proof in each.proofs
            )
        )
        assert all(proof.calls == proof.calls_asked for each in some.values() for proof in each.proofs)
    assert proofs[0]
    assert proofs[0] == proofs[1] == proofs[2]


async def test_a_recorded_step_that_does_not_push_is_found(
    folder: Path, vector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device counts what a record does: one that lacks the pushes fails their proof."""

    def forgetful(step: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    monkeypatch.setattr(
        shared_batch.SharedBatch, "_fixed", lambda self, slots: FixedForward(self._lm, slots, lambda: self._steer)
    )
    monkeypatch.setattr(static_steps, "recorder_for", lambda _device: forgetful)
    subject = subject_of(folder)
    backend = subject.make()
    wanted = request(subject, "pushed", "Why?", steering=(Steering(vector, 1.5),), sampling=Sampling(1.0, 1.0, 12))
    found = [each async for each in backend.generate([wanted])]
    await backend.aclose()
    assert found[0].finish == "failed"
    assert "steering" in (found[0].error or "")


def test_a_step_that_cannot_be_recorded_is_launched_and_said(
    llama: CausalLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def refusing(step: Callable[[], None]) -> Callable[[], None]:
        nonlocal tries
        tries += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(static_steps, "recorder_for", lambda _device: refusing)
    counts, given = StepCounts(), rows(6)
    assert run(llama, given, 3, counts=counts) == run(llama, given, 3, static=False)
    assert tries == 1
    assert counts.played == 0
    assert counts.launched > 10
    assert "capturing" in (counts.fault or "")
    assert "cannot be recorded as CUDA graphs" in caplog.text


def random_adapter(lm: CausalLM, rank: int, layers: int) -> RowAdapter:
    generator = torch.Generator().manual_seed(rank)
    found = {}
    for path, module in list(lm.row_adapters.sites.items())[:layers]:
        width, height = sizes(module)
        numbers = [
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((width, rank), (rank, height))
        ]
        found[path] = (numbers[0], 0.1 * numbers[1])
    return RowAdapter(found)


@torch.inference_mode()
def test_adapters_come_and_go_in_the_same_tables(llama: CausalLM) -> None:
    """Also where they need more ranks than there are, or layers that none had; what has left leaves nothing behind."""
    ranks = ((40, 3), (20, 7), (30, 3), (64, 2), (5, 9), (40, 3))
    made = [random_adapter(llama, rank, layers) for rank, layers in ranks]
    tables, ids, numbers = FixedAdapters(llama.row_adapters.sites, 8), torch.tensor([[5], [60], [7]]), []
    for one, other in itertools.pairwise(made):
        for given in ([one, None, other], [other, one, None], [None, None, None]):
            number = tables.put(given, 4)
            with tables.serving(4) if number else nullcontext():
                found = llama.base()(input_ids=torch.cat([ids, ids[:1]]), use_cache=False).logits[:3]
            with llama.row_adapters.serving(given):
                expected = llama.base()(input_ids=ids, use_cache=False).logits
            assert torch.allclose(found, expected, atol=1e-9)
            numbers.append(number)
    # The third pair needs more ranks, and the fourth more layers.
    assert numbers == [1, 1, 0, 1, 1, 0, 2, 2, 0, 3, 3, 0, 3, 3, 0]
    llama.row_adapters.forget()


def test_a_step_asks_nothing_of_the_device(folder: Path, vector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With adapters and pushes, on the meta device, which has no numbers to give; nothing is sent there, either."""
    lm = load(str(folder), None, LocalOptions(threads=1, dtype="float32"))
    lm.model.to("meta")
    lm.device = torch.device("meta")
    steer = Intervention(lm.sampling_points)
    recipes = [
        steer.recipe((Steering(vector, 1.5),)),
        None,
        steer.recipe((Steering(vector, 1.0, layer=1, ablate=True),)),
    ]
    shapes = {path: sizes(module) for path, module in lm.row_adapters.sites.items()}
    numbers = {
        path: (torch.empty(w, 4, device="meta"), torch.empty(4, h, device="meta")) for path, (w, h) in shapes.items()
    }
    given = [
        Row(i, [5, 6, 7 + i], i, float(i > 0), 0.9, 40, recipes[i], None, RowAdapter(numbers) if i else None)
        for i in range(3)
    ]
    # What comes of a prompt is looked at: there is nothing to see here.
    monkeypatch.setattr(DecodeBatch, "_take", lambda *_: [])
    monkeypatch.setattr(DecodeBatch, "_settle", lambda self: self._cache.span(self.size, 0))
    counts = StepCounts()
    batch = DecodeBatch(
        lm.sampling_forward(None), frozenset({1}), lm.cache_plan, 4, lm.device, None, lambda _: False,
        FixedForward(lm, 4, lambda: steer), counts,
    )  # fmt: skip
    batch.admit(given)
    assert batch.step() == []  # sends what its rows are given
    with watched() as found:
        for _ in range(CHECKED_EVERY - 2):
            assert batch.step() == []
    assert found.seen > 100
    assert found.sent == 0
    assert counts.launched == CHECKED_EVERY - 1
    with watched(), pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        batch.step()  # looks at which rows have ended
