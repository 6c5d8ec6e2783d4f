"""Interventions against hooks written by hand, row by row and with gradients, on every architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

from tests.tiny_models import ARCHITECTURES, config
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.vector_file import Provenance
from windowshift.steering.architecture import find_decoder
from windowshift.steering.intervene import Intervention
from windowshift.steering.points import LayerPoints
from windowshift.steering.spans import Spans
from windowshift.steering.vector import SteeringVector

torch.set_num_threads(1)
ROWS, WIDTH = 3, 12
PROMPTS, RESPONSES = [4, 7, 1], [8, 3, 6]  # padding in two rows
GENERATOR = np.random.default_rng(0)
VECTORS = {
    name: SteeringVector.make(name, GENERATOR.normal(size=(2, 32)), Provenance("tiny", "f", "test"), layer=0)
    for name in ("a", "b", "c")
}


@cache
def points(kind: str) -> LayerPoints:
    torch.manual_seed(0)
    return LayerPoints(AutoModelForCausalLM.from_config(config(kind, 320)).eval())


def model(kind: str = "llama") -> Any:
    return points(kind).model


def use(kind: str = "llama") -> Intervention:
    return Intervention(points(kind), fingerprint="f", load=VECTORS.__getitem__)


def ids() -> Tensor:
    return torch.randint(3, 320, (ROWS, WIDTH), generator=torch.Generator().manual_seed(1))


def spans() -> Spans:
    return Spans.sequences(PROMPTS, RESPONSES, WIDTH)


def run(steer: Intervention, rows: Sequence[Sequence[Steering]]) -> Tensor:
    recipes = [steer.recipe(tuple(row)) for row in rows]
    logits: Tensor = steer(recipes, spans(), input_ids=ids(), use_cache=False).logits
    return logits


def hooked(lm: nn.Module, layer: int, change: Callable[[Tensor], Tensor], given: Tensor | None = None) -> Tensor:
    """A forward pass with a hook written by hand."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = find_decoder(lm).layers[layer].register_forward_hook(hook)
    try:
        logits: Tensor = lm(input_ids=ids() if given is None else given, use_cache=False).logits
    finally:
        handle.remove()
    return logits


def real() -> Tensor:
    columns = torch.arange(WIDTH)[None, :]
    return columns < torch.tensor(PROMPTS)[:, None] + torch.tensor(RESPONSES)[:, None]


def prompt() -> Tensor:
    return torch.arange(WIDTH)[None, :] < torch.tensor(PROMPTS)[:, None]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_steered_forward_equals_a_hand_written_hook_bit_for_bit(kind: str, layer: int) -> None:
    alphas = torch.tensor([2.0, 0.0, -0.7])
    v = torch.from_numpy(VECTORS["a"].directions[layer].copy())
    steer = use(kind)
    with torch.no_grad():
        got = run(steer, [[Steering("a", float(alpha), layer)] for alpha in alphas])
        padded = real()[:, :, None]
        expected = hooked(model(kind), layer, lambda h: torch.where(padded, h + alphas[:, None, None] * v, h))
        assert torch.equal(got, expected)
    assert [(proof.calls, proof.tokens) for proof in steer.check()] == [(1, 12), (1, 7)]


def test_alpha_0_equals_no_steering_exactly() -> None:
    with torch.no_grad():
        steer = use()
        got = run(steer, [[Steering("a", 0.0)]] * ROWS)
        assert torch.equal(got, model()(input_ids=ids(), use_cache=False).logits)
        # beside a row that is steered, too
        mixed = run(steer, [[Steering("a", 5.0)], [Steering("a", 0.0)], []])
        assert torch.equal(mixed[1:], model()(input_ids=ids(), use_cache=False).logits[1:])
    steer.check()


