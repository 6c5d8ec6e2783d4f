"""Where the package's data files are."""

from __future__ import annotations

from pathlib import Path

import windowshift


def asset(name: str) -> Path:
    """Return the path of a data file or folder that ships with windowshift.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    path = Path(windowshift.__file__).parent / "assets" / name
    if not path.exists():
        raise FileNotFoundError(f"windowshift was installed without its asset {name}: install it again")
    return path
