"""KL of a push on backend `local`, against hooks and a sum over the vocabulary written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.backends.test_local_reading import CHATS
from tests.backends.test_steered_backend import OPTIONS, vector
from tests.tiny_models import build
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.generation import Message, Model, Steering, Tokens
from windowshift.core.contract.reading import Divergence, DivergingBackend, ReadRequest
from windowshift.core.contract.vector_file import read_vector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama")


async def diverge(folder: Path, *steering: Steering, more: tuple[ReadRequest, ...] = ()) -> dict[str, Divergence]:
    backend = LocalBackend(OPTIONS)
    assert isinstance(backend, DivergingBackend)
    asked = [
        ReadRequest(str(n), messages, text, Model(str(folder)), steering) for n, (messages, text) in enumerate(CHATS)
    ]
    try:
        return {one.key: one async for one in backend.diverge([*asked, *more])}
    finally:
        await backend.aclose()


@contextmanager
def pushed(lm: CausalLM, layer: int, push: torch.Tensor, first: int, last: int) -> Iterator[None]:
    """A hook that adds to the residual stream of some tokens."""

    def add(_module: torch.nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> object:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, first:last] += push
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = lm.model.model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def by_hand(
    lm: CausalLM, file: str, messages: tuple[Message, ...], text: str, alpha: float, layer: int, tokens: Tokens
) -> list[float]:
    chat = lm.chat.training_tokens(messages, text)
    ids = torch.tensor([[*chat.prompt, *chat.completion]])
    start, end = len(chat.prompt), ids.shape[1]
    first, last = {"all": (0, end), "prompt": (0, start), "response": (start, end)}[tokens]
    push = alpha * torch.tensor(read_vector(file)[1][layer])
    with torch.inference_mode():
        base = torch.log_softmax(lm.model(input_ids=ids).logits[0].double(), -1)
        with pushed(lm, layer, push, first, last):
            own = torch.log_softmax(lm.model(input_ids=ids).logits[0].double(), -1)
    kl = (own.exp() * (own - base)).sum(-1)
    return [float(one) for one in kl[start - 1 : end - 1]]


@pytest.mark.parametrize(("tokens", "alpha"), [("all", 3.0), ("response", -4.0), ("prompt", 2.0)])
async def test_kl_is_the_sum_over_the_vocabulary_at_every_token_of_the_answer(
    folder: Path, tmp_path: Path, tokens: Tokens, alpha: float
) -> None:
    file = vector(folder, tmp_path / "v.safetensors")
    found = await diverge(folder, Steering(file, alpha, 1, tokens))
    lm = load(str(folder), None, LocalOptions(threads=1))
    for n, (messages, text) in enumerate(CHATS):
        expected = by_hand(lm, file, messages, text, alpha, 1, tokens)
        nats = found[str(n)].nats
        assert nats == pytest.approx(expected, abs=1e-5)
        assert max(expected) > 1e-3
        if tokens == "response":  # the first token of an answer is drawn before any of it is pushed
            assert nats is not None
            assert nats[0] == pytest.approx(0.0, abs=1e-9)


async def test_no_push_is_no_kl_and_what_cannot_be_read_says_why(folder: Path, tmp_path: Path) -> None:
    file = vector(folder, tmp_path / "v.safetensors")
    long = ReadRequest("long", CHATS[0][0], "word " * 2000, Model(str(folder)), (Steering(file, 0.0, 1),))
    found = await diverge(folder, Steering(file, 0.0, 1), more=(long,))
    assert found["long"].nats is None
    assert found["long"].error
    for key in "012":
        nats = found[key].nats
        assert nats
        assert not any(nats)