class Linear(nn.Module):
    """A linear probe: two linear layers behind an embedding, called like a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.config = config("llama", 320)
        self.embed = nn.Embedding(320, 32)
        self.layers = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32)])

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden: Tensor = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def test_alpha_and_minus_alpha_cancel_on_a_linear_probe() -> None:
    probe = Linear().double()
    steer = Intervention(LayerPoints(probe), load=VECTORS.__getitem__)
    everything = Spans.sequences([WIDTH] * ROWS, [0] * ROWS, WIDTH)
    plus, minus, plain = (
        steer([steer.recipe((Steering("a", alpha),))] * ROWS, everything, input_ids=ids()) for alpha in (3.0, -3.0, 0.0)
    )
    assert torch.allclose((plus + minus) / 2, plain, atol=1e-12)
    assert (plus - plain).abs().max() > 0.1
    both = steer.recipe((Steering("a", 3.0), Steering("a", -3.0)))
    assert torch.allclose(steer([both] * ROWS, everything, input_ids=ids()), plain, atol=1e-12)
    steer.check()


MIXED: list[list[Steering]] = [
    [Steering("a", 3.0), Steering("b", -1.0, 1, "response")],
    [Steering("c", 0.0, 1, "prompt", ablate=True), Steering("a", 1.0, 1)],
    [Steering("b", 2.0, 0, "prompt"), Steering("a", -4.0, 0, "response")],
]


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_a_row_of_a_batch_equals_the_row_alone(kind: str) -> None:
    steer = use(kind)
    with torch.no_grad():
        together = run(steer, MIXED)
        for row in range(ROWS):
            length = PROMPTS[row] + RESPONSES[row]
            alone = steer(
                [steer.recipe(tuple(MIXED[row]))],
                Spans.sequences([PROMPTS[row]], [RESPONSES[row]], length),
                input_ids=ids()[row : row + 1, :length],
                use_cache=False,
            ).logits
            assert torch.allclose(together[row, :length], alone[0], atol=1e-5)
    steer.check()


@pytest.mark.parametrize("tokens", ["all", "prompt", "response"])
def test_only_the_tokens_asked_for_are_touched(tokens: Any) -> None:
    chosen = {"all": real(), "prompt": prompt(), "response": real() & ~prompt()}[tokens]
    v = torch.from_numpy(VECTORS["b"].directions[1].copy())
    steer = use()
    with torch.no_grad():
        got = run(steer, [[Steering("b", 1.5, 1, tokens)]] * ROWS)
        expected = hooked(model(), 1, lambda h: torch.where(chosen[:, :, None], h + 1.5 * v, h))
    assert torch.equal(got, expected)
    assert steer.check()[0].tokens == int(chosen.sum())


def test_ablation_projects_several_directions_out() -> None:
    basis = np.linalg.qr(np.stack([VECTORS[name].directions[0] for name in "ab"], axis=1).astype(np.float64))[0]
    q = torch.from_numpy(basis).float()
    steer = use()
    with torch.no_grad():
        got = run(steer, [[Steering("a", 1.0, ablate=True), Steering("b", 0.0, ablate=True)]] * ROWS)
        expected = hooked(model(), 0, lambda h: torch.where(real()[:, :, None], h - h @ q @ q.T, h))
    assert torch.allclose(got, expected, atol=1e-4)
    proofs = steer.check()
    assert len(proofs) == 2
    assert all(proof.ablate and proof.change > 0 for proof in proofs)
    # a direction that is ablated already is no further push
    assert len(use().recipe((Steering("a", 1.0, ablate=True), Steering("a", 1.0, ablate=True))).pushes) == 1


def test_ablation_on_some_tokens_and_on_all_removes_both_everywhere_asked() -> None:
    seen: list[Tensor] = []
    steer = use()
    row = [Steering("a", 1.0, 0, "prompt", ablate=True), Steering("b", 1.0, 0, "all", ablate=True)]
    reader = find_decoder(model()).layers[1].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        run(steer, [row] * ROWS)
    reader.remove()
    a, b = (torch.from_numpy(VECTORS[name].directions[0].copy()) for name in "ab")
    assert (seen[0] @ b)[real()].abs().max() < 1e-3
    assert (seen[0] @ a)[prompt()].abs().max() < 1e-3
    assert (seen[0] @ a)[real() & ~prompt()].abs().max() > 1e-2


def test_gradients_equal_those_of_a_hand_written_hook() -> None:
    lm = model()
    alphas = torch.tensor([2.0, 0.0, -0.7])
    v = torch.from_numpy(VECTORS["a"].directions[0].copy())
    steer = use()

    def gradients(logits: Tensor) -> list[Tensor]:
        lm.zero_grad()
        logits.square().mean().backward()  # type: ignore[no-untyped-call]
        return [parameter.grad.clone() for parameter in lm.parameters()]

    got = gradients(run(steer, [[Steering("a", float(alpha))] for alpha in alphas]))
    mask = real()[:, :, None].float()
    expected = gradients(hooked(lm, 0, lambda h: h + mask * (alphas[:, None] * v)[:, None, :]))
    assert all(torch.equal(one, two) for one, two in zip(got, expected, strict=True))
    steer.check()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_adapter_learns_under_steering_on_every_architecture(kind: str) -> None:
    import peft

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config(kind, 320)).eval()
    wrapped = peft.get_peft_model(
        base, peft.LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=kind == "gpt2", task_type="CAUSAL_LM")
    )
    steer = Intervention(LayerPoints(wrapped), load=VECTORS.__getitem__)
    optimizer = torch.optim.AdamW([one for one in wrapped.parameters() if one.requires_grad], lr=0.01)
    recipes = [steer.recipe(tuple(row)) for row in MIXED]
    alone = [steer.recipe((Steering("a", 3.0),))] * ROWS
    v = torch.from_numpy(VECTORS["a"].directions[0].copy())
    losses = []
    for _ in range(4):
        logits = steer(recipes, spans(), input_ids=ids(), use_cache=False).logits
        loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    with torch.no_grad():
        got = steer(alone, spans(), input_ids=ids(), use_cache=False).logits
        expected = hooked(wrapped, 0, lambda h: torch.where(real()[:, :, None], h + 3 * v, h))
    assert torch.equal(got, expected)
    steer.check()


def test_an_unsupported_architecture_says_so_by_name() -> None:
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2))
    with pytest.raises(BackendError, match="'T5ForConditionalGeneration' cannot be steered"):
        find_decoder(t5)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = config("llama", 320)
            self.one = nn.ModuleList([nn.Linear(32, 32) for _ in range(2)])
            self.two = nn.ModuleList([nn.Linear(32, 32) for _ in range(2)])

    with pytest.raises(BackendError, match=r"'Odd' cannot be steered.*one, two"):
        find_decoder(Odd())
    with pytest.raises(BackendError, match="'Linear' cannot be steered"):
        find_decoder(nn.Linear(2, 2))


def test_layers_that_give_out_something_else_are_refused() -> None:
    class Flat(Linear):
        def forward(self, input_ids: Tensor) -> Tensor:
            hidden: Tensor = self.layers[1](self.layers[0](self.embed(input_ids)[:, 0]))
            return hidden

    steer = Intervention(LayerPoints(Flat()), load=VECTORS.__getitem__)
    with pytest.raises(BackendError, match=r"'Flat' give out \[3, 32\]"):
        steer([steer.recipe((Steering("a", 1.0),))] * ROWS, spans(), input_ids=ids())


def test_a_hook_that_does_not_fire_is_an_error() -> None:
    class Skips(Linear):
        def forward(self, input_ids: Tensor) -> Tensor:
            hidden: Tensor = self.layers[0](self.embed(input_ids))
            return hidden

    steer = Intervention(LayerPoints(Skips()), load=VECTORS.__getitem__)
    with pytest.raises(BackendError, match="did not fire"):
        steer([steer.recipe((Steering("a", 1.0, 1),))] * ROWS, spans(), input_ids=ids())
    with pytest.raises(BackendError, match="0 hook calls in 1 forward passes"):
        steer.check()


def test_the_proof_tells_wrong_tokens_and_wrong_changes() -> None:
    steer = use()
    wrong = replace(spans(), prompt_counts=torch.tensor([4, 7, 2]))
    recipe = steer.recipe((Steering("a", 1.0),))
    with torch.no_grad():
        steer([recipe] * ROWS, wrong, input_ids=ids(), use_cache=False)
    with pytest.raises(BackendError, match="changed 29 tokens, and 30 were asked for"):
        steer.check()
    fine = use()
    run(fine, [[Steering("a", 1.0)]] * ROWS)
    (proof,) = fine.check()
    assert proof.change == pytest.approx(float(np.linalg.norm(VECTORS["a"].direction())), rel=1e-4)
    assert replace(proof, change=proof.change * 1.01).problem() is not None
    assert replace(proof, change=float("nan")).problem() is not None
    assert replace(proof, calls=0).problem() is not None
    assert replace(proof, tokens=proof.tokens + 1).problem() is not None


def test_the_proof_tells_a_change_that_something_undoes() -> None:
    """A vector that vanishes on its way: the tally of the hook itself must differ from what was asked."""
    steer = use()
    run(steer, [[Steering("a", 2.0)]] * ROWS)
    steer.tally.measures[1] *= 0.5
    with pytest.raises(BackendError, match="moved activations"):
        steer.check()


def test_low_precision_passes_its_own_proof() -> None:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config("llama", 320)).eval().to(torch.bfloat16)
    steer = Intervention(LayerPoints(lm), load=VECTORS.__getitem__)
    with torch.inference_mode():
        run(steer, MIXED)
    steer.check()


def test_inference_and_training_may_share_an_intervention() -> None:
    steer = use()
    rows = [[Steering("a", 1.0, ablate=True), Steering("b", 2.0)]] * ROWS
    with torch.inference_mode():
        run(steer, rows)
    run(steer, rows).mean().backward()  # type: ignore[no-untyped-call]
    assert [proof.calls for proof in steer.check()] == [2, 2]


def test_two_models_and_plain_calls_do_not_meet() -> None:
    import copy

    twin = copy.deepcopy(model())
    other = Intervention(LayerPoints(twin), load=VECTORS.__getitem__)
    steer = use()
    with torch.no_grad():
        plain = model()(input_ids=ids(), use_cache=False).logits
        pushed = run(steer, [[Steering("a", 9.0)]] * ROWS)
        assert torch.equal(run(other, [[]] * ROWS), plain)
        assert torch.equal(model()(input_ids=ids(), use_cache=False).logits, plain)
        assert torch.equal(run(other, [[Steering("a", 9.0)]] * ROWS), pushed)
    assert [proof.calls for proof in steer.check()] == [1]


@pytest.mark.parametrize(
    ("steering", "error", "sentence"),
    [
        (Steering("a", 1.0, 7), SpecError, "no layer 7"),
        (Steering("a", float("nan")), BackendError, "finite number"),
    ],
)
def test_steering_that_makes_no_sense_is_refused(steering: Steering, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        use().recipe((steering,))


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(SpecError, match="other weights"):
        Intervention(points("llama"), fingerprint="g", load=VECTORS.__getitem__).recipe((Steering("a", 1.0),))


def test_gradient_checkpointing_is_refused() -> None:
    lm = AutoModelForCausalLM.from_config(config("llama", 320))
    lm.gradient_checkpointing_enable()
    lm.train()
    steer = Intervention(LayerPoints(lm), load=VECTORS.__getitem__)
    with pytest.raises(BackendError, match="gradient checkpointing"):
        run(steer, [[Steering("a", 1.0)]] * ROWS)
