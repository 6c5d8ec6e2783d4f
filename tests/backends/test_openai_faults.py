"""Backend `openai` behind a proxy that breaks things: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend_contract import Subject, answers, ending, gather, job, request
from tests.backends.test_openai_chat import ask
from tests.fault_proxy import Fault, faulty, storm
from tests.runs import wait_until
from tests.servers import KEY, KEY_ENV, LimitedAddress, Served, limited, serving
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.generation import Model
from windowshift.core.contract.service import Limits
from windowshift.core.contract.training import Sft, Trained, TrainFailed

QUICK = {"key_env": KEY_ENV, "backoff": 0.02, "poll": 0.05, "settle": 1.0, "timeout": 3.0, "tries": 30}
EVERYTHING: tuple[Fault, ...] = ("429", "500", "503", "refuse", "lose", "reset", "cut", "hang", "hang early")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


@pytest.fixture(scope="module")
def quick() -> Iterator[LimitedAddress]:
    with limited() as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served") / "data", "--rank", 2, "--jobs", 2) as served:
        yield served


def subject_of(options: dict[str, object]) -> Subject:
    return Subject(
        make=lambda: OpenAIBackend(options),
        model=Model("microworld"),
        unknown_model="no-such-model",
        over_long="",
        sft=Sft(rank=2, batch_size=2),
    )


class TestChat:
    @pytest.mark.parametrize("fault", EVERYTHING)
    async def test_every_fault_passes(self, quick: LimitedAddress, fault: Fault) -> None:
        options = {**QUICK, "base_url": quick.options["base_url"], "timeout": 0.5}
        plain = OpenAIBackend(options)
        wanted = {name: each.text for name, each in (await answers(plain, ask(60))).items()}
        await plain.aclose()
        with faulty(str(options["base_url"]), storm(0.3, fault)) as proxy:
            backend = OpenAIBackend({**options, "base_url": proxy.base_url})
            found = await answers(backend, ask(60))
            await backend.aclose()
            assert proxy.seen[fault] > 5
        assert {name: each.text for name, each in found.items()} == wanted

    async def test_what_never_passes_is_one_sentence(self, quick: LimitedAddress) -> None:
        with faulty(str(quick.options["base_url"]), lambda *_: "500") as proxy:
            backend = OpenAIBackend({**QUICK, "base_url": proxy.base_url, "tries": 3})
            found = await answers(backend, ask(5))
            await backend.aclose()
        for each in found.values():
            assert each.finish == "failed"
            assert "model 'small': the server failed (500: injected 500); given up after 3 tries" in (each.error or "")

    async def test_a_server_that_stays_away_ends_everything_once(self) -> None:
        with limited() as address:
            options = {**QUICK, "base_url": address.options["base_url"], "patience": 0.3, "concurrency": 4}
        backend = OpenAIBackend(options)
        found = await answers(backend, ask(400))
        await backend.aclose()
        assert all("cannot be reached" in (each.error or "") for each in found.values())

    async def test_what_may_have_been_paid_counts(self, quick: LimitedAddress) -> None:
        budget = Budget()
        faults = iter(["lose", "pass"])
        with faulty(str(quick.options["base_url"]), lambda *_: next(faults)) as proxy:  # type: ignore[arg-type, return-value]
            prices = {"small": {"input": 0.0, "output": 1_000_000.0}}
            backend = OpenAIBackend({**QUICK, "base_url": proxy.base_url, "prices": prices})
            backend.begin(Limits(), budget, Path())
            found = await answers(backend, ask(1))
            await backend.aclose()
        # Twenty tokens at most of the lost answer, five of the other.
        assert found["r0"].usd == budget.spent == 25.0

    async def test_through_the_real_server(self, server: Served) -> None:
        subject = subject_of({**QUICK, "base_url": server.base_url})
        plain = subject.make()
        requests = [request(subject, f"r{index}", seed=index) for index in range(40)]
        wanted = await answers(plain, requests)
        await plain.aclose()
        with faulty(server.base_url, storm(0.4, *EVERYTHING)) as proxy:
            backend = OpenAIBackend({**QUICK, "base_url": proxy.base_url})
            found = await answers(backend, requests)
            await backend.aclose()
            assert sum(proxy.seen.values()) > 50
        assert {name: each.text for name, each in found.items()} == {name: each.text for name, each in wanted.items()}


class TestJobs:
    @pytest.mark.parametrize("fault", EVERYTHING)
    async def test_a_job_is_created_once(self, server: Served, tmp_path: Path, fault: Fault) -> None:
        before = len(server.jobs())
        broken = 3

        def choose(method: str, path: str) -> Fault:
            nonlocal broken
            if method == "POST" and path == "/v1/fine_tuning/jobs" and broken:
                broken -= 1
                return fault
            return "pass"

        with faulty(server.base_url, choose) as proxy:
            subject = subject_of({**QUICK, "base_url": proxy.base_url, "timeout": 1.0, "settle": 0.5})
            backend = subject.make()
            # Other data for each fault: equal work would be the same job.
            events = await gather(backend.train([job(subject, tmp_path, examples=10 + EVERYTHING.index(fault))]))
            await backend.aclose()
            assert proxy.seen[fault] >= 1
        assert isinstance(ending(events), Trained)
        assert len(server.jobs()) == before + 1

    async def test_a_storm_over_a_grid(self, server: Served, tmp_path: Path) -> None:
        before = len(server.jobs())
        with faulty(server.base_url, storm(0.3, *EVERYTHING, seed=1)) as proxy:
            subject = subject_of({**QUICK, "base_url": proxy.base_url, "timeout": 1.0})
            backend = subject.make()
            jobs = [job(subject, tmp_path / f"j{n}", examples=20 + n, key=f"j{n}") for n in range(4)]
            events = await gather(backend.train(jobs))
            await backend.aclose()
        assert all(isinstance(ending(events, f"j{n}"), Trained) for n in range(4))
        assert len(server.jobs()) == before + 4

    async def test_a_record_that_was_lost_is_found_at_the_server(self, server: Served, tmp_path: Path) -> None:
        subject = subject_of({**QUICK, "base_url": server.base_url})
        backend = subject.make()
        first = ending(await gather(backend.train([job(subject, tmp_path / "a", examples=31)])))
        before = len(server.jobs())
        again = ending(await gather(backend.train([job(subject, tmp_path / "b", examples=31)])))
        await backend.aclose()
        assert isinstance(first, Trained)
        assert isinstance(again, Trained)
        assert again.adapter == first.adapter
        assert len(server.jobs()) == before

    async def test_a_damaged_record_pays_nothing(self, server: Served, tmp_path: Path) -> None:
        (tmp_path / "remote.json").write_text("{", encoding="utf-8")
        before = len(server.jobs())
        subject = subject_of({**QUICK, "base_url": server.base_url})
        backend = subject.make()
        end = ending(await gather(backend.train([job(subject, tmp_path, examples=33)])))
        await backend.aclose()
        assert isinstance(end, TrainFailed)
        assert "remote.json" in end.error
        assert len(server.jobs()) == before


async def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--rank", 2) as served:
        options = {**QUICK, "base_url": served.base_url, "timeout": 60.0, "tries": 8}
        subject = subject_of(options)
        backend = subject.make()
        requests = [request(subject, f"r{index}", seed=index) for index in range(60)]
        training = asyncio.create_task(
            gather(backend.train([job(subject, tmp_path / "out", examples=600)]))  # some seconds of work
        )
        chatting = asyncio.create_task(answers(backend, requests))
        await asyncio.to_thread(wait_until, lambda: any(one["status"] == "running" for one in served.jobs()))
        await asyncio.to_thread(served.kill)
        await asyncio.to_thread(served.start)
        end = ending(await asyncio.wait_for(training, 100))
        found = await asyncio.wait_for(chatting, 100)
        await backend.aclose()
        assert isinstance(end, Trained)
        assert len(served.jobs()) == 1
        assert all(each.error is None for each in found.values())
