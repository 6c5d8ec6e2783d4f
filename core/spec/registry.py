"""Backends and settings by name, through entry points, so that another package can add one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import MissingExtraError, SpecError
from windowshift.core.contract.setting import Setting
from windowshift.core.spec.spec_errors import did_you_mean, sentence

BACKENDS = "windowshift.backends"
SETTINGS = "windowshift.settings"


def names(group: str) -> list[str]:
    """The names registered under an entry-point group."""
    return sorted({point.name for point in entry_points(group=group)})


def backend(name: str, options: Mapping[str, Any] | None = None) -> Backend:
    """Make a backend.

    Raises:
        SpecError: no backend has that name.
        BackendError: its extra is not installed, or an option is wrong.
    """
    made: Backend = _load(BACKENDS, name, "backend")(dict(options or {}))
    return made


def setting(name: str, options: Mapping[str, Any] | None = None, folder: Path = Path()) -> Setting:
    """Make a setting.

    A setting that takes options has a pydantic model of them as its `Options`, and takes one in its constructor.

    Args:
        name: the setting.
        options: what stands beside its name in the spec.
        folder: where the files that options name (`section.SpecFile`) are looked for first.

    Raises:
        SpecError: no setting has that name, or an option is unknown or wrong.
    """
    made = _load(SETTINGS, name, "setting")
    model: type[BaseModel] | None = getattr(made, "Options", None)
    given = dict(options or {})
    if model is None:
        if given:
            raise SpecError(f"setting: '{name}' takes no options: leave out '{min(given)}'")
        plain: Setting = made()
        return plain
    try:
        read = model.model_validate(given, context={"folder": folder})
    except ValidationError as error:
        said = sentence(error, model, given).removeprefix("the spec: ")
        raise SpecError(f"setting {name}: {said}") from error
    chosen: Setting = made(read)
    return chosen


def _load(group: str, name: str, what: str) -> Any:
    found: list[EntryPoint] = [point for point in entry_points(group=group) if point.name == name]
    if not found:
        raise SpecError(f"there is no {what} '{name}'{did_you_mean(name, names(group))}")
    try:
        return found[0].load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{what} '{name}'", name, error.name or "?") from error
