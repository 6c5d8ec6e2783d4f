"""A server with limits, on loopback: `python -m tests.limited_server [--rpm N] [--window] [--delay S] ...`.

It answers chat completions with a text made from the request, under a limit of requests a minute, and
has the files and batches of the Batch API, which no server that can be run here has. It prints its
port, counts what it sees, and shows the counts at ``/counts``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import time
from collections import Counter, deque
from typing import Any

from aiohttp import web

KEY = "sk-limited-0123456789"


def text_of(body: dict[str, Any]) -> str:
    """The text that a request is answered with."""
    asked = json.dumps([body["messages"], body.get("seed")], sort_keys=True)
    return f"answer {hashlib.sha256(asked.encode()).hexdigest()[:8]}"


class LimitedServer:
    """The server.

    Args:
        rpm: requests a minute; 0 is no limit.
        window: count requests in the last `span` seconds, in place of a bucket that fills evenly.
        span: the seconds that the limit is counted in; shorter ones make a test quick.
        delay: seconds before an answer.
        quiet: send no ``x-ratelimit`` headers.
    """

    def __init__(self, rpm: int, *, window: bool, span: float, delay: float, quiet: bool) -> None:
        self.rpm, self.window, self.span, self.delay, self.quiet = rpm, window, span, delay, quiet
        self.level, self.at = 1.0, time.monotonic()
        self.recent: deque[float] = deque()
        self.counts: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.most_open = self.open = 0

    def _admit(self) -> float:
        """Seconds until a request may come; 0: it may come now."""
        if not self.rpm:
            return 0.0
        now = time.monotonic()
        if self.window:
            while self.recent and self.recent[0] <= now - self.span:
                self.recent.popleft()
            if len(self.recent) >= self.rpm * self.span / 60:
                return self.recent[0] + self.span - now
            self.recent.append(now)
            return 0.0
        rate = self.rpm / 60
        self.level = min(max(1.0, rate), self.level + (now - self.at) * rate)
        self.at = now
        if self.level < 1:
            return (1 - self.level) / rate
        self.level -= 1
        return 0.0

    async def chat(self, request: web.Request) -> web.Response:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            body = await request.json()
            if request.headers.get("Authorization") != f"Bearer {KEY}":
                self.counts["wrong key"] += 1
                sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
                return problem(401, f"Incorrect API key provided: {sent}", "invalid_api_key")
            wait = self._admit()
            headers = {}
            if self.rpm and not self.quiet:
                headers = {"x-ratelimit-limit-requests": str(self.rpm), "x-ratelimit-remaining-requests": "1"}
            if wait > 0:
                self.counts["refused"] += 1
                headers["retry-after-ms"] = str(max(1, round(wait * 1000)))
                return problem(429, "slow down", "rate_limit_exceeded", headers)
            self.counts["answered"] += 1
            if self.delay:
                await asyncio.sleep(self.delay)
            return web.json_response(completion(body), headers=headers)
        finally:
            self.open -= 1

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        held = form["file"]
        assert isinstance(held, web.FileField)
        name = f"file-{len(self.files)}"
        self.files[name] = held.file.read()
        shown = {"filename": held.filename, "purpose": form["purpose"], "bytes": len(self.files[name])}
        return web.json_response({"id": name, "object": "file", "created_at": 0, "status": "processed", **shown})

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["name"]])

    async def create_batch(self, request: web.Request) -> web.Response:
        body = await request.json()
        number = f"batch-{len(self.batches)}"
        self.counts["batches"] += 1
        self.batches[number] = {
            "id": number, "object": "batch", "endpoint": body["endpoint"], "completion_window": "24h",
            "input_file_id": body["input_file_id"], "created_at": int(time.time()), "status": "in_progress",
            "metadata": body.get("metadata"),
        }  # fmt: skip
        asyncio.get_running_loop().call_later(self.delay, self._finish, number)
        return web.json_response(self.batches[number])

    def _finish(self, number: str) -> None:
        answers, errors = [], []
        for line in self.files[self.batches[number]["input_file_id"]].splitlines():
            asked = json.loads(line)
            self.counts["batched"] += 1
            if asked["body"]["model"] == "unknown":
                wrong = {"error": {"message": "there is no model 'unknown'", "code": "model_not_found"}}
                errors.append({"custom_id": asked["custom_id"], "response": {"status_code": 404, "body": wrong}})
            else:
                found = {"status_code": 200, "body": completion(asked["body"])}
                answers.append({"custom_id": asked["custom_id"], "response": found, "error": None})
        for field, rows in (("output_file_id", answers), ("error_file_id", errors)):
            if rows:
                name = f"file-{len(self.files)}"
                self.files[name] = "\n".join(map(json.dumps, rows)).encode()
                self.batches[number][field] = name
        self.batches[number]["status"] = "completed"

    async def batch(self, request: web.Request) -> web.Response:
        return web.json_response(self.batches[request.match_info["name"]])

    async def list_batches(self, request: web.Request) -> web.Response:
        found = list(self.batches.values())[::-1]
        return web.json_response({"object": "list", "data": found, "has_more": False})

    async def models(self, request: web.Request) -> web.Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in ("small", "judge")]
        return web.json_response({"object": "list", "data": listed})

    async def show_counts(self, request: web.Request) -> web.Response:
        return web.json_response({**self.counts, "most_open": self.most_open})

    def app(self) -> web.Application:
        made = web.Application(client_max_size=1 << 28)
        made.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/files", self.upload),
                web.get("/v1/files/{name}/content", self.content),
                web.post("/v1/batches", self.create_batch),
                web.get("/v1/batches/{name}", self.batch),
                web.get("/v1/batches", self.list_batches),
                web.get("/v1/models", self.models),
                web.get("/counts", self.show_counts),
            ]
        )
        return made


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a chat request."""
    text, logprobs = text_of(body), None
    if body["model"] == "judge":  # a number by the length of the question; a tenth of its mind is elsewhere
        number = len(body["messages"][-1]["content"]) % 10
        text = str(number)
        if body.get("logprobs"):
            top = [(text, 0.6), (str(number + 1), 0.3), ("maybe", 0.1)]
            shown = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in top]
            logprobs = {"content": [{**shown[0], "top_logprobs": shown}], "refusal": None}
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def problem(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error in the API's format."""
    error = {"message": message, "type": "error", "code": code, "param": None}
    return web.json_response({"error": error}, status=status, headers=headers)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rpm", type=int, default=0)
    parser.add_argument("--window", action="store_true")
    parser.add_argument("--span", type=float, default=60.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--quiet", action="store_true")
    chosen = parser.parse_args()
    server = LimitedServer(chosen.rpm, window=chosen.window, span=chosen.span, delay=chosen.delay, quiet=chosen.quiet)
    runner = web.AppRunner(server.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[attr-defined]  # noqa: T201  # the test reads it
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
