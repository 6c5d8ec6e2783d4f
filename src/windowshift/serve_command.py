"""`windowshift serve`: the local backend behind the OpenAI API."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.say import say

KEY_ENV = "WINDOWSHIFT_SERVE_KEY"
KEY_LENGTH = 16


def serve(
    models: Annotated[
        list[str], typer.Option("--model", "-m", help="A base model: microworld, a folder or a hub id; repeatable.")
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of uploads, jobs and fine-tuned models.")] = Path(
        "served"
    ),
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="Another interface than loopback; others can reach it.")
    ] = "127.0.0.1",
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", help=f"Environment variable with the bearer key. Default: {KEY_ENV}, or a new key."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Fine-tuning jobs that train at the same time.")] = 1,
    rank: Annotated[int, typer.Option("--rank", min=1, help="LoRA rank.")] = 32,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="What learning_rate_multiplier 1 stands for.")
    ] = 1.6e-4,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of backend 'local', e.g. dtype=float32."),
    ] = None,
    rpm: Annotated[int, typer.Option("--rpm", min=0, help="Requests a minute; 0 is no limit.")] = 0,
    upload_mb: Annotated[int, typer.Option("--upload-mb", min=1, help="The largest upload.")] = 512,
    log: Annotated[
        Path | None, typer.Option("--log", help="The request log. Default: requests.jsonl in the data folder.")
    ] = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Keep no request log.")] = False,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Prompts and answers in the request log, too.")
    ] = False,
) -> None:
    """Serve models behind the OpenAI API: files, fine-tuning jobs, chats, completions, responses, batches."""
    key, new = _key(key_env)
    try:
        from windowshift.backends.serve.limits import MIB, ServerLimits
        from windowshift.backends.serve.server import ServerOptions
        from windowshift.backends.serve.server import serve as run
    except ModuleNotFoundError as error:
        raise MissingExtraError("'windowshift serve'", "server", error.name or "?") from error
    from windowshift.core.contract.backend import StreamingBackend
    from windowshift.core.contract.training import Sft
    from windowshift.core.spec import registry
    from windowshift.tui.serve import loopback

    if no_log and (log is not None or log_texts):
        raise SpecError("--no-log contradicts --log and --log-texts: leave one of them out")
    if not learning_rate > 0:
        raise SpecError(f"--learning-rate must be above 0, got {learning_rate}")

    log_file = None if no_log else log or data / "requests.jsonl"

    def ready(url: str) -> None:
        say(f"serving {', '.join(models)} at {url} (data in {data})")
        if new:
            say(f"API key, shown this once: {key}")
        else:
            say(f"API key: the one in the environment variable {key_env or KEY_ENV}")
        if log_file is not None:
            say(f"request log: {log_file} ({'with' if log_texts else 'without'} prompts and answers)")
        if not loopback(host):
            say("warning: others can reach this address, and the connection is not encrypted", err=True)

    wanted = ServerOptions(
        models=tuple(models),
        data=data,
        key=key,
        host=host,
        port=port,
        jobs_at_once=jobs,
        sft=Sft(rank=rank, learning_rate=learning_rate),
        limits=replace(ServerLimits(), rpm=rpm, upload_bytes=upload_mb * MIB),
        log=log_file,
        log_texts=log_texts,
    )
    backend = registry.backend("local", {"progress_seconds": 0, **_options(options or [])})
    assert isinstance(backend, StreamingBackend)
    run(backend, wanted, ready)


def _key(key_env: str | None) -> tuple[str, bool]:
    """The bearer key, and whether it is a new one. It leaves the environment, so that no child process has it."""
    name = key_env or KEY_ENV
    key = os.environ.pop(name, "")
    if not key:
        if key_env is not None:
            raise SpecError(f"the environment variable {name} of --key-env is not set")
        return f"sk-{secrets.token_urlsafe(32)}", True
    if len(key) < KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise SpecError(f"the key in {name} must have at least {KEY_LENGTH} printable characters and no spaces")
    return key, False


def _options(pairs: list[str]) -> dict[str, Any]:
    """Options of the backend, their values read as YAML reads them."""
    from windowshift.core.spec.yaml_text import read_yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SpecError(f"--option takes NAME=VALUE, e.g. dtype=float32, not '{pair}'")
        found[name] = read_yaml(value, f"--option {name}")
    return found
