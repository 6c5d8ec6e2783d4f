"""Backend `openai` and servers that are wrong, odd or hostile: one sentence each, within bounds, without the key."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backend_contract import Subject, ending, gather, job
from tests.scripted_server import Asked, Reply, Scripted, completion, drip, scripted
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.options import OpenAIOptions
from windowshift.backends.shared import bounded
from windowshift.backends.shared.faults import wait_asked
from windowshift.backends.shared.reasoning import apart
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.prices import Price
from windowshift.core.contract.training import Example, Sft, Trained, TrainFailed, TrainJob, TrainMessage

KEY = "pw-hostile-0123456789-abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


async def ask(reply: Reply, **options: object) -> Completion:
    """The completion of one request that is answered so, every time."""
    with scripted(lambda asked: reply) as server:
        return await ask_at(server, **options)


async def ask_at(server: Scripted, **options: object) -> Completion:
    backend = OpenAIBackend({**server.options, **options})
    wanted = GenerateRequest("k", (Message("user", "Tell me."),), Model("m"), Sampling(max_tokens=64), 1)
    try:
        (found,) = [each async for each in backend.generate([wanted])]
    finally:
        await backend.aclose()
    return found


class TestBrokenAnswers:
    """Whatever is raised while an answer is read is a broken answer."""

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 100_000 + b"]" * 100_000,
            b'{"choices":' + b"[" * 50_000,
            b'{"choices": ' + b"9" * 10_000 + b"}",
            b'{"choices": [], "usage": NaN}',
            b"\xff\xfe\x00",
            b"",
            b"null",
            b"[]",
            b'"text"',
            b"1e999",
            b'{"choices": {"0": 1}}',
            b'{"choices": [null]}',
            b'{"choices": [[]]}',
            json.dumps(completion({"content": 12})).encode(),
            json.dumps(completion({"content": [12]})).encode(),
            json.dumps(completion({"content": [{"type": "text", "text": 5}]})).encode(),
            json.dumps(completion(finish=3)).encode(),
        ],
        ids=range(17),
    )
    async def test_a_body_that_is_none(self, body: bytes) -> None:
        for kind in ("application/json", "text/plain"):
            found = await ask(Reply(body, headers={"Content-Type": kind}))
            assert found.finish == "failed"
            assert "the server's answer was broken (" in (found.error or "")
            assert "given up after 2 tries" in (found.error or "")

    @pytest.mark.parametrize("count", ["1" + "0" * 30, "-1", "true", "1.5", '"5"', "1e400", "9" * 5000])
    @pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
    async def test_a_count_out_of_bounds(self, name: str, count: str) -> None:
        text = json.dumps(completion()).replace(f'"{name}": ', f'"{name}": {count}, "was": ')
        found = await ask(Reply(text.encode()), prices={"m": {"input": 1, "output": 1}})
        assert found.finish == "failed"
        assert "broken" in (found.error or "")

    @pytest.mark.parametrize("value", ['"x"', "NaN", "1e999", "null", "[]"])
    async def test_a_log_probability_that_is_none(self, value: str) -> None:
        token = f'{{"content": [{{"token": "a", "logprob": {value}, "top_logprobs": []}}]}}'
        text = json.dumps(completion()).replace('"finish_reason"', f'"logprobs": {token}, "finish_reason"')
        found = await ask(Reply(text.encode()), logprobs=True)
        assert "broken" in (found.error or "")

    @pytest.mark.parametrize(
        "header",
        [
            "Fri, 31 Dec 99999 23:59:59 GMT",
            "Fri, 31 Dec 9999 23:59:59 +9999999999",
            "1e400",
            "9" * 400,
            "-5",
            "nan",
            "inf",
            "soon",
            "\u0663",
            "Fri, 99 Foo 20 99:99:99 GMT",
        ],
    )
    def test_a_time_to_wait_that_is_none(self, header: str) -> None:
        for name in ("retry-after", "retry-after-ms"):
            found = wait_asked({name: header})
            assert found is None or 0 <= found <= 3600

    async def test_a_limit_that_is_none_stops_nobody(self) -> None:
        for limit, reset in (
            ("1e308", "1s"),
            ("1e-9", "1s"),
            ("60", "9" * 400 + "s"),
            ("60", "99999999h"),
            ("nan", "x"),
        ):
            headers = {"x-ratelimit-limit-requests": limit, "x-ratelimit-reset-requests": reset}
            headers["x-ratelimit-remaining-requests"] = "0"
            with scripted(lambda asked, headers=headers: Reply(completion(), headers=headers)) as server:  # type: ignore[misc]
                for _ in range(2):
                    assert (await ask_at(server)).text == "Yes."


class TestBounds:
    """A deadline for every request as a whole, and a cap on what is unpacked."""

    async def test_a_slow_drip_ends(self) -> None:
        def answer(asked: Asked) -> Reply:
            return Reply(drip(itertools.repeat(b" "), 0.05))

        with scripted(answer) as server:
            begun = time.monotonic()
            found = await ask_at(server, timeout=0.4)
            with pytest.raises(BackendError, match="did not answer in time"):
                OpenAIBackend({**server.options, "timeout": 0.4}).identify("m")
            assert time.monotonic() - begun < 60  # without a deadline it never ends
        assert "did not answer in time" in (found.error or "")

    async def test_headers_that_drip_end(self) -> None:
        with _raw(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n") as port:
            begun = time.monotonic()
            found = await ask_at(Scripted(port, []), timeout=0.4)
            assert time.monotonic() - begun < 60  # without a deadline it never ends
        assert "did not answer in time" in (found.error or "")

    async def test_an_endless_body_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounded, "MOST_BYTES", 4 << 20)
        with scripted(lambda asked: Reply(itertools.repeat(b" " * 65536))) as server:
            found = await ask_at(server)
        assert "larger than 4 MiB" in (found.error or "")

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
    async def test_a_bomb_is_not_unpacked(self, encoding: str) -> None:
        bomb = gzip.compress(b" " * (300 << 20), 9)
        tracemalloc.start()
        found = await ask(Reply(bomb, headers={"Content-Encoding": encoding}), tries=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "larger than 32 MiB" in (found.error or "")
        assert most < 200 << 20

    async def test_an_encoding_that_was_not_asked_for(self) -> None:
        found = await ask(Reply(b"x", headers={"Content-Encoding": "br"}))
        assert "packed in a way that was not asked for" in (found.error or "")

    async def test_a_packed_answer_is_read(self) -> None:
        body = gzip.compress(json.dumps(completion()).encode())
        assert (await ask(Reply(body, headers={"Content-Encoding": "gzip"}))).text == "Yes."
        found = await ask(Reply(body[:-12], headers={"Content-Encoding": "gzip"}))
        assert "cut short" in (found.error or "")


class TestReasons:
    """A server's own words are kept, wherever they stand."""

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"error": "no model named m is loaded"}, "no model named m is loaded"),
            ({"error": {"message": "no such model"}}, "no such model"),
            ({"message": "no such model", "error": "Bad Request"}, "no such model"),
            ({"detail": "no such model"}, "no such model"),
            ({"detail": [{"loc": ["body", "seed"], "msg": "not a number"}]}, "body.seed: not a number"),
            ({"error": {"error": {"message": "deep inside"}}}, "deep inside"),
            ({"errors": [{"message": "x"}], "error": ["first", "second"]}, "first; second"),
            ("plain words", "plain words"),
            (b"no such model\nsecond line", "no such model"),
            (
                b"<!DOCTYPE html><html><head><title>404 no such page</title></head><body>x</body></html>",
                "404 no such page",
            ),
            (
                b"<html><head><style>p {}</style></head><body><h1>Bad &amp; wrong</h1><p>x</p></body></html>",
                "Bad & wrong",
            ),
        ],
        ids=range(11),
    )
    async def test_the_reason_is_told(self, body: Any, said: str) -> None:
        found = await ask(Reply(body, 400))
        assert (found.error or "").endswith(f"model 'm': {said}")

    async def test_a_body_that_says_nothing(self) -> None:
        for body in (b"", b"null", b"{}", b"<html></html>"):
            assert "400" in ((await ask(Reply(body, 400))).error or "")

    @pytest.mark.parametrize(
        ("said", "finish"),
        [
            ("eos", "stop"), ("eos_token", "stop"), ("end_turn", "stop"), ("stop_sequence", "stop"), ("STOP", "stop"),
            ("max_tokens", "length"), ("length", "length"), ("MAX_TOKENS", "length"), ("model_length", "length"),
            ("weird", "failed"), (None, "failed"), ("content_filter", "failed"), ("tool_calls", "failed"),
        ],
    )  # fmt: skip
    async def test_how_it_ended(self, said: str | None, finish: str) -> None:
        found = await ask(Reply(completion(finish=said)))
        assert found.finish == finish
        assert (found.error is None) == (finish != "failed")

    async def test_content_in_parts(self) -> None:
        parts = [{"type": "text", "text": "One "}, {"type": "output_text", "text": "two."}, " Three."]
        assert (await ask(Reply(completion({"content": parts})))).text == "One two. Three."
        found = await ask(Reply(completion({"content": [{"type": "audio", "data": "x"}]})))
        assert found.finish == "failed"
        assert "a part of kind 'audio'" in (found.error or "")


