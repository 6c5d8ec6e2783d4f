"""What one job has saved at the service and here: begun, confirmed, adopted, fetched."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from windowshift.backends.shared.faults import ServiceError
from windowshift.backends.tinker.adapter_folder import PEFT, RemoteAdapter, complete
from windowshift.backends.tinker.checkpoints import SavedCheckpoints
from windowshift.backends.tinker.connection import TinkerConnection
from windowshift.backends.tinker.losses import LossFile
from windowshift.backends.tinker.training_journal import Saving, TrainingJournal
from windowshift.backends.tinker.work import TinkerWork, Wanted
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.whole_file import replacing_folder

log = logging.getLogger("windowshift.tinker")


class Saves:
    """Keeps the journal of a job's saves, and brings adapters here.

    A save is in the journal before it is asked for, and has a name of its own, so that a job that goes on
    finds what was saved while nobody listened.

    Args:
        connection: the server.
        work: what is trained.
        journal: what is known of it at the server.
        losses: the steps that were heard of.
        tell: called for every adapter that is there.
    """

    def __init__(
        self,
        connection: TinkerConnection,
        work: TinkerWork,
        journal: TrainingJournal,
        losses: LossFile,
        tell: Callable[[Wanted], None],
    ) -> None:
        self._options, self._checkpoints = connection.options, SavedCheckpoints(connection)
        self._work, self._losses, self._tell = work, losses, tell
        self.journal = journal

    @property
    def missing(self) -> list[Wanted]:
        """The adapters that are still to be saved, in the order of their steps."""
        return [each for each in self._work.wanted if not self.has(each)]

    def begin(self, name: str, run: str, step: int) -> Saving:
        """Note, before it is asked for, that a save of this name is asked for after a step."""
        saving = Saving(name, run, step, time.time())
        self.write(self.journal.begun(saving))
        return saving

    async def confirmed(self, saving: Saving, path: str, wanted: Wanted | None) -> None:
        """Note a save that is there; the state before it, or an export that was fetched, goes."""
        if wanted is None:
            before = self.journal.state
            self.write(self.journal.over(saving, path, state=True))
            if before is not None and before.path != path:
                with suppress(ServiceError):  # it has a time to live, and goes with the job at the latest
                    await self._checkpoints.delete(before.path)
            return
        if saving.name == wanted.export:
            await self._download(path, wanted)
            self.write(self.journal.over(saving, None))
            with suppress(ServiceError):
                await self._checkpoints.delete(path)
        else:
            self.write(self.journal.over(saving, path))
            if not self._options.download:
                with replacing_folder(self.folder(wanted)) as partial:
                    self._remote(wanted).note(partial)
        if self.has(wanted):
            self._tell(wanted)

    async def _download(self, path: str, wanted: Wanted) -> None:
        with replacing_folder(self.folder(wanted)) as partial:
            files = await self._checkpoints.fetch(path, partial)
            lacking = [name for name in PEFT if name not in files]
            if lacking:
                raise BackendError(
                    f"the export {path} has no {lacking[0]}, so it is no PEFT adapter: write  backend_options: "
                    "{download: false}"
                )
            self._remote(wanted).note(partial)

    async def settle(self) -> None:
        """Find out what became of saves that nobody saw confirmed."""
        by_name = {name: each for each in self._work.wanted for name in (each.name, each.export)}
        for saving in self.journal.saving:
            path = await self._checkpoints.find(saving.run, saving.name, saving.at)
            wanted = by_name.get(saving.name)
            if path is None:
                self.write(self.journal.over(saving, None))
            elif wanted is not None and (saving.name == wanted.name or self.journal.path(wanted.name) is not None):
                log.info("adopted %s", path)
                await self.confirmed(saving, path, wanted)
            elif wanted is None and self._usable(saving.step):
                log.info("adopted %s", path)
                await self.confirmed(saving, path, None)
            else:
                # Losses up to there were not heard, or what was to be saved before is not there.
                self.write(self.journal.over(saving, None))
                with suppress(ServiceError):
                    await self._checkpoints.delete(path)

    def _usable(self, step: int) -> bool:
        before = self.journal.state.step if self.journal.state else 0
        heard = len(self._losses.steps) >= step
        return step > before and heard and all(self.has(each) for each in self._work.wanted if each.step <= step)

    def has(self, wanted: Wanted) -> bool:
        """Whether an adapter that is wanted is at the service, and here as far as it is fetched."""
        folder = self.folder(wanted)
        return self.journal.path(wanted.name) is not None and complete(folder, peft=self._options.download)

    def folder(self, wanted: Wanted) -> Path:
        """Where an adapter goes."""
        return self._work.job.output / wanted.folder

    def _remote(self, wanted: Wanted) -> RemoteAdapter:
        path = self.journal.path(wanted.name)
        assert path is not None
        return RemoteAdapter(path, self._options.base_url, self._work.job.model.base, self._work.seen[wanted.step - 1])

    def note_run(self, run: str) -> None:
        """Note a training run at the service, under which things are saved."""
        self.write(replace(self.journal, runs=(*self.journal.runs, run)))

    def write(self, journal: TrainingJournal) -> None:
        """Write the journal, whole and at once."""
        self.journal = journal.write(self._work.job.output)

    async def clear(self) -> None:
        """The job is done: delete everything at the service but the adapters that were wanted.

        Raises:
            ServiceError: the server stayed away.
        """
        self.write(replace(self.journal, done=True))
        wanted = {each.name for each in self._work.wanted}
        await self._checkpoints.clear(self.journal.runs, {path for name, path in self.journal.saved if name in wanted})
