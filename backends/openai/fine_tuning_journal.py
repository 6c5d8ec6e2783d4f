"""The journal of one fine-tuning job: what was begun at the server, written before it is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from windowshift.backends.openai.said import remote
from windowshift.backends.shared.journal_file import read_journal, write_journal

FILE = "remote.json"


@dataclass(frozen=True, slots=True)
class FineTuningJournal:
    """What is known of a job at the server.

    Attributes:
        token: digest of data, model, hyperparameters and seed: the same token is the same work.
        own: whether the server took settings beyond the API, as `windowshift serve` does.
        server: the server's address.
        attempt: 1, and one more for each try after one that the server ended without a model.
        creating: Unix seconds of the moment before the job was asked for; None: it was not, or it is
            known not to exist.
        job: the server's id of the job, once it is known.
        failed: ids of jobs that the server ended without a model; they are not adopted again.
        adapter: the fine-tuned model, once it is there.
        checkpoints: (examples, model) of the checkpoints that were asked for.
        usd: what it cost, where a price is known.
        last_event: id of the last event that was passed on.
    """

    token: str
    server: str
    attempt: int = 1
    creating: float | None = None
    job: str | None = None
    failed: tuple[str, ...] = ()
    adapter: str | None = None
    checkpoints: tuple[tuple[int, str], ...] = field(default=())
    usd: float | None = None
    last_event: str | None = None
    own: bool = False

    @classmethod
    def read(cls, folder: Path) -> FineTuningJournal | None:
        """Read a journal; None: there is none.

        Raises:
            BackendError: it is there and cannot be read; nothing may be created over it.
        """
        return read_journal(folder / FILE, cls._of, "a fine-tuning job", "delete it if the server has no such job")

    @classmethod
    def _of(cls, data: dict[str, Any]) -> FineTuningJournal:
        data["failed"] = tuple(data["failed"])
        data["checkpoints"] = tuple((int(examples), remote(str(model))) for examples, model in data["checkpoints"])
        if data.get("adapter") is not None:
            data["adapter"] = remote(str(data["adapter"]))
        return cls(**data)

    def write(self, folder: Path) -> FineTuningJournal:
        """Write it, whole and on the disk before anything is asked for; return it.

        Raises:
            OSError: it cannot be written.
        """
        write_journal(folder / FILE, asdict(self))
        return self

    def given_up(self, job: str) -> FineTuningJournal:
        """The journal after the server ended a job without a model: the next try is another job."""
        return replace(
            self, attempt=self.attempt + 1, creating=None, job=None, last_event=None, failed=(*self.failed, job)
        )