class TestTheKey:
    """No sentence, event, list or record of a server's holds the key."""

    @pytest.mark.parametrize("begins", [0, 380, 390, 395, 399])
    async def test_an_error_that_repeats_it(self, begins: int) -> None:
        found = await ask(Reply({"error": {"message": "x" * begins + " " + KEY, "code": KEY}}, 400))
        assert "hostile" not in (found.error or "")
        assert "pw-h" not in (found.error or "")

    async def test_an_answer_that_repeats_it_is_none(self) -> None:
        for message in ({"content": f"You sent {KEY}"}, {"content": "Yes", "reasoning_content": KEY}):
            found = await ask(Reply(completion(message)))
            assert found.finish == "failed"
            assert "repeats the key" in (found.error or "")
            assert KEY not in (found.error or "") + found.text
        found = await ask(Reply(completion(finish=f"ended-{KEY}")))
        assert "hostile" not in (found.error or "")

    def test_models_that_are_called_so(self) -> None:
        ids = [KEY, f"m-{KEY[:14]}", "\x1b]0;title\x07", "x" * 4000, "mm", 12, None]
        with scripted(lambda asked: Reply({"data": [{"id": one} for one in ids]})) as server:
            backend = OpenAIBackend(server.options)
            with pytest.raises(BackendError) as caught:
                backend.identify("mmm")
            reached = backend.reach()
        assert "did you mean 'mm'" in str(caught.value)
        for text in (str(caught.value), " ".join(reached.models)):
            assert "hostile" not in text
            assert "\x1b" not in text
        assert "mm" in reached.models

    @pytest.mark.parametrize("address", [KEY, f"https://{KEY}@h/v1", f"https://h/v1?k={KEY}", f"ftp://h/{KEY}"])
    def test_an_address_that_holds_it(self, address: str) -> None:
        with pytest.raises(BackendError) as caught:
            OpenAIBackend({"base_url": address})
        assert "hostile" not in str(caught.value)
        assert "base_url" in str(caught.value)


