"""Shows a workspace in this terminal until the user leaves."""

from __future__ import annotations

import gc
from pathlib import Path

from windowshift.tui.app import WindowshiftApp
from windowshift.tui.read import places
from windowshift.tui.read.deep_link import DeepLink
from windowshift.tui.text import terminal


def run(
    workspace: Path,
    *,
    link: DeepLink | None = None,
    experiment: str | None = None,
    mouse: bool = True,
    state: Path | None = None,
) -> int:
    """Show a workspace until the user leaves; return the exit code.

    Args:
        workspace: the folder; it may be absent or empty, and fill later.
        link: open this experiment, row or cell, as soon as it is there.
        experiment: the same for an experiment as a whole.
        mouse: take mouse events; without them the terminal's own selection works.
        state: the file that keeps the place between two starts; by default one in the user's state folder.

    Raises:
        SpecError: there is no terminal that can show screens.
    """
    terminal.check()
    opened = link or (DeepLink(experiment) if experiment else None)
    app = WindowshiftApp(workspace, link=opened, state=state or places.state_file(workspace))
    terminal.adapt(app)
    try:
        app.run(mouse=mouse)
    finally:
        gc.enable()
    return app.return_code or 0
