"""Backend `tinker` and servers that are wrong, odd or hostile: what they say has types, bounds and no paths."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Said
from typing import Any

import numpy as np
import pytest

from tests.scripted_server import Asked, Reply, drip, scripted
from tests.tinkered import KEY
from windowshift.backends.openai.pacer import Pacer
from windowshift.backends.shared.faults import BrokenAnswerError, Fault, ServiceError
from windowshift.backends.tinker import checkpoints as checkpoints_module
from windowshift.backends.tinker import said
from windowshift.backends.tinker.checkpoints import SavedCheckpoints
from windowshift.backends.tinker.connection import TinkerConnection
from windowshift.backends.tinker.options import TinkerOptions
from windowshift.backends.tinker.said import DrawnSequence, Offered
from windowshift.backends.tinker.sampling import TinkerSampler
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model
from windowshift.core.contract.generation import Sampling as Drawing
from windowshift.core.contract.prices import Price

WRONG: list[Any] = [None, 12, "x", True, 1.5, float("nan"), [], {}, [None], [12], ["x"], b"x", {"x": 1}, object()]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> TinkerConnection:
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    return TinkerConnection(TinkerOptions.parse({"base_url": "http://127.0.0.1:1", "patience": 1}))


def request(tokens: int = 4, logprobs: int | None = None) -> GenerateRequest:
    chat = (Message("user", "Tell me."),)
    return GenerateRequest("k", chat, Model("m"), Drawing(max_tokens=tokens), 1, logprobs=logprobs)


def sequence(**more: Any) -> Said:
    usual = {"tokens": [1, 2], "stop_reason": "stop", "logprobs": [-1.0, -2.0], "topk_logprobs": [[(1, -1.0)], None]}
    return Said(**{**usual, **more})


READ: dict[str, Callable[[Any], Any]] = {
    "supported_models": lambda wrong: said.offered(Said(supported_models=wrong)),
    "model": lambda wrong: said.offered(Said(supported_models=[wrong])),
    "model_name": lambda wrong: said.offered(Said(supported_models=[Said(model_name=wrong)])),
    "context": lambda wrong: said.offered(Said(supported_models=[Said(model_name="m", max_context_length=wrong)])),
    "checkpoints": lambda wrong: said.checkpoints(Said(checkpoints=wrong)),
    "checkpoint": lambda wrong: said.checkpoints(Said(checkpoints=[wrong])),
    "tinker_path": lambda wrong: said.checkpoints(Said(checkpoints=[Said(tinker_path=wrong)])),
    "urls": lambda wrong: said.addresses(Said(urls=wrong)),
    "url": lambda wrong: said.addresses(Said(urls={"adapter_config.json": wrong})),
    "path": lambda wrong: said.saved(Said(path=wrong)),
    "model_id": lambda wrong: said.run(Said(model_id=wrong)),
    "sequences": lambda wrong: said.drawn(Said(sequences=wrong), request()),
    "sequence": lambda wrong: said.drawn(Said(sequences=[wrong]), request()),
    "tokens": lambda wrong: said.drawn(Said(sequences=[sequence(tokens=wrong)]), request()),
    "token": lambda wrong: said.drawn(Said(sequences=[sequence(tokens=[wrong])]), request()),
    "stop_reason": lambda wrong: said.drawn(Said(sequences=[sequence(stop_reason=wrong)]), request()),
    "logprobs": lambda wrong: said.drawn(Said(sequences=[sequence(logprobs=wrong)]), request(logprobs=1)),
    "logprob": lambda wrong: said.drawn(Said(sequences=[sequence(logprobs=[wrong])]), request(logprobs=1)),
    "tops": lambda wrong: said.drawn(Said(sequences=[sequence(topk_logprobs=wrong)]), request(logprobs=1)),
    "top": lambda wrong: said.drawn(Said(sequences=[sequence(topk_logprobs=[[(1, wrong)]])]), request(logprobs=1)),
    "scores": lambda wrong: said.scores(wrong, 1, 2),
    "score": lambda wrong: said.scores([None, wrong, -1.0], 1, 2),
    "loss_fn_outputs": lambda wrong: said.losses(Said(loss_fn_outputs=wrong), [2]),
    "loss_fn_output": lambda wrong: said.losses(Said(loss_fn_outputs=[wrong]), [2]),
    "loss logprobs": lambda wrong: said.losses(Said(loss_fn_outputs=[{"logprobs": wrong}]), [2]),
}


@pytest.mark.parametrize("place", READ)
async def test_a_wrong_type_in_any_place_is_a_broken_answer_or_nothing_said(
    place: str, connection: TinkerConnection
) -> None:
    async def answered(wrong: Any) -> Any:
        return wrong

    for wrong in WRONG:
        [found] = await asyncio.gather(
            connection.result("asking", answered(wrong), READ[place]), return_exceptions=True
        )
        assert not _odd(found), (place, wrong, found)


def _odd(found: Any) -> bool:
    """Whether something came through that nobody can use."""
    if isinstance(found, BaseException):
        named = str(found).startswith("asking: the server's answer was broken (")
        return not (isinstance(found, ServiceError) and found.fault.broken and named)
    if isinstance(found, dict):
        return any(not isinstance(key, str) or not isinstance(value, str | Offered) for key, value in found.items())
    if isinstance(found, DrawnSequence):
        return not all(isinstance(each, int) for each in found.ids) or not isinstance(found.ended, bool)
    return not isinstance(found, str | list | Said)


@pytest.mark.parametrize("token", [-1, 1 << 31, 10**30, 1.0, True, "5"])
def test_a_token_out_of_bounds(token: Any) -> None:
    with pytest.raises(BrokenAnswerError, match="a token is none"):
        said.drawn(Said(sequences=[sequence(tokens=[token])]), request())


def test_more_tokens_than_were_asked_for() -> None:
    with pytest.raises(BrokenAnswerError, match="it has 100000 tokens, and 4 were asked for"):
        said.drawn(Said(sequences=[sequence(tokens=[1] * 100_000)]), request(4))
    assert len(said.drawn(Said(sequences=[sequence(tokens=[1] * 5)]), request(4)).ids) == 5  # with the end token


@pytest.mark.parametrize("context", [10**30, -1, 0, True, 1.5, "4096", None])
def test_a_context_out_of_bounds_was_not_said(context: Any) -> None:
    found = said.offered(Said(supported_models=[Said(model_name="m", max_context_length=context)]))
    assert found["m"].context is None


@pytest.mark.parametrize("known", ["\x1b]0;x\x07", "x" * 5000, "", "\u202egnp", 12])
def test_a_model_whose_name_is_none_is_passed_over(known: Any) -> None:
    assert said.offered(Said(supported_models=[Said(model_name=known)])) == {}


def test_what_is_right_is_read() -> None:
    found = said.drawn(Said(sequences=[sequence()]), request(logprobs=1))
    assert found == DrawnSequence([1, 2], True, [-1.0, -2.0], [((1, -1.0),), ()])
    rows = said.losses(Said(loss_fn_outputs=[{"logprobs": Said(to_numpy=lambda: np.array([-1.0, -2.0]))}]), [2])
    assert rows == [[-1.0, -2.0]]
    assert said.scores([None, -1.0, -2.0], 1, 2) == [-1.0, -2.0]


# Fetching: names and addresses are the server's words.


def exporting(connection: TinkerConnection, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> SavedCheckpoints:
    async def answer() -> Any:
        return Said(urls=urls)

    monkeypatch.setattr(connection, "rest", lambda: Said(get_external_weights_urls=lambda path: answer()))
    return SavedCheckpoints(connection)


async def test_a_file_of_an_export_is_never_a_path(
    connection: TinkerConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "job" / "adapter"
    folder.mkdir(parents=True)
    with scripted(lambda asked: Reply({"r": 8})) as server:
        address = f"http://127.0.0.1:{server.port}/x"
        hostile = ["../../evil", "/etc/cron.d/evil", "..\\evil", "adapter_config.json/../../evil", "a/b", "tinker.json"]
        urls = dict.fromkeys((*hostile, "adapter_config.json", "adapter_model.safetensors"), address)
        found = await exporting(connection, urls, monkeypatch).fetch("tinker://x", folder)
        assert len(server.asked) == 2  # the others are not even asked for
    assert found == {"adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == found


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://h/x", "/etc/passwd", "", "gopher://h", 5, "http://"])
async def test_an_address_that_is_none_of_the_web(
    connection: TinkerConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: Any
) -> None:
    export = exporting(connection, {"adapter_config.json": address}, monkeypatch)
    with pytest.raises(ServiceError):
        await export.fetch("tinker://x", tmp_path)


async def test_a_redirect_to_a_file_is_not_followed(
    connection: TinkerConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with scripted(lambda asked: Reply(status=302, headers={"Location": "file:///etc/passwd"})) as server:
        urls = {"adapter_config.json": f"http://127.0.0.1:{server.port}/x"}
        with pytest.raises(ServiceError):
            await exporting(connection, urls, monkeypatch).fetch("tinker://x", tmp_path)
    assert b"root:" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_an_export_ends_however_slow_or_large_it_is(
    connection: TinkerConnection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoints_module, "MOST_FILE_BYTES", 4 << 20)

    def answer(asked: Asked) -> Reply:
        slow = asked.path.startswith("/slow")
        return Reply(drip(itertools.repeat(b" "), 0.05) if slow else itertools.repeat(b" " * 65536))

    with scripted(answer) as server:
        # Each ends for one reason alone: on a busy machine 4 MiB take longer than the slow one has.
        for path, seconds, reason in (("slow", 0.3, "ReadTimeout"), ("large", 300.0, "larger than 4 MiB")):
            monkeypatch.setattr(checkpoints_module, "FETCH_SECONDS", seconds)
            urls = {"adapter_config.json": f"http://127.0.0.1:{server.port}/{path}?X-Amz-Signature=secretsecret"}
            with pytest.raises(ServiceError, match=reason) as caught:
                await exporting(connection, urls, monkeypatch).fetch("tinker://x", tmp_path)
            assert "secret" not in str(caught.value)  # the address is signed


# One broken answer is of one request.


class Answers(TinkerSampler):
    """Sampling whose server answers as a test says."""

    script: list[Any]

    async def _client(self, base: str, adapter: str | None) -> Any:
        async def answer() -> Any:
            return self.script.pop(0)

        return Said(sample=lambda **options: answer())


class Tokens:
    """A tokenizer that says what it is told."""

    end_ids = frozenset({0})
    chat: Any = None

    def chat_of(self, model: Model) -> Any:
        return Said(
            prompt_ids=lambda messages: [5, 6],
            written=lambda ids: Said(text="Yes.", reasoning=None, start=0, unanswered=False),
        )


async def test_a_broken_answer_ends_one_request_and_not_the_run(
    connection: TinkerConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "model", lambda base: Offered(base, None, True, True))

    async def present(what: object) -> None:
        """At once."""

    monkeypatch.setattr(connection, "present", present)
    monkeypatch.setattr("windowshift.backends.tinker.sampling.spent", lambda written, *, cut: False)
    monkeypatch.setattr("windowshift.backends.tinker.sampling.asyncio.sleep", present)
    monkeypatch.setattr("windowshift.backends.tinker.sampling._input", lambda ids: ids)
    monkeypatch.setattr("windowshift.backends.tinker.sampling._params", lambda request, tokens: None)
    budget = Budget(10.0)
    sampling = Answers(connection, lambda base: Tokens(), Pacer(4), budget, lambda base: Price(1000.0, 1000.0))  # type: ignore[arg-type, return-value]
    good = Said(sequences=[sequence()])
    sampling.script = [Said(sequences=[sequence(tokens=[10**30])])] * 3 + [good]
    broken = await sampling.complete(request())
    assert broken.finish == "failed"
    assert "the server's answer was broken (a token is none)" in (broken.error or "")
    found: Completion = await sampling.complete(request())
    assert (found.finish, found.text) == ("stop", "Yes.")
    sampling.script = []  # raises IndexError while it is asked: broken, too
    assert "broken" in ((await sampling.complete(request())).error or "")


def test_the_fault_of_a_broken_answer_may_have_been_charged() -> None:
    from windowshift.backends.tinker.faults import fault_of

    assert fault_of(BrokenAnswerError("x")) == Fault(
        "again", "the server's answer was broken (x)", maybe_done=True, broken=True
    )