JOB = {"id": "ftjob-1", "object": "fine_tuning.job", "created_at": 1, "status": "running", "model": "m"}
DONE = {**JOB, "status": "succeeded", "fine_tuned_model": "ft:m:1", "trained_tokens": 100}


class TestJobs:
    """What a server says of fine-tuning jobs has types, and lists that never end do."""

    def server(self, *jobs: dict[str, Any], events: Any = None, listed: Any = None) -> Any:
        """Answers a job's creation with the first of `jobs`, looks at it with the others, the last one for ever."""
        states = iter(jobs)
        last = jobs[-1]

        def answer(asked: Asked) -> Reply:
            path = asked.path.partition("?")[0]
            if path.endswith("/files"):
                return Reply({"id": "file-1", "object": "file"})
            if path.endswith("/models"):
                return Reply({"data": [{"id": "m", "owned_by": "them"}]})
            if path.endswith("/events"):
                return Reply(events(asked) if callable(events) else {"data": events or [], "has_more": False})
            if path.endswith("/jobs") and asked.method == "GET":
                return Reply(listed(asked) if callable(listed) else {"data": [], "has_more": False})
            return Reply(next(states, last))

        return scripted(answer)

    async def train(self, server: Scripted, folder: Path, **options: object) -> list[Any]:
        subject = Subject(
            make=lambda: OpenAIBackend({**server.options, **options}),
            model=Model("m"), unknown_model="", over_long="", sft=Sft(rank=2, batch_size=2),
        )  # fmt: skip
        backend = subject.make()
        try:
            return await gather(backend.train([job(subject, folder, examples=4)]))
        finally:
            await backend.aclose()

    async def test_reasoning_is_not_dropped_unseen(self, tmp_path: Path) -> None:
        examples = [Example((Message("user", "Bees?"),), "Yes.", reasoning=said) for said in (None, "", "Hm")]
        with self.server(JOB, DONE) as server:
            backend = OpenAIBackend(server.options)
            for count, ended in ((2, Trained), (3, TrainFailed)):
                one = TrainJob("job", Model("m"), examples[:count], Sft(rank=2, batch_size=1), 0, tmp_path / str(count))
                end = ending(await gather(backend.train([one])))
                assert isinstance(end, ended)
                assert not isinstance(end, TrainFailed) or "cannot teach reasoning" in end.error
            await backend.aclose()
            assert sum(asked.path.endswith("/files") and asked.method == "POST" for asked in server.asked) == 1

    async def test_a_plain_job(self, tmp_path: Path) -> None:
        with self.server(JOB, JOB, DONE) as server:
            end = ending(await self.train(server, tmp_path))
        assert isinstance(end, Trained)
        assert end.adapter == "ft:m:1"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"fine_tuned_model": 12},
            {"fine_tuned_model": ["ft:m:1"]},
            {"fine_tuned_model": f"ft:m:{KEY}"},
            {"fine_tuned_model": "ft:\x1b]0;x\x07"},
            {"fine_tuned_model": "x" * 5000},
            {"id": 7},
            {"status": None},
            {"created_at": "yesterday"},
            {"created_at": 10**400},
        ],
        ids=range(9),
    )
    async def test_a_value_of_another_type(self, tmp_path: Path, wrong: dict[str, Any]) -> None:
        body = json.dumps({**DONE, **wrong}).encode()
        with self.server(JOB, {**DONE, **wrong}) as server:
            end = ending(await self.train(server, tmp_path))
        assert isinstance(end, TrainFailed), body
        assert "broken" in end.error
        assert "hostile" not in end.error

    async def test_nonsense_that_is_only_told_loses_no_job(self, tmp_path: Path) -> None:
        odd = {
            "trained_tokens": 10**30,
            "estimated_finish": "soon",
            "error": "none",
            "metadata": 5,
            "hyperparameters": 3,
        }
        with self.server({**JOB, **odd}, {**DONE, **odd}) as server:
            prices = {"m": {"input": 1, "output": 1, "training": 1}}
            end = ending(await self.train(server, tmp_path, prices=prices))
        assert isinstance(end, Trained)
        assert end.usd is not None

    async def test_events_are_told_without_the_key(self, tmp_path: Path) -> None:
        events = [
            {"id": "e2", "created_at": 2, "type": "metrics", "data": {"step": 10**30, "train_loss": 1}, "message": "x"},
            {"id": "e1", "created_at": 1, "type": "message", "message": "y" * 395 + f" {KEY} \x1b[2J"},
        ]
        with self.server(JOB, DONE, events=events) as server:
            found = await self.train(server, tmp_path)
        told = [each.text for each in found if isinstance(each, TrainMessage)]
        assert any(text.startswith("yyy") for text in told)
        assert all("pw-h" not in text and "\x1b" not in text for text in told)

    async def test_a_list_that_begins_again_ends(self, tmp_path: Path) -> None:
        def again(asked: Asked) -> Any:
            return {"data": [{"id": "e1", "created_at": 1, "type": "message", "message": "hi"}], "has_more": True}

        with self.server(JOB, DONE, events=again) as server:
            end = ending(await self.train(server, tmp_path))
            assert len(server.asked) < 60
        assert isinstance(end, TrainFailed)
        assert "begins again, and never ends" in end.error

    async def test_a_list_that_goes_on_for_ever_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("windowshift.backends.openai.connection.MOST_PAGES", 5)
        numbers = itertools.count()
        from windowshift.backends.openai.said import FineTuningJob

        with scripted(lambda asked: Reply({"data": [{**JOB, "id": f"j{next(numbers)}"}], "has_more": True})) as server:
            connection = OpenAIConnection(OpenAIOptions.parse(server.options))

            async def all_jobs(client: Any) -> int:
                return len([one async for one in connection.listed(FineTuningJob, client, "/fine_tuning/jobs")])

            with pytest.raises(BackendError, match="more than 5 pages"):
                await connection.call("listing", all_jobs)
            await connection.aclose()


