"""Backend `vllm` beside backend `local`: the same tokens, plain, with adapters, steered; and what proves the steering.

Greedy tokens are equal, and log-probabilities within `NATS`: vLLM computes in float32 here, and local in float64.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.backend_contract import answers
from tests.vllm_adapters import make_adapters, make_vector
from tests.vllm_server import VllmAddress
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.vllm import steering as steering_module
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, Steering
from windowshift.steering.recipe import Push

pytestmark = pytest.mark.vllm
NATS = 1e-3
GREEDY = Sampling(0.0, 1.0, 24)
THINGS = ("bees", "rivers", "clocks", "gardens", "trains", "bridges", "winters", "markets")


@pytest.fixture
async def vllm(keyed: VllmAddress) -> AsyncIterator[VllmBackend]:
    made = VllmBackend({"base_url": keyed.base_url, "adapters": 3})
    yield made
    await made.aclose()


@pytest.fixture
async def local() -> AsyncIterator[LocalBackend]:
    made = LocalBackend({"workers": 1, "threads": 1})
    yield made
    await made.aclose()


def asked(model: Model | None = None, name: str = "", **changes: Any) -> list[GenerateRequest]:
    """The same questions to one model, greedy, with everything measured that can be."""
    return [
        replace(
            GenerateRequest(
                f"{name}{number}",
                (Message("user", f"What do {thing} do?"),),
                model or Model("microworld"),
                GREEDY,
                number,
                logprobs=3,
                coherence=True,
            ),
            **changes,
        )
        for number, thing in enumerate(THINGS)
    ]


def same(one: Completion, other: Completion) -> None:
    """Equal tokens, and log-probabilities within the tolerance."""
    assert one.error is None, one.error
    assert (one.text, one.finish, one.tokens, one.prompt_tokens) == (
        other.text,
        other.finish,
        other.tokens,
        other.prompt_tokens,
    )
    assert one.logprob == pytest.approx(other.logprob, abs=NATS * max(1, one.tokens))
    assert one.token_logprobs is not None
    assert other.token_logprobs is not None
    assert len(one.token_logprobs) == one.tokens
    for mine, its in zip(one.token_logprobs, other.token_logprobs, strict=True):
        assert mine.token == its.token
        assert mine.logprob == pytest.approx(its.logprob, abs=NATS)
        assert [value for _, value in mine.top] == pytest.approx([value for _, value in its.top], abs=NATS)


async def both(
    vllm: VllmBackend, local: LocalBackend, requests: Sequence[GenerateRequest]
) -> tuple[dict[str, Completion], dict[str, Completion]]:
    found, expected = await answers(vllm, requests), await answers(local, requests)
    for key, one in found.items():
        same(one, expected[key])
    return found, expected


async def test_plain(vllm: VllmBackend, local: LocalBackend) -> None:
    found, _ = await both(vllm, local, [*asked(), *asked(name="cut-", sampling=Sampling(0.0, 1.0, 5))])
    assert len({one.text for one in found.values()}) > 1
    assert {one.finish for one in found.values()} == {"stop", "length"}


async def test_more_adapters_than_vllm_has_places_for_among_base_rows(
    vllm: VllmBackend, local: LocalBackend, tmp_path: Path
) -> None:
    """Five adapters, two places in a batch, three names kept: every row is its own adapter's, or the base model's."""
    models = [Model("microworld"), *make_adapters(tmp_path, 5)]
    requests = [one for index, model in enumerate(models) for one in asked(model, f"{index}-")]
    for seed in range(2):
        random.Random(seed).shuffle(requests)
        found, _ = await both(vllm, local, requests)
    texts = {tuple(found[f"{index}-{number}"].text for number in range(len(THINGS))) for index in range(len(models))}
    assert len(texts) == len(models)


async def test_what_a_seed_draws_does_not_depend_on_the_crowd(vllm: VllmBackend, tmp_path: Path) -> None:
    """Together, most prompts are read in parts; alone, none is."""
    (model,) = make_adapters(tmp_path, 1)
    drawn = Sampling(1.0, 1.0, 24)
    parts = [asked(model if part % 2 else None, f"{part}-", sampling=drawn, seed=part) for part in range(4)]
    requests = [one for part in parts for one in part]
    found = await answers(vllm, requests)
    assert [one.error for one in found.values()] == [None] * len(requests)
    assert len({one.text for one in found.values()}) > len(requests) // 2
    for request in requests[::5]:
        alone = await answers(vllm, [request])
        same(alone[request.key], found[request.key])


STEERINGS = {
    "all": [{"alpha": 0.1}],
    "prompt": [{"alpha": 0.2, "tokens": "prompt", "layer": 1}],
    "response": [{"alpha": -0.15, "tokens": "response"}],
    "ablated": [{"alpha": 1.0, "ablate": True}],
    "two": [{"alpha": 1.0, "ablate": True, "tokens": "response"}, {"alpha": 0.1, "layer": 3}],
}


def pushes(folder: Path, name: str) -> tuple[Steering, ...]:
    path = folder / "push.safetensors"
    if not path.exists():
        make_vector(folder)
    return tuple(Steering(str(path), **one) for one in STEERINGS[name])


@pytest.mark.parametrize("adapted", [False, True])
async def test_steered_in_many_ways_at_once(
    vllm: VllmBackend, local: LocalBackend, tmp_path: Path, adapted: bool
) -> None:
    """Every way of steering in one batch, with rows between them that ask for none."""
    model = make_adapters(tmp_path, 1)[0] if adapted else Model("microworld")
    requests = asked(model, "plain-")
    for name in STEERINGS:
        requests += asked(model, f"{name}-", steering=pushes(tmp_path, name), group=name)
    found, expected = await both(vllm, local, requests)
    for name in STEERINGS:
        proofs = [proof for number in range(len(THINGS)) for proof in found[f"{name}-{number}"].proofs]
        its = [proof for number in range(len(THINGS)) for proof in expected[f"{name}-{number}"].proofs]
        assert len(proofs) == len(its) == len(STEERINGS[name])
        for mine, other in zip(proofs, its, strict=True):
            assert mine.problem() is None
            assert mine.calls == mine.calls_asked > 0
            assert (mine.layer, mine.alpha, mine.ablate) == (other.layer, other.alpha, other.ablate)
            # A token past the end may be computed before vLLM sees that it was the end.
            assert other.tokens <= mine.tokens <= other.tokens + len(THINGS)
            assert mine.change == pytest.approx(other.change, rel=0.02)
    strong = [found[f"all-{number}"].text != found[f"plain-{number}"].text for number in range(len(THINGS))]
    assert any(strong)
    assert not any(found[f"plain-{number}"].proofs for number in range(len(THINGS)))


async def test_alpha_0_is_no_steering(vllm: VllmBackend, tmp_path: Path) -> None:
    nothing = (Steering(str(make_vector(tmp_path)), 0.0),)
    found = await answers(vllm, [*asked(name="plain-"), *asked(name="zero-", steering=nothing)])
    for number in range(len(THINGS)):
        assert replace(found[f"zero-{number}"], key="") == replace(found[f"plain-{number}"], key="")


LONG = "Think of a town by the river, of its markets and its bridges, of the people who go there by train. " * 3


def about(texts: Sequence[str], **changes: Any) -> list[GenerateRequest]:
    """Questions that begin alike, over several blocks of the prefix cache."""
    return [
        replace(one, key=f"{changes.get('group', '')}-{number}", messages=(Message("user", LONG + text),), **changes)
        for number, (one, text) in enumerate(zip(asked(), texts, strict=True))
    ]


async def test_what_is_steered_shares_a_cache_of_its_own(
    vllm: VllmBackend, local: LocalBackend, tmp_path: Path
) -> None:
    """Prompts that begin alike hit the cache, plain and steered; what is found there was steered in the same way."""
    way = pushes(tmp_path, "all")
    stronger = (replace(way[0], alpha=0.25),)
    questions = [f"What do {thing} do?" for thing in THINGS]
    await answers(vllm, about(questions))  # now the plain blocks are there
    assert vllm.queue().note
    requests = [*about(questions), *about(questions, steering=way, group="a")]
    requests += about(questions, steering=stronger, group="b")
    found, _ = await both(vllm, local, requests)
    assert vllm.cache_hit_rate is not None
    assert vllm.cache_hit_rate > 0.5
    proof = next(proof for one in found.values() for proof in one.proofs if proof.alpha == way[0].alpha)
    whole = sum(one.prompt_tokens + one.tokens for key, one in found.items() if key.startswith("a-"))
    assert proof.tokens < whole / 2  # the rest was found in the cache, steered before


async def test_a_push_that_vllm_got_wrong_fails_its_completions(
    vllm: VllmBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM is told to push the response alone: the answers show that the prompt was passed by."""
    genuine = steering_module.to_json

    def other(push: Push) -> dict[str, Any]:
        return {**genuine(push), "tokens": "response"}

    monkeypatch.setattr(steering_module, "to_json", other)
    requests = [*asked(name="steered-", steering=pushes(tmp_path, "all")), *asked(name="plain-")]
    found = await answers(vllm, requests)
    for number in range(len(THINGS)):
        assert "passed tokens by" in (found[f"steered-{number}"].error or "")
        assert found[f"steered-{number}"].text == ""
        assert found[f"plain-{number}"].finish != "failed"


