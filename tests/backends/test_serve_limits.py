"""`windowshift serve` where something runs out: connections, the disk, places in a queue."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sqlite3
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.processes import wait_until
from tests.served import KEY, chat_lines
from tests.serving import MODEL, Serving, Words, serving
from windowshift.backends.serve import request_log
from windowshift.backends.serve.batch_runner import BatchRunner
from windowshift.backends.serve.batches import Batches, BatchRequest
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.job_request import Hyperparameters, JobRequest
from windowshift.backends.serve.jobs import Jobs
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.request_log import RequestLogFile
from windowshift.backends.serve.restarts import TRIES, Restarts
from windowshift.backends.serve.sampling_request import SamplingRequest
from windowshift.backends.serve.state import ServerState
from windowshift.backends.serve.trainer import Trainer
from windowshift.core.contract.backoff import Backoff
from windowshift.core.contract.full_disk import is_full_disk
from windowshift.core.contract.training import Sft, TrainEvent, TrainFailed, TrainJob
from windowshift.core.store.lock import hold

ASK: list[Any] = [{"role": "user", "content": "Bees?"}]


def connect(server: Serving) -> socket.socket:
    found = socket.create_connection(server.address, timeout=30)
    found.settimeout(30)
    return found


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def read_one(connection: socket.socket) -> bytes:
    """An answer on a connection that stays."""
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        chunk = connection.recv(65536)
        assert chunk
        received += chunk
    return received


def get(path: str, key: str | None = KEY, more: str = "") -> bytes:
    head = "" if key is None else f"authorization: Bearer {key}\r\n"
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{head}{more}\r\n".encode()


def test_idle_connections_without_the_key_lock_nobody_out(tmp_path: Path) -> None:
    """A flood of connections: silent, in the middle of a head, with a wrong key, and answered ones that stay."""
    limits = {"connections": 40, "strangers": 20, "head_seconds": 600.0}
    with serving(Words(["Yes."]), tmp_path, limits) as server, ExitStack() as stack:
        for index in range(200):
            connection = stack.enter_context(connect(server))
            if index % 4 == 1:
                connection.sendall(b"GET /v1/mod")
            elif index % 4 == 2:
                connection.sendall(get("/v1/models", "sk-wrong"))
            elif index % 4 == 3:
                connection.sendall(get("/health", None))
            if index % 40 == 0:  # nobody waits: each of these is the first try
                assert server.client().chat.completions.create(model=MODEL, messages=ASK).choices
        assert server.client().models.list().data


def test_the_oldest_stranger_makes_room_and_is_told(tmp_path: Path) -> None:
    with serving(Words(["Yes."]), tmp_path, {"strangers": 3, "head_seconds": 600.0}) as server, ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(4)]
        answer = read_all(connections[0])  # ends: it was closed
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"have not shown the key" in answer
        for connection in connections[1:]:
            connection.sendall(get("/v1/models", more="connection: close\r\n"))
            assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_idle_ones_with_the_key_make_room_silently_and_busy_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windowshift.backends.serve.sampling_queue.PATIENCE_SECONDS", 0.0)
    pace = threading.Semaphore(0)
    backend = Words(["Yes."], pace=pace)
    with serving(backend, tmp_path, {"connections": 2}) as server, ExitStack() as stack:
        busy = threading.Thread(target=lambda: server.client().chat.completions.create(model=MODEL, messages=ASK))
        busy.start()
        wait_until(lambda: len(backend.asked) == 1, "a chat in work")
        idle = stack.enter_context(connect(server))
        idle.sendall(get("/v1/models"))
        assert read_one(idle).startswith(b"HTTP/1.1 200")
        other = stack.enter_context(connect(server))
        other.sendall(get("/v1/models"))
        assert read_one(other).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionResetError):  # without a word, too
            assert idle.recv(65536) == b""
        second = threading.Thread(target=lambda: server.client().chat.completions.create(model=MODEL, messages=ASK))
        second.start()
        wait_until(lambda: other_is_closed(other), "the idle one to make room")
        wait_until(lambda: len(backend.asked) == 2, "both chats in work")
        third = stack.enter_context(connect(server))
        assert read_all(third).startswith(b"HTTP/1.1 503")  # both places are at work
        pace.release(2)
        busy.join()
        second.join()


def other_is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def test_a_server_that_goes_down_tells_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("windowshift.backends.serve.server.GOODBYE_SECONDS", 2)
    monkeypatch.setattr("windowshift.backends.serve.sampling_queue.PATIENCE_SECONDS", 0.0)
    pace = threading.Semaphore(0)
    backend = Words(["one ", "two"], pace=pace)
    said: list[object] = []
    with serving(backend, tmp_path) as server:

        def ask() -> None:
            try:
                server.client().chat.completions.create(model=MODEL, messages=ASK)
            except openai.InternalServerError as error:
                said.append(error.status_code)

        def read() -> None:
            try:
                list(server.client().chat.completions.create(model=MODEL, messages=ASK, stream=True))
            except openai.APIError as error:
                said.append(error.message)

        threads = [threading.Thread(target=each) for each in (ask, read)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(backend.asked) == 2, "two chats in work")
        pace.release()
        wait_until(lambda: backend.written, "a word")
    for thread in threads:
        thread.join()
    whole, streamed = sorted(map(str, said))
    assert whole == "503"
    assert streamed.endswith("the server is going down: ask again once it is back")
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_that_nobody_reads_ends(tmp_path: Path) -> None:
    backend = Words(["word " * 20_000] * 300)
    body = json.dumps({"model": MODEL, "messages": ASK, "stream": True}).encode()
    path = tmp_path / "log"
    with serving(backend, tmp_path, {"send_seconds": 0.2}, log=path) as server, connect(server) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        wait_until(path.exists, "the request's end")
    assert [each["status"] for each in lines(path)] == [499]


# Queues.


def upload(client: openai.OpenAI, purpose: Any, content: bytes) -> str:
    return client.files.create(file=("lines.jsonl", content), purpose=purpose).id


def batch_line(name: str, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": {"model": MODEL, **(body or {"messages": ASK})}}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in lines).encode()


class Waiting(Words):
    """A backend whose trainings and answers never end by themselves."""

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        await asyncio.Event().wait()
        yield TrainFailed(jobs[0].key, "never")


def test_queued_jobs_and_batches_are_capped(tmp_path: Path) -> None:
    backend = Waiting(["x"], pace=threading.Semaphore(0))
    with serving(backend, tmp_path, {"jobs": 2, "batches": 2}) as server:
        client = server.client()
        file = upload(client, "fine-tune", chat_lines(2))
        jobs = [client.fine_tuning.jobs.create(model=MODEL, training_file=file).id for _ in range(2)]
        with pytest.raises(
            openai.RateLimitError, match="2 fine-tuning jobs are waiting or in work, of at most 2"
        ) as caught:
            client.fine_tuning.jobs.create(model=MODEL, training_file=file)
        assert caught.value.code == "queue_full"
        assert caught.value.response.headers["retry-after"] == "60"
        client.fine_tuning.jobs.cancel(jobs[0])
        client.fine_tuning.jobs.create(model=MODEL, training_file=file)
        requests = upload(client, "batch", jsonl(batch_line("a")))

        def batch() -> str:
            made = client.batches.create(
                input_file_id=requests, endpoint="/v1/chat/completions", completion_window="24h"
            )
            return made.id

        found = [batch() for _ in range(2)]
        with pytest.raises(openai.RateLimitError, match="2 batches are waiting or in work"):
            batch()
        client.batches.cancel(found[0])  # also the work on it: nobody releases a word
        wait_until(lambda: client.batches.retrieve(found[0]).status == "cancelled", "the batch's end")
        assert batch()


def test_batches_of_every_route(tmp_path: Path) -> None:
    with serving(Words(["Yes."]), tmp_path) as server:
        client = server.client()
        for url, body in (
            ("/v1/chat/completions", {"messages": ASK}),
            ("/v1/completions", {"prompt": ["a", "b"]}),
            ("/v1/responses", {"input": "Bees?"}),
        ):
            file = upload(client, "batch", jsonl(batch_line("a", url, **body)))
            made = client.batches.create(input_file_id=file, endpoint=url, completion_window="24h")  # type: ignore[arg-type]
            wait_until(lambda key=made.id: client.batches.retrieve(key).status == "completed", "the batch")  # type: ignore[misc]
            done = client.batches.retrieve(made.id)
            assert done.endpoint == url
            assert done.output_file_id is not None
            [line] = client.files.content(done.output_file_id).text.splitlines()
            assert "Yes." in json.dumps(json.loads(line)["response"]["body"])
        file = upload(client, "batch", jsonl(batch_line("a", "/v1/responses", input="Bees?")))
        made = client.batches.create(input_file_id=file, endpoint="/v1/completions", completion_window="24h")
        wait_until(lambda: client.batches.retrieve(made.id).status == "failed", "its end")
        errors = client.batches.retrieve(made.id).errors
        assert errors is not None
        assert "url is not '/v1/completions'" in str((errors.data or [])[0].message)


# A full disk.


def full(*arguments: object, **named: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("broken", ["files", "folder", "database"])
def test_a_full_disk_is_said(tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "files":
        monkeypatch.setattr("windowshift.backends.serve.files.shutil.copyfileobj", full)
    elif broken == "folder":
        monkeypatch.setattr("windowshift.backends.serve.files.replacing_file", full)
    else:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL  # as the library sets it

        def add(*arguments: object) -> None:
            raise error

        monkeypatch.setattr(Files, "add", add)
    with serving(Words(["Yes."]), tmp_path) as server:
        with pytest.raises(
            openai.InternalServerError, match="the disk of this server is full: free some space"
        ) as caught:
            upload(server.client(), "batch", jsonl(batch_line("a")))
        assert (caught.value.status_code, caught.value.code) == (507, "disk_full")
        assert list((tmp_path / "files").iterdir()) == []  # nothing is left of it
        assert server.client().models.list().data  # and the server is up


def test_sqlite_that_is_full_is_a_full_disk(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE t (x TEXT)")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 9)
    assert is_full_disk(caught.value)
    wrapped = RuntimeError("it failed")
    wrapped.__cause__ = caught.value
    assert is_full_disk(wrapped)
    assert is_full_disk(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_full_disk(ValueError("full"))
    assert not is_full_disk(None)
    connection.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ServerState]:
    found = ServerState(tmp_path / "data")
    yield found
    found.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of no time: what is counted are tries."""
    monkeypatch.setattr("windowshift.backends.serve.restarts.FIRST_SECONDS", 0.0001)
    monkeypatch.setattr("windowshift.backends.serve.restarts.MOST_SECONDS", 0.0002)


