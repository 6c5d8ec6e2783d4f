"""Copying: the system's clipboard, else the terminal's (OSC 52), and always a file; says which it was."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import os
import re
import time
from pathlib import Path

from windowshift.core.contract.whole_file import within

LONGEST = 74_000
"""Bytes of text that terminals take in one OSC 52 sequence: most stop at 100 kB of base64."""


def osc52(text: str, *, tmux: bool) -> str:
    """Return the sequence that puts text on the terminal's clipboard; tmux passes a wrapped one through."""
    bare = f"\x1b]52;c;{base64.b64encode(text.encode()).decode('ascii')}\x07"
    if not tmux:
        return bare
    # Both: the wrapped one needs allow-passthrough, the bare one set-clipboard, and neither disturbs the other.
    return "\x1bPtmux;" + bare.replace("\x1b", "\x1b\x1b") + "\x1b\\" + bare


def in_tmux() -> bool:
    """Tell whether the screens run inside tmux."""
    return bool(os.environ.get("TMUX"))


def system_clipboard(text: str) -> bool:
    """Put text on the system's clipboard where pyperclip is installed and finds one; tell whether it did."""
    if importlib.util.find_spec("pyperclip") is None:
        return False
    try:
        importlib.import_module("pyperclip").copy(text)
    except Exception:  # no clipboard, no display, no helper program: the terminal is next
        return False
    return True


def write_copy(workspace: Path, name: str, suffix: str, text: str, now: float) -> Path:
    """Write a copy into the workspace's `copied` folder and return its path.

    Raises:
        OSError: the folder cannot be written.
        StoreError: it is not in the workspace.
    """
    folder = within(workspace, "copied")
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")[:60] or "text"
    path = folder / f"{stamp}-{clean}{suffix}"
    path.write_text(text, encoding="utf-8", errors="replace")
    return path
