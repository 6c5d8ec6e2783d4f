"""The files of the Batch API: requests in, answers out."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from windowshift.backends.openai.faults import reason_in
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import Name, Said, load_json, read
from windowshift.core.contract.generation import GenerateRequest

ENDPOINT = "/v1/chat/completions"
MOST_LINES = 20_000  # the API takes 50,000 lines and 200 MB
MOST_BYTES = 90_000_000
MOST_LINE_BYTES = 16 << 20  # of an answer


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One line of a batch, and the requests that its answer is for: equal ones share it."""

    id: str
    text: bytes
    requests: tuple[GenerateRequest, ...]


def lines_of(bodies: Sequence[tuple[GenerateRequest, Mapping[str, Any]]]) -> dict[str, RequestLine]:
    """Put requests into lines, by their `custom_id`: a digest of everything that is asked."""
    found: dict[str, RequestLine] = {}
    for request, body in bodies:
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        known = found.get(name)
        if known is not None:
            found[name] = RequestLine(name, known.text, (*known.requests, request))
            continue
        line = json.dumps({"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}, ensure_ascii=False)
        found[name] = RequestLine(name, line.encode("utf-8", "replace") + b"\n", (request,))
    return found


def portions(lines: Sequence[RequestLine], most: int = MOST_LINES) -> Iterator[list[RequestLine]]:
    """Cut lines into batches: one model each, as large as the API takes."""
    by_model: dict[str, list[RequestLine]] = {}
    for line in lines:
        model = line.requests[0].model
        by_model.setdefault(model.adapter or model.base, []).append(line)
    for group in by_model.values():
        portion: list[RequestLine] = []
        size = 0
        for line in group:
            if portion and (len(portion) >= most or size + len(line.text) > MOST_BYTES):
                yield portion
                portion, size = [], 0
            portion.append(line)
            size += len(line.text)
        yield portion


class _Response(Said):
    status_code: Annotated[int, Field(ge=0, le=999)] | None = None
    body: Any = None


class _AnswerLine(Said):
    custom_id: Name
    response: _Response | None = None
    error: Any = None


def answers_of(content: bytes) -> Iterator[tuple[str, int, Any, str]]:
    """Read a file of answers as (custom_id, status, body, error); a line that is no answer is left out.

    One line at a time: what is read takes many times the file's size.
    """
    for line in io.BytesIO(content):  # it ends lines at \n alone: U+2028 may stand in a string
        if len(line) > MOST_LINE_BYTES:
            continue
        try:
            found = read(_AnswerLine, load_json(line))
        except BrokenAnswerError:
            continue
        response = found.response or _Response()
        said = reason_in(response.body) if response.status_code != 200 else ""
        yield found.custom_id, response.status_code or 0, response.body, said or reason_in(found.error)


def token_of(ids: Sequence[str]) -> str:
    """The digest that names a batch: of what is in it, in whatever order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:32]
