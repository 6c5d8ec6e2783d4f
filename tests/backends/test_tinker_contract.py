"""Backend `tinker` against SkyRL's server: the contract."""

from __future__ import annotations

import pytest

from tests.backend_contract import BackendContract, Subject
from tests.tinkered import KEY, KEY_ENV, TinkerServed
from windowshift.backends.tinker.backend import TinkerBackend
from windowshift.core.contract.generation import Model
from windowshift.core.contract.training import Sft

pytestmark = pytest.mark.tinker


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("WRONG_KEY", "tml-wrong-0123456789")


class TestContract(BackendContract):
    @pytest.fixture
    def subject(self, tinker_server: TinkerServed) -> Subject:
        options = tinker_server.options
        return Subject(
            make=lambda: TinkerBackend(options),
            model=Model("microworld"),
            unknown_model="no-such-model",
            over_long="bees " * 3000,
            sft=Sft(rank=2, batch_size=2, learning_rate=1e-3),
            # The server pads batches to one shape and computes in float32.
            exact=False,
            wrong_key=lambda: TinkerBackend({**options, "key_env": "WRONG_KEY"}),
        )
