"""Backend `openai` against `windowshift serve` on the embedded model: the contract, and fine-tuning of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_contract import BackendContract, Subject, answers
from tests.servers import KEY, KEY_ENV, Served, serving
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.service import Limits
from windowshift.core.contract.training import Sft

RATE = 1e-3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("served") / "data"
    with serving(data, "--rank", 2, "--learning-rate", RATE, "--jobs", 2) as served:
        yield served


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("WRONG_KEY", "pw-wrong-0123456789")


def options_of(server: Served) -> dict[str, object]:
    return {
        "base_url": server.base_url,
        "key_env": KEY_ENV,
        "server_learning_rate": RATE,
        "poll": 0.1,
        "settle": 1.0,
        "backoff": 0.05,
    }


class TestContract(BackendContract):
    @pytest.fixture
    def subject(self, server: Served) -> Subject:
        options = options_of(server)
        return Subject(
            make=lambda: OpenAIBackend(options),
            model=Model("microworld"),
            unknown_model="no-such-model",
            over_long="bees " * 3000,
            sft=Sft(rank=2, batch_size=2, learning_rate=RATE),
            wrong_key=lambda: OpenAIBackend({**options, "key_env": "WRONG_KEY"}),
        )


async def test_batches_answer_as_chats_do(server: Served, tmp_path: Path) -> None:
    plain = OpenAIBackend(options_of(server))
    batched = OpenAIBackend({**options_of(server), "batch": True})
    batched.begin(Limits(), Budget(), tmp_path)
    assert batched.capabilities.seeds
    requests = [
        GenerateRequest(f"r{index}", (Message("user", f"What do {index} bees do?"),), Model("microworld"),
                        Sampling(max_tokens=12), seed=index)
        for index in range(20)
    ]  # fmt: skip
    wrong = GenerateRequest("wrong", requests[0].messages, Model("no-such-model"), Sampling(), 0)
    one, other = await answers(plain, [*requests, wrong]), await answers(batched, [*requests, wrong])
    assert {name: each.text for name, each in one.items()} == {name: each.text for name, each in other.items()}
    assert "no-such-model" in (other["wrong"].error or "")
    assert [name for name, each in other.items() if each.finish == "failed"] == ["wrong"]
    await plain.aclose()
    await batched.aclose()
