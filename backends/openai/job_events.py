"""The events of a fine-tuning job, each passed on once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.repeat import repeat
from windowshift.backends.openai.said import FineTuningJob, JobEvent, job_path
from windowshift.backends.openai.work import BYTES_A_TOKEN, FineTuningWork
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import Count, Finite, Said, read
from windowshift.core.contract.training import TrainEvent, TrainMessage, TrainProgress

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class _Metrics(Said):
    """The data of an event of a step. Some servers count steps in floating point."""

    step: Annotated[Count, BeforeValidator(lambda value: int(value) if type(value) is float else value)] | None = None
    train_loss: Finite | None = None
    examples: Count | None = None
    tokens_per_second: Finite | None = None


class JobEvents:
    """Reads a job's events, newest first as the API lists them, back to the last one known.

    Args:
        connection: the server.
        work: what the job does.
        job: its id at the server.
        last: the id of the last event that was passed on, also by an earlier process.
    """

    def __init__(self, connection: OpenAIConnection, work: FineTuningWork, job: str, last: str | None) -> None:
        self._connection, self._work, self._job, self.last = connection, work, job, last
        self._before: tuple[float, int] | None = None

    async def new(self, remote: FineTuningJob) -> list[TrainEvent]:
        """What happened since the last call, oldest first.

        Raises:
            ServiceError: the server stayed away.
        """

        async def ask(client: AsyncOpenAI) -> list[JobEvent]:
            found = []
            async for event in self._connection.listed(JobEvent, client, job_path(self._job, "events"), limit=100):
                if event.id == self.last:
                    break
                found.append(event)
            return found[::-1]

        events = await repeat(self._connection, f"events of fine-tuning job {self._job}", ask)
        if events:
            self.last = events[-1].id
        return [passed for event in events if (passed := self._read(event, remote)) is not None]

    def _read(self, event: JobEvent, remote: FineTuningJob) -> TrainEvent | None:
        key = self._work.job.key
        try:
            metrics = read(_Metrics, event.data or {})
        except BrokenAnswerError:
            metrics = _Metrics()
        if event.type == "metrics" and metrics.step is not None and metrics.train_loss is not None:
            examples = metrics.examples  # `windowshift serve` says it
            if examples is None:
                examples = self._examples(metrics.step, remote)
            speed = self._speed(event, metrics.tokens_per_second, examples)
            return TrainProgress(key, metrics.step, examples, metrics.train_loss, speed)
        if event.type == "metrics" or event.message is None:
            return None
        return TrainMessage(key, self._connection.redactor.said(event.message))

    def _examples(self, step: int, remote: FineTuningJob) -> int:
        """Examples seen after a step; the last batch of an epoch may be a smaller one."""
        taken = None if remote.hyperparameters is None else remote.hyperparameters.batch_size
        batch = taken or self._work.job.sft.batch_size
        size = len(self._work.job.examples)
        epochs, rest = divmod(step, -(-size // batch))
        return min(self._work.total, epochs * size + min(size, rest * batch))

    def _speed(self, event: JobEvent, said: float | None, examples: int) -> float:
        """Tokens a second: as the server says, or estimated from the times of the events; 0: not known yet."""
        if said is not None:
            return said
        before, self._before = self._before, self._before or (event.created_at, examples)
        if before is None or event.created_at <= before[0]:
            return 0.0
        tokens_an_example = len(self._work.file) / (2 * BYTES_A_TOKEN) / len(self._work.job.examples)
        return (examples - before[1]) * tokens_an_example / (event.created_at - before[0])
