"""One training job at the service: steps sent ahead, what is saved, and where it goes on after anything breaks."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from windowshift.backends.local.watched_file import WatchedFile
from windowshift.backends.shared.faults import Fault, ServiceError
from windowshift.backends.shared.schedule import learning_rate
from windowshift.backends.tinker import said
from windowshift.backends.tinker.connection import TinkerConnection, closed
from windowshift.backends.tinker.losses import LossFile, StepLoss
from windowshift.backends.tinker.saves import Saves
from windowshift.backends.tinker.tokens import datums, mean_loss, summed
from windowshift.backends.tinker.training_journal import Saving, TrainingJournal
from windowshift.backends.tinker.work import TinkerWork, Wanted
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.training import Checkpointed, TextLogprob, TrainEvent, TrainMessage, TrainProgress

if TYPE_CHECKING:
    from tinker import ServiceClient, TrainingClient


DAY = 86_400
EPSILON = 1e-8  # Adam's, as backend local has it


@dataclass
class _Sent:
    """Something under way, in the order in which the service does it: a step, a save, or a reading of watched texts."""

    what: str
    answers: list[Awaitable[Any]]
    step: int
    saving: Saving | None = None
    wanted: Wanted | None = None
    reading: int | None = None


class TrainingRun:
    """Trains one job, from its last state to its end.

    The order in which things are asked for is the order in which the service does them: what is saved
    after step n holds exactly n steps.

    Args:
        connection: the server.
        work: what is trained.
        journal: what is known of it at the server.
        put: where events go.
    """

    def __init__(
        self,
        connection: TinkerConnection,
        work: TinkerWork,
        journal: TrainingJournal,
        put: Callable[[TrainEvent], None],
    ) -> None:
        self._connection, self._work, self._put = connection, work, put
        self._options = connection.options
        self.losses = LossFile(work.job.output)
        self._saves = Saves(connection, work, journal, self.losses, self._tell_saved)
        self._sent: deque[_Sent] = deque()
        self._state_at = self._told_at = time.monotonic()
        self.watched = WatchedFile(work.job, work.texts, work.token)
        self._tokens = sum(work.tokens(each.step - 1) for each in self.losses.steps)

    async def finish(self) -> TrainingJournal:
        """Train to the end; the journal of the finished job.

        Raises:
            ServiceError: the server refused something, lost its place too often, or stayed away.
            BackendError: the loss is not a number any more.
            OSError: nothing can be written.
        """
        self._tell_again()
        tries, reached = 0, len(self.losses.steps)
        while True:
            try:
                await self._from_state()
                break
            except ServiceError as error:
                if error.fault.remedy not in ("again", "wait"):
                    raise
                if len(self.losses.steps) > reached:
                    tries, reached = 0, len(self.losses.steps)
                tries += 1
                if tries > self._options.tries:
                    raise ServiceError(f"{error}; given up after {tries - 1} tries", error.fault) from None
                at = self._saves.journal.state.step if self._saves.journal.state else 0
                self._say(f"{error}: going on from step {at}")
                await asyncio.sleep(min(30.0, 2.0 ** (tries - 1)))
                await self._connection.present(self._work.job.key)
        for _, at in self._work.readings:
            if at not in self.watched.known:
                self._put(self.watched.told(at))
        await self._saves.clear()
        return self._saves.journal

    # -- one attempt ----------------------------------------------------------------------------

    async def _from_state(self) -> None:
        self._sent.clear()
        await self._saves.settle()
        start = self._saves.journal.state.step if self._saves.journal.state else 0
        missing = self._saves.missing
        if missing and missing[0].step < start:
            raise BackendError(
                f"what was saved after step {missing[0].step} is gone from {self._work.job.output}, and the state at "
                f"the server is already at step {start}: delete that folder to train the job anew"
            )
        if not missing:
            return
        session = self._connection.session(self._work.job.key[:60])
        ended: Literal["success", "errored", "interrupted"] = "interrupted"
        try:
            client = await self._open(session, start)
            self._saves.note_run(client.model_id)
            self._state_at = self._told_at = time.monotonic()
            await self._steps(client, start, missing)
            ended = "success"
        except BackendError:
            ended = "errored"
            raise
        finally:
            await closed(session, ended)

    async def _open(self, session: ServiceClient, start: int) -> TrainingClient:
        job = self._work.job
        if self._saves.journal.state is None:
            return await self._connection.open(
                f"training '{job.model.base}'",
                lambda: session.create_lora_training_client(
                    job.model.base,
                    rank=job.sft.rank,
                    seed=job.seed % (1 << 31),
                    train_unembed=self._options.train_unembed,
                    user_metadata={"job": job.key[:64], "work": self._work.token},
                ),
                said.run,
            )
        path = self._saves.journal.state.path
        try:
            client: TrainingClient = await self._connection.open(
                f"going on from {path}",
                lambda: session.create_training_client_from_state_with_optimizer(
                    path, user_metadata={"job": job.key[:64], "work": self._work.token}
                ),
                said.run,
            )
        except ServiceError as error:
            if error.fault.status != 404:
                raise
            self._saves.write(replace(self._saves.journal, state=None, saved=(), saving=()))
            self.losses.clear()
            self.watched.clear()
            raise ServiceError(
                f"the state of this job after step {start} has expired at {self._options.host}, or was deleted "
                f"({path}): retry the job to train it anew from the start",
                Fault("refused", error.fault.sentence, status=404),
            ) from None
        self._say(f"goes on from the state after step {start} of {self._work.steps}")
        return client

    async def _steps(self, client: TrainingClient, start: int, missing: list[Wanted]) -> None:
        """Send steps ahead, and take their answers in order."""
        step = start
        left = deque(missing)
        readings = deque(one for one in self._work.readings if one[0] >= start and one[1] not in self.watched.known)
        self._send_readings(client, start, readings)
        while left and left[0].step == start:  # saved nowhere, though the state is there
            self._save_wanted(client, left.popleft())
        while step < self._work.steps or self._sent:
            ahead = sum(1 for each in self._sent if each.saving is None and each.reading is None)
            if step < self._work.steps and ahead < self._options.pipeline:
                self._send_step(client, step)
                step += 1
                self._send_readings(client, step, readings)
                while left and left[0].step == step:
                    self._save_wanted(client, left.popleft())
                if step < self._work.steps and self._state_due(step):
                    self._save_state(client, step)
            else:
                await self._take(self._sent[0])
                self._sent.popleft()

    def _send_step(self, client: TrainingClient, step: int) -> None:
        import tinker

        sft = self._work.job.sft
        passed = client.forward_backward(datums(self._work.batch(step)), "cross_entropy")
        stepped = client.optim_step(
            tinker.AdamParams(
                learning_rate=learning_rate(sft, step, self._work.steps),
                beta1=sft.betas[0],
                beta2=sft.betas[1],
                eps=EPSILON,
                weight_decay=sft.weight_decay,
                grad_clip_norm=sft.max_grad_norm or 0.0,
            )
        )
        self._sent.append(_Sent(f"step {step + 1} of {self._work.steps}", [passed, stepped], step))

    def _send_readings(self, client: TrainingClient, step: int, left: deque[tuple[int, int]]) -> None:
        """Read the watched texts as the model is after a step, without gradients."""
        while left and left[0][0] == step:
            _, at = left.popleft()
            texts = self._work.readable
            answers: list[Awaitable[Any]] = [client.forward(datums(texts), "cross_entropy")] if texts else []
            self._sent.append(_Sent(f"reading the watched texts after step {step}", answers, step, reading=at))

    def _state_due(self, step: int) -> bool:
        steps = self._options.state_steps
        if steps is not None:
            return step % steps == 0
        if time.monotonic() - self._state_at < self._options.state_seconds:
            return False
        self._state_at = time.monotonic()
        return True

    def _save_state(self, client: TrainingClient, step: int) -> None:
        saving = self._saves.begin(f"state-{step:06d}", client.model_id, step)
        ttl = round(self._options.state_days * DAY)
        answer = client.save_state(saving.name, ttl_seconds=ttl)
        self._sent.append(_Sent(f"saving the state after step {step}", [answer], step, saving))

    def _save_wanted(self, client: TrainingClient, wanted: Wanted) -> None:
        if self._saves.journal.path(wanted.name) is None:
            saving = self._saves.begin(wanted.name, client.model_id, wanted.step)
            days = self._options.keep_days
            answer = client.save_weights_for_sampler(
                wanted.name, ttl_seconds=None if days is None else round(days * DAY)
            )
            self._sent.append(_Sent(f"saving {wanted.name}", [answer], wanted.step, saving, wanted))
        if self._options.download:
            saving = self._saves.begin(wanted.export, client.model_id, wanted.step)
            exported = client.save_weights_external(wanted.export, ttl_seconds=round(self._options.state_days * DAY))
            self._sent.append(_Sent(f"exporting {wanted.name}", [exported], wanted.step, saving, wanted))

    # -- answers --------------------------------------------------------------------------------

    async def _take(self, sent: _Sent) -> None:
        if sent.reading is not None:
            await self._take_reading(sent, sent.reading)
            return
        if sent.saving is None:
            await self._take_step(sent)
            return
        try:
            path = await self._connection.result(sent.what, sent.answers[0], said.saved)
        except ServiceError as error:
            if sent.saving.name.startswith("export-") and error.fault.status in (404, 405, 501):
                raise ServiceError(
                    f"the server at {self._options.base_url} exports no adapters: write  backend_options: "
                    "{download: false}",
                    Fault("refused", error.fault.sentence),
                ) from None
            raise
        await self._saves.confirmed(sent.saving, path, sent.wanted)

    async def _take_step(self, sent: _Sent) -> None:
        batch = self._work.batch(sent.step)
        lengths = [len(each.prompt) + len(each.completion) - 1 for each in batch]
        passed, stepped = sent.answers
        logprobs = await self._connection.result(sent.what, passed, lambda answer: said.losses(answer, lengths))
        await self._connection.result(sent.what, stepped, lambda _: None)
        loss = mean_loss(batch, logprobs)
        if not math.isfinite(loss):
            raise BackendError(
                f"the loss was not a finite number at {sent.what}: lower the learning rate "
                f"({self._work.job.sft.learning_rate:g})"
            )
        count = self._work.tokens(sent.step)
        now = time.monotonic()
        speed = count / max(now - self._told_at, 1e-6)
        self._told_at = now
        if self.losses.add(sent.step + 1, loss, count):
            self._tokens += count
            self._tell(self.losses.steps[-1], self._tokens, speed)

    async def _take_reading(self, sent: _Sent, at: int) -> None:
        texts = self._work.readable
        lengths = [len(each.prompt) + len(each.completion) - 1 for each in texts]
        values: list[float] = []
        for answer in sent.answers:
            rows = await self._connection.result(sent.what, answer, lambda said_: said.losses(said_, lengths))
            values = summed(texts, rows)
        if not all(map(math.isfinite, values)):
            raise BackendError(f"a log-probability was not a finite number at {sent.what}: lower the learning rate")
        left = iter(values)
        found = [
            TextLogprob(None, problem=each) if isinstance(each, str) else TextLogprob(next(left), len(each.completion))
            for each in self._work.texts
        ]
        self._put(self.watched.put(at, found, self._work.read_tokens))

    # -- events ---------------------------------------------------------------------------------

    def _tell_again(self) -> None:
        """What an earlier process may not have got into the store."""
        for event in self.losses.told_again(self._work):
            self._put(event)
        for _, at in self._work.readings:
            if at in self.watched.known:
                self._put(self.watched.told(at))
        for wanted in self._work.wanted:
            if self._saves.has(wanted):
                self._tell_saved(wanted)

    def _tell(self, each: StepLoss, tokens: int, speed: float) -> None:
        examples = self._work.seen[each.step - 1]
        self._put(TrainProgress(self._work.job.key, each.step, examples, each.loss, speed, tokens))

    def _tell_saved(self, wanted: Wanted) -> None:
        if wanted.examples is not None:
            self._put(Checkpointed(self._work.job.key, wanted.examples, str(self._saves.folder(wanted))))

    def _say(self, text: str) -> None:
        self._put(TrainMessage(self._work.job.key, text))
