"""Backend `openai`, chat: limits, faults, keys, money and batches, against a server with limits on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_contract import answers
from tests.servers import KEY, KEY_ENV, LimitedAddress, limited
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.backends.openai.batch_journal import read_batch_journals
from windowshift.backends.shared.key import find_key
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.service import Limits


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[LimitedAddress]:
    with limited() as address:
        yield address


def ask(count: int, model: str = "small", first: int = 0) -> list[GenerateRequest]:
    sampling = Sampling(max_tokens=20)
    return [
        GenerateRequest(f"r{index}", (Message("user", f"Question {index}"),), Model(model), sampling, index)
        for index in range(first, first + count)
    ]


async def drawn(backend: OpenAIBackend, requests: list[GenerateRequest]) -> dict[str, str]:
    found = await answers(backend, requests)
    assert all(each.error is None for each in found.values()), next(iter(found.values()))
    return {name: each.text for name, each in found.items()}


class TestPace:
    @pytest.mark.parametrize("quiet", [True, False])
    async def test_the_limit_of_a_spec_is_used_and_kept(self, quiet: bool) -> None:
        with limited("--rpm", 1200, "--window", "--span", 2, *(["--quiet"] if quiet else [])) as address:
            backend = OpenAIBackend(address.options)
            backend.begin(Limits(rpm=1200), Budget(), Path())
            start = time.monotonic()
            await drawn(backend, ask(90))
            seconds = time.monotonic() - start
            counts = address.counts()
            await backend.aclose()
        assert counts["answered"] == 90
        # A busy machine bunches requests, and the server's clock is its own: some are refused. Unpaced, all 90 are
        # asked for at once, and again and again. That a slow machine takes longer says nothing.
        assert counts.get("refused", 0) <= 30
        assert seconds > 90 / 20 * 0.85

    async def test_a_limit_is_learned_from_the_headers(self) -> None:
        with limited("--rpm", 1200) as address:
            backend = OpenAIBackend(address.options)
            await drawn(backend, ask(60))
            counts = address.counts()
            assert backend.queue().limit == 1200
            await backend.aclose()
        assert counts["answered"] == 60
        assert counts.get("refused", 0) < 70  # the first ones under way, before anything was known

    async def test_a_limit_without_a_name_is_felt(self) -> None:
        with limited("--rpm", 1200, "--quiet") as address:
            backend = OpenAIBackend({**address.options, "concurrency": 16})
            await drawn(backend, ask(80))
            counts = address.counts()
            await backend.aclose()
        assert counts["answered"] == 80
        assert counts.get("refused", 0) < 60

    async def test_tokens_a_minute_hold_too(self, server: LimitedAddress) -> None:
        backend = OpenAIBackend(server.options)
        # About 30 tokens a request, prompt and max_tokens: 600 requests a minute.
        backend.begin(Limits(tpm=18_000), Budget(), Path())
        start = time.monotonic()
        await drawn(backend, ask(30))
        assert time.monotonic() - start > 1.5
        await backend.aclose()

    async def test_the_queue_says_how_long(self, server: LimitedAddress) -> None:
        backend = OpenAIBackend(server.options)
        backend.begin(Limits(rpm=600), Budget(), Path())
        stream = backend.generate(ask(100))
        for _ in range(12):
            await asyncio.wait_for(anext(stream), 10)
        queue = backend.queue()
        assert queue.limit == 600
        assert queue.waiting + queue.in_flight >= 80
        assert queue.seconds is not None
        assert queue.seconds > 4
        await stream.aclose()
        assert backend.queue().waiting == 0
        await backend.aclose()


class TestKeys:
    async def test_a_wrong_key_is_one_sentence_and_never_shown(
        self, server: LimitedAddress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY_ENV, "pw-wrong-9876543210")
        before = server.counts().get("wrong key", 0)
        backend = OpenAIBackend({**server.options, "concurrency": 4})
        found = await answers(backend, ask(50))
        await backend.aclose()
        errors = {each.error for each in found.values()}
        assert len(errors) == 1
        (error,) = errors
        assert error is not None
        assert "refused the key" in error
        assert "pw-wrong" not in error  # the server repeats it
        assert server.counts()["wrong key"] - before <= 4

    async def test_a_missing_key_names_the_remedy(
        self, server: LimitedAddress, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(KEY_ENV)
        backend = OpenAIBackend(server.options)
        with pytest.raises(BackendError, match=KEY_ENV):
            backend.identify("small")
        found = await answers(backend, ask(3))
        assert all(KEY_ENV in (each.error or "") for each in found.values())

    def test_a_key_may_be_in_the_keyring(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keyring = pytest.importorskip("keyring")
        backend = pytest.importorskip("keyring.backend")

        class Held(backend.KeyringBackend):  # type: ignore[misc, name-defined]
            priority = 1

            def get_password(self, service: str, username: str) -> str | None:
                return KEY if (service, username) == ("windowshift", KEY_ENV) else None

            def set_password(self, service: str, username: str, password: str) -> None:
                raise NotImplementedError

        before = keyring.get_keyring()
        keyring.set_keyring(Held())
        try:
            monkeypatch.delenv(KEY_ENV)
            found = find_key(KEY_ENV)
            assert (found.value, found.source) == (KEY, "keyring")
            assert KEY not in repr(found)
        finally:
            keyring.set_keyring(before)

    @pytest.mark.parametrize(
        "options",
        [
            {"api_key": "sk-secret-0123456789"},
            {"key_env": "sk-secret-0123456789"},
            {"base_url": "https://user:sk-secret-0123456789@host.example/v1"},
            {"base_url": "https://host.example/v1?key=sk-secret-0123456789"},
        ],
    )
    def test_a_key_in_a_spec_is_refused_and_not_repeated(self, options: dict[str, object]) -> None:
        with pytest.raises(BackendError) as caught:
            OpenAIBackend(options)
        assert "sk-secret" not in str(caught.value)


# A tenth of a dollar a token in, a dollar a token out: 10 in and 5 out are $6.
PRICES = {"small": {"input": 100_000.0, "output": 1_000_000.0}}


class TestMoney:
    async def test_what_was_paid_is_known(self, server: LimitedAddress) -> None:
        budget = Budget()
        backend = OpenAIBackend({**server.options, "prices": PRICES})
        backend.begin(Limits(), budget, Path())
        found = await answers(backend, ask(10))
        assert [each.usd for each in found.values()] == [6.0] * 10
        assert budget.spent == pytest.approx(60.0)
        assert budget.reserved == 0
        await backend.aclose()

    async def test_the_limit_is_never_passed(self, server: LimitedAddress) -> None:
        budget = Budget(200.0, spent=50.0)
        backend = OpenAIBackend({**server.options, "prices": PRICES, "concurrency": 8})
        backend.begin(Limits(usd=200.0), budget, Path())
        before = server.counts()["answered"]
        found = await answers(backend, ask(60))
        await backend.aclose()
        answered = [each for each in found.values() if each.error is None]
        refused = {each.error for each in found.values() if each.error is not None}
        assert server.counts()["answered"] - before == len(answered)
        assert budget.spent == 50 + 6 * len(answered) <= 200
        assert len(answered) >= 18  # a reserve is given back: 21 each at most, 6 in the end
        assert all("limits.usd" in (error or "") for error in refused)

    async def test_a_model_that_wants_more_than_is_left_is_not_asked(self, server: LimitedAddress) -> None:
        backend = OpenAIBackend({**server.options, "prices": PRICES})
        backend.begin(Limits(usd=5.0), Budget(5.0), Path())
        before = server.counts()["answered"]
        found = await answers(backend, ask(3))
        await backend.aclose()
        assert all("may cost up to" in (each.error or "") for each in found.values())
        assert server.counts()["answered"] == before

    def test_an_unknown_price_is_none(self, server: LimitedAddress) -> None:
        assert OpenAIBackend(server.options).price("small") is None

    def test_the_hosted_prices_have_a_date(self) -> None:
        backend = OpenAIBackend({"base_url": "https://api.openai.com/v1"})
        price = backend.price("gpt-4.1-2025-04-14")
        assert price is not None
        assert (price.input, price.output) == (2.0, 8.0)
        assert "2026" in price.source
        assert backend.price("gpt-4.1-nonsense") is None


class TestBatches:
    async def test_equal_to_chat_and_at_half_the_price(self, server: LimitedAddress, tmp_path: Path) -> None:
        prices = PRICES
        plain = OpenAIBackend({**server.options, "prices": prices})
        batched = OpenAIBackend({**server.options, "prices": prices, "batch": True})
        batched.begin(Limits(), Budget(), tmp_path)
        requests = [*ask(30), *ask(2, model="unknown", first=40)]
        found, alone = await answers(batched, requests), await answers(plain, ask(30))
        assert {name: each.text for name, each in found.items() if each.error is None} == {
            name: each.text for name, each in alone.items()
        }
        assert all(found[name].usd == (each.usd or 0) / 2 for name, each in alone.items())
        assert all("unknown" in (found[name].error or "") for name in ("r40", "r41"))
        await plain.aclose()
        await batched.aclose()

    async def test_equal_requests_share_a_line(self, server: LimitedAddress, tmp_path: Path) -> None:
        backend = OpenAIBackend({**server.options, "batch": True})
        backend.begin(Limits(), Budget(), tmp_path)
        one = ask(1)[0]
        before = server.counts().get("batched", 0)
        twice = [one, GenerateRequest("again", one.messages, one.model, one.sampling, one.seed)]
        found = await answers(backend, twice)
        assert found["r0"].text == found["again"].text
        assert server.counts()["batched"] == before + 1
        await backend.aclose()

    async def test_a_batch_is_taken_up_by_the_next_run(self, tmp_path: Path) -> None:
        with limited("--delay", 1.0) as address:
            options = {**address.options, "batch": True}
            first = OpenAIBackend(options)
            first.begin(Limits(), Budget(), tmp_path)
            stream = first.generate(ask(20))
            reading = asyncio.ensure_future(anext(stream))
            while address.counts().get("batches", 0) == 0 or not any(
                journal.batch for journal in read_batch_journals(tmp_path / "batches", str(options["base_url"]))
            ):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await first.aclose()
            # The next run wants some of its rows, and others too.
            second = OpenAIBackend(options)
            second.begin(Limits(), Budget(), tmp_path)
            await drawn(second, ask(25, first=5))
            assert address.counts()["batched"] == 30
            await second.aclose()
