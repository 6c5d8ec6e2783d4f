"""Checks of what a person wrote under `backend_options`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.prices import read_price

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SECRETS = ("api_key", "key", "token", "password", "secret")


@dataclass(frozen=True, slots=True)
class OptionChecks:
    """Says of one backend's options what is wrong with them. No message repeats a value that could be a key.

    Attributes:
        backend: the backend's name.
        key_env: the environment variable that holds its key; None for a backend that has none.

    Every check raises `BackendError` with one sentence.
    """

    backend: str
    key_env: str | None = None

    def names(self, options: Mapping[str, Any], known: Sequence[str]) -> None:
        """Every option is a known one, and none is a key."""
        for name in options:
            if self.key_env is not None and str(name).lower() in _SECRETS:
                raise BackendError(
                    f"a key does not belong in a spec: take '{name}' out, and put the key into the environment "
                    f"variable {self.key_env}, or into another one that  key_env: NAME  names"
                )
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known options: {', '.join(known)}"
                raise BackendError(f"backend '{self.backend}' has no option '{name}': {hint}")

    def address(self, value: object, example: str) -> str:
        """Where a server is, without a slash at its end; a key would not go unencrypted through other networks."""
        this = f"option 'base_url' of backend '{self.backend}'"
        if not isinstance(value, str):
            raise BackendError(f"{this} must be an address, got {value!r}")
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            raise BackendError(f"{this} is not an address") from error
        if parts.username or parts.password or parts.query:
            # Not repeated: what stands there is a key, most likely.
            raise BackendError(f"{this} must hold no user, password or query")
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise BackendError(f"{this} must be like {example}, got '{value}'")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK and not _private(parts.hostname):
            raise BackendError(f"{this} would send the key unencrypted to {parts.hostname}: use https://")
        return value.rstrip("/")

    def variable(self, value: object) -> None:
        """The NAME of an environment variable, or None."""
        if value is not None and not (isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)):
            raise BackendError(
                f"option 'key_env' of backend '{self.backend}' must be the NAME of an environment variable, e.g. "
                f"{self.key_env}; the key itself belongs into that variable"
            )

    def flags(self, options: Mapping[str, Any], names: Collection[str]) -> None:
        """Options that are true or false."""
        for name in names:
            if not isinstance(options.get(name, False), bool):
                raise BackendError(
                    f"option '{name}' of backend '{self.backend}' must be true or false, got {options[name]!r}"
                )

    def number(
        self, options: Mapping[str, Any], name: str, least: float, *, whole: bool = False, shown: str | None = None
    ) -> None:
        """A finite number of at least `least`, which is `shown` so; an option that is not there is fine."""
        value = options.get(name, least)
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
            raise BackendError(
                f"option '{name}' of backend '{self.backend}' must be a number of at least {shown or f'{least:g}'}, "
                f"got {value!r}"
            )

    def mapping(self, options: Mapping[str, Any], name: str) -> None:
        """An option with options of its own."""
        if not isinstance(options.get(name, {}), Mapping):
            raise BackendError(f"option '{name}' of backend '{self.backend}' must be a mapping, got {options[name]!r}")

    def prices(self, options: dict[str, Any]) -> None:
        """Prices by model, which are read in their place."""
        self.mapping(options, "prices")
        if "prices" in options:
            options["prices"] = {
                str(model): read_price(value, f"option 'prices.{model}'") for model, value in options["prices"].items()
            }


def host_of(address: str) -> str:
    """A server's host name; one name for this machine."""
    name = urlsplit(address).hostname or ""
    return "localhost" if name in LOOPBACK else name


def _private(host: str) -> bool:
    """Whether a host is in a network of one's own: a name without a dot, or a private address."""
    if "." not in host and ":" not in host:
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith((".local", ".internal", ".lan"))
