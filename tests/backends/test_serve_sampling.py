"""Texts from `windowshift serve` by all three routes: whole, streamed as they are written, and given up."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Completion as TextCompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.processes import wait_until
from tests.served import KEY
from tests.serving import MODEL, Serving, Words, serving
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.choice import Choice
from windowshift.backends.serve.draft import Draft
from windowshift.backends.serve.sampling_queue import SamplingQueue
from windowshift.core.contract.generation import (
    Completion,
    GenerateRequest,
    Message,
    Model,
    Sampling,
    TokenLogprob,
    WrittenPiece,
)

ASK: list[Any] = [{"role": "user", "content": "What do bees do?"}]
ROUTES = ("chat/completions", "completions", "responses")


def body(route: str, model: str, **more: Any) -> dict[str, Any]:
    """A request for one short text."""
    own: dict[str, Any] = {
        "chat/completions": {"messages": ASK},
        "completions": {"prompt": "Bees"},
        "responses": {"input": "What do bees do?"},
    }[route]
    length = "max_output_tokens" if route == "responses" else "max_tokens"
    return {"model": model, length: 24, "seed": 3, **own, **more}


def said(route: str, value: dict[str, Any]) -> str:
    """The text of a whole answer."""
    if route == "responses":
        return "".join(
            part["text"] for item in value["output"] if item["type"] == "message" for part in item["content"]
        )
    choice = value["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def told(route: str, event: dict[str, Any]) -> str:
    """The text in an event of a stream."""
    if route == "responses":
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
    if not event["choices"]:
        return ""
    choice = event["choices"][0]
    return str((choice["delta"].get("content") if "delta" in choice else choice["text"]) or "")


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def post(route: str, raw: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST /v1/{route} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


@pytest.fixture(scope="module")
def local(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    backend = LocalBackend({"workers": 1, "threads": 1})
    with serving(backend, tmp_path_factory.mktemp("local"), model=str(tiny_llama)) as found:
        yield found


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_says_what_the_whole_answer_says(local: Serving, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windowshift.backends.local.watch.PIECE_SECONDS", 0.0)
    with local.raw() as http:
        whole = http.post(route, json=body(route, local.model)).json()
        with http.stream("POST", route, json=body(route, local.model, stream=True)) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            found = list(events(response.iter_lines()))
    parts = [text for each in found if (text := told(route, each))]
    assert "".join(parts) == said(route, whole) != ""
    assert len(parts) > 4  # word after word, not one piece at the end
    if route == "responses":
        last = found[-1]["response"]
        assert found[-1]["type"] == f"response.{whole['status']}"
        assert last["usage"] == whole["usage"]
        assert [each["sequence_number"] for each in found] == list(range(len(found)))


@pytest.mark.parametrize("route", ROUTES)
def test_a_stop_sequence_is_never_told_and_ends_the_work(local: Serving, route: str) -> None:
    with local.raw() as http:
        whole = http.post(route, json=body(route, local.model)).json()
        text = said(route, whole)
        stop = text[len(text) // 2 :][:2]
        cut = http.post(route, json=body(route, local.model, stop=[stop])).json()
        with http.stream("POST", route, json=body(route, local.model, stop=[stop], stream=True)) as response:
            parts = [told(route, each) for each in events(response.iter_lines())]
    assert said(route, cut) == "".join(parts) == text[: text.index(stop)]
    drawn = "output_tokens" if route == "responses" else "completion_tokens"
    assert 0 < cut["usage"][drawn] < whole["usage"][drawn]


def test_the_sdk_reads_every_route(tmp_path: Path) -> None:
    with serving(Words(["Bees ", "keep ", "warm."]), tmp_path) as server:
        client = server.client()
        with client.responses.stream(model=MODEL, input="Bees?") as stream:
            deltas = [each.delta for each in stream if each.type == "response.output_text.delta"]
            final = stream.get_final_response()
        assert (final.output_text, len(deltas)) == ("Bees keep warm.", 3)
        with client.chat.completions.stream(model=MODEL, messages=ASK) as chat:
            contents = [each.delta for each in chat if each.type == "content.delta"]
            assert chat.get_final_completion().choices[0].message.content == "".join(contents) == final.output_text
        chunks = list(client.completions.create(model=MODEL, prompt=["Bees", "Rivers"], n=2, stream=True))
        for index in range(4):
            own = [choice.text for chunk in chunks for choice in chunk.choices if choice.index == index]
            assert "".join(own) == final.output_text


def test_the_wire_is_what_the_sdk_types_say(local: Serving) -> None:
    with local.raw() as http:
        for route, kind, more in (
            ("chat/completions", ChatCompletion, {"logprobs": True, "top_logprobs": 1}),
            ("completions", TextCompletion, {"logprobs": 1, "n": 2}),
            ("responses", Response, {"include": ["message.output_text.logprobs"], "top_logprobs": 1}),
        ):
            value = http.post(route, json=body(route, local.model, **more)).json()
            kind.model_validate_json(json.dumps(value), strict=True)
            assert set(value) <= set(kind.model_fields), route
        for route, stream_kind in (
            ("chat/completions", TypeAdapter(ChatCompletionChunk)),
            ("responses", TypeAdapter(ResponseStreamEvent)),
        ):
            with http.stream("POST", route, json=body(route, local.model, stream=True)) as response:
                for each in events(response.iter_lines()):
                    stream_kind.validate_json(json.dumps(each), strict=True)


def test_text_completions_are_continued_without_a_template(local: Serving) -> None:
    client = local.client()
    first = client.completions.create(model=local.model, prompt="Bees", temperature=0, max_tokens=5)
    assert first.usage is not None
    again = client.completions.create(
        model=local.model, prompt="Bees" + first.choices[0].text, temperature=0, max_tokens=5
    )
    assert again.usage is not None
    assert first.usage.prompt_tokens < again.usage.prompt_tokens < 20  # no template around it
    both = client.completions.create(model=local.model, prompt=["Bees", "Rivers"], n=2, seed=1, max_tokens=5, echo=True)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text[:4] for choice in both.choices] == ["Bees", "Bees", "Rive", "Rive"]
    alone = client.completions.create(model=local.model, prompt="Rivers", n=2, seed=1, max_tokens=5, echo=True)
    assert [choice.text for choice in alone.choices] == [choice.text for choice in both.choices[2:]]
    ids = client.completions.create(model=local.model, prompt=[5, 6, 7], max_tokens=4)
    assert ids.usage is not None
    assert ids.usage.prompt_tokens == 3
    scored = client.completions.create(model=local.model, prompt="Bees", max_tokens=6, seed=1, logprobs=2)
    found = scored.choices[0].logprobs
    assert found is not None
    assert found.tokens
    assert "".join(found.tokens) == scored.choices[0].text
    assert found.text_offset == [len("".join(found.tokens[:at])) for at in range(len(found.tokens))]


def test_a_response_reads_items_and_instructions(local: Serving) -> None:
    client = local.client()
    chat = client.chat.completions.create(
        model=local.model,
        seed=2,
        max_tokens=8,
        messages=[
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Bees?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Why?"},
        ],
    )
    answer = client.responses.create(
        model=local.model,
        extra_body={"seed": 2},
        max_output_tokens=8,
        instructions="Be short.",
        store=False,
        include=["reasoning.encrypted_content"],
        input=[
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Bees?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Yes.", "annotations": []}],
            },
            {"role": "user", "content": "Why?"},
        ],
    )
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage is not None
    assert chat.usage is not None
    assert answer.usage.input_tokens == chat.usage.prompt_tokens


@pytest.mark.parametrize(
    ("route", "more", "param", "sentence"),
    [
        ("responses", {"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ("responses", {"conversation": "conv_1"}, "conversation", "send the whole conversation"),
        ("responses", {"background": True}, "background", "does not offer 'background'"),
        ("responses", {"tools": [{"type": "web_search"}]}, "tools", "does not offer 'tools'"),
        ("responses", {"text": {"format": {"type": "json_object"}}}, "text", "text.format.type"),
        ("responses", {"reasoning": {"effort": "high"}}, "reasoning", "reasoning.effort"),
        ("responses", {"input": []}, "input", "input must not be empty"),
        ("responses", {"input": [{"type": "reasoning", "id": "r"}]}, "input", "no message"),
        ("responses", {"input": [{"type": "function_call_output", "output": "x"}]}, "input", "input[0]"),
        ("responses", {"max_tokens": 5}, "max_tokens", "max_tokens"),
        ("responses", {"max_output_tokens": 1024}, "input", "do not fit the 1024 tokens"),
        ("responses", {"top_logprobs": 2}, "top_logprobs", "needs include"),
        ("completions", {"suffix": "x"}, "suffix", "does not offer 'suffix'"),
        ("completions", {"best_of": 3}, "best_of", "best of several"),
        ("completions", {"echo": True, "logprobs": 1}, "echo", "log-probabilities of prompts"),
        ("completions", {"prompt": []}, "prompt", "prompt must not be empty"),
        ("completions", {"prompt": [[]]}, "prompt", "prompt[0]"),
        ("completions", {"prompt": [99_999_999]}, "prompt", "token ids"),
        ("completions", {"max_tokens": 1024}, "prompt", "do not fit the 1024 tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_offered_is_refused_by_name(
    local: Serving, route: str, more: dict[str, Any], param: str, sentence: str, stream: bool
) -> None:
    with local.raw() as http:
        answer = http.post(route, json=body(route, local.model, stream=stream, **more))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert sentence in answer.json()["error"]["message"]


def test_reasoning_is_apart_on_every_route(tmp_path: Path) -> None:
    backend = Words(["Hm, ", "so. ", "Yes", "."], thought=2)
    with serving(backend, tmp_path) as server, server.raw() as http:
        chat = http.post("chat/completions", json=body("chat/completions", MODEL)).json()["choices"][0]["message"]
        assert (chat["content"], chat["reasoning_content"]) == ("Yes.", "Hm, so. ")
        whole = http.post("responses", json=body("responses", MODEL)).json()
        assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
        assert whole["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hm, so. "}]
        assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] == 2
        with http.stream("POST", "responses", json=body("responses", MODEL, stream=True)) as response:
            found = list(events(response.iter_lines()))
    kinds = [each["type"].removeprefix("response.") for each in found]
    ends = ["content_part.done", "output_item.done"]
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done", *ends),
        *(
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            *ends,
        ),
        "completed",
    ]
    assert [item["type"] for item in found[-1]["response"]["output"]] == ["reasoning", "message"]


@pytest.mark.parametrize("route", ROUTES)
def test_words_arrive_while_the_next_one_is_not_written(tmp_path: Path, route: str) -> None:
    pace = threading.Semaphore(0)
    backend = Words(["one ", "two ", "three"], pace=pace)
    with serving(backend, tmp_path) as server, server.raw() as http:
        pace.release()
        with http.stream("POST", route, json=body(route, MODEL, stream=True)) as response:
            found = (told(route, each) for each in events(response.iter_lines()))
            texts = (text for text in found if text)
            assert next(texts) == "one "
            assert backend.written == 1
            pace.release()
            assert next(texts) == "two "
            assert backend.written == 2
            pace.release()
            assert list(texts) == ["three"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_a_client_that_leaves_ends_the_work(tmp_path: Path, route: str, stream: bool) -> None:
    pace = threading.Semaphore(0)
    backend = Words(["word "] * 1000, pace=pace)
    raw = json.dumps(body(route, MODEL, stream=stream)).encode()
    with serving(backend, tmp_path) as server:
        with socket.create_connection(server.address) as connection:
            connection.sendall(post(route, raw))
            pace.release()
            wait_until(lambda: backend.written == 1, "the first word")
            if stream:
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert backend.ended.wait(30)  # a thousand words would never come: nobody releases them
    assert backend.given_up == [each.key for each in backend.asked]
    assert backend.written <= 2


def test_a_stream_that_fails_in_its_middle_says_so(tmp_path: Path) -> None:
    class Failing(Words):
        def completion(self, request: GenerateRequest) -> Completion:
            return Completion(request.key, "", "failed", 0, error="the model fell over")

    with serving(Failing(["one "]), tmp_path) as server:
        client = server.client()
        with pytest.raises(openai.APIError, match="fell over"):
            list(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))
        with pytest.raises(openai.InternalServerError, match="fell over"):
            client.chat.completions.create(model=MODEL, messages=ASK)
        last = list(client.responses.create(model=MODEL, input="Bees?", stream=True))[-1]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "the model fell over"
    with serving(Failing([]), tmp_path) as server, pytest.raises(openai.InternalServerError, match="fell over"):
        server.client().chat.completions.create(model=MODEL, messages=ASK, stream=True)  # before the first word


def test_more_than_the_queue_takes_is_refused(tmp_path: Path) -> None:
    pace = threading.Semaphore(0)
    backend = Words(["word"], pace=pace)
    with serving(backend, tmp_path, {"waiting": 4}) as server:
        client = server.client()
        with pytest.raises(openai.BadRequestError, match="5 completions are more than the 4"):
            client.chat.completions.create(model=MODEL, messages=ASK, n=5)
        held = threading.Thread(target=lambda: client.chat.completions.create(model=MODEL, messages=ASK, n=3))
        held.start()
        wait_until(lambda: len(backend.asked) == 3, "three completions in work")
        with pytest.raises(openai.RateLimitError, match="3 completions are waiting or in work, of at most 4"):
            client.chat.completions.create(model=MODEL, messages=ASK, n=2)
        pace.release()
        held.join()


# The queue and the draft, by themselves.


class Counting(LocalBackend):
    """A local backend that remembers how many requests each call had."""

    sizes: list[int]

    def stream(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion | WrittenPiece, None]:
        self.sizes.append(len(requests))
        return super().stream(requests)


async def test_concurrent_chats_share_a_batch(tiny_llama: Path) -> None:
    backend = Counting({"workers": 1, "threads": 1})
    backend.sizes = []
    queue = SamplingQueue(backend, calls=1, waiting=100)

    def wanted(seed: int) -> GenerateRequest:
        return GenerateRequest("k", (Message("user", "Bees?"),), Model(str(tiny_llama)), Sampling(1, 1, 12), seed)

    together = await asyncio.gather(*(queue.answer([wanted(seed)]) for seed in range(50)))
    assert backend.sizes == [50]
    alone = [await queue.answer([wanted(seed)]) for seed in (3, 30)]
    assert [each[0].text for each in alone] == [together[3][0].text, together[30][0].text]
    gone = asyncio.create_task(queue.answer([wanted(1)]))
    await asyncio.sleep(0)
    gone.cancel()
    await queue.answer([wanted(2)])
    assert backend.sizes == [50, 1, 1, 1]  # who went away is not worked for
    assert queue.open == 0
    await queue.aclose()
    await backend.aclose()


def whole(text: str, stops: tuple[str, ...] = (), tokens: tuple[TokenLogprob, ...] | None = None) -> Choice:
    return Choice.of(0, Completion("k", text, "stop", 1, token_logprobs=tokens), stops, "messages")


@pytest.mark.parametrize(
    ("stops", "parts", "expected"),
    [
        ((), ["a", "b"], ["a", "b"]),
        (("END",), ["say ", "E", "N", "D", "x"], ["say "]),
        (("END",), ["say E", "Nough"], ["say ", "ENough"]),
        (("abcd", "c"), ["xab", "c"], ["x", "ab"]),
        (("\n\n",), ["a\n", "b\n", "\nc"], ["a", "\nb"]),
        (("aab",), ["aa", "ab"], ["a"]),
        (("x",), ["x"], []),
    ],
)
def test_what_may_become_a_stop_sequence_is_held_back(
    stops: tuple[str, ...], parts: list[str], expected: list[str]
) -> None:
    draft, told_parts, start = Draft(0, stops), [], 0
    for part in parts:
        delta = draft.take(WrittenPiece("k", part, start))
        told_parts += [delta.text] if delta else []
        start += len(part)
    rest = draft.end(whole("".join(parts), stops))
    told_parts += [rest.text] if rest else []
    assert told_parts == expected


def test_work_that_begins_anew_is_told_once() -> None:
    tokens = tuple(TokenLogprob(each, -1.0) for each in ("a", "b", "c"))
    draft = Draft(0, ())
    pieces = [
        WrittenPiece("k", "a", 0, token_logprobs=tokens[:1]),
        WrittenPiece("k", "b", 1, token_logprobs=tokens[1:2]),
    ]
    found = [draft.take(each) for each in (*pieces, *pieces, WrittenPiece("k", "c", 2, token_logprobs=tokens[2:]))]
    assert [None if each is None else each.text for each in found] == ["a", "b", None, None, "c"]
    assert [one for each in found if each for one in each.tokens or ()] == list(tokens)
    assert draft.end(whole("abc", tokens=tokens)) is None
    with pytest.raises(ApiError, match="came out otherwise"):
        draft.end(whole("abx"))
