"""What client 0.38 asks for and SkyRL's API lacks or says otherwise, on SkyRL's own tables and futures.

Run ids are the client's, ``session:train:0``, written ``session-train-0`` inside, as SkyRL takes no colons. A
checkpoint's time to live is kept as a date in a table of its own; what has expired is gone, as if it was deleted.
"""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from safetensors import safe_open
from skyrl.tinker import api, types
from skyrl.tinker.db_models import CheckpointDB, CheckpointStatus, FutureDB, ModelDB, RequestStatus, SessionDB
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.tinker_server import wire

PROTOBUF = "application/x-protobuf"
PATIENCE = 20.0  # seconds that one question for a result may wait
ALPHA = 32.0  # Tinker's LoRA alpha
KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
EXTERNAL = "external-"

Handler = Callable[..., Awaitable[Any]]
_Session = Depends(api.get_session)


class Expiry(SQLModel, table=True):
    """When a checkpoint expires, in Unix seconds."""

    path: str = Field(primary_key=True)
    at: float


class AdamParams(api.AdamParams):
    """What the client sends, clipping included."""

    grad_clip_norm: float = 0.0


class OptimStepInput(types.OptimStepInput):
    """What the engine gets."""

    adam_params: AdamParams  # type: ignore[assignment]


def inside(model: str) -> str:
    """A run id as SkyRL takes it."""
    return model.replace(":", "-")


def outside(model: str) -> str:
    """A run id as the client writes it."""
    return model.replace("-train-", ":train:")


def install(app: FastAPI, key: str) -> None:
    """Add the routes before SkyRL's own."""
    rest = list(app.router.routes)
    app.router.routes.clear()
    run = "/training_runs/{model}/checkpoints"
    for method, path, handler in (
        ("POST", "/create_session", create_session),
        ("POST", "/create_model", create_model),
        ("POST", "/load_weights", load_weights),
        ("POST", "/get_info", get_info),
        ("POST", "/forward_backward", forward_backward),
        ("POST", "/optim_step", optim_step),
        ("POST", "/save_weights", save_weights),
        ("POST", "/save_weights_for_sampler", save_weights_for_sampler),
        ("POST", "/save_weights_external", save_weights_external),
        ("POST", "/create_sampling_session", create_sampling_session),
        ("POST", "/asample", asample),
        ("POST", "/retrieve_future", retrieve_future),
        ("POST", "/sessions/{session_id}/finish", finish_session),
        ("GET", "/get_server_capabilities", capabilities),
        ("GET", "/training_runs", training_runs),
        ("GET", "/checkpoints", all_checkpoints),
        ("GET", run, list_checkpoints),
        ("GET", f"{run}/{{kind}}/{{name}}/external_weights_urls", external_urls),
        ("GET", f"{run}/{{kind}}/{{name}}/file/{{file}}", external_file),
        ("PUT", f"{run}/{{kind}}/{{name}}/ttl", set_ttl),
        ("DELETE", f"{run}/{{kind}}/{{name}}", delete_checkpoint),
    ):
        app.router.add_api_route(f"/api/v1{path}", handler, methods=[method], response_model=None)
    app.router.routes.extend(rest)

    @app.middleware("http")
    async def authenticated(request: Request, proceed: Handler) -> Any:
        if request.url.path.endswith("/healthz") or "/file/" in request.url.path:  # signed addresses carry no key
            return await proceed(request)
        if request.headers.get("x-api-key") != key:
            return JSONResponse({"detail": "Invalid API key"}, 401)
        return await proceed(request)


# -- runs -----------------------------------------------------------------------------------------


async def _body(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await request.body())
    return found


