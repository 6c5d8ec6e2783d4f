"""Rows of any adapters and any doses in one decode batch, and of several calls: each is what it is alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.backend_contract import Subject, answers, request
from tests.tiny_models import build
from windowshift.backends.local.adapters import WEIGHTS, AdapterFile
from windowshift.backends.local.answers import answers as answering
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.decode_batch import beginning, families
from windowshift.backends.local.decode_row import Row
from windowshift.backends.local.fixed_adapters import FixedAdapters
from windowshift.backends.local.given_up import GivenUp
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.row_adapters import RowAdapter
from windowshift.backends.local.sampler import decode
from windowshift.backends.local.shared_batch import SharedBatch
from windowshift.backends.local.watch import Watch
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling, Steering
from windowshift.core.contract.training import Sft
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.vector import SteeringVector

RANKS = (2, 5, 3)
TEXTS = ("What do bees do?", "Why?", "Tell me of the river, and of the hills that it rises in.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama")


def saved(model: Path, place: Path, rank: int) -> Path:
    """A random adapter that is not small, so that rows which get another one's numbers write other texts."""
    lm = load(str(model), None, LocalOptions(threads=1))
    name, parameters = lm.adapters.create(Sft(rank=rank, alpha=2 * rank), seed=rank)
    with torch.no_grad():
        for index, parameter in enumerate(parameters.values()):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(rank + index)))
    lm.adapters.save(name, place)
    return place


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("adapters")
    return [str(saved(folder, place / str(rank), rank)) for rank in RANKS]


