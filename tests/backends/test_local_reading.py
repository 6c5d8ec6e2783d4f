"""Reading given answers on backend `local`: what a training would see of them, against the model's own logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.backends.test_steered_backend import OPTIONS, vector
from tests.tiny_models import build
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.generation import Message, Model, Steering
from windowshift.core.contract.reading import Reading, ReadingBackend, ReadRequest

CHATS = (
    ((Message("user", "What do bees do in the winter?"),), "They gather in a ball."),
    ((Message("user", "Be short. What do bees do in the winter?"),), "They keep warm together, and eat honey."),
    ((Message("system", "Say little."), Message("user", "And rivers?")), "R"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama")


async def read(folder: Path | str, *steering: Steering, more: Sequence[ReadRequest] = ()) -> dict[str, Reading]:
    backend = LocalBackend(OPTIONS)
    assert isinstance(backend, ReadingBackend)
    model = Model(str(folder))
    asked = [ReadRequest(str(n), messages, text, model, steering) for n, (messages, text) in enumerate(CHATS)]
    try:
        return {one.key: one async for one in backend.read([*asked, *more])}
    finally:
        await backend.aclose()


def by_hand(lm: CausalLM, messages: tuple[Message, ...], text: str) -> tuple[float, int]:
    tokens = lm.chat.training_tokens(messages, text)
    ids = torch.tensor([[*tokens.prompt, *tokens.completion]])
    with torch.inference_mode():
        drawn = torch.log_softmax(lm.model(input_ids=ids).logits[0].double(), dim=-1)
    start = len(tokens.prompt)
    return float(sum(drawn[start + n - 1, token] for n, token in enumerate(tokens.completion))), len(tokens.completion)


async def test_an_answer_is_read_as_a_training_would_learn_it(folder: Path) -> None:
    found = await read(folder)
    lm = load(str(folder), None, LocalOptions(threads=1))
    for n, (messages, text) in enumerate(CHATS):
        value, tokens = by_hand(lm, messages, text)
        assert found[str(n)].logprob == pytest.approx(value, abs=1e-3)
        assert found[str(n)].tokens == tokens
        assert value < 0


async def test_a_push_is_read_too_and_one_of_0_changes_nothing(folder: Path, tmp_path: Path) -> None:
    file = vector(folder, tmp_path / "v.safetensors")
    plain, none, pushed = await read(folder), await read(folder, Steering(file, 0.0)), await read(
        folder, Steering(file, 3.0)
    )  # fmt: skip
    for key, one in plain.items():
        assert one.logprob is not None
        assert none[key].logprob == pytest.approx(one.logprob, abs=1e-9)
        assert pushed[key].logprob != pytest.approx(one.logprob, abs=1e-3)


async def test_what_cannot_be_read_says_why_and_the_others_go_on(folder: Path) -> None:
    long = ReadRequest("long", CHATS[0][0], "word " * 2000, Model(str(folder)))
    unknown = ReadRequest("unknown", CHATS[0][0], "x", Model("./no/such/model"))
    found = await read(folder, more=[long, unknown])
    assert all(found[key].logprob is not None for key in "012")
    for key in ("long", "unknown"):
        assert found[key].logprob is None
        assert found[key].error
        assert "\n" not in str(found[key].error)