def _promise(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": str(number), **more}


async def _put(session: AsyncSession, kind: types.RequestType, model: str, data: Any) -> int:
    number = await api.create_future(session=session, request_type=kind, model_id=model, request_data=data)
    await session.commit()
    return number


def _offered(request: Request, name: str) -> None:
    mine = request.app.state.engine_config.base_model
    if name != mine:
        raise HTTPException(400, f"base_model {name} is not supported")


async def _begin(session: AsyncSession, model: str, session_id: str, base: str, config: types.LoraConfig) -> int:
    if await session.get(SessionDB, session_id) is None:
        raise HTTPException(404, "Session not found")
    data = types.CreateModelInput(lora_config=config)
    number = await api.create_future(
        session=session, request_type=types.RequestType.CREATE_MODEL, model_id=model, request_data=data
    )
    session.add(
        ModelDB(
            model_id=model,
            base_model=base,
            lora_config=config.model_dump(),
            status="created",
            request_id=number,
            session_id=session_id,
        )
    )
    return number


async def create_session(request: Request, session: AsyncSession = _Session) -> Any:
    """A session, alive from now on: SkyRL forgets none that never beat."""
    made = await api.create_session(api.CreateSessionRequest.model_validate(await _body(request)), session)
    row = await session.get(SessionDB, made.session_id)
    assert row is not None
    row.last_heartbeat_at = datetime.now(UTC)
    session.add(row)
    await session.commit()
    return made


async def create_model(request: Request, session: AsyncSession = _Session) -> Any:
    """A new run."""
    said = await _body(request)
    _offered(request, said["base_model"])
    asked = said["lora_config"]
    if asked["rank"] > (most := request.app.state.engine_config.backend_config["max_lora_rank"]):
        raise HTTPException(400, f"LoRA rank {asked['rank']} is above the maximum of {most}")
    if asked.get("train_unembed", True):
        raise HTTPException(400, "this server does not train the unembedding")
    config = types.LoraConfig(rank=asked["rank"], alpha=ALPHA, seed=asked.get("seed") or 0)
    model = f"{said['session_id']}-train-{said['model_seq_id']}"
    number = await _begin(session, model, said["session_id"], said["base_model"], config)
    await session.commit()
    return _promise(number, model_id=outside(model))


async def load_weights(request: Request, session: AsyncSession = _Session) -> Any:
    """A new run from a state with its optimizer."""
    said = await _body(request)
    if not said.get("optimizer") or "session_id" not in said:
        raise HTTPException(400, "this server loads states into new runs, with their optimizer")
    source, kind, name = _parse(said["path"])
    if kind != "weights":
        raise HTTPException(400, f"{said['path']} is no training checkpoint")
    await _there(request, session, source, kind, name)
    row = await api.get_model(session, source)
    model = f"{said['session_id']}-train-{said['model_seq_id']}"
    config = types.LoraConfig.model_validate(row.lora_config)
    await _begin(session, model, said["session_id"], row.base_model, config)
    data = types.LoadWeightsInput(source_model_id=source, checkpoint_id=name)
    return _promise(await _put(session, types.RequestType.LOAD_WEIGHTS, model, data))


async def get_info(request: Request, session: AsyncSession = _Session) -> Any:
    """What a run is."""
    said = await _body(request)
    row = await api.get_model(session, inside(said["model_id"]))
    config = types.LoraConfig.model_validate(row.lora_config)
    data = {"model_name": row.base_model, "tokenizer_id": None, "arch": "llama"}
    return {"type": "get_info", "model_id": said["model_id"], "model_data": data, "is_lora": True,
            "lora_rank": config.rank}  # fmt: skip


async def forward_backward(request: Request, session: AsyncSession = _Session) -> Any:
    """One pass, with gradients or without."""
    body = await request.body()
    if request.headers.get("content-encoding") == "zstd":
        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    said, forward_only = wire.read_model_pass(body)
    model = inside(said["model_id"])
    await api.get_model(session, model)
    data = api.ForwardBackwardInput.model_validate(said["input"]).to_types()
    kind = types.RequestType.FORWARD if forward_only else types.RequestType.FORWARD_BACKWARD
    return _promise(await _put(session, kind, model, data))


async def optim_step(request: Request, session: AsyncSession = _Session) -> Any:
    """One optimizer step."""
    said = await _body(request)
    model = inside(said["model_id"])
    await api.get_model(session, model)
    data = OptimStepInput(adam_params=AdamParams.model_validate(said["adam_params"]))
    return _promise(await _put(session, types.RequestType.OPTIM_STEP, model, data))


async def finish_session(session_id: str, session: AsyncSession = _Session) -> Any:
    """A client is done: its runs leave the memory."""
    rows = await session.exec(select(ModelDB).where(ModelDB.session_id == session_id, ModelDB.status != "unloaded"))
    for row in rows.all():
        await api.create_future(
            session=session,
            request_type=types.RequestType.UNLOAD_MODEL,
            model_id=row.model_id,
            request_data=types.UnloadModelInput(),
        )
    if (found := await session.get(SessionDB, session_id)) is not None:
        found.status = "finished"
        session.add(found)
    await session.commit()
    return {}


# -- sampling and results -------------------------------------------------------------------------


async def create_sampling_session(request: Request, session: AsyncSession = _Session) -> Any:
    """Refuse here what cannot be sampled from, not with every sample."""
    said = await _body(request)
    if said.get("base_model") and not said.get("model_path"):
        _offered(request, said["base_model"])
    if said.get("model_path"):
        model, kind, name = _parse(said["model_path"])
        await _there(request, session, model, kind, name)
        said = {**said, "model_path": f"tinker://{model}/{kind}/{name}", "base_model": None}
    return await api.create_sampling_session(api.CreateSamplingSessionRequest.model_validate(said), session)


async def asample(request: Request, session: AsyncSession = _Session) -> Any:
    """Sample."""
    asked = api.SampleRequest.model_validate(await _body(request))
    found = await api.asample(asked, request, session)
    return _promise(int(found.request_id), sample_sequence_ids=[
        f"{found.request_id}-{index}" for index in range(asked.num_samples)
    ])  # fmt: skip


async def retrieve_future(request: Request) -> Any:
    """Wait for a result; after a while the client asks again."""
    number = int((await _body(request))["request_id"])
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        async with AsyncSession(request.app.state.db_engine) as session:
            future = await session.get(FutureDB, number)
            if future is None:
                raise HTTPException(404, "Future not found")
            if future.status == RequestStatus.COMPLETED:
                return _result(future.request_type, future.result_data or {})
            if future.status == RequestStatus.FAILED:
                said = (future.result_data or {}).get("error", "Unknown error")
                return {"error": str(said), "category": "user"}
        await asyncio.sleep(0.02)
    return {"type": "try_again", "request_id": str(number), "queue_state": "active"}


def _result(kind: types.RequestType, data: dict[str, Any]) -> Any:
    if kind in (types.RequestType.FORWARD, types.RequestType.FORWARD_BACKWARD):
        return Response(wire.write_model_pass(data), media_type=PROTOBUF)
    if kind == types.RequestType.SAMPLE:
        return Response(wire.write_samples(data), media_type=PROTOBUF)
    if isinstance(model := data.get("model_id"), str):
        data = {**data, "model_id": outside(model)}
    if isinstance(path := data.get("path"), str):
        model, folder, name = _parse(path)
        if name.startswith(EXTERNAL):
            folder, name = "external_weights", name.removeprefix(EXTERNAL)
        data = {**data, "path": f"tinker://{outside(model)}/{folder}/{name}"}
        if folder == "external_weights":
            data["type"] = "save_weights_external"
    return data


async def capabilities(request: Request) -> Any:
    """What is offered."""
    config = request.app.state.engine_config
    said = json.loads((Path(config.base_model) / "config.json").read_text(encoding="utf-8"))
    row = {"model_name": config.base_model, "max_context_length": said["max_position_embeddings"]}
    return {"supported_models": [{**row, "trainable": True, "sampleable": True}]}


# -- checkpoints ----------------------------------------------------------------------------------


def _parse(path: str) -> tuple[str, str, str]:
    parts = path.removeprefix("tinker://").split("/")
    if not path.startswith("tinker://") or len(parts) not in (2, 3) or (len(parts) == 3 and parts[1] not in KINDS):
        raise HTTPException(400, f"{path} is no checkpoint")
    return inside(parts[0]), parts[1] if len(parts) == 3 else "sampler_weights", parts[-1]


def _row(kind: str, name: str) -> tuple[str, types.CheckpointType]:
    """A checkpoint's key in SkyRL's table: external weights are sampler weights with a name of their own."""
    if kind == "external_weights":
        return f"{EXTERNAL}{name}", types.CheckpointType.SAMPLER
    return name, types.CheckpointType.TRAINING if kind == "weights" else types.CheckpointType.SAMPLER


async def _there(request: Request, session: AsyncSession, model: str, kind: str, name: str) -> CheckpointDB:
    stored, kept = _row(kind, name)
    row = await session.get(CheckpointDB, (model, stored, kept))
    expiry = await session.get(Expiry, f"{model}/{kind}/{name}")
    if row is None or row.status != CheckpointStatus.COMPLETED or (expiry is not None and expiry.at <= time.time()):
        raise HTTPException(404, f"Checkpoint tinker://{outside(model)}/{kind}/{name} not found")
    return row


async def _save(request: Request, session: AsyncSession, kind: str, ask: Callable[[str], Any]) -> Any:
    said = await _body(request)
    model, name = inside(said["model_id"]), said["path"]
    stored, kept = _row(kind, name)
    ttl = said.get("ttl_seconds")
    if ttl is not None and ttl < 3600:
        raise HTTPException(400, "ttl_seconds must be at least 3600")
    await api.create_checkpoint(session=session, model_id=model, checkpoint_id=stored, checkpoint_type=kept)
    if ttl is not None:
        session.add(Expiry(path=f"{model}/{kind}/{name}", at=time.time() + ttl))
    request_kind = types.RequestType.SAVE_WEIGHTS if kind == "weights" else types.RequestType.SAVE_WEIGHTS_FOR_SAMPLER
    return _promise(await _put(session, request_kind, model, ask(stored)))


async def save_weights(request: Request, session: AsyncSession = _Session) -> Any:
    """Save a state."""
    return await _save(request, session, "weights", lambda name: types.SaveWeightsInput(path=name))


async def save_weights_for_sampler(request: Request, session: AsyncSession = _Session) -> Any:
    """Save sampler weights."""
    return await _save(request, session, "sampler_weights", lambda name: types.SaveWeightsForSamplerInput(path=name))


async def save_weights_external(request: Request, session: AsyncSession = _Session) -> Any:
    """Save weights for downloading."""
    return await _save(request, session, "external_weights", lambda name: types.SaveWeightsForSamplerInput(path=name))


async def _list(session: AsyncSession, model: str | None) -> list[dict[str, Any]]:
    query = select(CheckpointDB).where(CheckpointDB.status == CheckpointStatus.COMPLETED)
    rows = (await session.exec(query if model is None else query.where(CheckpointDB.model_id == model))).all()
    found = []
    for row in rows:
        kind, name = (
            ("weights" if row.checkpoint_type == types.CheckpointType.TRAINING else "sampler_weights"),
            (row.checkpoint_id),
        )
        if name.startswith(EXTERNAL):
            kind, name = "external_weights", name.removeprefix(EXTERNAL)
        expiry = await session.get(Expiry, f"{row.model_id}/{kind}/{name}")
        if expiry is not None and expiry.at <= time.time():
            continue
        at = None if expiry is None else datetime.fromtimestamp(expiry.at, UTC).isoformat()
        when = row.completed_at or row.created_at
        found.append(
            {
                "checkpoint_id": f"{kind}/{name}",
                "checkpoint_type": KINDS[kind],
                "time": when.replace(tzinfo=UTC).isoformat(),
                "tinker_path": f"tinker://{outside(row.model_id)}/{kind}/{name}",
                "expires_at": at,
            }
        )
    return found


async def list_checkpoints(model: str, session: AsyncSession = _Session) -> Any:
    """The checkpoints of a run."""
    await api.get_model(session, inside(model))
    return {"checkpoints": await _list(session, inside(model))}


async def all_checkpoints(session: AsyncSession = _Session) -> Any:
    """All checkpoints."""
    found = await _list(session, None)
    return {"checkpoints": found, "cursor": {"offset": 0, "limit": len(found), "total_count": len(found)}}


async def training_runs(session: AsyncSession = _Session) -> Any:
    """All runs."""
    rows = (await session.exec(select(ModelDB))).all()
    found = [
        {
            "training_run_id": outside(row.model_id),
            "base_model": row.base_model,
            "model_owner": "tests",
            "is_lora": True,
            "lora_rank": row.lora_config["rank"],
            "last_request_time": row.created_at.replace(tzinfo=UTC).isoformat(),
        }
        for row in rows
    ]
    return {"training_runs": found, "cursor": {"offset": 0, "limit": len(found), "total_count": len(found)}}


async def set_ttl(request: Request, model: str, kind: str, name: str, session: AsyncSession = _Session) -> Any:
    """Change how long a checkpoint lives."""
    await _there(request, session, inside(model), kind, name)
    ttl = (await _body(request)).get("ttl_seconds")
    path = f"{inside(model)}/{kind}/{name}"
    if (old := await session.get(Expiry, path)) is not None:
        await session.delete(old)
        await session.flush()
    if ttl is not None:
        session.add(Expiry(path=path, at=time.time() + ttl))
    await session.commit()
    return {}


async def delete_checkpoint(
    request: Request, model: str, kind: str, name: str, session: AsyncSession = _Session
) -> Any:
    """Delete a checkpoint."""
    await session.delete(await _there(request, session, inside(model), kind, name))
    await session.commit()
    return {}


def _archive(request: Request, model: str, name: str) -> dict[str, bytes]:
    base = request.app.state.engine_config.checkpoints_base
    path = base / inside(model) / "sampler_weights" / f"{EXTERNAL}{name}.tar.gz"
    found = {}
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:gz") as archive:
        for member in archive.getmembers():
            if member.isfile() and member.name.endswith((".json", ".safetensors")):
                found[Path(member.name).name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return found


async def external_urls(request: Request, model: str, kind: str, name: str, session: AsyncSession = _Session) -> Any:
    """Where the files of external weights can be fetched."""
    await _there(request, session, inside(model), kind, name)
    place = str(request.url).removesuffix("/external_weights_urls")
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    return {"urls": {file: f"{place}/file/{file}" for file in _archive(request, model, name)}, "expires": expires}


async def external_file(request: Request, model: str, kind: str, name: str, file: str) -> Any:
    """One file of external weights; the configuration names the modules, which SkyRL leaves to PEFT's guess."""
    files = await asyncio.to_thread(_archive, request, model, name)
    content = files[file]
    if file == "adapter_config.json":
        said = json.loads(content)
        weights = Path(request.app.state.engine_config.checkpoints_base) / f"{inside(model)}-{name}.safetensors"
        weights.write_bytes(files["adapter_model.safetensors"])
        with safe_open(weights, "np") as tensors:
            said["target_modules"] = sorted({key.split(".lora_")[0].rsplit(".", 1)[-1] for key in list(tensors.keys())})
        weights.unlink()
        said["task_type"] = "CAUSAL_LM"
        content = json.dumps(said).encode()
    return Response(content, media_type="application/octet-stream")
