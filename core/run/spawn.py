"""Starting a run as a process of its own, which outlives the screens that started it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from windowshift.core.contract.child import python_module
from windowshift.core.contract.whole_file import within


def launch(spec_file: Path, workspace: Path) -> int:
    """Start `windowshift run` in a new session and return its process id.

    What it prints goes to ``logs/launch.log`` in the workspace.

    Raises:
        StoreError: that place is not in the workspace.
    """
    log = within(workspace, "logs", "launch.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = python_module("windowshift", "run", str(spec_file), "--workspace", str(workspace))
    with log.open("ab") as out:
        # A new session: closing the terminal, or losing ssh, does not end the run.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    return process.pid
