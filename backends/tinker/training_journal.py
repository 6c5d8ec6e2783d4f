"""The journal of one training job: what was begun at the service, written before it is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from windowshift.backends.shared.journal_file import read_journal, write_journal

FILE = "tinker-job.json"


@dataclass(frozen=True, slots=True)
class Saving:
    """A save that was asked for and not confirmed: `name` in run `run`, after `step` steps, at Unix second `at`."""

    name: str
    run: str
    step: int
    at: float


@dataclass(frozen=True, slots=True)
class SavedState:
    """Weights and optimizer after `step` steps, at the service's path `path`."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class TrainingJournal:
    """What is known of a job at the service.

    Attributes:
        token: digest of tokens, model, hyperparameters and seed: the same token is the same work.
        server: the server's address.
        runs: ids of the training runs that were made for it, in order.
        state: the last one that is known to be there.
        saving: saves under way.
        saved: (name, path) of what is known to be saved, but for states.
        done: whether the last step was taken and everything that was wanted is saved.
        usd: what it cost, where a price is known.
    """

    token: str
    server: str
    runs: tuple[str, ...] = ()
    state: SavedState | None = None
    saving: tuple[Saving, ...] = ()
    saved: tuple[tuple[str, str], ...] = ()
    done: bool = False
    usd: float | None = None

    @classmethod
    def read(cls, folder: Path) -> TrainingJournal | None:
        """Read a journal; None: there is none.

        Raises:
            BackendError: it is there and cannot be read; nothing may be begun over it.
        """
        return read_journal(folder / FILE, cls._of, "a training job", "delete it to train the job anew")

    @classmethod
    def _of(cls, data: dict[str, Any]) -> TrainingJournal:
        state = data.pop("state")
        return cls(
            **{
                **data,
                "runs": tuple(data["runs"]),
                "saving": tuple(Saving(**each) for each in data["saving"]),
                "saved": tuple((str(name), str(place)) for name, place in data["saved"]),
            },
            state=None if state is None else SavedState(**state),
        )

    def write(self, folder: Path) -> TrainingJournal:
        """Write it, whole and on the disk before anything is asked for; return it.

        Raises:
            OSError: it cannot be written.
        """
        write_journal(folder / FILE, asdict(self))
        return self

    def path(self, name: str) -> str | None:
        """Where something was saved; None: it was not."""
        return dict(self.saved).get(name)

    def begun(self, saving: Saving) -> TrainingJournal:
        """The journal with a save under way."""
        return replace(self, saving=(*self.saving, saving))

    def over(self, saving: Saving, path: str | None, *, state: bool = False) -> TrainingJournal:
        """The journal after a save came to `path`; None: it is known not to be there."""
        found = replace(self, saving=tuple(each for each in self.saving if each != saving))
        if path is None:
            return found
        if state:
            return replace(found, state=SavedState(saving.step, path))
        return replace(found, saved=(*(each for each in found.saved if each[0] != saving.name), (saving.name, path)))
