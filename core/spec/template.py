"""Templates: the example specs that ship, for `windowshift init`."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.assets import asset
from windowshift.core.contract.errors import SpecError
from windowshift.core.spec import registry
from windowshift.core.spec.spec_errors import did_you_mean


@dataclass(frozen=True, slots=True)
class Template:
    """An example spec; `warnings` are what a person should know before running it."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """The first comment line."""
        return self.text.split("\n", 1)[0].removeprefix("#").strip()

    @property
    def warnings(self) -> list[str]:
        """The comment lines that begin with ``# Note:``."""
        return [line.removeprefix("# Note:").strip() for line in self.text.splitlines() if line.startswith("# Note:")]


def templates() -> list[Template]:
    """All templates by name."""
    return [Template(path.stem, path.read_text(encoding="utf-8")) for path in sorted(asset("specs").glob("*.yaml"))]


def rehearsals() -> dict[str, Template]:
    """The rehearsals of settings on their embedded models, by setting, that of lengths first."""
    found = {item.name: item for item in templates()}
    settings = [name for name in registry.names(registry.SETTINGS) if name.replace("_", "-") in found]
    return {"length": found["demo"], **{name: found[name.replace("_", "-")] for name in settings}}


def find_template(name: str) -> Template:
    """One template by name.

    Raises:
        SpecError: there is none of that name.
    """
    found = {item.name: item for item in templates()}
    if name not in found:
        raise SpecError(f"there is no template '{name}'{did_you_mean(name, found)}")
    return found[name]
