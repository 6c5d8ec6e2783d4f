"""Who is at a service's address, for `doctor` and `plan`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from windowshift.backends.shared.faults import ServiceError
from windowshift.backends.shared.key import ApiKey
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.service import Reached

SHOWN_NAME = 120  # characters of a model's name


class Reachable(Protocol):
    """A connection that knows its key, and can ask for the models there are. Both raise BackendError."""

    @property
    def key(self) -> ApiKey:
        """The key."""
        ...

    def models(self) -> Iterable[str]:
        """The names of the models."""
        ...


def reach(address: str, connection: Reachable) -> Reached:
    """Ask a service who it is; nothing is raised, what went wrong stands in the answer."""
    try:
        key = connection.key
    except BackendError as error:
        return Reached(address, "missing", False, str(error), ())
    try:
        models = tuple(key.redactor.said(name, SHOWN_NAME) for name in sorted(connection.models()))
        return Reached(address, key.source, True, None, models)
    except ServiceError as error:
        return Reached(address, key.source, error.fault.status is not None, str(error), ())
    except BackendError as error:
        return Reached(address, key.source, False, str(error), ())
