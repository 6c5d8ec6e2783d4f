"""The jobs of an experiment: what runs, waits and failed, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import INSIDE_KINDS, VECTOR_KINDS, Event, JobRow
from windowshift.core.store.reader import Reader
from windowshift.tui.read.job_snapshot import JobsSnapshot, Losses, folded, read_jobs
from windowshift.tui.read.pace import pace
from windowshift.tui.read.snapshot import ExperimentView
from windowshift.tui.screens.jobs.job_list import JobList
from windowshift.tui.screens.jobs.job_result import result_lines
from windowshift.tui.screens.list_screen import FilterLine, ListScreen
from windowshift.tui.text import actions, formats
from windowshift.tui.text.pieces import Pieces, text_of
from windowshift.tui.text.status import alive, status
from windowshift.tui.text.table import TextTable, number, table
from windowshift.tui.text.theme import Ink
from windowshift.tui.widgets.experiment_line import experiment_line, model_line
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.line_list import LineList
from windowshift.tui.widgets.loss_curve import LossCurve
from windowshift.tui.widgets.watched_curve import WatchedCurve

ONLY = ("all", "unfinished", "failed")


class JobsScreen(ListScreen[JobsSnapshot]):
    """One line a job; below it the loss curve, watched texts and the log of the one under the cursor."""

    SCREEN_NAME = "jobs"
    BINDINGS = actions.bindings("jobs")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.experiment = name
        self.only = "all"
        self.fold = True
        self._ended: dict[int, Losses] = {}
        self._counts: tuple[Pieces, Pieces] = ([], [])

    def body(self) -> ComposeResult:
        """Lay out list, curve and log."""
        yield Headline(id="counts")
        yield JobList()
        yield FilterLine()
        with Horizontal(id="job-detail"):
            with Vertical(id="job-curves"):
                yield LossCurve()
                yield WatchedCurve()
            yield Static("", id="log", markup=False)

    @property
    def job_list(self) -> JobList:
        """The list."""
        return self.query_one(JobList)

    @property
    def selected(self) -> JobRow | None:
        """The job under the cursor."""
        jobs = self.job_list.jobs
        return jobs[self.job_list.cursor] if self.job_list.cursor < len(jobs) else None

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return (self.experiment, "jobs")

    def reading(self) -> Callable[[Reader], JobsSnapshot | None]:
        """Read the jobs, and the curves of those on screen."""
        shown = self.job_list
        jobs = [shown.jobs[place] for place in shown.visible_rows() if place < len(shown.jobs)]
        wanted = frozenset(job.n for job in jobs if job.kind == "train")
        name, known, selected = self.experiment, dict(self._ended), self.selected
        number = selected.n if selected else None
        return lambda reader: read_jobs(reader, name, known, wanted, number)

    def nothing(self) -> None:
        """The experiment is not there."""
        self.problem("No such experiment", f"there is no experiment '{self.experiment}' in this workspace")

    def show(self, snapshot: JobsSnapshot) -> None:
        """Show the jobs."""
        ended = {job.n for job in snapshot.jobs if job.state in ("done", "failed", "cancelled")}
        self._ended = {n: losses for n, losses in snapshot.losses.items() if n in ended}
        first = not self.job_list.count
        self.filtered()
        if first and any(job.kind == "train" for job in snapshot.jobs):
            self.reload()  # now it is known which curves are on screen

    def filtered(self) -> None:
        """Show the jobs that match."""
        found = self.snapshot
        if found is None:
            return
        jobs = [job for job in found.jobs if self._matches(job)]
        matching = len(jobs)
        if self.fold and not self.needle:
            jobs = folded(jobs)
        self.job_list.show(jobs, found.losses, self.shift.now(), local=found.experiment.row.backend == "local")
        ink = self.ink
        pieces: Pieces = [(" ", ink.text)]
        for word in ("running", "pending", "paused", "failed", "cancelled", "done"):
            count = sum(job.state == word for job in found.jobs)
            if count:
                state = status(word)
                pieces.append((f"{state.glyph} {count} {word}   ", state.style(ink)))
        shown: Pieces = []
        if matching != len(found.jobs):
            shown = [(f"{matching} of {len(found.jobs)} jobs shown ", ink.dim)]
        self._counts = pieces, shown
        self.tick()
        self._detail()

    def _matches(self, job: JobRow) -> bool:
        if self.only == "failed" and job.state != "failed":
            return False
        if self.only == "unfinished" and job.state in ("done", "cancelled"):
            return False
        return self.needle in f"{job.kind} {job.label} {job.state} {job.error or ''}".casefold()

    def tick(self) -> None:
        """The clock goes on."""
        if self.snapshot is None:
            return
        view, now = self.snapshot.experiment, self.shift.now()
        self.query_one("#headline", Headline).show(
            (self.crumbs(view.row.name, "jobs"), experiment_line(view, now, self.ink)), *model_line(view, now, self.ink)
        )
        counts, shown = self._counts
        self.query_one("#counts", Headline).show((counts, shown or self._pace(now)))

    def _pace(self, now: float) -> Pieces:
        """Return the time that is left and the cost that is expected."""
        found = self.snapshot
        if found is None or not alive(found.experiment.run, now):
            return []
        ink, left = self.ink, pace(found.jobs, now)
        if any(job.state in ("pending", "running") for job in found.jobs) and left.seconds is None:
            pieces: Pieces = [("time left not known yet ", ink.dim)]  # a kind of job is to come that never ran
        else:
            pieces = [(f"about {formats.duration(left.seconds or 0.0)} left ", ink.text)]
        if left.usd is not None:
            pieces.append((f"· {formats.money(left.usd, local=False)} expected in all ", ink.text))
        return pieces

    def on_line_list_moved(self, message: LineList.Moved) -> None:
        """Read the log of the job under the cursor."""
        message.stop()
        self._detail()

    def _detail(self) -> None:
        found, job = self.snapshot, self.selected
        if found is None or job is None:
            self.query_one(LossCurve).show(())
            self.put("#log", Text("no job matches", self.ink.dim))
            return
        if found.log_of != job.n:
            self.reload()  # the filter or the cursor brought another job under it
        self.query_one(LossCurve).show(found.losses.get(job.n, ()))
        self.query_one("#job-curves").display = job.kind == "train"
        self.query_one(WatchedCurve).show(found.watched if found.log_of == job.n else ())
        events = found.log if found.log_of == job.n else ()
        room = max(1, self.query_one("#job-detail").size.height - 3 - bool(job.error) - len(result_lines(job)))
        self.put(
            "#log", text_of(job_text(job, events[-room:], self.ink, found.device if found.log_of == job.n else ""))
        )

    # -- keys -----------------------------------------------------------------------------------

    def where(self) -> list[Any]:
        """Its name."""
        return ["jobs", self.experiment]

    def copied(self) -> tuple[str, str] | None:
        """The job under the cursor in one line, its error with it."""
        job = self.selected
        if job is None:
            return None
        return f"job-{job.n}", f"{job.label}: {job.state}" + (f": {job.error}" if job.error else "")

    def table(self) -> tuple[str, TextTable] | None:
        """The jobs of the list."""
        heads = ("job", "kind", "label", "state", "done", "total", "loss", "error")
        rows = [
            (str(j.n), j.kind, j.label, j.state, str(j.done), str(j.total), number(j.loss), j.error or "")
            for j in self.job_list.jobs
            if j.n > 0
        ]
        return f"{self.experiment}-jobs", table(heads, rows)

    def action_only(self) -> None:
        """Show all jobs, unfinished ones, failed ones."""
        self.only = ONLY[(ONLY.index(self.only) + 1) % len(ONLY)]
        self.filtered()

    def action_open(self) -> None:
        """Open the cell that an evaluation fills, or the steering that a vector's job is part of."""
        found, job = self.snapshot, self.selected
        if found is None or job is None:
            return
        filled = found.cells.get(job.n)
        if job.n <= 0:
            self.action_fold()
        elif job.kind in (*VECTOR_KINDS, *INSIDE_KINDS):
            self.shift.open("steering", self.experiment)
        elif filled is None:
            self.app.notify(f"A {job.kind} job fills no cell of the grid.", markup=False)
        else:
            key, behaviour = filled
            self.shift.open("cell", self.experiment, key, behaviour)

    def action_fold(self) -> None:
        """Show the finished score jobs as one line, or each."""
        self.fold = not self.fold
        self.filtered()

    def _steer(self, act: Callable[[ExperimentView, JobRow], None]) -> None:
        if self.snapshot is None or self.selected is None:
            return
        if self.selected.n <= 0:
            self.shift.say("This line stands for many jobs: f shows each of them.")
        else:
            act(self.snapshot.experiment, self.selected)

    def action_pause(self) -> None:
        """Pause the job, or let it go on."""
        self._steer(self.shift.pause_or_resume)

    def action_cancel(self) -> None:
        """Cancel the job."""
        self._steer(self.shift.cancel)

    def action_retry(self) -> None:
        """Try the job again."""
        self._steer(self.shift.retry)

    def action_first(self) -> None:
        """Let the job go before all that waits."""
        self._steer(self.shift.move_first)

    def action_last(self) -> None:
        """Let the job go after all that waits."""
        self._steer(self.shift.move_last)


