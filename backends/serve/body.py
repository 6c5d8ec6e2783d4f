"""The JSON body of a request, as a checked model."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from windowshift.backends.serve.api_error import ApiError
from windowshift.core.spec.spec_errors import sentence

M = TypeVar("M", bound=BaseModel)


async def parse(request: Request, model: type[M]) -> M:
    """Read and check a body.

    Raises:
        ApiError: it is not JSON, or not what `model` describes; the place is named.
    """
    try:
        value = load_json(await request.body())
    except ValueError as error:
        raise ApiError(400, f"the request's body is not valid JSON: {error}") from error
    return check(value, model)


def load_json(raw: bytes) -> Any:
    """Read JSON that can be written again as UTF-8.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a number or a text that is none.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_not_json)
        if b"\\ud" in raw.lower():  # half of a surrogate pair would fail only later, in the store or the tokenizer
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start + 1})") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text in it holds half of a surrogate pair") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def check(value: Any, model: type[M]) -> M:
    """Check a body that is JSON already.

    Raises:
        ApiError: it is not what `model` describes; the place is named.
    """
    if not isinstance(value, dict):
        raise ApiError(400, "the request's body must be a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        unknown = [item for item in found if item["type"] == "extra_forbidden"]
        place = (unknown or found)[0]["loc"]
        code = "unknown_parameter" if unknown else None
        param = str(place[0]) if place else None
        raise ApiError(400, sentence(error, model, value), param=param, code=code) from error


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