async def test_a_worker_that_lost_the_slot_fails_its_completions(vllm: VllmBackend, tmp_path: Path) -> None:
    requests = asked(steering=pushes(tmp_path, "all"))
    await answers(vllm, asked())
    engine = vllm._server
    assert engine is not None
    genuine = engine.call

    async def forgetful(method: str, argument: str) -> Any:
        found = await genuine(method, argument)
        if method == "windowshift_open":
            await genuine("windowshift_close", json.dumps(list(json.loads(argument))))
        return found

    engine.call = forgetful  # type: ignore[method-assign]
    found = await answers(vllm, requests)
    assert all("does not know of this steering" in (one.error or "") for one in found.values())


async def test_a_reader_who_leaves_leaves_no_slot_behind(vllm: VllmBackend, tmp_path: Path) -> None:
    way = pushes(tmp_path, "all")
    wide = Sampling(1.0, 1.0, 60)
    stream = vllm.generate([*asked(sampling=wide, name="p"), *asked(sampling=wide, steering=way, name="s")])
    await anext(stream)
    await stream.aclose()
    found = await answers(vllm, asked(steering=way))
    assert all(one.error is None for one in found.values())


async def test_a_vector_of_other_weights_is_refused(vllm: VllmBackend, tmp_path: Path) -> None:
    from windowshift.core.contract.vector_file import Provenance
    from windowshift.steering.vector import SteeringVector

    path = tmp_path / "other.safetensors"
    SteeringVector.make("other", [[1.0] * 128] * 4, Provenance("other", "0" * 64, "random"), layer=1).save(path)
    found = await answers(vllm, asked(steering=(Steering(str(path), 1.0),)))
    assert all("extract it anew" in (one.error or "") for one in found.values())
