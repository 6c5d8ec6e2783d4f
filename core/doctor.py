"""The doctor: what is installed, which backends work and what they can do, and the workspace's health."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import windowshift
from windowshift.core import registry
from windowshift.core.errors import WindowshiftError
from windowshift.core.integrity import check_store
from windowshift.core.store import store_path


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """One backend: whether its libraries are there, their versions, and what it can do."""

    name: str
    installed: bool
    problem: str | None
    versions: dict[str, str]
    capabilities: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Health:
    """Everything that the doctor found."""

    version: str
    python: str
    backends: tuple[BackendHealth, ...]
    settings: tuple[str, ...]
    workspace: str
    workspace_problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether a backend works and the workspace is sound."""
        return any(backend.installed for backend in self.backends) and not self.workspace_problems

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def text(self) -> str:
        """As lines."""
        lines = [f"windowshift {self.version} on Python {self.python}"]
        for backend in self.backends:
            can = ", ".join(name for name, there in backend.capabilities.items() if there)
            libraries = ", ".join(f"{name} {number}" for name, number in backend.versions.items())
            state = f"ok; can: {can}" if backend.installed else backend.problem
            lines.append(f"backend {backend.name}: {state}{f' ({libraries})' if libraries else ''}")
        lines.append(f"settings: {', '.join(self.settings)}")
        lines.append(f"workspace {self.workspace}: {'; '.join(self.workspace_problems) or 'ok'}")
        return "\n".join(lines)


def examine(workspace: Path) -> Health:
    """Examine this installation and a workspace; a workspace that is not there yet is no problem."""
    problems: tuple[str, ...] = ()
    place = f"{workspace} (not there yet)"
    if store_path(workspace).exists():
        place = str(workspace)
        try:
            problems = tuple(check_store(workspace))
        except WindowshiftError as error:
            problems = (str(error),)
    return Health(
        windowshift.__version__,
        sys.version.split()[0],
        tuple(_backend(name) for name in registry.names(registry.BACKENDS)),
        tuple(registry.names(registry.SETTINGS)),
        place,
        problems,
    )


def _backend(name: str) -> BackendHealth:
    versions, missing = _libraries(name)
    problem = (
        f"not installed: run  pip install 'windowshift[{name}]'  (missing: {', '.join(missing)})" if missing else None
    )
    capabilities: dict[str, bool] = {}
    if not missing:
        try:
            capabilities = asdict(registry.backend(name).capabilities)
        except WindowshiftError as error:
            problem = str(error)
    return BackendHealth(name, problem is None, problem, versions, capabilities)


def _libraries(extra: str) -> tuple[dict[str, str], list[str]]:
    """Versions of the libraries of an extra, and the ones that are not installed."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    for requirement in requires("windowshift") or []:
        name, _, marker = requirement.partition(";")
        if f"extra == '{extra}'" not in marker.replace('"', "'"):
            continue
        library = name.split("[")[0].split("<")[0].split(">")[0].split("=")[0].split("!")[0].split("~")[0].strip()
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            missing.append(library)
    return versions, missing