class TestReasonsInAnswers:
    """Of answers that are none, and of ends in other words."""

    @pytest.mark.parametrize(
        ("body", "status", "reason"),
        [
            ({"errors": ["too long"]}, 400, "too long"),
            ({"errors": [{"message": "too long"}, {"message": "too odd"}]}, 400, "too long; too odd"),
            ({"error": {"message": f"too long for {KEY}", "code": 502}}, 200, "too long for [key]"),
            ({"error": "too long"}, 200, "too long"),
            ({"choices": [], "error": {"message": "too long"}}, 200, "too long"),
            ({"choices": [{"message": {}, "error": {"message": f"gone: {KEY}"}, "finish_reason": "error"}]}, 200,
             "gone: [key]"),
        ],
    )  # fmt: skip
    async def test_why(self, body: Any, status: int, reason: str) -> None:
        found = await ask(Reply(body, status))
        assert reason in (found.error or "")

    @pytest.mark.parametrize(
        ("word", "finish"),
        [
            ("FinishReason.STOP", "stop"),
            ("<|im_end|>", "stop"),
            ("</s>", "stop"),
            ("eot", "stop"),
            ("max_completion_tokens", "length"),
            ("FinishReason.MAX_TOKENS", "length"),
            ("abort", "failed"),
            ("REFUSAL", "failed"),
        ],
    )
    async def test_how_it_ended(self, word: str, finish: str) -> None:
        assert (await ask(Reply(completion(finish=word)))).finish == finish

    async def test_a_count_may_be_written_as_a_fraction(self) -> None:
        usage = {"prompt_tokens": 5.0, "completion_tokens": 3.0}
        assert (await ask(Reply(completion(usage=usage)))).tokens == 3
        for wrong in (2.5, 1e30, -1.0):
            found = await ask(Reply(completion(usage={**usage, "completion_tokens": wrong})))
            assert "broken" in (found.error or "")


