"""What a server says, checked: JSON of any kind goes in, values of known types within bounds come out."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from windowshift.backends.shared.faults import BrokenAnswerError, broken
from windowshift.core.contract.redaction import Redactor

REPEATS_KEY = "it repeats the key that it was sent"
LARGEST = (1 << 53) - 1  # the largest whole number that every JSON reader has
LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999, in Unix seconds

M = TypeVar("M", bound=BaseModel)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds characters that no name has")
    return text


def _whole(value: object) -> object:
    """Some servers write 5.0 for 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=0, le=LARGEST), BeforeValidator(_whole)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_printable)]
Moment = Annotated[float, Field(ge=0, le=LAST_MOMENT, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Said(BaseModel):
    """A part of an answer. What is not needed of it is passed over; what is needed has its type, or is refused.

    `kept` are the fields that are used as they are, and stored: an answer that repeats a key there is refused.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    kept: ClassVar[tuple[str, ...]] = ()

    def refuse_key(self, redactor: Redactor) -> None:
        """Look for the key in what is kept.

        Raises:
            BrokenAnswerError: it is there.
        """
        if redactor.holds(" ".join(str(getattr(self, name)) for name in self.kept)):
            raise BrokenAnswerError(REPEATS_KEY)


def read(model: type[M], value: object) -> M:
    """Take from an answer what `model` describes.

    Raises:
        BrokenAnswerError: something is missing, of another type, or beyond all bounds; the place is named, the value
            is not.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:80] or "it"
        if first["type"] == "missing":
            raise BrokenAnswerError(f"'{place}' is missing") from None
        message = first["msg"]
        raise BrokenAnswerError(f"'{place}': {message[:1].lower()}{message[1:]}") from None
    except (RecursionError, MemoryError, OverflowError) as error:
        raise BrokenAnswerError(broken(error)) from None


def load_json(raw: bytes | str) -> Any:
    """Read JSON as a server wrote it.

    Raises:
        BrokenAnswerError: it is none, is nested too deeply, or holds a number that is none or has thousands of digits.
    """
    try:
        return json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise BrokenAnswerError(broken(error)) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
