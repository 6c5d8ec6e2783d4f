"""Names of files and folders as people write them: with a tilde for a home folder."""

from __future__ import annotations

import os
from pathlib import Path


def at_home(name: str | Path) -> Path:
    """A path with the home folder in place of a leading tilde; that of a user who is not there stays as it is.

    `Path.expanduser` raises for such a user, and whoever looks for the file then says that it is not there.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - see above
