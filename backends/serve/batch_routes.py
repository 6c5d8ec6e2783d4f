"""``/v1/batches``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from windowshift.backends.serve.api_error import ApiError, refuse_full
from windowshift.backends.serve.batches import UNFINISHED, BatchRequest
from windowshift.backends.serve.body import parse
from windowshift.backends.serve.page import ListPage, listed
from windowshift.backends.serve.service import service


async def create(request: Request) -> Response:
    """Store a batch and queue it."""
    here = service(request)
    wanted = await parse(request, BatchRequest)
    file = here.files.get(wanted.input_file_id, param="input_file_id", status=400)
    if file.purpose != "batch":
        raise ApiError(
            400, f"file '{file.id}' was uploaded for '{file.purpose}', not for 'batch'", param="input_file_id"
        )
    refuse_full("batches", len(here.batches.unfinished()), here.limits.batches)
    batch = here.batches.create(wanted, here.files.path(file))
    here.batch_runner.asked()
    return JSONResponse(batch.to_api())


async def index(request: Request) -> Response:
    """List batches."""
    batches, more = service(request).batches.page(ListPage.parse(request.query_params))
    return JSONResponse(listed(batches, more, lambda batch: batch.to_api()))


async def retrieve(request: Request) -> Response:
    """Describe a batch."""
    return JSONResponse(service(request).batches.get(request.path_params["batch"]).to_api())


async def cancel(request: Request) -> Response:
    """Cancel a batch."""
    here = service(request)
    batch = here.batches.get(request.path_params["batch"])
    if batch.status not in UNFINISHED:
        raise ApiError(400, f"batch '{batch.id}' is {batch.status} already and cannot be cancelled")
    return JSONResponse(here.batch_runner.cancel(batch).to_api())


ROUTES = [
    Route("/v1/batches", create, methods=["POST"]),
    Route("/v1/batches", index, methods=["GET"]),
    Route("/v1/batches/{batch}", retrieve, methods=["GET"]),
    Route("/v1/batches/{batch}/cancel", cancel, methods=["POST"]),
]
