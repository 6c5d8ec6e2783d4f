"""Errors that reach a person: one clear sentence each, with its exit code (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from windowshift.core.contract.redaction import sentence


class WindowshiftError(Exception):
    """What is wrong, where, and what to do, in one sentence."""

    exit_code = 2

    def __init__(self, said: object) -> None:
        super().__init__(sentence(said))


class SpecError(WindowshiftError):
    """The spec, an input file or an argument is wrong."""


@contextmanager
def told_of_files() -> Iterator[None]:
    """What a file system says of a name in a spec (too long, no permission, a device that is gone), as one sentence.

    Raises:
        SpecError: in place of any `OSError`.
    """
    try:
        yield
    except OSError as error:
        name = str(error.filename or "")
        place = f"{name if len(name) <= 200 else f'{name[:200]} ...'}: " if name else ""
        raise SpecError(f"{place}{error.strerror or error}: name another file") from error


class StoreError(WindowshiftError):
    """The workspace cannot be opened, read or written."""


class WorkspaceBusyError(StoreError):
    """Another run holds the workspace."""


class BackendError(WindowshiftError):
    """A backend cannot do what was asked: a missing extra, an unknown model, a failed request."""

    exit_code = 1


class UnaskedError(BackendError):
    """A service could not be asked: there is no key, or nobody answers.

    A run ends with it; a plan says what the run would take, and that nothing was checked there.
    """


class SandboxError(WindowshiftError):
    """Code that a model wrote cannot be run apart from everything else here."""


class MissingExtraError(BackendError):
    """A library of an optional extra is not installed.

    Args:
        what: what needs the library, e.g. ``backend 'local'``.
        extra: the extra that installs it, e.g. ``local``.
        library: the module that did not import.
    """

    exit_code = 2

    def __init__(self, what: str, extra: str, library: str) -> None:
        super().__init__(
            f"{what} needs the library '{library}', which is not installed: run  pip install 'windowshift[{extra}]'"
        )
