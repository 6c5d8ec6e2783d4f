"""Backend `vllm` and servers that are wrong or hostile: one sentence each, of one request each, without the key."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_server import Asked, Reply, Scripted, drip, scripted
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling

KEY = "pw-hostile-0123456789-abcdef"
WRONG: list[Any] = [None, 12, "x", True, 1.5, [], {}, [None], ["x"], {"x": 1}, -1, 10**30, [[[[[[[]]]]]]]]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)


def models(model: Path, **more: Any) -> dict[str, Any]:
    return {"data": [{"id": "m", "root": str(model), "max_model_len": 1024, **more}]}


def answer(model: str = "m", **more: Any) -> dict[str, Any]:
    choice = {"token_ids": [5, 6], "finish_reason": "length", "logprobs": None, **more}
    return {"model": model, "choices": [choice]}


def serving(model: Path, reply: Callable[[Asked], Reply]) -> Any:
    """A server that lists a model as vLLM does, and answers questions as a test says."""

    def all_of_it(asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return Reply(models(model))
        if asked.path.endswith("/completions"):
            return reply(asked)
        return Reply({"error": "no"}, 404)

    return scripted(all_of_it)


async def ask(server: Scripted, model: Path, count: int = 1, **options: Any) -> list[Completion]:
    backend = VllmBackend({"base_url": server.base_url, "patience": 0.3, "timeout": 5.0, **options})
    chat = (Message("user", "Tell me."),)
    wanted = [GenerateRequest(f"k{n}", chat, Model(str(model)), Sampling(max_tokens=2), n) for n in range(count)]
    try:
        return sorted([each async for each in backend.generate(wanted)], key=lambda one: one.key)
    finally:
        await backend.aclose()


async def test_a_plain_answer_is_read(tiny_llama: Path) -> None:
    with serving(tiny_llama, lambda asked: Reply(answer())) as server:
        (found,) = await ask(server, tiny_llama)
    assert (found.finish, found.tokens) == ("length", 2)


async def test_calls_share_the_requests_that_may_be_under_way(tiny_llama: Path) -> None:
    lock, under_way, most = threading.Lock(), [0], [0]

    def reply(asked: Asked) -> Reply:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.01)  # the others would come meanwhile
        with lock:
            under_way[0] -= 1
        return Reply(answer())

    chat = (Message("user", "Tell me."),)
    with serving(tiny_llama, reply) as server:
        backend = VllmBackend({"base_url": server.base_url, "concurrency": 2})

        async def call(name: str) -> int:
            wanted = [
                GenerateRequest(f"{name}{n}", chat, Model(str(tiny_llama)), Sampling(max_tokens=2), n) for n in range(4)
            ]
            return len([one async for one in backend.generate(wanted) if one.finish == "length"])

        assert await asyncio.gather(*map(call, "abcd")) == [4] * 4
        await backend.aclose()
    assert most[0] == 2


@pytest.mark.parametrize("place", ["token_ids", "token", "finish_reason", "choices", "model", "choice"])
async def test_a_wrong_type_in_any_place_fails_one_request(tiny_llama: Path, place: str) -> None:
    def body(wrong: Any) -> Any:
        if place == "token":
            return answer(token_ids=[5, wrong])
        if place == "choice":
            return {"model": "m", "choices": [wrong]}
        return {**answer(), place: wrong} if place in ("choices", "model") else answer(**{place: wrong})

    replies = iter([Reply(body(wrong)) for wrong in WRONG] + [Reply(answer())])
    with serving(tiny_llama, lambda asked: next(replies)) as server:
        found = await ask(server, tiny_llama, len(WRONG) + 1, concurrency=1)
    fine = [each for each in found if each.finish != "failed"]
    assert len(found) - len(fine) >= len(WRONG) - (place == "token")  # 12 is a token
    assert fine
    for each in found:
        if each.finish == "failed":
            assert each.error
            assert "Traceback" not in each.error


async def test_tokens_out_of_bounds(tiny_llama: Path) -> None:
    for ids in ([-1, 5], [1 << 31, 5], [10**30, 5], [5] * 100_000):
        with serving(tiny_llama, lambda asked, ids=ids: Reply(answer(token_ids=ids))) as server:  # type: ignore[misc]
            (found,) = await ask(server, tiny_llama)
        assert found.finish == "failed"
        assert found.error


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff\xfe", b"", b"null", b"9" * 10_000, b'{"model": NaN}'])
async def test_a_body_that_is_none(tiny_llama: Path, body: bytes) -> None:
    with serving(tiny_llama, lambda asked: Reply(body)) as server:
        (found,) = await ask(server, tiny_llama)
    assert "cannot be used" in (found.error or "")


async def test_an_answer_ends_however_slow_or_large_it_is(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windowshift.backends.vllm.connection.MOST_BYTES", 4 << 20)
    for pieces, reason in (
        (lambda: drip(itertools.repeat(b" "), 0.05), "did not answer in time"),
        (lambda: itertools.repeat(b" " * 65536), "larger than 4 MiB"),
    ):
        with serving(tiny_llama, lambda asked, pieces=pieces: Reply(pieces())) as server:  # type: ignore[misc]
            (found,) = await ask(server, tiny_llama, timeout=1.0)
        assert reason in (found.error or "")


@pytest.mark.parametrize("place", ["id", "root", "max_model_len", "parent", "card", "data"])
def test_a_list_of_models_that_is_none(tiny_llama: Path, place: str) -> None:
    for wrong in WRONG:
        body = (
            {"data": wrong}
            if place == "data"
            else {"data": [wrong]}
            if place == "card"
            else models(tiny_llama, **{place: wrong})
        )
        with scripted(lambda asked, body=body: Reply(body)) as server:  # type: ignore[misc]
            backend = VllmBackend({"base_url": server.base_url})
            try:
                backend.identify(str(tiny_llama))
            except BackendError as error:
                said = str(error)
            else:
                said = ""
            assert "Traceback" not in said
            reached = backend.reach()
            assert all(isinstance(each, str) for each in reached.models)


async def test_the_key_is_in_no_sentence(tiny_llama: Path) -> None:
    for reply in (
        Reply({"error": {"message": "x" * 290 + f" {KEY}"}}, 400),
        Reply({"detail": f"Bearer {KEY}"}, 500),
        Reply(answer(model=f"m-{KEY}")),
        Reply(answer(finish_reason=KEY)),
        Reply(KEY.encode(), 418),
    ):
        with serving(tiny_llama, lambda asked, reply=reply: reply) as server:  # type: ignore[misc]
            (found,) = await ask(server, tiny_llama)
        assert found.finish == "failed"
        assert "hostile" not in (found.error or "")
        assert "pw-h" not in (found.error or "")
    with scripted(lambda asked: Reply(models(tiny_llama, id=KEY))) as server:
        backend = VllmBackend({"base_url": server.base_url})
        with pytest.raises(BackendError) as caught:
            backend.identify(str(tiny_llama))
        assert "hostile" not in str(caught.value)
        assert "hostile" not in json.dumps([*backend.reach().models, backend.reach().problem])


async def test_what_workers_say_is_read_without_the_key_and_not_too_deep(tiny_llama: Path) -> None:
    from windowshift.backends.vllm.engine import EngineError
    from windowshift.backends.vllm.options import VllmOptions
    from windowshift.backends.vllm.server import ServerEngine

    deep: Any = []
    for _ in range(20):
        deep = [deep]
    for results, said in (
        ([{"s": {"problem": f"it broke: {KEY}", "pushes": []}}], None),
        ([{"error": f"no: {KEY}"}], None),
        ([{"s": deep}], "nested too deeply"),
        ([12], "answered nothing"),
        ([], "answered nothing"),
        ("x", "answered nothing"),
    ):
        with scripted(lambda asked, results=results: Reply({"results": results})) as server:  # type: ignore[misc]
            engine = ServerEngine(VllmOptions.parse({"base_url": server.base_url}))
            if said is None:
                assert "hostile" not in json.dumps(await engine.call("x", "null"))
            else:
                with pytest.raises(EngineError, match=said):
                    await engine.call("x", "null")
            await engine.aclose()


async def test_a_text_is_scored_by_the_base_model_or_not_at_all(tiny_llama: Path) -> None:
    from windowshift.backends.vllm.engine import EngineError
    from windowshift.backends.vllm.options import VllmOptions
    from windowshift.backends.vllm.server import ServerEngine

    choice = {"prompt_logprobs": [None, {"5": {"logprob": -0.5}}]}
    for model, said in (("m", None), ("other", "answered with the model 'other' in place of 'm'"), (None, "model")):
        body = {"choices": [choice], **({} if model is None else {"model": model})}
        with serving(tiny_llama, lambda asked, body=body: Reply(body)) as server:  # type: ignore[misc]
            engine = ServerEngine(VllmOptions.parse({"base_url": server.base_url}))
            if said is None:
                assert await engine.score("m", [4, 5], 1) == [-0.5]
            else:
                with pytest.raises(EngineError, match=said):
                    await engine.score("m", [4, 5], 1)
            await engine.aclose()


@pytest.mark.parametrize("results", [None, [], "yes", [None], [12], [[]], {"error": "no"}])
def test_a_server_whose_workers_say_nothing_does_not_steer(tiny_llama: Path, results: Any) -> None:
    """The plan asks before anything is trained: an answer that says nothing is no yes."""

    def reply(asked: Asked) -> Reply:
        if asked.path.endswith("/collective_rpc"):
            return Reply({"results": results})
        return Reply({"error": "a name is wanted"}, 400)  # an order to load an adapter

    with scripted(reply) as server:
        backend = VllmBackend({"base_url": server.base_url})
        backend.check(str(tiny_llama), None)
        with pytest.raises(BackendError, match="workers answered nothing"):
            backend.check(str(tiny_llama), None, steered=True)
