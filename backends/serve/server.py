"""Puts the parts together and serves them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from windowshift.backends.local.model_folder import tiny
from windowshift.backends.serve import batch_routes, chat_routes, file_routes, job_routes, model_routes
from windowshift.backends.serve.api_error import ApiError, answer_error
from windowshift.backends.serve.batch_runner import BatchRunner
from windowshift.backends.serve.batches import Batches
from windowshift.backends.serve.chat_answer import ChatAnswer
from windowshift.backends.serve.chat_queue import ChatQueue
from windowshift.backends.serve.chat_request import ChatRequest
from windowshift.backends.serve.connection import protocol
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.gate import Gate
from windowshift.backends.serve.jobs import Jobs
from windowshift.backends.serve.limits import Limits
from windowshift.backends.serve.served_models import ServedModels
from windowshift.backends.serve.service import Service
from windowshift.backends.serve.state import State
from windowshift.backends.serve.trainer import Trainer
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.training import Sft
from windowshift.core.store.lock import hold

KEEP_ALIVE_SECONDS = 30
GOODBYE_SECONDS = 5
_ROUTES = (file_routes, job_routes, model_routes, chat_routes, batch_routes)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server is started with.

    Attributes:
        models: base models, by the names that clients use.
        data: the folder of files, jobs and adapters.
        key: the bearer key; never stored or logged.
        host: the interface; loopback unless a person chose otherwise.
        port: 0 takes a free one.
        jobs_at_once: fine-tuning jobs that train at the same time.
        sft: LoRA hyperparameters that the API does not set.
        limits: what clients may ask for.
    """

    models: tuple[str, ...]
    data: Path
    key: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    jobs_at_once: int = 1
    sft: Sft = field(default_factory=Sft)
    limits: Limits = field(default_factory=Limits)


def serve(backend: Backend, options: ServerOptions, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is called with the base URL once connections are taken.

    Raises:
        BackendError: a model cannot be found.
        SpecError: the address cannot be listened on.
        StoreError: the data folder cannot be used.
        WorkspaceBusyError: another server holds the data folder.
    """
    fingerprints = {name: f"fp_{backend.identify(name).fingerprint[:10]}" for name in options.models}
    with hold(options.data, "windowshift serve"), _listening(options.host, options.port) as listening:
        state = State(options.data)
        try:
            app = application(backend, state, options, fingerprints)
            config = uvicorn.Config(
                app,
                http=protocol(options.limits),
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GOODBYE_SECONDS,
            )
            ready(_url(listening))
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            state.close()


def application(backend: Backend, state: State, options: ServerOptions, fingerprints: dict[str, str]) -> Gate:
    """The server as an ASGI application; jobs start, and end, with its lifespan."""
    files, jobs = Files(state), Jobs(state)
    trainer = Trainer(backend, state, jobs, files, options.sft, at_once=options.jobs_at_once, limits=options.limits)
    chats = ChatQueue(backend, calls=_calls(options.models), waiting=options.limits.waiting)
    models = ServedModels(state, options.models, int(time.time()))

    async def answer(wanted: ChatRequest) -> ChatAnswer:
        return await chat_routes.answer(found, wanted)

    batches = Batches(state)
    runner = BatchRunner(answer, state, batches, files, options.limits)
    found = Service(files, jobs, models, trainer, chats, batches, runner, options.limits, fingerprints)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.service = found
        files.sweep()
        jobs.sweep()
        batches.sweep()
        trainer.wake()
        runner.wake()
        yield
        await runner.aclose()
        await asyncio.gather(trainer.aclose(), chats.aclose())
        await backend.aclose()

    app = Starlette(
        routes=[route for each in _ROUTES for route in each.ROUTES],
        lifespan=lifespan,
        exception_handlers={ApiError: answer_error, HTTPException: answer_error, Exception: answer_error},
    )
    app.router.redirect_slashes = False
    return Gate(app, key=options.key, limits=options.limits)


def _calls(models: Sequence[str]) -> int:
    """Calls of the backend at once: one for each worker process that very small models get, or two that take turns."""
    return max(2, os.cpu_count() or 1) if all(map(tiny, models)) else 2


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(1024)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"cannot listen on {host}:{port} ({reason}): choose another --port or --host") from error
    return found


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