class TestThought:
    """Nothing said, said nothing, and thought are three outcomes."""

    async def test_thought_without_an_answer_is_missing(self) -> None:
        for content in (None, ""):
            message = {"content": content, "reasoning_content": "Hm, where to begin"}
            found = await ask(Reply(completion(message, "length")))
            assert found.finish == "failed"
            assert "spent its 64 tokens on reasoning before it answered" in (found.error or "")
            found = await ask(Reply(completion(message, "stop")))
            assert (found.finish, found.error) == ("failed", "the model reasoned and ended without an answer")

    async def test_counted_thought_without_an_answer_is_missing(self) -> None:
        details = {"completion_tokens_details": {"reasoning_tokens": 64}}
        usage = {"prompt_tokens": 5, "completion_tokens": 64, **details}
        found = await ask(Reply(completion({"content": ""}, "length", usage=usage)))
        assert "reasoning" in (found.error or "")

    async def test_null_is_no_answer_and_nothing_is_one(self) -> None:
        found = await ask(Reply(completion({"content": None})))
        assert found.finish == "failed"
        assert "its content is null" in (found.error or "")
        found = await ask(Reply(completion({"content": ""})))
        assert (found.finish, found.text) == ("stop", "")
        found = await ask(Reply(completion({"content": None, "refusal": "I cannot."})))
        assert (found.finish, found.text) == ("stop", "I cannot.")
        found = await ask(Reply(completion({"content": "", "refusal": "I cannot."})))
        assert (found.finish, found.text) == ("stop", "I cannot.")
        found = await ask(Reply(completion({"content": None, "tool_calls": [{"id": "1"}]})))
        assert "called a tool" in (found.error or "")

    @pytest.mark.parametrize(
        ("content", "answer"),
        [
            ("\n\nYes.", "Yes."),
            ("<think>Hm</think>\n\nYes.", "Yes."),
            ("\n\n", None),
            ("<think>Hm", None),
            ("Write </think> to end it.", "Write </think> to end it."),
        ],
    )
    async def test_thought_in_a_field_leaves_none_of_it_in_the_text(self, content: str, answer: str | None) -> None:
        found = await ask(Reply(completion({"content": content, "reasoning_content": "Hm"})))
        assert (found.text, found.reasoning) == (answer or "", "Hm")
        assert (found.finish == "failed") == (answer is None)

    @pytest.mark.parametrize(
        ("content", "thought", "answer"),
        [
            ("<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
            ("Hm, long thoughts.\n</think>\n\nYes.", "Hm, long thoughts.", "Yes."),
            ("<think></think>Yes.", "", "Yes."),
            ("  <think>Hm", "Hm", None),
            ("[THINK]Hm[/THINK]Yes.", "Hm", "Yes."),
            (
                "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
                "Hm",
                "Yes.",
            ),
            ("<|channel|>analysis<|message|>Hm", "Hm", None),
            ("analysisHm, so.assistantfinalYes.", "Hm, so.", "Yes."),
            ("Yes.", None, "Yes."),
            ("Write <think> before </think> to think.", None, "Write <think> before </think> to think."),
            ("", None, ""),
        ],
    )
    async def test_marks_in_the_text(self, content: str, thought: str | None, answer: str | None) -> None:
        assert (apart(content, guess=True).reasoning, apart(content, guess=True).answer) == (thought, answer)
        found = await ask(Reply(completion({"content": content}, "stop" if answer is not None else "length")))
        assert found.text == (answer or "")
        assert (found.finish == "failed") == (answer is None)

    async def test_what_it_cost_without_a_count_is_the_most(self) -> None:
        found = await ask(Reply(completion(usage=None)), prices={"m": {"input": 0, "output": 1_000_000}})
        assert (found.finish, found.text, found.tokens) == ("stop", "Yes.", None)
        assert found.usd == Price(0, 1e6).completion(0, 64)

    async def test_tokens_of_the_answer_alone_are_counted_where_they_can_be(self) -> None:
        thought = {"content": "Yes.", "reasoning_content": "Hm"}
        assert (await ask(Reply(completion(thought)))).tokens is None  # 3 with what was thought
        details = {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
        found = await ask(Reply(completion(thought, usage=details)))
        assert (found.tokens, found.reasoning, found.reasoning_tokens) == (2, "Hm", 7)


@pytest.fixture
def batch_lines() -> list[bytes]:
    return [
        b"[" * 100_000,
        b"null",
        b'{"custom_id": 5}',
        b"\xff\xfe\x00",
        b'{"custom_id": "' + b"x" * (17 << 20) + b'"}',
        b'{"custom_id": "x", "response": 4}',
    ]


async def test_a_batch_file_with_nonsense_in_it(batch_lines: list[bytes], tmp_path: Path) -> None:
    ids: list[str] = []

    def answer(asked: Asked) -> Reply:
        path = asked.path.partition("?")[0]
        done = {"id": "b1", "object": "batch", "status": "completed", "output_file_id": "f2", "created_at": 1}
        if path.endswith("/content"):
            good = json.dumps({"custom_id": ids[0], "response": {"status_code": 200, "body": completion()}}).encode()
            bad = json.dumps({"custom_id": ids[1], "response": {"status_code": 400, "body": {"error": f"no, {KEY}"}}})
            return Reply(b"\n".join([*batch_lines, good, bad.encode()]))
        if path.endswith("/files"):
            ids.extend(
                json.loads(line)["custom_id"] for line in asked.body.splitlines() if line.startswith(b'{"custom')
            )
            return Reply({"id": "f1", "object": "file"})
        if path.endswith("/batches") and asked.method == "GET":
            return Reply({"data": [], "has_more": False})
        return Reply(done)

    with scripted(answer) as server:
        backend = OpenAIBackend({**server.options, "batch": True})
        requests = [
            GenerateRequest(f"r{n}", (Message("user", f"Question {n}"),), Model("m"), Sampling(max_tokens=8), n)
            for n in range(3)
        ]
        found = {each.key: each async for each in backend.generate(requests)}
        await backend.aclose()
    assert sorted(each.finish for each in found.values()) == ["failed", "failed", "stop"]
    errors = " ".join(each.error or "" for each in found.values())
    assert "no, [key]" in errors
    assert "without an answer to it" in errors


class _raw:  # noqa: N801  # used as a function
    """A server that sends a beginning, and then the same again and again, slowly."""

    def __init__(self, first: bytes, again: bytes) -> None:
        self._first, self._again = first, again
        self._ended = threading.Event()

    def __enter__(self) -> int:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self._socket.getsockname()[1])

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: Any) -> None:
        try:
            connection.recv(65536)
            connection.sendall(self._first)
            while not self._ended.wait(0.05):
                connection.sendall(self._again)
        except OSError:
            pass
        finally:
            connection.close()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._socket.close()


def test_the_raw_server_is_one() -> Iterator[None] | None:
    import socket

    with _raw(b"a", b"b") as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"a"
    return None