class Tries(Words):
    """Counts trainings, each of which fails in one of the ways of a full disk."""

    how: str = "raises"
    tries: int = 0

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        self.tries += 1
        if self.how == "raises":
            full()
        if self.how == "says":
            yield TrainFailed(jobs[0].key, "training failed: the disk is full: free some space and try again")
        else:
            yield TrainFailed(jobs[0].key, "the loss is not a number")


def queued(state: ServerState) -> tuple[Jobs, Files, str]:
    files, jobs = Files(state), Jobs(state)
    data = state.folder / "data.jsonl"
    data.write_bytes(chat_lines(2))
    request = JobRequest.model_validate({"model": MODEL, "training_file": "file-x"})
    job = jobs.create(request, Hyperparameters().resolve(2), 2, 0, data, None)
    return jobs, files, job.id


def trainer_of(backend: Tries, state: ServerState, jobs: Jobs, files: Files) -> Trainer:
    return Trainer(backend, state, jobs, files, Sft(), at_once=1, limits=ServerLimits())


async def settled(count: Any, expected: int) -> None:
    """Wait for a count, and then whether it stays."""
    for _ in range(5000):
        if count() >= expected:
            break
        await asyncio.sleep(0.001)
    for _ in range(100):
        await asyncio.sleep(0.0005)
    assert count() == expected


