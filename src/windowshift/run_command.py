"""Running a spec from the command line, with a progress bar and one sentence for every failure."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windowshift.core.contract.errors import WindowshiftError
from windowshift.say import say

if TYPE_CHECKING:
    from windowshift.core.contract.progress import Progress
    from windowshift.core.run.run import Preview
    from windowshift.core.spec.spec import Spec
    from windowshift.notify import Notifier
    from windowshift.tracking import Tracking


def run_here(
    spec: Spec,
    text: str,
    folder: Path,
    workspace: Path,
    *,
    wait: bool = False,
    quiet: bool = False,
    vectors_only: bool = False,
    anyway: bool = False,
    until_decided: bool = False,
    cell: tuple[str, str, str, int] | None = None,
    notify: Sequence[Notifier] = (),
    track: Sequence[str] = (),
) -> int:
    """Run a spec to its end in this process; the exit code.

    `notify` is told how it ended, whatever ended it; the trackers of `track` all that came of it.
    """
    from windowshift.core.run.preflight import when_stopped
    from windowshift.core.run.run import run_spec
    from windowshift.progress_bar import progress_bar

    began = time.monotonic()
    last: list[Progress] = []
    followed: list[Tracking] = []

    def follow() -> None:
        # Not before the run has the workspace: while it waits for it, another one has trackers of its own.
        if track and not followed:
            from windowshift.tracking import Tracking

            followed.extend(Tracking(name, workspace, spec.name) for name in track)

    def tell(state: str, code: int, failures: int = 0, error: str | None = None) -> None:
        if notify:
            from windowshift.notify import Ending, tell

            done, cells = (last[-1].cells_done, last[-1].cells) if last else (0, 0)
            seconds = time.monotonic() - began
            tell(notify, Ending(spec.name, state, code, seconds, done, cells, failures, error))
        if state != "error":
            follow()
        for one in followed:
            one.over(state)
        for one in followed:
            one.wait()

    try:
        with progress_bar(spec.name, quiet=quiet) as observe:

            def seen(progress: Progress) -> None:
                last[:] = [progress]
                observe(progress)
                follow()

            outcome = run_spec(
                spec,
                text,
                folder,
                workspace,
                wait=wait,
                vectors_only=vectors_only,
                anyway=anyway,
                until_decided=until_decided,
                cell=cell,
                observe=seen,
                waiting=lambda sentence: say(sentence, err=True),
                announce=_announce,
                on_stop=say_stopping,
            )
    except WindowshiftError as error:
        tell("error", error.exit_code, error=str(error))
        raise
    except KeyboardInterrupt:
        tell("interrupted", 130)
        raise
    for failure in outcome.failures:
        say(f"failed: {failure}", err=True)
    for gate in outcome.preflight.gates if outcome.preflight else ():
        if not gate.passed:
            say(f"preflight, {gate.name}: {gate.said}", err=True)
    if outcome.stopped:
        when = when_stopped(outcome.preflight) if outcome.preflight else "before anything was trained"
        said = f"stopped by its preflight {when}; --anyway goes on, and is recorded"
        say(f"{spec.name}: {said}", err=True)
        tell(outcome.state, outcome.exit_code, len(outcome.failures), said)
        return outcome.exit_code
    if outcome.look is not None:
        from windowshift.core.run.plan_page import look_line

        say(f"{spec.name}: {look_line(outcome.look)}", err=True)
        if outcome.look.stopped:
            tell(outcome.state, outcome.exit_code, len(outcome.failures))
            return outcome.exit_code
    again = "" if outcome.exit_code == 0 else "; run the same command again to go on"
    say(f"{spec.name}: {outcome.state}{again}", err=True)
    tell(outcome.state, outcome.exit_code, len(outcome.failures))
    return outcome.exit_code


def say_stopping(now: bool) -> None:
    """Say that a signal was heard; `now`: that the process ends at once."""
    # Within a signal's handler: straight to the file, as what it interrupts may be writing to the stream. A process
    # that ends at once cannot show the cursor any more that a progress bar hides.
    shown = "\x1b[?25h" if os.isatty(2) else ""
    os.write(2, f"\n{shown}stopped\n".encode() if now else b"\nstopping; again to stop now\n")


def _announce(preview: Preview) -> None:
    from windowshift.core.run.plan_page import cost_lines

    for line in cost_lines(preview):
        say(line, err=True)
