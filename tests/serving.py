"""`windowshift serve` inside the test's own process, on loopback, with a backend of the test's choosing."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from openai import AsyncOpenAI, OpenAI

from tests.served import KEY
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.server import ServerOptions, application, server_of
from windowshift.backends.serve.state import ServerState
from windowshift.core.contract.backend import Capabilities, ModelIdentity, StreamingBackend
from windowshift.core.contract.generation import Completion, GenerateRequest, WrittenPiece
from windowshift.core.contract.training import Sft, TrainEvent, TrainJob

MODEL = "gpt2"  # looked up nowhere: a scripted backend needs no folder


@dataclass(frozen=True)
class Serving:
    """A running server."""

    url: str
    data: Path
    model: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = httpx2.URL(self.url)
        return parts.host, parts.port or 80

    def client(self, **options: Any) -> OpenAI:
        """The SDK's client; it does not retry unless a test asks for it."""
        return OpenAI(api_key=KEY, base_url=self.url, **{"max_retries": 0, "timeout": 60, **options})

    def async_client(self) -> AsyncOpenAI:
        """The SDK's asynchronous client."""
        return AsyncOpenAI(api_key=KEY, base_url=self.url, max_retries=0, timeout=60)

    def raw(self) -> httpx2.Client:
        """A plain HTTP client with the key."""
        return httpx2.Client(base_url=f"{self.url}/", headers={"authorization": f"Bearer {KEY}"}, timeout=60)


@contextmanager
def serving(
    backend: StreamingBackend,
    data: Path,
    limits: dict[str, Any] | None = None,
    *,
    model: str = MODEL,
    prepare: Callable[[ServerState], None] = lambda state: None,
    **options: Any,
) -> Iterator[Serving]:
    """Serve until the block ends; `prepare` is called with the open data folder, in the server's thread."""
    state: list[ServerState] = []
    wanted = ServerOptions(
        models=(model,),
        data=data,
        key=KEY,
        sft=Sft(rank=4, learning_rate=2e-2),
        limits=replace(ServerLimits(), **(limits or {})),
        **options,
    )
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    servers: list[uvicorn.Server] = []
    ready, problems = threading.Event(), []

    def run() -> None:
        try:
            state.append(ServerState(data))  # SQLite's connection stays in its thread
            prepare(state[0])
            server = server_of(*application(backend, state[0], wanted, {model: "fp_test"}))
            begun = server.startup

            async def startup(sockets: list[socket.socket] | None = None) -> None:
                await begun(sockets)
                ready.set()

            server.startup = startup  # type: ignore[method-assign]  # the server does not say when it is up
            servers.append(server)
            servers[0].run(sockets=[listening])
        except BaseException as error:
            problems.append(error)
            raise
        finally:
            ready.set()
            for each in state:
                each.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        assert not problems
        yield Serving(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", data, model)
    finally:
        for each in servers:
            each.should_exit = True
        thread.join(60)
        listening.close()


@dataclass
class Words:
    """A backend that writes words, as many as a test lets it; every request gets the same ones.

    Args:
        words: of an answer; those before `thought` are its reasoning.
        pace: released once for each word; None: at once.
    """

    words: Sequence[str]
    thought: int = 0
    pace: threading.Semaphore | None = None
    finish: str = "stop"
    given_up: list[str] = field(default_factory=list)
    asked: list[GenerateRequest] = field(default_factory=list)
    written: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    capabilities = Capabilities(trains=True)

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        """A name."""
        return ModelIdentity(base, "fingerprint")

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        """It does."""
        return True

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Nothing."""
        for job in jobs:
            raise NotImplementedError(job.key)
            yield

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        """As `stream`, without pieces."""
        async for each in self.stream(requests):
            if isinstance(each, Completion):
                yield each

    async def stream(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion | WrittenPiece, None]:
        """Write word after word, of all requests side by side."""
        self.asked += requests
        left = list(requests)
        try:
            thought = told = 0
            for number, word in enumerate(self.words):
                await asyncio.sleep(0)
                while self.pace is not None and not self.pace.acquire(blocking=False):
                    await asyncio.sleep(0.001)
                    if all(each.key in self.given_up for each in left):
                        return
                self.written += 1
                thinking = number < self.thought
                for each in left:
                    if each.pieces:
                        texts = ("", 0, word, thought) if thinking else (word, told, "", thought)
                        yield WrittenPiece(each.key, *texts)
                thought, told = (thought + len(word), told) if thinking else (thought, told + len(word))
            for each in left:
                yield self.completion(each)
        finally:
            self.ended.set()

    def completion(self, request: GenerateRequest) -> Completion:
        """The whole answer."""
        thought = "".join(self.words[: self.thought]) if self.thought else None
        text = "".join(self.words[self.thought :])
        tokens = len(self.words) - self.thought
        return Completion(
            request.key,
            text,
            self.finish,
            tokens,
            7,
            reasoning=thought,
            reasoning_tokens=self.thought,  # type: ignore[arg-type]
        )

    def give_up(self, keys: Sequence[str]) -> None:
        """Remember whom nobody waits for."""
        self.given_up += keys

    async def aclose(self) -> None:
        """Nothing is open."""
