"""``/v1/models`` and ``/health``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from windowshift.backends.serve.page import listed
from windowshift.backends.serve.service import service


async def index(request: Request) -> Response:
    """List the base models and the fine-tuned ones."""
    return JSONResponse(listed(service(request).models.all(), False, lambda model: model.to_api()))


async def retrieve(request: Request) -> Response:
    """Describe a model."""
    return JSONResponse(service(request).models.get(request.path_params["model"]).to_api())


async def delete(request: Request) -> Response:
    """Delete a fine-tuned model."""
    name = request.path_params["model"]
    service(request).models.delete(name)
    return JSONResponse({"id": name, "object": "model", "deleted": True})


async def health(request: Request) -> Response:  # noqa: ARG001  # an endpoint takes its request
    """Say that the server is up; needs no key."""
    return JSONResponse({"status": "ok"})


ROUTES = [
    Route("/health", health, methods=["GET"]),
    Route("/v1/models", index, methods=["GET"]),
    Route("/v1/models/{model:path}", retrieve, methods=["GET"]),  # hub ids have a slash
    Route("/v1/models/{model:path}", delete, methods=["DELETE"]),
]
