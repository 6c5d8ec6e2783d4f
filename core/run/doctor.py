"""The doctor: what is installed, which backends work and what they can do, and the workspace's health."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import yaml

import windowshift
from windowshift.core.contract.assets import asset
from windowshift.core.contract.backend import Computing
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.service import Reached, Service
from windowshift.core.sandbox.escapes import prove
from windowshift.core.spec import registry
from windowshift.core.store.connection import store_path
from windowshift.core.store.integrity import check_store, unsealed

SHOWN_MODELS = 5


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """One backend: whether its libraries are there, their versions and those tested, and what it can do.

    `service` is what its server answered, for a backend that has one; without an answer nothing can be run on it.
    `machine` is what one that computes here computes with.
    """

    name: str
    installed: bool
    problem: str | None
    versions: dict[str, str]
    tested: dict[str, str]
    capabilities: dict[str, bool]
    service: Reached | None = None
    machine: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a run on it could begin now."""
        return self.installed and (self.service is None or (self.service.reachable and self.service.problem is None))

    def lines(self) -> list[str]:
        """As lines."""
        can = ", ".join(name.replace("_", " ") for name, there in self.capabilities.items() if there)
        libraries = ", ".join(
            f"{name} {number}{'' if self.tested.get(name) in (None, number) else f', tested {self.tested[name]}'}"
            for name, number in self.versions.items()
        )
        ready = "ready" if self.usable else "not ready"
        state = f"{ready}; can: {can}" if self.installed else self.problem
        found = [f"backend {self.name}: {state}{f' ({libraries})' if libraries else ''}"]
        found += [f"  {line}" for line in self.machine]
        if self.service is not None:
            there = "reachable" if self.service.reachable else "not reachable"
            if self.service.key == "none needed" and self.service.problem:
                found.append(f"  {self.service.address}: {self.service.problem}")
            else:
                found.append(f"  {self.service.address}: key {self.service.key}, {there}")
                found += [f"  {self.service.problem}"] if self.service.problem else []
            if not self.service.problem and self.service.models:
                more = len(self.service.models) - SHOWN_MODELS
                some = ", ".join(self.service.models[:SHOWN_MODELS])
                found.append(f"  models: {some}{f' and {more} more' if more > 0 else ''}")
        return found


@dataclass(frozen=True, slots=True)
class Health:
    """Everything that the doctor found."""

    version: str
    python: str
    backends: tuple[BackendHealth, ...]
    settings: tuple[str, ...]
    workspace: str
    workspace_problems: tuple[str, ...]
    workspace_note: str = ""
    sandbox: str = ""

    @property
    def healthy(self) -> bool:
        """Whether a run could begin on one backend at least, and the workspace is sound."""
        return any(backend.usable for backend in self.backends) and not self.workspace_problems

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        for one, backend in zip(found["backends"], self.backends, strict=True):
            one["usable"] = backend.usable
        return found

    def text(self) -> str:
        """As lines."""
        lines = [f"windowshift {self.version} on Python {self.python}"]
        for backend in self.backends:
            lines += backend.lines()
        lines.append(f"settings: {', '.join(self.settings)}")
        lines.append(f"sandbox for code that models write: {self.sandbox}")
        note = f" ({self.workspace_note})" if self.workspace_note else ""
        lines.append(f"workspace {self.workspace}: {'; '.join(self.workspace_problems) or 'ok'}{note}")
        return "\n".join(lines)


def examine(workspace: Path) -> Health:
    """Examine this installation and a workspace; a workspace that is not there yet is no problem."""
    problems: tuple[str, ...] = ()
    uncompared = 0
    place = f"{workspace} (not there yet)"
    if store_path(workspace).exists():
        place = str(workspace)
        try:
            problems = tuple(check_store(workspace))
            uncompared = unsealed(workspace)
        except WindowshiftError as error:
            problems = (str(error),)
    return Health(
        windowshift.__version__,
        sys.version.split()[0],
        tuple(_backend(name) for name in registry.names(registry.BACKENDS)),
        tuple(registry.names(registry.SETTINGS)),
        place,
        problems,
        f"{uncompared} finished jobs from before there were checksums are not compared" if uncompared else "",
        prove().words,
    )


def _backend(name: str) -> BackendHealth:
    versions, missing = _libraries(name)
    problem = (
        f"not installed: run  pip install 'windowshift[{name}]'  (missing: {', '.join(missing)})" if missing else None
    )
    capabilities: dict[str, bool] = {}
    reached: Reached | None = None
    machine: tuple[str, ...] = ()
    if not missing:
        try:
            backend = registry.backend(name)
            capabilities = asdict(backend.capabilities)
            reached = backend.reach() if isinstance(backend, Service) else None
            machine = backend.machine() if isinstance(backend, Computing) else ()
        except WindowshiftError as error:
            problem = str(error)
    tested = _tested()
    known = {library: tested[library] for library in (*versions, *missing) if library in tested}
    return BackendHealth(name, problem is None, problem, versions, known, capabilities, reached, machine)


def _tested() -> dict[str, str]:
    """The versions that this release was tested with, by library."""
    found: dict[str, str] = yaml.safe_load(asset("tested.yaml").read_text(encoding="utf-8"))
    return found


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
