"""The decode loop: sampling arithmetic, places in the batch, and parity with transformers."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_models import ARCHITECTURES, build
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.drawn_token import DrawnToken
from windowshift.backends.local.inversion import draw, uniforms
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.sampler import decode

OPTIONS = LocalOptions(threads=1)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    folder = build(tmp_path_factory.mktemp("models") / request.param, request.param)
    return load(str(folder), None, OPTIONS)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return load(str(build(tmp_path_factory.mktemp("models") / "llama")), None, OPTIONS)


def rows(count: int, temperature: float = 1.0, top_p: float = 1.0, longest: int = 60) -> list[Row]:
    return [
        Row(
            index=i,
            prompt=[3 + (i * 7 + j) % 300 for j in range(1 + i * 5 % 23)],
            seed=i,
            temperature=temperature,
            top_p=top_p,
            max_tokens=1 + i * 13 % longest,
        )
        for i in range(count)
    ]


def run(lm: CausalLM, given: list[Row], batch_rows: int, end_ids: frozenset[int] | None = None) -> list[Decoded]:
    steps = decode(
        lm.sampling_forward(None),
        iter(given),
        end_ids=lm.end_ids if end_ids is None else end_ids,
        cache_plan=lm.cache_plan,
        batch_rows=batch_rows,
    )
    found = [each for step in steps for each in step]
    return sorted(found, key=lambda each: each.row.index)


def test_greedy_equals_transformers_generate(architecture: CausalLM) -> None:
    """Also past the sliding windows, with rows coming and going."""
    given = rows(10, temperature=0.0)
    reference: Any = architecture.model.double()
    try:
        for each in run(architecture, given, batch_rows=4):
            ids = torch.tensor([each.row.prompt])
            expected = reference.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=each.row.max_tokens,
                eos_token_id=sorted(architecture.end_ids),
                pad_token_id=0,
            )[0, ids.shape[1] :].tolist()
            got = each.ids + ([expected[-1]] if each.finish == "stop" else [])
            assert got == expected
    finally:
        architecture.model.float()


@pytest.mark.parametrize("batch_rows", [1, 2, 5, 64])
def test_places_in_the_batch_do_not_matter(architecture: CausalLM, batch_rows: int) -> None:
    given = rows(24)
    assert run(architecture, given, batch_rows) == run(architecture, given, 7)


def test_the_order_of_rows_does_not_matter(llama: CausalLM) -> None:
    given = rows(40)
    assert run(llama, given[::-1], 8) == run(llama, given, 8)


def test_every_row_stops_where_it_must(llama: CausalLM) -> None:
    found = run(llama, rows(60), 16, end_ids=frozenset(range(100, 110)))
    assert [each.row.index for each in found] == list(range(60))
    assert {each.finish for each in found} == {"stop", "length"}
    for each in found:
        assert not set(each.ids) & set(range(100, 110))
        assert len(each.ids) == each.row.max_tokens or each.finish == "stop"


def test_finished_rows_are_never_decoded(llama: CausalLM) -> None:
    """Row-passes equal tokens drawn: nobody waits in the batch for the longest one."""
    inner = llama.sampling_forward(None)
    passes = 0

    def counting(*args: Any) -> torch.Tensor:
        nonlocal passes
        passes += args[0].shape[0]
        return inner(*args)

    given = rows(50)
    steps = decode(counting, iter(given), end_ids=frozenset(), cache_plan=llama.cache_plan, batch_rows=8)
    drawn = sum(len(each.ids) for step in steps for each in step)
    assert drawn == sum(row.max_tokens for row in given) == passes


def test_a_long_prompt_joins_short_rows(llama: CausalLM) -> None:
    short = Row(0, [5, 6], 1, 1.0, 1.0, 120)
    brief = Row(1, [7], 2, 1.0, 1.0, 2)
    long = Row(2, [9 + i % 200 for i in range(150)], 3, 1.0, 1.0, 60)
    together = run(llama, [short, brief, long], 2, frozenset())
    alone = [run(llama, [each], 1, frozenset())[0] for each in (short, brief, long)]
    assert together == alone


def test_logits_that_are_not_numbers_fail_their_row_only(llama: CausalLM) -> None:
    inner = llama.sampling_forward(None)

    def broken(*args: Any) -> torch.Tensor:
        logits = inner(*args).clone()
        for i, row in enumerate(args[4]):
            if row.index == 1:
                logits[i] = float("nan")
        return logits

    given = rows(4)
    found = [
        each
        for step in decode(broken, iter(given), end_ids=llama.end_ids, cache_plan=llama.cache_plan, batch_rows=4)
        for each in step
    ]
    failed = [each for each in found if each.finish == "failed"]
    assert [(each.row.index, each.ids) for each in failed] == [(1, [])]
    rest = sorted((each for each in found if each.finish != "failed"), key=lambda each: each.row.index)
    assert rest == [each for each in run(llama, given, 4) if each.row.index != 1]


def test_uniforms_are_fixed_and_independent() -> None:
    assert uniforms(3, 4).tolist() == uniforms(3, 9)[:4].tolist()
    many = np.stack([uniforms(seed, 200) for seed in range(300)])
    assert many.min() >= 0
    assert many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(many[:50])[np.triu_indices(50, 1)]).max() < 0.35
    assert uniforms(-1, 1).shape == uniforms(2**80, 1).shape == (1,)


def test_draw_follows_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
    count = 20_000
    uniform = torch.from_numpy(uniforms(0, count))
    for temperature in (0.5, 1.0, 2.0):
        tokens, sound = draw(
            logits.expand(count, -1), uniform, torch.full((count,), temperature).double(), torch.ones(count).double()
        )
        share = torch.bincount(tokens, minlength=4) / count
        assert bool(sound.all())
        assert torch.allclose(share.double(), torch.softmax(logits / temperature, 0), atol=0.015)


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    logits = torch.log(torch.tensor([0.05, 0.5, 0.15, 0.3], dtype=torch.float64))
    uniform = torch.linspace(0, 1 - 1e-12, 1000, dtype=torch.float64)
    ones = torch.ones(1000, dtype=torch.float64)
    kept = {
        top_p: set(draw(logits.expand(1000, -1), uniform, ones, ones * top_p)[0].tolist())
        for top_p in (0.1, 0.6, 0.85, 1.0)
    }
    assert kept == {0.1: {1}, 0.6: {1, 3}, 0.85: {1, 2, 3}, 1.0: {0, 1, 2, 3}}


def test_mixed_temperatures_in_one_batch(llama: CausalLM) -> None:
    given = [Row(i, [5, 6, 7], i, (0.0, 0.7, 1.0)[i % 3], (1.0, 0.8)[i % 2], 20) for i in range(12)]
    together = run(llama, given, 12)
    assert together == [run(llama, [each], 1)[0] for each in given]
    assert len({tuple(each.ids) for each in together if each.row.temperature == 0}) == 1


def test_a_tiny_model_on_a_window(tmp_path: Path) -> None:
    """A row longer than the buffer's first columns, three times over."""
    lm = load(str(build(tmp_path / "mistral", "mistral", max_position_embeddings=600)), None, OPTIONS)
    long = Row(0, [4, 5], 0, 1.0, 1.0, 500)
    others = [Row(i, [6] * i, i, 1.0, 1.0, 20) for i in range(1, 30)]
    together = run(lm, [long, *others], 3, frozenset())
    assert together[0] == run(lm, [long], 1, frozenset())[0]
    assert len(together[0].ids) == 500


