"""``/v1/files``."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.page import ListPage, listed
from windowshift.backends.serve.service import RunningServer, service
from windowshift.backends.serve.training_file import count, lines

PURPOSES = ("fine-tune", "batch")
_FIELD_BYTES = 64 * 1024


async def upload(request: Request) -> Response:
    """Take a file in; a training file is checked line by line before it is kept."""
    here = service(request)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "an upload must be multipart/form-data with the fields 'file' and 'purpose'")
    async with request.form(max_files=1, max_fields=8, max_part_size=_FIELD_BYTES) as form:
        file, purpose = form.get("file"), form.get("purpose")
        unknown = sorted(set(form) - {"file", "purpose"})
        if unknown:
            raise ApiError(400, f"this server does not offer '{unknown[0][:40]}' for files", param=unknown[0][:40])
        if not isinstance(file, UploadFile):
            raise ApiError(400, "the form has no file in its field 'file'", param="file")
        if purpose not in PURPOSES:
            raise ApiError(400, f"purpose must be one of {', '.join(PURPOSES)}", param="purpose")
        held = await asyncio.to_thread(_keep, here, file.file, str(purpose))
        try:
            stored = here.files.add(held, file.filename or "", str(purpose))
        except BaseException:
            here.files.drop(held)
            raise
        return JSONResponse(stored.to_api())


def _keep(here: RunningServer, content: BinaryIO, purpose: str) -> tuple[str, int]:
    if purpose == "fine-tune":
        count(content, here.limits.line_bytes)
    else:
        for _ in lines(content, here.limits.line_bytes):
            pass
    content.seek(0)
    return here.files.hold(content)


async def index(request: Request) -> Response:
    """List files."""
    page = ListPage.parse(request.query_params, limit=10_000, most=10_000)
    files, more = service(request).files.page(page, request.query_params.get("purpose"))
    return JSONResponse(listed(files, more, lambda file: file.to_api()))


async def retrieve(request: Request) -> Response:
    """Describe a file."""
    return JSONResponse(service(request).files.get(request.path_params["file"]).to_api())


async def content(request: Request) -> Response:
    """Give a file's content back."""
    files = service(request).files
    file = files.get(request.path_params["file"])
    return FileResponse(files.path(file), media_type="application/octet-stream")


async def delete(request: Request) -> Response:
    """Delete a file."""
    files = service(request).files
    file = files.get(request.path_params["file"])
    files.delete(file)
    return JSONResponse({"id": file.id, "object": "file", "deleted": True})


ROUTES = [
    Route("/v1/files", upload, methods=["POST"]),
    Route("/v1/files", index, methods=["GET"]),
    Route("/v1/files/{file}", retrieve, methods=["GET"]),
    Route("/v1/files/{file}", delete, methods=["DELETE"]),
    Route("/v1/files/{file}/content", content, methods=["GET"]),
]
