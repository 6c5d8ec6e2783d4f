"""The jobs of an experiment as a virtual list."""

from __future__ import annotations

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import JobRow
from windowshift.tui.read.job_snapshot import Losses, remaining
from windowshift.tui.screens.jobs.job_result import short_name
from windowshift.tui.text import columns, formats
from windowshift.tui.text.columns import Column
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.status import status
from windowshift.tui.widgets.inked import ink_of
from windowshift.tui.widgets.line_list import LineList

COLUMNS = (
    Column("state", 11),
    Column("kind", 8, above=60),
    Column("job", 0),
    Column("done", 16),
    Column("loss", 16, above=100),
    Column("rate", 11, "right", above=100),
    Column("left", 6, "right", above=60),
    Column("cost", 7, "right", above=100),
    Column("error", 34, above=150),
)


class JobList(LineList):
    """One line a job."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("body")
        self.jobs: list[JobRow] = []
        self.losses: dict[int, Losses] = {}
        self.local = True
        self.now = 0.0

    def show(self, jobs: list[JobRow], losses: dict[int, Losses], now: float, *, local: bool) -> None:
        """Show jobs, repainting those that changed; the clock moves only jobs that run."""
        old, was = self.jobs, self.losses
        at = old[self.cursor].n if self.cursor < len(old) else None
        same = [job.n for job in old] == [job.n for job in jobs]
        self.jobs, self.losses, self.now, self.local = jobs, losses, now, local
        if same:
            changed = [
                number
                for number, (a, b) in enumerate(zip(old, jobs, strict=True))
                if a != b or b.state == "running" or was.get(b.n) != losses.get(b.n)
            ]
            if changed:
                self.forget(*changed)
            return
        self.set_count(len(jobs))
        self.forget()
        place = next((number for number, job in enumerate(jobs) if job.n == at), None)
        if place is not None:
            self.move(place)

    def header(self, width: int) -> Pieces:
        """Return the header line."""
        return columns.header(COLUMNS, width, ink_of(self).dim)

    def draw(self, row: int, width: int) -> Pieces:
        """Return a job's line."""
        ink, job = ink_of(self), self.jobs[row]
        state = status(job.state)
        full, empty = formats.bar(formats.share(job.done, job.total), 7)
        left = remaining(job, self.now)
        curve = formats.spark([loss for _, loss in self.losses.get(job.n, ())], 11)
        unit = "tok/s" if job.kind == "train" else "row/s"
        loss: Pieces = [(curve, ink.accent)]
        if job.loss is not None:
            loss.append((f" {job.loss:.2f}", ink.text))
        return columns.row(
            COLUMNS,
            width,
            [
                (state.text, state.style(ink)),
                (job.kind, ink.dim),
                (_turn(job) + sanitise.line(short_name(job), 200), ink.strong if job.state == "running" else ink.text),
                [(full, state.style(ink)), (empty, ink.faint), (f" {job.done}/{job.total}", ink.dim)],
                loss,
                (formats.rate(job.rate, unit), ink.dim),
                ("" if left is None else formats.duration(left), ink.text),
                (formats.money(job.usd, local=self.local) if job.usd is not None else "", ink.dim),
                (sanitise.line(job.error or "", 200), ink.bad),
            ],
        )


def _turn(job: JobRow) -> str:
    """Mark a job that a person put before or after the others."""
    if not job.priority or job.state in ("done", "failed", "cancelled"):
        return ""
    return "↑ " if job.priority > 0 else "↓ "
