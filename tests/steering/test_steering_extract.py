"""Extraction against activations read row by row with plain hooks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.tiny_models import ARCHITECTURES, config
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Steering
from windowshift.steering.architecture import find_decoder
from windowshift.steering.extract import EncodedRow, extract, residual_rms
from windowshift.steering.intervene import Intervention
from windowshift.steering.points import LayerPoints
from windowshift.steering.spans import Spans

torch.set_num_threads(1)


@cache
def points(kind: str) -> LayerPoints:
    torch.manual_seed(0)
    return LayerPoints(AutoModelForCausalLM.from_config(config(kind, 320)).eval())


def rows(seed: int, count: int = 7) -> list[EncodedRow]:
    drawn = np.random.default_rng(seed)
    return [
        EncodedRow(drawn.integers(3, 320, 1 + i * 3 % 8).tolist(), drawn.integers(3, 320, 1 + i * 5 % 11).tolist())
        for i in range(count)
    ]


def read(model: Any, row: EncodedRow, whole: bool) -> Tensor:
    """Activations [layers, tokens, width] of one row, by plain hooks."""
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out))
        for layer in find_decoder(model).layers
    ]
    ids = [*row.prompt, *row.completion] if whole else list(row.prompt)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.cat(seen).double()


def made(where: LayerPoints, tokens: Any, **changes: Any) -> Any:
    settings: dict[str, Any] = {"name": "v", "model": "tiny", "fingerprint": "f", "tokens": tokens, "batch_tokens": 64}
    return extract(where, rows(0), rows(1), **(settings | changes))


@pytest.mark.parametrize("tokens", ["response", "last_prompt", "prompt"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_vector_is_the_difference_of_mean_activations(kind: str, tokens: str) -> None:
    where = points(kind)
    means, squares = [], []
    for given in (rows(0), rows(1)):
        total = torch.zeros(2, 32, dtype=torch.float64)
        for row in given:
            length = len(row.prompt)
            span = {"response": slice(length, None), "last_prompt": slice(length - 1, length), "prompt": slice(length)}
            hidden = read(where.model, row, tokens == "response")
            total += hidden[:, span[tokens]].mean(1) / len(given)
            norms = hidden.norm(dim=-1)[:, span[tokens]].square()
            first = tokens == "prompt" and norms.shape[1] > 1
            squares.append(norms[:, 1:] if first else norms)
        means.append(total)
    vector = made(where, tokens, layer=1)
    assert np.allclose(vector.directions, (means[0] - means[1]).numpy(), atol=1e-5)
    assert np.allclose(vector.rms, torch.cat(squares, dim=1).mean(1).sqrt().numpy(), rtol=1e-5)
    assert vector.layer == 1
    assert vector.provenance.tokens == tokens
    assert vector.provenance.positive_count == 7


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_size_of_batches_changes_rounding_only(kind: str) -> None:
    small, large = (made(points(kind), "response", batch_tokens=size) for size in (1, 10_000))
    assert np.allclose(small.directions, large.directions, atol=1e-6)
    assert small.provenance == large.provenance


def test_adapters_are_read_as_they_are() -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config("llama", 320)).eval()
    lora = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(base, lora).eval()
    adapted = made(LayerPoints(wrapped), "response")
    merged = made(LayerPoints(wrapped.merge_and_unload()), "response")
    assert np.allclose(adapted.directions, merged.directions, atol=1e-4)
    assert not np.allclose(adapted.directions, made(points("llama"), "response").directions, atol=1e-2)


def test_pairs_may_be_filtered() -> None:
    keep = [True, False, True, True, False, True, False]
    kept = [row for row, flag in zip(rows(0), keep, strict=True) if flag]
    others = [row for row, flag in zip(rows(1), keep, strict=True) if flag]
    filtered = made(points("llama"), "response", keep=keep)
    plain = extract(points("llama"), kept, others, name="v", model="tiny", fingerprint="f")
    # Equal to rounding in float32, whose size depends on the machine: the batches differ in shape.
    assert np.allclose(filtered.directions, plain.directions, atol=2e-5)
    assert filtered.provenance.positive_count == 4
    assert "filtered" in filtered.provenance.how
    with pytest.raises(SpecError, match="no pair passes the filter for 'positive'"):
        made(points("llama"), "response", keep=[False] * 7)
    with pytest.raises(SpecError, match="3 flags for 7"):
        made(points("llama"), "response", keep=[True] * 3)


def test_rows_without_the_tokens_are_refused() -> None:
    where = points("llama")
    for positive, sentence in (
        ([EncodedRow([1])], "no completion"),
        ([EncodedRow([], [1])], "no prompt"),
        ([], "there are no rows"),
    ):
        with pytest.raises(SpecError, match=sentence):
            extract(where, positive, rows(1), name="v", model="tiny", fingerprint="f")
    with pytest.raises(SpecError, match="both sides gave the same"):
        extract(where, rows(1), rows(1), name="v", model="tiny", fingerprint="f")
    with pytest.raises(SpecError, match="at least one row"):
        residual_rms(where, [])


def test_extraction_stops_behind_the_last_layer() -> None:
    where = points("llama")
    heads: list[int] = []
    handle = where.model.lm_head.register_forward_hook(lambda *_: heads.append(1))
    made(where, "response")
    handle.remove()
    assert heads == []


def test_residual_norms_alone_equal_those_of_an_extraction() -> None:
    vector = made(points("llama"), "response")
    assert np.allclose(residual_rms(points("llama"), [*rows(0), *rows(1)]), vector.rms)


def test_an_extracted_vector_steers_towards_its_positive_side() -> None:
    where = points("llama")
    vector = made(where, "response", layer=0)
    steer = Intervention(where, fingerprint="f", load=lambda _: vector)
    recipe = steer.recipe((Steering("v", vector.alpha_of(0.5)),))
    ids = torch.tensor([[5, 6, 7]])
    seen: list[Tensor] = []
    handle = find_decoder(where.model).layers[0].register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        where.model(input_ids=ids)
        steer([recipe], Spans.prefill([3], 3), input_ids=ids)
    handle.remove()
    along = [float((hidden @ torch.from_numpy(vector.direction().copy())).mean()) for hidden in seen]
    assert along[1] > along[0]
    (proof,) = steer.check()
    assert proof.change == pytest.approx(0.5 * vector.rms[0], rel=1e-3)
