"""A process that follows a run in its store and tells a tracker of it: losses as they come, cells once they are done.

It is one of its own, so that whatever a tracker does (block, ask, print, end badly) the run does not feel it. It reads
the store as screens do. What it tells is numbered, and written down in a journal in the workspace before it is told:
a run that goes on tells the tracker what it has not got yet, and nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

import windowshift
from windowshift.core.contract.records import CellRow, ExperimentRow
from windowshift.core.contract.redaction import Redactor
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader
from windowshift.trackers import TRACKERS, TrackedRun, TrackedTable, Tracker, Value

POLL_SECONDS = 2.0
LOCK_SECONDS = 60.0
FOLDER = "tracking"
INTERVAL = "95 %, over prompts, of one training run"
_COLUMNS = ("behaviour", "arm", "generate", "train", "evaluate", "seed", "step", "mean", "low", "high", "n", "missing")
_NAMES_A_KEY = re.compile(r"(?i)key(?!board)|token(?!iz)|secret(?!ar)|password")


@dataclass(slots=True)
class Told:
    """One entry of the journal: some values, and what of the store they are.

    Attributes:
        values: what the tracker is told.
        along: the value that the others are drawn over.
        loss: (job, event) where it is a loss.
        cell: (cell and behaviour, digest of its numbers) where it is a cell.
        whole: the digest of the table of all cells, or the state, where it is one of these.
    """

    values: dict[str, Value | TrackedTable]
    along: str | None = None
    loss: tuple[int, int] | None = None
    cell: tuple[str, str] | None = None
    whole: tuple[str, str] | None = None

    def to_json(self, step: int) -> str:
        """One line of the journal."""
        values = {
            name: {"columns": value.columns, "rows": value.rows} if isinstance(value, TrackedTable) else value
            for name, value in self.values.items()
        }
        own = {"along": self.along, "loss": self.loss, "cell": self.cell, "whole": self.whole}
        return json.dumps({"step": step, "values": values, **{key: one for key, one in own.items() if one is not None}})

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Told:
        """The entry of a line."""
        values = {
            name: TrackedTable(tuple(value["columns"]), tuple(map(tuple, value["rows"])))
            if isinstance(value, dict)
            else value
            for name, value in entry["values"].items()
        }
        loss, cell, whole = (tuple(entry[key]) if key in entry else None for key in ("loss", "cell", "whole"))
        return cls(values, entry.get("along"), loss, cell, whole)


@dataclass(slots=True)
class Journal:
    """What one tracker was told of an experiment: one JSON object a line, and after each lot the step that it came to.

    Attributes:
        path: the file.
        run: the id of the run there; None where none was begun.
        step: the last step that was written down; -1 where none was.
        sent: the last that was handed to the tracker, as far as this machine knows.
        losses: the last event of each job.
        cells: the digest of each cell's numbers.
        whole: the last digest of the table, the last state.
    """

    path: Path
    run: str | None = None
    step: int = -1
    sent: int = -1
    losses: dict[int, int] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what is there; a last line that was cut off, by a kill, was not told."""
        for entry in self._entries():
            self.run = entry.get("run", self.run)
            self.sent = entry.get("sent", self.sent)
            if "step" in entry:
                self._seen(entry["step"], Told.from_json(entry))

    def after(self, step: int) -> Iterator[tuple[int, Told]]:
        """What was written down above a step."""
        for entry in self._entries():
            if entry.get("step", -1) > step:
                yield entry["step"], Told.from_json(entry)

    def begin(self, run: str) -> None:
        """Write down the id of the run."""
        self.run = run
        self._write([json.dumps({"run": run})])

    def add(self, told: list[Told]) -> int:
        """Write some entries down; the step of the first."""
        first = self.step + 1
        for place, one in enumerate(told):
            self._seen(first + place, one)
        self._write([one.to_json(first + place) for place, one in enumerate(told)])
        return first

    def mark(self, step: int) -> None:
        """Write down that all up to a step was handed over."""
        if step != self.sent:
            self.sent = step
            self._write([json.dumps({"sent": step})])

    def _seen(self, step: int, told: Told) -> None:
        self.step = max(self.step, step)
        if told.loss is not None:
            job, event = told.loss
            self.losses[job] = max(event, self.losses.get(job, 0))
        if told.cell is not None:
            self.cells[told.cell[0]] = told.cell[1]
        if told.whole is not None:
            self.whole[told.whole[0]] = told.whole[1]

    def _entries(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n") and line.strip():
                    yield json.loads(line)

    def _write(self, lines: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.seek(0, 2) and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                _cut_to_whole_lines(file)
            file.write("".join(f"{line}\n" for line in lines).encode())


def _cut_to_whole_lines(file: Any) -> None:
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


class Follower:
    """Follows one experiment in the store.

    Args:
        tracker: whom it tells.
        name: the tracker's.
        workspace: the folder of the store.
        experiment: its name.
    """

    def __init__(self, tracker: Tracker, name: str, workspace: Path, experiment: str) -> None:
        self._tracker, self._name, self._workspace, self._experiment = tracker, name, workspace, experiment
        self._journal: Journal | None = None
        self._drained: set[int] = set()
        self._redactor = Redactor(_keys())

    def look(self) -> None:
        """Tell what is new.

        Raises:
            Exception: whatever the tracker raised; what it was not told stays in the store and the journal.
        """
        if store_path(self._workspace).is_file():
            with closing(Reader(self._workspace)) as reader:
                found = reader.experiment(self._experiment)
                if found is not None:
                    self._tell(self._journal or self._begin(reader, found), self._new(reader, found))

    def end(self, state: str) -> None:
        """Tell the rest, the table of all cells, and how the run ended.

        Raises:
            Exception: as `look`.
        """
        self.look()
        if self._journal is None:
            return
        with closing(Reader(self._workspace)) as reader:
            found = reader.experiment(self._experiment)
            last = [] if found is None else self._last(reader, found, state)
        self._tell(self._journal, last)
        self._tracker.end(state)

    def untold(self) -> int:
        """How much there is that the tracker was not told."""
        if not store_path(self._workspace).is_file():
            return 0
        with closing(Reader(self._workspace)) as reader:
            found = reader.experiment(self._experiment)
            if found is None:
                return 0
            journal = self._journal or self._read_journal(found)
            self._journal, self._drained = journal, set()
            return journal.step - journal.sent + len(self._new(reader, found))

    def _redact(self, text: str) -> str:
        return self._redactor.redact(text)

    def _without_keys(self, value: Value) -> Value:
        return self._redact(value) if isinstance(value, str) else value

    def _read_journal(self, found: ExperimentRow) -> Journal:
        journal = Journal(self._workspace / FOLDER / f"{found.name}-{found.id}.{self._name}.jsonl")
        journal.read()
        return journal

    def _begin(self, reader: Reader, found: ExperimentRow) -> Journal:
        journal = self._read_journal(found)
        resumed = journal.run is not None
        if not resumed:
            journal.begin(secrets.token_hex(6))
        run = f"{journal.run}"
        self._tracker.begin(
            TrackedRun(run, f"{found.name}-{run}", found.name, self._config(reader, found), resumed, self._workspace)
        )
        known = self._tracker.known() if resumed else -1
        known = journal.sent if known is None else known
        journal.step = max(journal.step, known)
        self._journal = journal
        self._log(journal, known, journal.after(known))
        return journal

    def _config(self, reader: Reader, found: ExperimentRow) -> dict[str, Value]:
        text = reader.spec_text(found.id)
        config: dict[str, Value] = {
            "spec": text,
            "spec_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "experiment": found.name,
            "setting": found.setting,
            "model": found.model,
            "backend": found.backend,
            "rehearsal": found.rehearsal,
            "interval": INTERVAL,
            "windowshift": windowshift.__version__,
        }
        return {name: self._without_keys(value) for name, value in config.items()}

    def _tell(self, journal: Journal, told: list[Told]) -> None:
        if not told:
            return
        first = journal.add(told)
        self._log(journal, first - 1, enumerate(told, first))

    def _log(self, journal: Journal, sent: int, told: Iterable[tuple[int, Told]]) -> None:
        try:
            for step, one in told:
                self._tracker.log(step, one.values, one.along)
                sent = step
        finally:
            journal.mark(sent)

    def _new(self, reader: Reader, found: ExperimentRow) -> list[Told]:
        assert self._journal is not None
        with reader.snapshot():
            return [*self._losses(reader, found, self._journal), *self._cells(reader, found, self._journal)]

    def _losses(self, reader: Reader, found: ExperimentRow, journal: Journal) -> Iterator[Told]:
        jobs = [job for job in reader.jobs(found.id) if job.kind == "train" and job.n not in self._drained]
        for job in jobs:
            for event in reader.job_events(job.n, "loss", after=journal.losses.get(job.n, 0)):
                label = self._redact(job.label)
                along = f"examples/{label}"
                values: dict[str, Value | TrackedTable] = {
                    f"loss/{label}": event.data["loss"],
                    along: event.data["examples"],
                }
                yield Told(values, along, loss=(job.n, event.id))
            if job.state == "done":
                self._drained.add(job.n)

    def _cells(self, reader: Reader, found: ExperimentRow, journal: Journal) -> Iterator[Told]:
        for cell, row in _done_cells(reader, found):
            key = f"{row[0]}:{cell.id}"
            digest = _digest(row)
            if journal.cells.get(key) != digest:
                values: dict[str, Value | TrackedTable] = {
                    f"cell/{column}": self._without_keys(value) for column, value in zip(_COLUMNS, row, strict=True)
                }
                values |= {"cell/interval": INTERVAL, "cell/rehearsal": found.rehearsal}
                yield Told({**values, "cells_done": found.cells_done}, cell=(key, digest))

    def _last(self, reader: Reader, found: ExperimentRow, state: str) -> list[Told]:
        assert self._journal is not None
        told: list[Told] = []
        rows = tuple(row for _, row in _done_cells(reader, found))
        if rows and self._journal.whole.get("table") != _digest(rows):
            shown = tuple(tuple(self._without_keys(value) for value in row) for row in rows)
            told.append(Told({"cells": TrackedTable(_COLUMNS, shown)}, whole=("table", _digest(rows))))
        if self._journal.whole.get("state") != state or told:
            told.append(Told({"state": state, "cells_done": found.cells_done}, whole=("state", state)))
        return told


def _done_cells(reader: Reader, found: ExperimentRow) -> Iterator[tuple[CellRow, tuple[Value, ...]]]:
    """The cells that are done, with what is told of each: a behaviour that could not be measured has no mean."""
    for behaviour in found.behaviours:
        for cell in reader.cells(found.id, behaviour.name):
            if cell.state == "done" and (of := cell.summary) is not None:
                place = (behaviour.name, cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step)
                yield cell, (*place, of.mean, of.low, of.high, of.n, of.missing)


def _keys() -> list[str]:
    """What this process was given that may be a key, by the name of the variable: a TOKENIZER is none."""
    return [value for name, value in os.environ.items() if len(value) >= 8 and _NAMES_A_KEY.search(name)]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def main(name: str, workspace: Path, experiment: str, *, orders: TextIO, answers: TextIO) -> None:
    """Follow a run until `orders` says in a line how it ended, or is closed; what goes wrong is said in `answers`."""
    over = threading.Event()
    state = "stopped"  # by a kill: nobody said how it ended

    def listen() -> None:
        nonlocal state
        state = orders.readline().strip() or state
        over.set()

    def say(**told: object) -> None:
        answers.write(f"{json.dumps(told)}\n")
        answers.flush()

    threading.Thread(target=listen, daemon=True).start()
    follower = Follower(TRACKERS[name](), name, workspace, experiment)
    try:
        (workspace / FOLDER).mkdir(parents=True, exist_ok=True)
        # What a killed run left may still be telling the rest of it.
        with FileLock(workspace / FOLDER / f"{experiment}.{name}.lock", timeout=LOCK_SECONDS):
            pause = 0.0
            while not over.wait(pause):
                began = time.monotonic()
                follower.look()
                pause = max(POLL_SECONDS, 10 * (time.monotonic() - began))  # the run needs the machine more
            follower.end(state)
        say(done=True)
    except Exception as error:  # a network, a key, a service: all of them the tracker's own
        say(failed=Redactor(_keys()).said(error, 300) or type(error).__name__)
        over.wait()
        say(untold=_counted(follower.untold))


def _counted(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except Exception:  # the store may be what failed
        return None


if __name__ == "__main__":
    # A tracker prints what it likes, and so do its own processes: answers alone go where the standard output went.
    own = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], orders=sys.stdin, answers=own)
