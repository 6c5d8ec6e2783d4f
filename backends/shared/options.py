"""What stands under `backend_options`: models of it, checked as the sections of a spec are."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.prices import Price, read_price
from windowshift.core.contract.redaction import REDACTED, Redactor, keys_in_url, remember
from windowshift.core.spec.section import Number, Section
from windowshift.core.spec.spec_errors import sentence

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SECRETS = ("api_key", "apikey", "key", "token", "password", "secret")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Whole = Annotated[int, Field(ge=1)]
WholeOrNone = Annotated[int, Field(ge=0)]
Seconds = Annotated[Number, Field(ge=0)]


class BackendOptions(Section):
    """The options of a backend. No message repeats a value that could be a key.

    Attributes:
        backend: the backend's name.
        key_variable: the environment variable that holds its key; None for a backend that has none.
    """

    backend: ClassVar[str]
    key_variable: ClassVar[str | None] = None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """Check options that a person wrote.

        Raises:
            BackendError: an unknown option (with a suggestion), a value that makes no sense, or a key where only the
                name of one belongs.
        """
        data = dict(options)
        for name in data:
            if cls.key_variable is not None and str(name).lower() in _SECRETS:
                raise BackendError(
                    f"a key does not belong in a spec: take '{name}' out, and put the key into the environment "
                    f"variable {cls.key_variable}, or into another one that  key_env: NAME  names"
                )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            said = Redactor().redact(sentence(error, cls, data))
            raise BackendError(f"backend '{cls.backend}': {said}") from None  # the cause shows values


def variable(example: str) -> BeforeValidator:
    """A check that something is the NAME of an environment variable, or null. What stands there is not repeated."""

    def check(value: object) -> object:
        if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
            raise ValueError(
                f"must be the NAME of an environment variable, e.g. {example}; the key itself belongs there"
            )
        return value

    return BeforeValidator(check)


def address(example: str) -> BeforeValidator:
    """A check that a text is where a server is; a key would not go unencrypted through other networks.

    What stands there is not repeated: it may be a key, or hold one.
    """

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be an address like {example}")
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise ValueError(f"is not an address: write one like {example}") from None
        if REDACTED in value:
            raise ValueError(f"has {REDACTED} where a key was taken out: write the address whole")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must hold no user, password or query")
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not value.isprintable():
            raise ValueError(f"must be like {example}")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK and not _private(parts.hostname):
            raise ValueError(f"would send the key unencrypted to {parts.hostname}: use https://")
        for key in keys_in_url(value):
            remember(key)  # some gateways are asked with the key in the path: it is sent, and never said
        return value.rstrip("/")

    return BeforeValidator(check)


def _priced(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    try:
        return {
            str(model): one if isinstance(one, Price) else read_price(one, f"prices.{model}")
            for model, one in value.items()
        }
    except BackendError as error:
        raise ValueError(str(error)) from None


Prices = Annotated[dict[str, Price], BeforeValidator(_priced)]


def host_of(address: str) -> str:
    """A server's host name; one name for this machine."""
    name = urlsplit(address).hostname or ""
    return "localhost" if name in LOOPBACK else name


def _private(host: str) -> bool:
    """Whether a host is in a network of one's own: a name without a dot, or a private address."""
    if "." not in host and ":" not in host:
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith((".local", ".internal", ".lan"))
