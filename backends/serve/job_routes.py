"""``/v1/fine_tuning/jobs``."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from windowshift.backends.serve.api_error import ApiError, refuse_full
from windowshift.backends.serve.body import parse
from windowshift.backends.serve.job_listing import checkpoint_to_api, event_to_api, metadata_filter
from windowshift.backends.serve.job_request import JobRequest
from windowshift.backends.serve.page import ListPage, listed
from windowshift.backends.serve.service import RunningServer, service
from windowshift.backends.serve.training_file import count


async def create(request: Request) -> Response:
    """Store a job and queue it."""
    here = service(request)
    wanted = await parse(request, JobRequest)
    chosen = wanted.chosen()
    here.models.trainable(wanted.model)
    refuse_full("fine-tuning jobs", len(here.jobs.unfinished()), here.limits.jobs)
    data = _training_data(here, wanted.training_file, "training_file")
    examples = await asyncio.to_thread(_count, data, here.limits.line_bytes)
    unlearned = None
    if wanted.validation_file is not None:
        unlearned = _training_data(here, wanted.validation_file, "validation_file")
        await asyncio.to_thread(_count, unlearned, here.limits.line_bytes)
    refuse_full("fine-tuning jobs", len(here.jobs.unfinished()), here.limits.jobs)  # others came while it was counted
    seed = secrets.randbelow(2**31) if wanted.seed is None else wanted.seed
    job = here.jobs.create(wanted, chosen.resolve(examples), examples, seed, data, unlearned)
    here.jobs.log(job, f"Created fine-tuning job: {job.id}")
    here.trainer.asked()
    return JSONResponse(job.to_api())


def _training_data(here: RunningServer, file_id: str, param: str) -> Path:
    file = here.files.get(file_id, param=param, status=400)
    if file.purpose != "fine-tune":
        raise ApiError(400, f"file '{file.id}' was uploaded for '{file.purpose}', not for 'fine-tune'", param=param)
    return here.files.path(file)


def _count(data: Path, line_bytes: int) -> int:
    with data.open("rb") as file:
        return count(file, line_bytes)


async def index(request: Request) -> Response:
    """List jobs."""
    here = service(request)
    jobs, more = here.jobs.page(ListPage.parse(request.query_params), metadata_filter(request.query_params))
    return JSONResponse(listed(jobs, more, lambda job: job.to_api(here.trainer.estimated_finish(job))))


async def retrieve(request: Request) -> Response:
    """Describe a job."""
    here = service(request)
    job = here.jobs.get(request.path_params["job"])
    return JSONResponse(job.to_api(here.trainer.estimated_finish(job)))


async def cancel(request: Request) -> Response:
    """Cancel a job."""
    here = service(request)
    job = here.jobs.get(request.path_params["job"])
    if job.finished:
        raise ApiError(400, f"job '{job.id}' has {job.status} already and cannot be cancelled")
    return JSONResponse((await here.trainer.cancel(job)).to_api())


async def events(request: Request) -> Response:
    """List a job's events, the newest first."""
    here = service(request)
    rows, more = here.jobs.events(here.jobs.get(request.path_params["job"]), ListPage.parse(request.query_params))
    return JSONResponse(listed(rows, more, event_to_api))


async def checkpoints(request: Request) -> Response:
    """List a job's checkpoints, the newest first."""
    here = service(request)
    job = here.jobs.get(request.path_params["job"])
    rows, more = here.jobs.checkpoints(job, ListPage.parse(request.query_params, limit=10))
    return JSONResponse(listed(rows, more, partial(checkpoint_to_api, job)))


ROUTES = [
    Route("/v1/fine_tuning/jobs", create, methods=["POST"]),
    Route("/v1/fine_tuning/jobs", index, methods=["GET"]),
    Route("/v1/fine_tuning/jobs/{job}", retrieve, methods=["GET"]),
    Route("/v1/fine_tuning/jobs/{job}/cancel", cancel, methods=["POST"]),
    Route("/v1/fine_tuning/jobs/{job}/events", events, methods=["GET"]),
    Route("/v1/fine_tuning/jobs/{job}/checkpoints", checkpoints, methods=["GET"]),
]
