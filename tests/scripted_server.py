"""A server on loopback that answers as a test says, however wrong that is."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer: a body as bytes, as JSON, or as pieces that are sent one by one without a length."""

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Asked], Reply]


@dataclass
class Scripted:
    """A running server: where it is, and what it was asked."""

    port: int
    asked: list[Asked]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def options(self) -> dict[str, object]:
        """Options of backend `openai` that give up soon."""
        return {"base_url": self.base_url, "tries": 2, "backoff": 0.01, "poll": 0.01, "settle": 0.05, "patience": 0.3}


@contextmanager
def scripted(answer: Answer) -> Iterator[Scripted]:
    """Run a server while the block lasts."""
    asked: list[Asked] = []
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            one = Asked(self.command, self.path, dict(self.headers), body)
            asked.append(one)
            reply = answer(one)
            headers = {"Content-Type": "application/json", **reply.headers}
            with suppress(OSError):  # the client has had enough
                if isinstance(reply.body, Iterator):
                    self._begin(reply.status, {**headers, "Connection": "close"})
                    for piece in reply.body:
                        if ended.is_set():
                            break
                        self.wfile.write(piece)
                        self.wfile.flush()
                    self.close_connection = True
                else:
                    raw = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                    self._begin(reply.status, {**headers, "Content-Length": str(len(raw))})
                    self.wfile.write(raw)

        def _begin(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815  # the names that the library looks for

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield Scripted(server.server_port, asked)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def drip(pieces: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    """Send pieces slowly."""
    pause = threading.Event()
    for piece in pieces:
        yield piece
        pause.wait(seconds)


def completion(message: Mapping[str, Any] | None = None, finish: object = "stop", **more: Any) -> dict[str, Any]:
    """A chat completion; `more` stands above its usage and what else there is."""
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes.", **(message or {})},
                     "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        **more,
    }  # fmt: skip
