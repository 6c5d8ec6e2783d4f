"""`windowshift serve` against clients that are wrong, hostile or gone: clear errors, and the server stays up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.served import KEY, Served, chat_lines, served
from windowshift.backends.serve.allowance import Allowance
from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.files import plain_name

MIB = 1 << 20
LIMITS = {
    **{"head_seconds": 1.0, "body_seconds": 1.0, "connections": 300, "strangers": 300},
    **{"upload_bytes": 8 * MIB, "body_bytes": MIB},
}


@pytest.fixture(scope="module")
def server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tiny_llama, tmp_path_factory.mktemp("served"), LIMITS) as found:
        yield found


@pytest.fixture(autouse=True)
def still_up(server: Served) -> Iterator[None]:
    """After whatever a test did, the server answers a chat."""
    yield
    assert server.process.poll() is None
    answer = server.client().chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "Bees?"}], max_tokens=2
    )
    assert answer.choices[0].message.content is not None


def connect(server: Served) -> socket.socket:
    found = socket.create_connection(server.address, timeout=30)
    found.settimeout(30)
    return found


def response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Read a response to the connection's end: its status, and the API's error."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("Bearer", "missing_api_key"),
        (f"Basic {KEY}", "missing_api_key"),
        ("Bearer sk-wrong", "invalid_api_key"),
        (f"Bearer {KEY}x", "invalid_api_key"),
        (f"Bearer {KEY[:-1]}", "invalid_api_key"),
        (b"Bearer \xff\xfe", "invalid_api_key"),
    ],
)
def test_without_the_key_there_is_nothing(server: Served, header: str | bytes | None, code: str) -> None:
    headers = {} if header is None else {"authorization": header}
    for method, path in (("GET", "models"), ("POST", "files"), ("GET", "no/such"), ("POST", "chat/completions")):
        got = httpx2.request(method, f"{server.url}/{path}", headers=headers)  # type: ignore[arg-type]  # bytes too
        assert got.status_code == 401
        assert got.json()["error"]["code"] == code
        assert "sk-" not in got.text
    with pytest.raises(openai.AuthenticationError):
        server.client("sk-wrong").models.list()
    assert httpx2.get(server.url.replace("/v1", "/health")).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "..\\..\\windows\\system32\\x.jsonl",
        "/etc/cron.d/x",
        "..",
        ".",
        "a\x00b.jsonl",
        "a\nb\r.jsonl",
        "x" * 500 + ".jsonl",
        "%2e%2e%2fx.jsonl",
        "\u202eltxt.jsonl",
        "con.jsonl",
    ],
)
def test_a_file_name_is_never_a_path(server: Served, name: str, tmp_path: Path) -> None:
    before = {path for path in server.data.parent.rglob("*") if "files" not in path.parts}
    client = server.client()
    file = client.files.create(file=(name, chat_lines(1)), purpose="fine-tune")
    assert "/" not in file.filename
    assert "\\" not in file.filename
    assert file.filename.isprintable()
    assert 0 < len(file.filename) <= 200
    assert client.files.content(file.id).read() == chat_lines(1)
    assert {path for path in server.data.parent.rglob("*") if "files" not in path.parts} == before
    assert [path.name for path in (server.data / "files").iterdir()].count(file.id) == 1
    client.files.delete(file.id)
    assert not (server.data / "files" / file.id).exists()


def test_names_are_shown_plainly() -> None:
    assert plain_name("C:\\data\\bees.jsonl") == "bees.jsonl"
    assert plain_name("../..") == "file"
    assert plain_name("東京.jsonl") == "東京.jsonl"


@pytest.mark.parametrize("path", ["..%2F..%2Fserve.db", "%2e%2e/serve.db", "....//serve.db", "file-%00", "'; DROP"])
def test_an_id_is_never_a_path(server: Served, path: str) -> None:
    with server.raw() as http:
        for tail in ("", "/content"):
            got = http.get(f"{server.url}/files/{path}{tail}")
            assert got.status_code == 404
            assert got.json()["error"]["type"] == "invalid_request_error"
        assert http.delete(f"{server.url}/files/{path}").status_code in (404, 405)
        assert http.get(f"{server.url}/models/{path}").status_code == 404
    assert (server.data / "serve.db").is_file()


def test_two_gigabytes_are_refused_without_being_read(server: Served) -> None:
    """The size that the head announces is enough: the answer is there while the client still sends."""
    memory = server.peak_bytes()
    with connect(server) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n"
            b"content-type: multipart/form-data; boundary=b\r\ncontent-length: 2147483648\r\n\r\n"
        )
        sent = 0
        stop = threading.Event()

        def send() -> None:
            nonlocal sent
            try:
                while not stop.is_set() and sent < 2 << 30:
                    sent += connection.send(b"x" * 65536)
            except OSError:
                return  # the server has closed

        sender = threading.Thread(target=send)
        sender.start()
        answered = connection.recv(65536)
        while not answered.endswith(b"}"):  # the head and the body are two packets, which may come apart
            more = connection.recv(65536)
            assert more, answered
            answered += more
        stop.set()
        assert answered.startswith(b"HTTP/1.1 413")
        assert json.loads(answered.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
        connection.shutdown(socket.SHUT_RDWR)
        sender.join(30)
    assert sent < 64 * MIB
    assert server.peak_bytes() - memory < 32 * MIB


def test_an_upload_that_names_no_size_is_counted(server: Served) -> None:
    memory = server.peak_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    pieces = (b"x" * 65536 if index else head for index in range(10_000))
    with server.raw() as http:
        got = http.post("files", content=pieces, headers={"content-type": "multipart/form-data; boundary=b"})
    assert got.status_code == 413
    assert server.peak_bytes() - memory < 32 * MIB


def test_the_sdk_says_that_an_upload_is_too_large(server: Served) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().files.create(file=("big.jsonl", b"x" * (9 * MIB)), purpose="fine-tune")
    assert caught.value.status_code == 413
    assert str(LIMITS["upload_bytes"]) in caught.value.message


def test_a_large_json_body_is_refused(server: Served) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "x" * 2 * MIB}]
        )
    assert caught.value.status_code == 413


FIELD = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
GOOD = chat_lines(1).decode().strip()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (f"{GOOD}\n{{not json\n", "line 2 is not valid JSON"),
        (f"{GOOD}\n\n{GOOD}\n[1, 2]\n", "line 4 must be a JSON object"),
        (f'{GOOD}\n{{"messages": []}}', "line 2 is not a chat example: messages must not be empty"),
        ('{"prompt": "a", "completion": "b"}', "line 1 is not a chat example: unknown key 'completion'"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "line 1 must end with an assistant message"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "line 1 begins with an assistant message"),
        (GOOD.replace('"role": "user"', '"role": "human"'), "line 1 is not a chat example: messages[0].role must be"),
        (GOOD.replace('"Bees keep warm. "', "7"), "messages[1].content"),
        (GOOD.replace('"Bees keep warm. "', '"\\ud800"'), "line 1 is not valid JSON: a text in it holds half"),
        (f"{GOOD}\n" + "[" * 100_000, "line 2 is not valid JSON"),
        (b"\xff\xfe" + GOOD.encode(), "line 1 is not valid JSON: it is not UTF-8"),
        ("x" * (5 * MIB), "line 1 is longer than"),
        ("\n\n", "has no examples"),
        ("", "has no examples"),
    ],
)
def test_malformed_jsonl_is_refused_and_the_line_is_named(server: Served, content: str | bytes, sentence: str) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    before = list((server.data / "files").iterdir())
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().files.create(file=("bad.jsonl", raw), purpose="fine-tune")
    assert sentence in caught.value.message
    assert caught.value.code == "invalid_training_file"
    assert list((server.data / "files").iterdir()) == before


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "application/json"}, b"{}"),
        ({"content-type": "multipart/form-data"}, b"no boundary"),
        ({"content-type": "multipart/form-data; boundary=b"}, b"nothing of the kind"),
        (
            {"content-type": "multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n',
        ),
        ({}, b""),
    ],
)
def test_uploads_that_are_no_forms(server: Served, headers: dict[str, str], body: bytes) -> None:
    with server.raw() as http:
        got = http.post("files", content=body, headers=headers)
    assert got.status_code == 400
    assert got.json()["error"]["type"] == "invalid_request_error"


def test_a_job_on_a_file_that_is_not_there(server: Served) -> None:
    client = server.client()
    file = client.files.create(file=("a.jsonl", chat_lines(1)), purpose="fine-tune")
    client.files.delete(file.id)
    for name in (file.id, "file-none", "../serve.db"):
        with pytest.raises(openai.BadRequestError) as caught:
            client.fine_tuning.jobs.create(model=server.model, training_file=name)
        assert caught.value.param == "training_file"
        assert f"there is no file '{name}'" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff",
        b"[" * 100_000,
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b"1e999",
    ],
)
def test_bodies_that_are_not_what_they_should_be(server: Served, body: bytes) -> None:
    with server.raw() as http:
        for path in ("chat/completions", "fine_tuning/jobs"):
            got = http.post(path, content=body, headers={"content-type": "application/json"})
            assert got.status_code == 400
            assert set(got.json()["error"]) == {"message", "type", "param", "code"}


def test_text_that_cannot_be_written_is_refused(server: Served) -> None:
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "\\ud800"}]}' % server.model.encode()
    with server.raw() as http:
        got = http.post("chat/completions", content=body, headers={"content-type": "application/json"})
    assert got.status_code == 400
    assert "half of a surrogate pair" in got.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "nothing", 404), ("PUT", "files", 405), ("POST", "audio/speech", 404), ("GET", "chat/completions", 405)],
)
def test_places_that_are_not_there(server: Served, method: str, path: str, status: int) -> None:
    with server.raw() as http:
        got = http.request(method, path)
    assert got.status_code == status
    assert "invalid URL or method" in got.json()["error"]["message"]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1e3", "99999999999999999999", "١"])
def test_limits_that_make_no_sense(server: Served, limit: str) -> None:
    with server.raw() as http:
        got = http.get("fine_tuning/jobs", params={"limit": limit})
    assert (got.status_code, got.json()["error"]["param"]) == (400, "limit")


def test_two_hundred_connections_that_never_finish(server: Served) -> None:
    """A quarter sends nothing, one half a head, one half a body, and one a byte of the head at a time."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode()
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(200)]
        for index, connection in enumerate(connections):
            if index % 4 == 1:
                connection.sendall(head)
            elif index % 4 == 2:
                connection.sendall(head + b"\r\ncontent-length: 500\r\n\r\n{")
            elif index % 4 == 3:
                connection.sendall(b"G")
        answer = server.client().chat.completions.create(  # meanwhile, others are served
            model=server.model, messages=[{"role": "user", "content": "Bees?"}], max_tokens=2
        )
        assert answer.choices
        for connection in connections[3::4]:
            with suppress(OSError):  # its time may be over already
                connection.sendall(b"E")
        answers = [response(connection) for connection in connections]
    assert {status for status, _ in answers} == {408}
    assert {error["message"].split(" ")[0] for _, error in answers} == {"no", "the"}


