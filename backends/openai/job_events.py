"""The events of a fine-tuning job, each passed on once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from windowshift.backends.openai.connection import Connection
from windowshift.backends.openai.repeat import repeat
from windowshift.backends.openai.work import BYTES_A_TOKEN, Work
from windowshift.core.contract.training import TrainEvent, TrainMessage, TrainProgress

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent


class JobEvents:
    """Reads a job's events, newest first as the API lists them, back to the last one known.

    Args:
        connection: the server.
        work: what the job does.
        job: its id at the server.
        last: the id of the last event that was passed on, also by an earlier process.
    """

    def __init__(self, connection: Connection, work: Work, job: str, last: str | None) -> None:
        self._connection, self._work, self._job, self.last = connection, work, job, last
        self._before: tuple[float, int] | None = None

    async def new(self, remote: FineTuningJob) -> list[TrainEvent]:
        """What happened since the last call, oldest first.

        Raises:
            ServiceError: the server stayed away.
        """

        async def ask(client: AsyncOpenAI) -> list[FineTuningJobEvent]:
            found = []
            async for event in client.fine_tuning.jobs.list_events(self._job, limit=100):
                if event.id == self.last:
                    break
                found.append(event)
            return found[::-1]

        events = await repeat(self._connection, f"events of fine-tuning job {self._job}", ask)
        if events:
            self.last = events[-1].id
        return [passed for event in events if (passed := self._read(event, remote)) is not None]

    def _read(self, event: FineTuningJobEvent, remote: FineTuningJob) -> TrainEvent | None:
        key = self._work.job.key
        data: Mapping[str, Any] = event.data if isinstance(event.data, Mapping) else {}
        step, loss = data.get("step"), data.get("train_loss")
        if event.type == "metrics" and isinstance(step, int | float) and isinstance(loss, int | float):
            examples = data.get("examples")  # `windowshift serve` says it
            if not isinstance(examples, int):
                examples = self._examples(int(step), remote)
            return TrainProgress(key, int(step), examples, float(loss), self._speed(event, data, examples))
        if event.type == "metrics" or not isinstance(event.message, str):
            return None
        return TrainMessage(key, self._connection.key.redact(" ".join(event.message.split())))

    def _examples(self, step: int, remote: FineTuningJob) -> int:
        """Examples seen after a step; the last batch of an epoch may be a smaller one."""
        batch = getattr(remote.hyperparameters, "batch_size", None)
        batch = batch if isinstance(batch, int) and batch > 0 else self._work.job.sft.batch_size
        size = len(self._work.job.examples)
        epochs, rest = divmod(step, -(-size // batch))
        return min(self._work.total, epochs * size + min(size, rest * batch))

    def _speed(self, event: FineTuningJobEvent, data: Mapping[str, Any], examples: int) -> float:
        """Tokens a second: as the server says, or estimated from the times of the events; 0: not known yet."""
        said = data.get("tokens_per_second")
        if isinstance(said, int | float):
            return float(said)
        before, self._before = self._before, self._before or (event.created_at, examples)
        if before is None or event.created_at <= before[0]:
            return 0.0
        tokens_an_example = len(self._work.file) / (2 * BYTES_A_TOKEN) / len(self._work.job.examples)
        return (examples - before[1]) * tokens_an_example / (event.created_at - before[0])
