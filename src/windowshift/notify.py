"""What a run says when it ends or stops, to whoever does not watch it: a bell, a desktop notification, a webhook."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.redaction import without_keys
from windowshift.say import ring, say

SECONDS = 10.0
"""How long a webhook or a notifier may take."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: `state` as the experiment's, or ``error`` with the sentence that a person was told."""

    experiment: str
    state: str
    exit_code: int
    seconds: float
    cells_done: int = 0
    cells: int = 0
    failures: int = 0
    error: str | None = None

    @property
    def text(self) -> str:
        """One line that says it."""
        cells = f", {self.cells_done} of {self.cells} cells" if self.cells else ""
        failed = f", {self.failures} jobs failed" if self.failures else ""
        why = f": {self.error}" if self.error else ""
        said = without_keys(" ".join(f"windowshift: {self.experiment} {self.state}{cells}{failed}{why}".split()))
        return sanitise.line(said, 500)


Notifier = Callable[[Ending], None]


def notifiers(wanted: Sequence[str]) -> list[Notifier]:
    """What `--notify` asks for: ``bell``, ``desktop``, or the URL of a webhook; commas may stand between them.

    Raises:
        SpecError: it is none of these, or this machine has no desktop notifications: said before anything is run.
    """
    found: list[Notifier] = []
    for name in (part.strip() for one in wanted for part in one.split(",")):
        if name == "bell":
            found.append(_bell)
        elif name == "desktop":
            found.append(_desktop())
        elif name.lower().startswith(("http://", "https://")):
            _check(name)
            found.append(_webhook(name))
        elif name:
            raise SpecError(f"--notify takes bell, desktop or the http(s) URL of a webhook, not '{name[:60]}'")
    return found


def _check(url: str) -> None:
    """Refuse a URL that no request can go to. The sentence does not repeat it: a webhook's path is its password.

    Raises:
        SpecError: what is wrong with it.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise SpecError("--notify: the URL of a webhook is of ASCII characters without blanks: percent-encode others")
    try:
        parts = urlsplit(url)
        host, named, _ = parts.hostname, parts.username is not None, parts.port
    except ValueError as error:
        raise SpecError("--notify: the host or the port in the URL of the webhook is none: look at it again") from error
    if not host:
        raise SpecError("--notify: the URL of the webhook names no host")
    if named:
        raise SpecError("--notify: a webhook's URL with a name and a password in it cannot be used: leave them out")


def tell(told: Sequence[Notifier], ending: Ending) -> None:
    """Tell everybody; what cannot be told is said here, and changes nothing of the run."""
    for one in told:
        try:
            one(ending)
        except (OSError, subprocess.SubprocessError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            say(f"note: the notification was not sent: {type(error).__name__}: {str(reason)[:200]}", err=True)


def _bell(ending: Ending) -> None:  # noqa: ARG001 - a bell says no more
    ring()


def _desktop() -> Notifier:
    notify, script = shutil.which("notify-send"), shutil.which("osascript")
    if notify is None and script is None:
        raise SpecError(
            "--notify desktop needs notify-send (Linux: package libnotify-bin) or osascript (macOS); bell and the "
            "URL of a webhook need nothing"
        )

    def show(ending: Ending) -> None:
        if notify is not None:
            command = [notify, "--app-name=windowshift", "--", "windowshift", ending.text]
        else:
            said = json.dumps(ending.text, ensure_ascii=False)
            command = [str(script), "-e", f'display notification {said} with title "windowshift"']
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)

    return show


def _webhook(url: str) -> Notifier:
    def post(ending: Ending) -> None:
        # `text` is what chat services show of a webhook; the others are for programs.
        body = {
            "text": ending.text,
            "experiment": ending.experiment,
            "state": ending.state,
            "exit_code": ending.exit_code,
            "seconds": round(ending.seconds, 1),
            "cells_done": ending.cells_done,
            "cells": ending.cells,
            "failures": ending.failures,
            "error": ending.error and without_keys(ending.error),
        }
        data = json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")
        failed: list[Exception] = []

        def send() -> None:
            try:
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    answer.read(1)  # one that came is enough: what it says is not read
            except Exception as error:  # told by who waits, whatever it is
                failed.append(error)

        # The timeout of a socket is one of a single read: headers that drip would keep a finished run for ever.
        sender = threading.Thread(target=send, name="webhook", daemon=True)
        sender.start()
        sender.join(SECONDS)
        if sender.is_alive():
            raise TimeoutError(f"no whole answer within {SECONDS:g} s")
        if failed:
            raise failed[0]

    return post