@pytest.mark.parametrize("how", ["raises", "says"])
async def test_a_job_on_a_full_disk_is_tried_so_often_and_no_more(
    state: ServerState, quick: None, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, files, job = queued(state)
    backend = Tries([])
    backend.how = how
    trainer = trainer_of(backend, state, jobs, files)
    trainer.wake()
    await settled(lambda: backend.tries, TRIES)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == TRIES
    assert "the disk is full" in said[0]
    assert "left alone" in said[-1]
    assert jobs.get(job).status == "running"  # it is not lost
    trainer.wake()  # what others do does not begin it
    await settled(lambda: backend.tries, TRIES)
    trainer.asked()  # a person does
    await settled(lambda: backend.tries, TRIES + 1)
    backend.how = "fails by itself"  # there is room again
    trainer.asked()
    await settled(lambda: backend.tries, TRIES + 2)
    assert jobs.get(job).status == "failed"
    await trainer.aclose()


async def test_a_job_whose_end_cannot_be_stored_does_not_spin(
    state: ServerState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real waits: in a thousand turns of the loop it is tried once."""
    jobs, files, _ = queued(state)
    backend = Tries([])
    backend.how = "fails"
    monkeypatch.setattr(Jobs, "log", full)
    trainer = trainer_of(backend, state, jobs, files)
    trainer.wake()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert backend.tries <= 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    await trainer.aclose()


async def test_one_stuck_job_does_not_stop_the_others(state: ServerState, quick: None) -> None:
    jobs, files, first = queued(state)
    _, _, second = queued(state)

    class Stuck(Tries):
        async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
            if jobs[0].key == first:
                self.tries += 1
                full()
            yield TrainFailed(jobs[0].key, "over")

    backend = Stuck([])
    trainer = trainer_of(backend, state, jobs, files)
    trainer.wake()
    await settled(lambda: backend.tries, TRIES)
    assert jobs.get(second).status == "failed"
    await trainer.aclose()


async def test_a_batch_on_a_full_disk_is_tried_so_often_and_no_more(
    state: ServerState, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = 0

    async def answer(wanted: SamplingRequest) -> dict[str, Any]:
        nonlocal answered
        answered += 1
        return {"model": wanted.model}

    batches, files = Batches(state), Files(state)
    data = state.folder / "input.jsonl"
    data.write_bytes(jsonl(batch_line("a")))
    made = batches.create(
        BatchRequest(input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"), data
    )
    runner = BatchRunner(answer, state, batches, files, ServerLimits())
    with monkeypatch.context() as patched:
        patched.setattr("windowshift.backends.serve.batch_runner.os.fsync", full)
        patched.setattr("windowshift.backends.serve.batch_runner._whole_lines", lambda path: [])
        runner.wake()
        await settled(lambda: answered, TRIES)
        assert batches.get(made.id).status == "in_progress"
    (batches.folder(made) / "output.jsonl").unlink()
    runner.asked()
    await settled(lambda: answered, TRIES + 1)
    assert batches.get(made.id).status == "completed"
    await runner.aclose()


async def test_a_queue_that_cannot_be_read_is_looked_at_later(tmp_path: Path, quick: None) -> None:
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        raise sqlite3.OperationalError("disk I/O error")

    restarts = Restarts("job", look, tmp_path)
    restarts.look()
    await settled(lambda: looked, TRIES)
    restarts.close()


def test_waits_grow_and_are_capped() -> None:
    backoff = Backoff(first=1, most=60, tries=9)
    assert [backoff.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not backoff.over
    backoff.failed()
    assert backoff.over
    backoff.succeeded()
    assert (backoff.over, backoff.failed()) == (False, 1)
    endless = Backoff(first=1, most=60)
    assert [endless.failed() for _ in range(2000)][-1] == 60
    assert not endless.over


# The request log.


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]


def test_the_request_log_has_numbers_and_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with serving(Words(["Yes", "."]), tmp_path / "data", log=path) as server:
        client = server.client()
        client.chat.completions.create(model=MODEL, messages=ASK)
        list(client.responses.create(model=MODEL, input="Bees?", stream=True))
        with server.raw() as http:
            http.post("completions", json={"model": MODEL, "prompt": "Bees?", "suffix": "x"})
            http.get(f"nothing/{KEY}", headers={"authorization": "Bearer sk-wrong-key-0123456789"})
            http.get("models/none")
        wait_until(lambda: len(lines(path)) == 5, "five lines")
    found = lines(path)
    assert [(each["method"], each["route"], each["status"]) for each in found] == [
        ("POST", "/v1/chat/completions", 200),
        ("POST", "/v1/responses", 200),
        ("POST", "/v1/completions", 400),
        ("GET", "/v1/nothing/[key]", 401),
        ("GET", "/v1/models/{model:path}", 404),
    ]
    assert [each.get("completion_tokens") for each in found] == [2, 2, None, None, None]
    assert found[0]["prompt_tokens"] == 7
    assert (found[0]["model"], found[1]["stream"], found[2]["param"]) == (MODEL, True, "suffix")
    assert all(each["id"].startswith("req_") and each["seconds"] >= 0 and each["at"] for each in found)
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("Bees", "Yes", KEY, "sk-wrong") if word in text]


def test_texts_are_logged_where_somebody_asked_for_them(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    with serving(Words(["Yes", "."]), tmp_path / "data", log=path, log_texts=True) as server:
        server.client().responses.create(model=MODEL, input=f"Bees? {KEY}")
        wait_until(lambda: path.exists() and len(lines(path)) == 1, "a line")
    [line] = lines(path)
    assert (line["request"]["input"], line["answers"]) == ([{"role": "user", "content": "Bees? [key]"}], ["Yes."])


def test_the_log_says_who_left(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    pace = threading.Semaphore(0)
    backend = Words(["word "] * 100, pace=pace)
    with serving(backend, tmp_path / "data", log=path) as server:
        pace.release()
        stream = server.client().chat.completions.create(model=MODEL, messages=ASK, stream=True)
        next(iter(stream))
        stream.close()
        wait_until(lambda: path.exists() and len(lines(path)) == 1, "a line")
    assert lines(path)[0]["status"] == 499


def test_what_clients_send_is_read_by_nobody_else(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with hold(tmp_path / "held", "windowshift serve", mode=0o700):
            ServerState(tmp_path / "state").close()
            RequestLogFile(tmp_path / "log").write({"at": "now"})
    finally:
        os.umask(before)
    assert not any((tmp_path / one).stat().st_mode & 0o077 for one in ("held", "state", "log"))


def test_the_log_is_put_aside_once_it_is_large(tmp_path: Path) -> None:
    log = RequestLogFile(tmp_path / "log", most_bytes=200)
    for number in range(50):
        log.write({"at": "now", "number": number})
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"log", "log.1"}
    assert all(size <= 200 for size in sizes.values())
    assert lines(tmp_path / "log")[-1]["number"] == 49


def test_a_log_that_cannot_be_written_is_tried_later_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, opened = [0.0], 0
    log = RequestLogFile(tmp_path / "log", clock=lambda: clock[0])
    log.write({"number": 0})
    real = request_log._private

    def failing(path: str, flags: int) -> int:
        nonlocal opened
        opened += 1
        full()
        return -1

    monkeypatch.setattr(request_log, "_private", failing)
    for _ in range(1000):
        log.write({"number": 1})
    assert opened == 1
    for second in range(1, 600):
        clock[0] = float(second)
        for _ in range(10):
            log.write({"number": 2})
    assert opened <= 6 + 600 / 60 + 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(request_log, "_private", real)
    clock[0] = 10_000.0
    log.write({"at": "now", "number": 3})
    assert lines(tmp_path / "log") == [{"number": 0}, {"at": "now", "lost": 1000 + 5990}, {"at": "now", "number": 3}]
