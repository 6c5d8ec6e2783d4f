"""Who is at a service's address, for `doctor` and `plan`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from windowshift.backends.openai.faults import ServiceError
from windowshift.backends.openai.key import Key
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.service import Reached


class Reachable(Protocol):
    """A connection that knows its key, and can ask for the models there are. Both raise BackendError."""

    @property
    def key(self) -> Key:
        """The key."""
        ...

    def models(self) -> Iterable[str]:
        """The names of the models."""
        ...


def reach(address: str, connection: Reachable) -> Reached:
    """Ask a service who it is; nothing is raised, what went wrong stands in the answer."""
    try:
        source = connection.key.source
    except BackendError as error:
        return Reached(address, "missing", False, str(error), ())
    try:
        return Reached(address, source, True, None, tuple(sorted(connection.models())))
    except ServiceError as error:
        return Reached(address, source, error.fault.status is not None, str(error), ())
    except BackendError as error:
        return Reached(address, source, False, str(error), ())
