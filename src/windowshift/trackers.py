"""Trackers: where people keep the runs of other programs, and may want windowshift's beside them. Off unless asked for.

One protocol, `Tracker`; what follows a run and numbers what it tells is `tracker_process`, in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from windowshift.core.contract.errors import BackendError, MissingExtraError, SpecError
from windowshift.core.spec.spec_errors import did_you_mean

INIT_SECONDS = 30.0
"""How long W&B may take to begin a run: a server that is not there is known by then, W&B's own limit is 90 s."""

Value = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class TrackedTable:
    """What is told as a table: its columns, and rows of as many values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker calls a run: all runs of an experiment in a workspace are one of these.

    Attributes:
        id: no other run has it.
        name: what people read; unique among runs too, as trackio knows runs by their names.
        group: the experiment.
        config: spec, hash, model.
        resumed: whether it was begun before.
        folder: the workspace.
    """

    id: str
    name: str
    group: str
    config: Mapping[str, Value]
    resumed: bool
    folder: Path


class Tracker(Protocol):
    """A tracker. What its methods raise ends the tracking, and never the run."""

    def begin(self, run: TrackedRun) -> None:
        """Begin a run, or go on with it."""

    def known(self) -> int | None:
        """The highest step that the tracker has of a resumed run; None where it cannot tell."""

    def log(self, step: int, values: Mapping[str, Value | TrackedTable], along: str | None = None) -> None:
        """Tell some values; steps rise. `along` is the one of them that the others are drawn over."""

    def end(self, state: str) -> None:
        """Say how the run ended, and send what was not sent yet."""


class WeightsAndBiases:
    """Weights & Biases, by its own environment variables: WANDB_MODE, WANDB_API_KEY, WANDB_PROJECT, WANDB_DIR."""

    def __init__(self) -> None:
        self._run: Any = None
        self._drawn: set[str] = set()

    def begin(self, run: TrackedRun) -> None:
        """As `Tracker.begin`; a machine without a key is an error, never a question or an offline run unasked."""
        import wandb

        # `force`: never a question. The others: of this machine and of the process here nothing is told.
        settings = wandb.Settings(
            console="off",
            silent=True,
            force=True,
            init_timeout=INIT_SECONDS,
            save_code=False,
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        self._run = wandb.init(
            id=run.id,
            name=run.name,
            group=run.group,
            job_type="windowshift",
            project=os.environ.get("WANDB_PROJECT", "windowshift"),
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            config=dict(run.config),
            allow_val_change=True,  # a spec that goes on may have grown
            tags=["rehearsal"] if run.config.get("rehearsal") else [],
            # Offline there is nobody to ask; `wandb sync` puts runs of one id together.
            resume=None if self._offline() else "allow",
            settings=settings,
        )

    def known(self) -> int | None:
        """As `Tracker.known`: the server's, which offline is not there to be asked."""
        return None if self._offline() else int(self._run.starting_step) - 1

    def log(self, step: int, values: Mapping[str, Value | TrackedTable], along: str | None = None) -> None:
        """As `Tracker.log`."""
        import wandb

        for name in values:
            if along is not None and name != along and name not in self._drawn:
                self._drawn.add(name)
                self._run.define_metric(name, step_metric=along)
        told = {
            name: wandb.Table(columns=list(value.columns), data=[list(row) for row in value.rows])
            if isinstance(value, TrackedTable)
            else value
            for name, value in values.items()
        }
        self._run.log(told, step=step)

    def end(self, state: str) -> None:
        """As `Tracker.end`."""
        self._run.finish(exit_code=0 if state == "done" else 1)

    @staticmethod
    def _offline() -> bool:
        import wandb

        return wandb.setup().settings.mode in ("offline", "disabled", "dryrun")


class Trackio:
    """trackio, by its own environment variables: TRACKIO_DIR, TRACKIO_SPACE_ID, TRACKIO_SERVER_URL."""

    def __init__(self) -> None:
        self._run: Any = None
        self._last = -1

    def begin(self, run: TrackedRun) -> None:
        """As `Tracker.begin`."""
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "windowshift"),
            name=run.name,
            group=run.group,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._last = int(self._run._next_step) - 1  # the last that its store, or its server, has; without a public name

    def known(self) -> int | None:
        """As `Tracker.known`."""
        return self._last

    def log(self, step: int, values: Mapping[str, Value | TrackedTable], along: str | None = None) -> None:  # noqa: ARG002
        """As `Tracker.log`; in trackio's dashboard a person chooses what curves are drawn over."""
        import trackio

        told = {
            name: trackio.Table(columns=list(value.columns), data=[list(row) for row in value.rows])
            if isinstance(value, TrackedTable)
            else value
            for name, value in values.items()
        }
        self._run.log(told, step=step)
        self._last = step

    def end(self, state: str) -> None:  # noqa: ARG002 - trackio's runs have no state
        """As `Tracker.end`.

        Raises:
            BackendError: some of what was told is not in trackio's store, of which trackio itself only warns.
        """
        self._run.finish()
        if self._run._is_local:
            from trackio.sqlite_storage import SQLiteStorage

            kept = SQLiteStorage.get_max_step_for_run(self._run.project, self._run.name, run_id=self._run.id)
            if (-1 if kept is None else kept) != self._last:
                raise BackendError(f"trackio kept steps up to {kept}, and was told of {self._last}")


TRACKERS: Mapping[str, type[WeightsAndBiases] | type[Trackio]] = {"wandb": WeightsAndBiases, "trackio": Trackio}
"""By the name that `--track` takes, which is the name of the library too, and of the extra."""


def trackers(wanted: Sequence[str]) -> list[str]:
    """The trackers that `--track` asks for; commas may stand between them. Nothing of theirs is imported.

    Raises:
        SpecError: there is no such tracker.
        MissingExtraError: its library is not installed.
    """
    found = [name for one in wanted for part in one.split(",") if (name := part.strip())]
    for name in found:
        if name not in TRACKERS:
            raise SpecError(f"--track takes {' or '.join(TRACKERS)}, not '{name[:60]}'{did_you_mean(name, TRACKERS)}")
        there = find_spec(name)
        if there is None or there.origin is None:  # a folder of this name, as W&B leaves them, is not the library
            raise MissingExtraError(f"--track {name}", name, name)
    return list(dict.fromkeys(found))
