"""`python -m windowshift`, and the short way to the screens.

`windowshift tui` should be on screen at once, and reading its few options needs no command-line
library: everything else, and every mistake, goes to `windowshift.cli`.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Screens:
    """What `windowshift tui` was asked for."""

    workspace: Path
    place: str | None = None
    mouse: bool = True


def screens_asked_for(arguments: Sequence[str]) -> Screens | None:
    """Read `tui [WORKSPACE] [--open PLACE] [--no-mouse]`; None for anything else, which the command line explains."""
    if list(arguments[:1]) != ["tui"] or os.environ.get("WINDOWSHIFT_DEBUG") == "1":
        return None
    workspace, place, mouse = None, None, True
    rest = list(arguments[1:])
    while rest:
        word = rest.pop(0)
        if word == "--open" and rest and not rest[0].startswith("-"):
            place = rest.pop(0)
        elif word in ("--mouse", "--no-mouse"):
            mouse = word == "--mouse"
        elif workspace is None and word and not word.startswith("-"):
            workspace = word
        else:
            return None
    named = workspace or os.environ.get("WINDOWSHIFT_WORKSPACE") or "workspace"
    # A file is a bundle, which is opened first.
    return None if Path(named).is_file() else Screens(Path(named), place, mouse)


def main() -> None:
    """Open the screens, or run the command line."""
    asked = screens_asked_for(sys.argv[1:])
    if asked is None:
        from windowshift.cli import main as run_command_line

        run_command_line()
        return
    gc.disable()  # the first picture comes a twelfth sooner; the app switches it on again
    from windowshift.core.contract import sanitise
    from windowshift.core.contract.errors import WindowshiftError
    from windowshift.core.contract.terminal import guard

    guard()
    try:
        from windowshift.tui.launch import run
        from windowshift.tui.read.deep_link import parse_link

        link = parse_link(asked.place) if asked.place is not None else None
        code = run(asked.workspace, link=link, mouse=asked.mouse)
    except WindowshiftError as error:
        sys.stderr.write(f"windowshift: {sanitise.line(str(error), len(str(error)))}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code)


if __name__ == "__main__":
    main()
