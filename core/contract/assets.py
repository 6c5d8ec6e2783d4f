"""Where the package's data files are."""

from __future__ import annotations

from pathlib import Path

import windowshift

MICROWORLD = "microworld"
"""The embedded model of lengths, and the name by which a spec asks for the one of its setting."""


def is_embedded(model: str) -> bool:
    """Whether a model is one of the rehearsal models that ship with the package, by its name."""
    return model == MICROWORLD or (model.startswith(f"{MICROWORLD}-") and asset_exists(model))


def asset_exists(name: str) -> bool:
    """Whether a file or folder of that name ships with the package."""
    return "/" not in name and (Path(windowshift.__file__).parent / "assets" / name).exists()


def asset(name: str) -> Path:
    """Return the path of a data file or folder that ships with windowshift.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    path = Path(windowshift.__file__).parent / "assets" / name
    if not path.exists():
        raise FileNotFoundError(f"windowshift was installed without its asset {name}: install it again")
    return path
