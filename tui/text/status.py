"""States as a glyph, a word and a colour, never one of them alone."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style

from windowshift.core.contract.records import ExperimentRow, RunRow
from windowshift.core.store.liveness import STALE_SECONDS, live_state
from windowshift.tui.text.theme import Ink


@dataclass(frozen=True, slots=True)
class Status:
    """How a state is shown; `ink` names a style of `Ink`."""

    glyph: str
    word: str
    ink: str

    def style(self, ink: Ink) -> Style:
        """Return the colour."""
        style: Style = getattr(ink, self.ink)
        return style

    @property
    def text(self) -> str:
        """Glyph and word."""
        return f"{self.glyph} {self.word}"


_STATUSES = {
    status.word: status
    for status in (
        Status("○", "planned", "dim"),
        Status("·", "pending", "dim"),
        Status("●", "running", "blue"),
        Status("‖", "paused", "warn"),
        Status("✓", "done", "good"),
        Status("✗", "failed", "bad"),
        Status("!", "interrupted", "accent"),
        Status("⊘", "cancelled", "dim"),
    )
}

FINISH = {"stop": ("✓ stop", "dim"), "length": ("… cut", "warn"), "failed": ("✗ failed", "bad")}
"""How a completion ended: by itself, cut off at max_tokens, or not at all; with the ink of it."""


def status(word: str) -> Status:
    """Return how a job's or an experiment's state is shown."""
    return _STATUSES.get(word) or Status("?", word, "dim")


def alive(run: RunRow | None, now: float) -> bool:
    """Tell whether a runner process works on the experiment."""
    return run is not None and run.ended is None and now - run.heartbeat <= STALE_SECONDS


def experiment_status(experiment: ExperimentRow, run: RunRow | None, now: float) -> Status:
    """Return an experiment's state; a run whose process is gone or silent is interrupted."""
    return status(live_state(experiment, run, now))


def elapsed(experiment: ExperimentRow, run: RunRow | None, now: float) -> float | None:
    """Return the seconds an experiment took so far; the clock of a silent run stands still."""
    if experiment.started is None:
        return None
    end = experiment.ended
    if end is None:
        end = run.heartbeat if run is not None and not alive(run, now) else now
    return max(0.0, end - experiment.started)