def test_log_probabilities_are_the_models_own_however_tokens_are_drawn(llama: CausalLM) -> None:
    plain = rows(10, temperature=0.5, top_p=0.7)
    asking = [dataclasses.replace(row, logprobs=row.index % 4) if row.index % 3 else row for row in plain]
    found = run(llama, asking, batch_rows=4)
    assert [each.ids for each in found] == [each.ids for each in run(llama, plain, batch_rows=3)]
    model: Any = copy.deepcopy(llama.model).double()
    for each in found:
        if each.row.logprobs is None:
            assert each.drawn == ()
            continue
        assert [token.id for token in each.drawn] == each.ids
        with torch.inference_mode():
            logits = model(torch.tensor([each.row.prompt + each.ids])).logits[0, len(each.row.prompt) - 1 :]
        for expected, token in zip(logits.log_softmax(-1), each.drawn, strict=False):
            assert token.logprob == pytest.approx(float(expected[token.id]), abs=1e-9)
            best = expected.topk(each.row.logprobs) if each.row.logprobs else None
            assert [name for name, _ in token.top] == ([] if best is None else best.indices.tolist())
            assert [value for _, value in token.top] == pytest.approx([] if best is None else best.values.tolist())


def test_the_texts_of_tokens_joined_are_the_text(llama: CausalLM) -> None:
    text = "Bees gather in a ball,\n and  keep warm?"
    ids = llama.tokenizer(text)["input_ids"]
    drawn = [DrawnToken(token, -1.0, ((token, -1.0),)) for token in ids]
    found = llama.chat.token_logprobs(drawn)
    assert len(found) == len(ids) < len(text)
    assert "".join(each.token for each in found) == text
    assert all(each.top == ((each.token, -1.0),) for each in found)
