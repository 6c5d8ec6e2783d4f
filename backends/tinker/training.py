"""Training: the jobs of one call, several at once within a limit, each followed to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from windowshift.backends.local.watched_file import WatchedFile, watched_before
from windowshift.backends.shared.faults import ServiceError
from windowshift.backends.shared.side_by_side import Put, side_by_side
from windowshift.backends.tinker.adapter_folder import RemoteAdapter, complete
from windowshift.backends.tinker.checkpoints import SavedCheckpoints
from windowshift.backends.tinker.connection import TinkerConnection
from windowshift.backends.tinker.losses import LossFile
from windowshift.backends.tinker.tokens import ModelTokens
from windowshift.backends.tinker.training_journal import FILE, TrainingJournal
from windowshift.backends.tinker.training_run import TrainingRun
from windowshift.backends.tinker.work import TinkerWork, work_of
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.prices import Price
from windowshift.core.contract.training import Checkpointed, Trained, TrainEvent, TrainJob, TrainMessage, ends_of


class Training:
    """Trains the jobs of one call of `train`.

    Args:
        connection: the server.
        tokens: the tokenizer of a model.
        budget: what may be spent.
        price: what a model costs; None: it is not known.
        places: of the training clients that there may be at the same time.
    """

    def __init__(
        self,
        connection: TinkerConnection,
        tokens: Callable[[str], ModelTokens],
        budget: Budget,
        price: Callable[[str], Price | None],
        places: asyncio.Semaphore,
    ) -> None:
        self._connection, self._tokens, self._budget, self._price = connection, tokens, budget, price
        self._places = places

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        """Train all jobs; those that have been begun have the first places."""
        async with aclosing(side_by_side(sorted(jobs, key=_not_begun), self._one, self._places)) as events:
            async for event in events:
                yield event

    async def _one(self, job: TrainJob, put: Put) -> None:
        work = await asyncio.to_thread(self._work, job)
        if work.problems:
            put(TrainMessage(job.key, work.problems))
        journal = await self._journal(work)
        if journal.done:
            for event in LossFile(job.output).told_again(work):
                put(event)
            for reading in watched_before(job, work.texts, work.token):
                put(reading)
            for wanted in work.wanted[:-1]:
                put(Checkpointed(job.key, wanted.examples or 0, str(job.output / wanted.folder)))
        else:
            journal = await self._paid(work, journal, put)
        adapter = str(job.output / work.wanted[-1].folder)
        steps = LossFile(job.output).steps
        unheard = work.steps - len(steps)
        if unheard > 0:  # the service went on, and saved, while nobody was there to hear it
            said = f"the losses of the last {unheard} of {work.steps} steps are not known"
            put(TrainMessage(job.key, f"{said}: the run was killed while they were under way"))
        ends = ends_of([(min(each.step * job.sft.batch_size, work.total), each.loss) for each in steps])
        put(Trained(job.key, adapter, work.total, journal.usd, left_out=work.left_out, losses=ends))

    async def _paid(self, work: TinkerWork, journal: TrainingJournal, put: Put) -> TrainingJournal:
        """Train within the budget. Steps that a kill made necessary twice are paid twice, and counted so."""
        price = self._price(work.job.model.base)
        run = TrainingRun(self._connection, work, journal, put)
        before = run.losses.paid + run.watched.paid
        start = journal.state.step if journal.state else 0
        left = sum(map(work.tokens, range(start, work.steps))) + work.read_tokens * sum(
            step >= start and at not in run.watched.known for step, at in work.readings
        )
        most = (price.trained(left) or 0.0) if price is not None else 0.0
        await self._budget.reserve(most)
        try:
            journal = await run.finish()
        finally:
            spent = (price.trained(run.losses.paid + run.watched.paid - before) or 0.0) if price is not None else 0.0
            await asyncio.shield(self._budget.settle(most, spent))
        usd = price.trained(run.losses.paid + run.watched.paid) if price is not None else None
        return replace(journal, usd=usd).write(work.job.output)

    def _work(self, job: TrainJob) -> TinkerWork:
        """Put a job into the service's terms.

        Raises:
            BackendError: it cannot be, or the server does not offer the model.
        """
        offered = self._connection.model(job.model.base)
        if not offered.trainable:
            raise BackendError(f"the server at {self._connection.options.base_url} does not train '{offered.name}'")
        return work_of(job, self._tokens(job.model.base), self._connection.options, offered.context)

    async def _journal(self, work: TinkerWork) -> TrainingJournal:
        """The journal of this work. One of other work, e.g. of data that was written anew, is left behind."""
        output, options = work.job.output, self._connection.options
        output.mkdir(parents=True, exist_ok=True)
        found = TrainingJournal.read(output)
        if found is not None and found.token == work.token and not found.done:
            return replace(found, server=options.base_url)  # the same server may have another address now
        if found is not None and found.token == work.token:
            if all(complete(output / wanted.folder, peft=options.download) for wanted in work.wanted):
                return found
            # A folder was deleted, which is how a person asks for a job anew.
            await SavedCheckpoints(self._connection).clear(found.runs, ())
        elif found is not None and found.server == options.base_url:
            await SavedCheckpoints(self._connection).clear(found.runs, ())
        LossFile(output).clear()
        WatchedFile(work.job, work.texts, work.token).clear()
        return TrainingJournal(work.token, options.base_url)


async def cancel(connection: TinkerConnection, output: Path) -> None:
    """Delete what an unfinished job has saved at the service, and forget it.

    Raises:
        BackendError: the server stayed away, or the journal cannot be read.
    """
    journal = TrainingJournal.read(output)
    if journal is None or journal.done:
        return
    checkpoints = SavedCheckpoints(connection)
    for saving in journal.saving:  # what is on its way comes after a look that is too early
        await checkpoints.find(saving.run, saving.name, saving.at)
    await checkpoints.clear(journal.runs, ())
    LossFile(output).clear()
    (output / FILE).unlink(missing_ok=True)


def expired(adapter: str, remote: RemoteAdapter, error: ServiceError) -> str:
    """What to do about sampler weights that are not at the service any more."""
    gone = f"the weights of adapter '{adapter}' have expired or were deleted at the server ({remote.path})"
    folder = Path(adapter)
    if not folder.is_dir():
        return f"{gone}: {error.fault.sentence}"
    more = ""
    if complete(folder, peft=True):
        more = ", or sample from its PEFT files with  backend: {train: tinker, generate: local}"
    return f"{gone}: delete that folder and run again to train job {folder.parent.name} anew{more}"


def _not_begun(job: TrainJob) -> bool:
    try:
        return TrainingJournal.read(job.output) is None
    except BackendError:
        return True