def job_text(job: JobRow, events: Sequence[Event], ink: Ink, device: str = "") -> Pieces:
    """Return what is to be said about one job: its state, its error, its last events."""
    state = status(job.state)
    spent = "" if job.started is None else f" · began {_clock(job, job.started)}"
    if job.started is not None and job.ended is not None:
        spent = f" · took {formats.duration(job.ended - job.started)}"
    unit = "tok/s" if job.kind == "train" else "row/s"
    pieces: Pieces = [
        (f"{sanitise.line(job.label, 100)}\n", ink.strong),
        (state.text, state.style(ink)),
        (f" · {job.done}/{job.total}{spent}", ink.dim),
        ("" if job.loss is None else f" · loss {job.loss:.2f}", ink.dim),
        ("" if job.rate is None else f" · {formats.rate(job.rate, unit)}", ink.dim),
        (f" · {device}" if device else "", ink.dim),
        ("" if job.usd is None else f" · {formats.money(job.usd, local=False)}", ink.dim),
        ("\n", ink.dim),
    ]
    if job.error:
        pieces.append((f"{sanitise.block(job.error, 600)}\n", ink.bad))
    pieces += [(f"{sanitise.line(line, 300)}\n", ink.dim) for line in result_lines(job)]
    for event in events:
        known = {key: value for key, value in event.data.items() if value is not None}
        words = ", ".join(str(v) if key in (event.kind, "text") else f"{key} {v}" for key, v in known.items())
        pieces += [
            (f"{_clock(job, event.at):>8}  ", ink.faint),
            (f"{sanitise.line(event.kind, 20)} ", ink.dim),
            (f"{sanitise.line(words, 200)}\n", ink.bad if event.kind == "error" else ink.text),
        ]
    return pieces


def _clock(job: JobRow, at: float) -> str:
    """Return a time relative to the job's start: the same on every machine and in every time zone."""
    return "+" + formats.duration(at - job.started) if job.started is not None and at >= job.started else "–"
