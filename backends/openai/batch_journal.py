"""The journal of one batch of the Batch API: which requests are in it, written before it is asked for."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from windowshift.backends.shared.journal_file import read_journal, write_journal

KEPT_SECONDS = 30 * 86400.0  # longer than a server keeps the answers


@dataclass(frozen=True, slots=True)
class BatchJournal:
    """A batch.

    Attributes:
        token: digest of the requests in it.
        server: the server's address.
        ids: the `custom_id` of each request, itself a digest of the request.
        creating: Unix seconds of the moment before the batch was asked for.
        batch: the server's id of the batch, once it is known.
    """

    token: str
    server: str
    ids: tuple[str, ...]
    creating: float
    batch: str | None = None

    def write(self, folder: Path) -> BatchJournal:
        """Write it, whole and on the disk before anything is asked for; return it."""
        write_journal(folder / f"{self.token}.json", asdict(self))
        return self


def _of(data: dict[str, Any]) -> BatchJournal:
    return BatchJournal(**data | {"ids": tuple(data["ids"])})


def read_batch_journals(folder: Path, server: str) -> list[BatchJournal]:
    """The batches that were begun at a server, oldest first; those whose answers are gone are forgotten.

    Raises:
        BackendError: a journal cannot be read; the batch that it names must not be paid again unseen.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        journal = read_journal(path, _of, "a batch", "delete it if the server has no such batch")
        if journal is None:
            continue  # another run forgot it just now
        if time.time() - journal.creating > KEPT_SECONDS:
            path.unlink(missing_ok=True)
        elif journal.server == server:
            found.append(journal)
    return sorted(found, key=lambda journal: journal.creating)