def test_a_kept_connection_has_a_deadline_too(server: Served) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HT")
        assert response(connection)[0] == 408


def test_what_is_not_http_is_refused(server: Served) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HELLO\r\n\r\n"):
        with connect(server) as connection:
            connection.sendall(garbage)
            assert response(connection)[0] == 400


def test_clients_that_leave_are_not_waited_for(server: Served) -> None:
    body = json.dumps(
        {"model": server.model, "messages": [{"role": "user", "content": "Bees?"}], "max_tokens": 900, "n": 100}
    ).encode()
    for _ in range(5):
        with connect(server) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
                + KEY.encode()
                + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )


def test_requests_a_minute_are_limited(tiny_llama: Path, tmp_path: Path) -> None:
    with served(tiny_llama, tmp_path / "data", {"rpm": 3}) as limited, limited.raw() as http:
        answers = [http.get("models") for _ in range(5)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
        assert [each.headers["x-ratelimit-remaining-requests"] for each in answers[:3]] == ["2", "1", "0"]
        assert int(answers[3].headers["retry-after"]) in range(1, 22)
        assert answers[3].json()["error"]["type"] == "rate_limit_error"
        with pytest.raises(openai.RateLimitError):
            limited.client().models.list()


def test_an_allowance_fills_evenly() -> None:
    clock = [0.0]
    allowance = Allowance(60, lambda: clock[0])
    for _ in range(60):
        allowance.take()
    with pytest.raises(ApiError) as caught:
        allowance.take()
    assert caught.value.headers["retry-after"] == "1"
    clock[0] = 2.0
    assert allowance.take()["x-ratelimit-remaining-requests"] == "1"
    assert Allowance(0).take() == {}