@pytest.fixture(scope="module")
def vector(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    lm = load(str(folder), None, LocalOptions(threads=1))
    numbers = np.random.default_rng(0).normal(size=(2, lm.model.config.hidden_size))
    made = SteeringVector.make("v", numbers, Provenance("tiny", lm.fingerprint, "test"), layer=0, rms=(2.0, 3.0))
    place = tmp_path_factory.mktemp("vectors") / "v.safetensors"
    made.save(place)
    return str(place)


def subject_of(folder: Path, **options: object) -> Subject:
    settings = {"threads": 1, "batch_rows": 8, "workers": 1, **options}
    return Subject(lambda: LocalBackend(settings), Model(str(folder)), "./no/such", "word " * 400)


def mixed(subject: Subject, adapters: Sequence[str], vector: str, temperature: float) -> list[GenerateRequest]:
    """Requests of which no two neighbours have the same adapter or dose."""
    models = [subject.model, *(dataclasses.replace(subject.model, adapter=each) for each in adapters)]
    doses: list[tuple[Steering, ...]] = [
        (),
        (Steering(vector, 1.5),),
        (Steering(vector, -2.0, tokens="response"),),
        (Steering(vector, 1.0, layer=1, ablate=True),),
    ]
    found = []
    for number in range(32):
        sampling = Sampling(temperature, 1.0, 3 + number * 5 % 17)
        changes: dict[str, Any] = {
            "model": models[number % 4],
            "steering": doses[number // 4 % 4],
            "sampling": sampling,
            "seed": number,
            "coherence": number % 5 == 0,
        }
        found.append(request(subject, f"r{number}", TEXTS[number % 3], **changes))
    return found


def told(completion: Any) -> tuple[Any, ...]:
    """What a row came to; how often a hook was called is the batch's affair."""
    return (completion.text, completion.finish, completion.tokens, completion.prompt_tokens, completion.error)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_rows_of_any_adapter_and_dose_are_what_they_are_alone(
    folder: Path, adapters: list[str], vector: str, temperature: float
) -> None:
    subject = subject_of(folder)
    requests = mixed(subject, adapters, vector, temperature)
    backend = subject.make()
    together = await answers(backend, requests)
    assert len({told(each) for each in together.values()}) > 20  # adapters and doses write different texts
    backwards = await answers(backend, requests[::-1])
    for each in requests[::3]:
        alone = (await answers(backend, [each]))[each.key]
        assert told(together[each.key]) == told(backwards[each.key]) == told(alone)
        assert alone.error is None
        assert together[each.key].logprob == pytest.approx(alone.logprob, rel=1e-5)
    await backend.aclose()


async def test_calls_at_the_same_time_share_passes(folder: Path, adapters: list[str], vector: str) -> None:
    subject = subject_of(folder)
    requests = mixed(subject, adapters, vector, 1.0)
    backend = subject.make()
    expected = await answers(backend, requests)
    await backend.aclose()
    lm = load(str(folder), None, LocalOptions(threads=1))
    batch = SharedBatch(lm, 32)
    passes: list[int] = []
    inner = lm.row_adapters.serving

    def counted(rows: Sequence[RowAdapter | None]) -> Any:
        passes.append(len(rows))
        return inner(rows)

    lm.row_adapters.serving = counted  # type: ignore[method-assign]
    calls = [answering(lm, batch, requests[at : at + 4]) for at in range(0, 32, 4)]
    found: dict[str, Any] = {}
    while calls:
        for call in list(calls):
            some = next(call, None)
            if some is None:
                calls.remove(call)
            found |= {each.key: told(each) for each in some or ()}
    assert found == {key: told(each) for key, each in expected.items()}
    assert max(passes) > 16  # rows of more than four calls


async def test_a_batch_that_does_not_fit_the_memory_is_halved(
    folder: Path, adapters: list[str], vector: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    subject = subject_of(folder)
    requests = mixed(subject, adapters, vector, 1.0)
    plain = subject.make()
    expected = await answers(plain, requests)
    await plain.aclose()
    inner = CausalLM.sampling_forward

    def bounded(self: CausalLM, *args: Any) -> Any:
        forward = inner(self, *args)

        def call(*inputs: Any) -> Any:
            logits = forward(*inputs)
            if len(inputs[4]) > 3:  # behind the pass: what steering tallied must be forgotten
                raise torch.OutOfMemoryError("CUDA out of memory")
            return logits

        return call

    monkeypatch.setattr(CausalLM, "sampling_forward", bounded)
    backend = subject.make()
    found = await answers(backend, requests)
    assert {key: told(each) for key, each in found.items()} == {key: told(each) for key, each in expected.items()}
    assert "ran out of memory with 8 completions at once: going on with 4" in caplog.text
    assert "ran out of memory with 4 completions at once: going on with 2" in caplog.text
    await backend.aclose()


async def test_a_pass_that_fails_fails_the_rows_in_it_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(folder, batch_rows=4)
    inner = CausalLM.sampling_forward

    def broken(self: CausalLM, *args: Any) -> Any:
        forward = inner(self, *args)

        def call(*inputs: Any) -> Any:
            if any(row.seed == 1 and row.max_tokens == 7 for row in inputs[4]):
                raise RuntimeError("the sky is falling")
            return forward(*inputs)

        return call

    monkeypatch.setattr(CausalLM, "sampling_forward", broken)
    backend = subject.make()
    requests = [request(subject, f"r{n}", seed=n, sampling=Sampling(1.0, 1.0, 7)) for n in range(12)]
    found = await answers(backend, requests)
    failed = {key for key, each in found.items() if each.finish == "failed"}
    assert failed == {"r0", "r1", "r2", "r3"}
    assert "the sky is falling" in (found["r1"].error or "")
    await backend.aclose()


async def test_an_adapter_that_is_none_fails_its_own_rows(folder: Path, adapters: list[str]) -> None:
    subject = subject_of(folder)
    wrong = dataclasses.replace(subject.model, adapter="./no/adapter")
    good = dataclasses.replace(subject.model, adapter=adapters[0])
    requests = [request(subject, f"r{n}", model=(wrong, good, subject.model)[n % 3]) for n in range(9)]
    backend = subject.make()
    found = await answers(backend, requests)
    assert {key for key, each in found.items() if each.finish == "failed"} == {"r0", "r3", "r6"}
    assert "adapter_config.json" in (found["r0"].error or "")
    await backend.aclose()


@pytest.mark.parametrize("mixes", [True, False])
def test_a_model_that_cannot_mix_decodes_one_adapter_at_a_time(
    folder: Path, adapters: list[str], monkeypatch: pytest.MonkeyPatch, mixes: bool
) -> None:
    lm = load(str(folder), None, LocalOptions(threads=1))
    assert lm.mixes
    lm.__dict__["mixes"] = mixes
    passes: list[int] = []
    inner = lm.row_adapters.serving

    def counted(rows: Sequence[RowAdapter | None]) -> Any:
        passes.append(len(set(rows)))
        return inner(rows)

    monkeypatch.setattr(lm.row_adapters, "serving", counted)
    batch = SharedBatch(lm, 8)
    member = batch.join()
    rows = [Row(n, [5, 6 + n, 7], n, 1.0, 1.0, 5) for n in range(12)]
    member.adapters = {n: adapters[n % 2] for n in range(12) if n % 3}
    member.rows.extend(rows)
    found = []
    while len(found) < 12:
        found += member.advance()[0]
    batch.leave(member)
    assert (max(passes) > 1) is mixes
    for each in found:
        adapter = member.adapters.get(each.row.index)
        (alone,) = (
            one
            for step in decode(
                lm.sampling_forward(adapter),
                iter([each.row]),
                end_ids=lm.end_ids,
                cache_plan=lm.cache_plan,
                batch_rows=1,
            )
            for one in step
        )
        assert alone == each


def test_what_another_adapter_makes_of_a_row_does_not_reach_it(folder: Path, adapters: list[str]) -> None:
    """Not even where that is not finite."""
    lm = load(str(folder), None, LocalOptions(threads=1, dtype="float32"))
    good = lm.row_adapters.load(AdapterFile.at(adapters[0]))
    wild = RowAdapter({path: (down * 1e38, up) for path, (down, up) in good.layers.items()})
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.inference_mode():
        with lm.row_adapters.serving([good, wild]):
            mixed_rows = lm.base()(input_ids=ids).logits
        with lm.row_adapters.serving([good]):
            alone = lm.base()(input_ids=ids[:1]).logits
        plain = lm.base()(input_ids=ids[:1]).logits
    assert torch.allclose(mixed_rows[0], alone[0], atol=1e-5)
    assert not mixed_rows[1].isfinite().all()
    assert (plain - alone).abs().max() > 1e-3


@pytest.mark.parametrize("packed", [torch.int8, torch.float8_e4m3fn])
def test_adapters_of_packed_weights_are_in_the_numbers_that_the_model_computes_in(
    folder: Path, adapters: list[str], packed: torch.dtype
) -> None:
    """A quantised weight is of whole numbers, or of one byte: an adapter in such a type would be another one."""
    lm = load(str(folder), None, LocalOptions(threads=1, dtype="float32"))
    file, ids = AdapterFile.at(adapters[0]), torch.tensor([[5, 6, 7], [8, 9, 10]])
    whole = lm.row_adapters.load(file)
    path = next(iter(whole.layers))
    lm.row_adapters.drop(file)
    site: Any = lm.row_adapters.sites[path]
    site.weight = torch.nn.Parameter(site.weight.detach().to(packed), requires_grad=False)
    found = lm.row_adapters.load(file)
    for one, other in zip(found.layers[path], whole.layers[path], strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)

    class Unpacked(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, self.weight.float())

    site.__class__ = Unpacked
    with torch.inference_mode():
        with lm.row_adapters.serving([found, None]):
            both = lm.base()(input_ids=ids).logits
        plain = lm.base()(input_ids=ids).logits
    assert torch.allclose(both[1], plain[1], atol=1e-5)
    assert (both[0] - plain[0]).abs().max() > 1e-3


def test_an_adapter_that_is_not_finite_in_the_numbers_of_the_model_is_refused(
    folder: Path, adapters: list[str], tmp_path: Path
) -> None:
    """Its file is sound, but 0 times an infinity would reach the rows of others that share a pass with it."""
    wild = tmp_path / "wild"
    shutil.copytree(adapters[0], wild)
    weights = {key: value * 1e6 for key, value in load_file(str(wild / WEIGHTS)).items()}
    save_file(weights, str(wild / WEIGHTS))
    lm = load(str(folder), None, LocalOptions(threads=1, dtype="float16"))
    with pytest.raises(BackendError, match="numbers that are too large"):
        lm.row_adapters.load(AdapterFile.at(wild))
    with pytest.raises(BackendError, match="numbers that are too large"):  # and not the second time, either
        lm.row_adapters.load(AdapterFile.at(wild))


def test_what_a_layer_had_in_the_place_of_its_forward_is_called_and_stays(folder: Path, adapters: list[str]) -> None:
    """accelerate puts its hooks there, where the layers of a model lie on several devices."""
    lm = load(str(folder), None, LocalOptions(threads=1))
    one, other = (lm.row_adapters.load(AdapterFile.at(each)) for each in adapters[:2])
    ids, called = torch.tensor([[5], [8]]), 0
    site: Any = lm.row_adapters.sites[next(iter(one.layers))]

    def hooked(x: torch.Tensor) -> torch.Tensor:
        nonlocal called
        called += 1
        return type(site).forward(site, x)  # type: ignore[no-any-return]

    site.forward = hooked
    tables = FixedAdapters(lm.row_adapters.sites, 2)
    with torch.inference_mode():
        for rows in ([one], [one, other]):
            with lm.row_adapters.serving(rows):
                lm.base()(input_ids=ids[: len(rows)])
        tables.put([one, other], 2)
        with tables.serving(2):
            lm.base()(input_ids=ids)
    assert called == 3
    assert site.forward is hooked


def test_a_beginning_that_prompts_share_is_run_once(folder: Path, adapters: list[str]) -> None:
    """And rows are what they are alone: several beginnings in a group, of unequal lengths, and rows without one."""
    lm = load(str(folder), None, LocalOptions(threads=1))
    assert lm.shares
    tuned = lm.row_adapters.load(AdapterFile.at(adapters[1]))
    long, short = [5 + n % 200 for n in range(60)], [9, 8, 7, 6, 5, 4, 3, 9, 8, 7]
    prompts = [[*(long, short, [])[n % 3], *(30 + n * 7 % 50 + at for at in range(1 + n % 4))] for n in range(24)]
    rows = [
        Row(n, prompt, n, 1.0, 1.0, 4 + n % 9, adapter=tuned if n % 2 else None) for n, prompt in enumerate(prompts)
    ]
    run = 0
    inner = lm.sampling_forward(None)

    def counted(ids: Any, *rest: Any) -> Any:
        nonlocal run
        run += ids.numel() if ids.shape[1] > 1 else 0
        return inner(ids, *rest)

    def decoded(shares: bool, places: int) -> list[Any]:
        steps = decode(
            counted,
            iter(rows),
            end_ids=lm.end_ids,
            cache_plan=lm.cache_plan,
            batch_rows=places,
            shares=lambda saved: shares and saved > 30,
        )
        return sorted((each for step in steps for each in step), key=lambda each: each.row.index)

    whole = decoded(False, 1)
    spent, run = run, 0
    assert decoded(True, 24) == whole
    assert run < 0.6 * spent
    assert decoded(True, 5) == whole


def test_prompts_under_a_push_are_run_whole(folder: Path) -> None:
    recipe: Any = object()
    one, other = Row(0, [*range(3, 30)], 0, 1.0, 1.0, 4), Row(1, [*range(3, 30), 4], 1, 1.0, 1.0, 4)
    assert beginning(one, other) == 26
    assert beginning(one, dataclasses.replace(other, recipe=recipe)) == 0
    assert families([one, other]) == [(26, [one, other])]
    assert families([one, dataclasses.replace(other, recipe=recipe)]) == []


def test_a_model_that_cannot_mix_adapters_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = load(str(folder), None, LocalOptions(threads=1))

    def refused(_rows: Sequence[RowAdapter | None]) -> Any:
        raise RuntimeError("experts have tokens of all rows")

    monkeypatch.setattr(lm.row_adapters, "serving", refused)
    assert not lm.mixes
    assert "one adapter after another" in caplog.text
    assert "experts have tokens of all rows" in caplog.text


def test_tokens_are_looked_at_one_by_one_only_where_somebody_reads_along(folder: Path) -> None:
    """Each look waits for the device."""
    lm = load(str(folder), None, LocalOptions(threads=1))
    plain = GenerateRequest("r", (Message("user", "Why?"),), Model(str(folder)), Sampling(1.0, 1.0, 4), 1)
    given_up = GivenUp()
    watch = Watch(lm, [plain], given_up)
    assert not watch.follows
    assert Watch(lm, [dataclasses.replace(plain, pieces=True)], given_up).follows
    assert Watch(lm, [dataclasses.replace(plain, stop=("x",))], given_up).follows
    given_up.begin(["r"])
    given_up.add(["r"])
    assert watch.follows
