"""What failed on screen, with its traceback, in a file: a panel has room for a sentence."""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.whole_file import within

MOST_BYTES = 4 << 20
"""A screen that fails at every look fills no disk: of so many bytes, two files are kept."""


def note(workspace: Path, error: BaseException) -> str:
    """Append an error to the workspace's log, else to one in the user's state folder; return where it is written.

    A store that is gone must not leave a folder behind: only a workspace that is there is written to.
    """
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{''.join(traceback.format_exception(error))}\n"
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "windowshift"
    for root, parts in [(workspace, ("logs", "tui.log"))] * workspace.is_dir() + [(home, ("tui.log",))]:
        try:
            path = within(root, *parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.stat().st_size > MOST_BYTES:
                path.replace(path.with_name("tui.log.1"))
            with path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except (OSError, StoreError):
            continue
        return str(path)
    return "nowhere: no log file can be written"
