"""Steering in the decode loop: against transformers' generate under a hand-written hook, rows coming and going."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny_models import ARCHITECTURES, build
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.sampler import decode
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.architecture import find_decoder
from windowshift.steering.intervene import Intervention
from windowshift.steering.points import LayerPoints
from windowshift.steering.spans import Spans
from windowshift.steering.vector import SteeringVector

VECTOR = SteeringVector.make(
    "v", np.random.default_rng(0).normal(size=(2, 32)), Provenance("tiny", "f", "test"), layer=1
)
ALPHAS = (0.0, 3.0, -3.0, 8.0)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    folder = build(tmp_path_factory.mktemp("steered") / request.param, request.param)
    loaded = load(str(folder), None, LocalOptions(threads=1))
    loaded.model.double()
    return loaded


def rows(count: int, temperature: float) -> list[Row]:
    return [
        Row(i, [3 + (i * 7 + j) % 300 for j in range(1 + i * 5 % 11)], i, temperature, 1.0, 2 + i * 13 % 20)
        for i in range(count)
    ]


def sample(lm: CausalLM, steer: Intervention, given: list[Row], batch_rows: int, tokens: Any = "all") -> list[Decoded]:
    """The decode loop with a forward pass as the local backend would write it."""
    recipes = {row.index: steer.recipe((Steering("v", ALPHAS[row.index % 4], tokens=tokens),)) for row in given}

    def forward(
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        cache: Any,
        live: Sequence[Row],
        keep: int,
    ) -> Tensor:
        if attention_mask is None:
            spans = Spans.prefill([len(row.prompt) for row in live], input_ids.shape[1])
        else:
            spans = Spans.step(len(live))
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "past_key_values": cache}
        if "position_ids" in lm._keywords:
            inputs["position_ids"] = position_ids
        output = steer([recipes[row.index] for row in live], spans, **inputs, use_cache=True)
        logits: Tensor = output.logits[:, -keep:]
        return logits

    steps = decode(
        forward, iter(given), end_ids=lm.end_ids, cache_plan=lm.cache_plan, batch_rows=batch_rows, device="cpu"
    )
    return sorted((each for step in steps for each in step), key=lambda each: each.row.index)


def hook_by_hand(push: Tensor, tokens: str) -> Callable[..., Any]:
    passes: list[int] = []

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        if tokens == "all" or (not passes) == (tokens == "prompt"):
            hidden = hidden + push
        passes.append(1)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


def test_greedy_equals_transformers_under_a_hook(lm: CausalLM) -> None:
    # Which tokens a pass holds does not depend on the architecture: two are enough for the other two kinds.
    for tokens in ("all", "prompt", "response") if lm.label in ("llama", "gpt2") else ("all",):
        greedy_equals(lm, tokens)


def greedy_equals(lm: CausalLM, tokens: str) -> None:
    steer = Intervention(LayerPoints(lm.model), load=lambda _: VECTOR)
    v = torch.from_numpy(VECTOR.direction().copy()).double()
    for each in sample(lm, steer, rows(5, 0.0), 3, tokens):
        alpha = ALPHAS[each.row.index % 4]

        ids = torch.tensor([each.row.prompt])
        settings: dict[str, Any] = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False,
            "max_new_tokens": each.row.max_tokens, "eos_token_id": sorted(lm.end_ids), "pad_token_id": 0,
        }  # fmt: skip
        handle = find_decoder(lm.model).layers[1].register_forward_hook(hook_by_hand(alpha * v, tokens))
        expected = lm.model.generate(**settings)[0, ids.shape[1] :].tolist()
        handle.remove()
        assert each.ids + ([expected[-1]] if each.finish == "stop" else []) == expected
    proofs = steer.check()
    assert all(proof.tokens for proof in proofs) or tokens == "response"


def test_what_shares_the_batch_does_not_matter(lm: CausalLM) -> None:
    given = rows(8, 1.0)
    results = []
    for batch_rows in (1, 3):
        steer = Intervention(LayerPoints(lm.model), load=lambda _: VECTOR)
        results.append([(each.ids, each.finish) for each in sample(lm, steer, given, batch_rows)])
        proofs = steer.check()
        assert sum(proof.tokens for proof in proofs) > 0
    assert results[0] == results[1]


def test_the_proof_counts_every_prompt_and_answer_token(tmp_path: Path) -> None:
    loaded = load(str(build(tmp_path / "llama")), None, LocalOptions(threads=1))
    steer = Intervention(LayerPoints(loaded.model), load=lambda _: VECTOR)
    found = sample(loaded, steer, rows(12, 1.0), 4)
    for recipe_alpha in ALPHAS[1:]:
        chosen = [each for each in found if ALPHAS[each.row.index % 4] == recipe_alpha]
        # The last token drawn is never fed back; an end token is one that was drawn.
        fed = sum(len(each.row.prompt) + len(each.ids) - (each.finish == "length") for each in chosen)
        (proof,) = steer.check(steer.recipe((Steering("v", recipe_alpha),)))
        assert proof.tokens == fed
        assert proof.change == pytest.approx(abs(recipe_alpha) * VECTOR.norms[1], rel=1e-4)
