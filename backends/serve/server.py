"""Puts the parts together and serves them."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from windowshift.backends.local.model_folder import tiny
from windowshift.backends.serve import batch_routes, file_routes, job_routes, model_routes, sampling_routes
from windowshift.backends.serve.api_error import ApiError, answer_error, answer_unexpected
from windowshift.backends.serve.batch_runner import BatchRunner
from windowshift.backends.serve.batches import Batches
from windowshift.backends.serve.connection import protocol
from windowshift.backends.serve.files import Files
from windowshift.backends.serve.gate import RequestGate
from windowshift.backends.serve.jobs import Jobs
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.request_log import RequestLog, RequestLogFile
from windowshift.backends.serve.sampling_queue import SamplingQueue
from windowshift.backends.serve.sampling_request import SamplingRequest
from windowshift.backends.serve.served_models import ServedModels
from windowshift.backends.serve.service import RunningServer
from windowshift.backends.serve.state import ServerState
from windowshift.backends.serve.trainer import Trainer
from windowshift.core.contract.backend import StreamingBackend
from windowshift.core.contract.errors import SpecError, WindowshiftError
from windowshift.core.contract.redaction import Redactor
from windowshift.core.contract.training import Sft
from windowshift.core.store.lock import hold

KEEP_ALIVE_SECONDS = 30
GOODBYE_SECONDS = 5
_ROUTES = (file_routes, job_routes, model_routes, sampling_routes, batch_routes)


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
        log: where the request log goes; None for nowhere.
        log_texts: whether it has prompts and answers.
    """

    models: tuple[str, ...]
    data: Path
    key: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    jobs_at_once: int = 1
    sft: Sft = field(default_factory=Sft)
    limits: ServerLimits = field(default_factory=ServerLimits)
    log: Path | None = None
    log_texts: bool = False


def serve(backend: StreamingBackend, options: ServerOptions, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is called with the base URL once connections are taken.

    Raises:
        BackendError: a model cannot be found.
        SpecError: the address cannot be listened on.
        StoreError: the data folder cannot be used.
        WorkspaceBusyError: another server holds the data folder.
    """
    fingerprints = {name: f"fp_{backend.identify(name).fingerprint[:10]}" for name in options.models}
    with hold(options.data, "windowshift serve", mode=0o700), _listening(options.host, options.port) as listening:
        state = ServerState(options.data)
        try:
            server = server_of(*application(backend, state, options, fingerprints))
            ready(_url(listening))
            server.run(sockets=[listening])
        finally:
            state.close()


def application(
    backend: StreamingBackend, state: ServerState, options: ServerOptions, fingerprints: dict[str, str]
) -> tuple[ASGIApp, RunningServer]:
    """The server as an ASGI application, and its parts; jobs start, and end, with its lifespan."""
    files, jobs = Files(state), Jobs(state)
    trainer = Trainer(backend, state, jobs, files, options.sft, at_once=options.jobs_at_once, limits=options.limits)
    sampling = SamplingQueue(backend, calls=_calls(options.models), waiting=options.limits.waiting)
    models = ServedModels(state, options.models, int(time.time()))

    async def answer(wanted: SamplingRequest) -> dict[str, Any]:
        return await sampling_routes.answer(found, wanted)

    batches = Batches(state)
    runner = BatchRunner(answer, state, batches, files, options.limits)
    found = RunningServer(
        state.folder, files, jobs, models, trainer, sampling, batches, runner, options.limits, fingerprints
    )

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
        await asyncio.gather(trainer.aclose(), sampling.aclose())
        await backend.aclose()

    app = Starlette(
        routes=[route for each in _ROUTES for route in each.ROUTES],
        lifespan=lifespan,
        exception_handlers={
            **dict.fromkeys((ApiError, HTTPException, WindowshiftError, OSError, sqlite3.Error), answer_error),
            Exception: answer_unexpected,
        },
    )
    app.router.redirect_slashes = False
    gate = RequestGate(app, key=options.key, limits=options.limits)
    if options.log is None:
        return gate, found
    redactor = Redactor([options.key])
    return RequestLog(gate, file=RequestLogFile(options.log), redactor=redactor, texts=options.log_texts), found


class _Server(uvicorn.Server):
    """Tells clients in good time that it goes down, before their requests are cut off."""

    def __init__(self, config: uvicorn.Config, service: RunningServer) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS / 2, self._service.sampling.give_up)
        await super().shutdown(sockets)


def server_of(app: ASGIApp, service: RunningServer) -> uvicorn.Server:
    """What puts the application on a socket."""
    config = uvicorn.Config(
        app,
        http=protocol(service.limits),
        loop="asyncio",  # not uvloop wherever some other package brought it: one server, tested as one
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    return _Server(config, service)


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
