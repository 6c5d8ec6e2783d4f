"""The loss on examples that are not learned, while an adapter is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Generator, Sequence
from pathlib import Path

import torch

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.batch_loss import BatchLoss
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.core.contract.training import TrainEvent, TrainJob, Validated
from windowshift.core.contract.whole_file import replacing_file

FILE = "validation.json"


class Validation:
    """Measures the loss on `TrainJob.validation`; what was measured is kept beside the adapters.

    Args:
        lm: the model.
        job: the job.
        encoded: the tokens of its validation examples.
        signature: of the training; losses that another training left are not taken for this one's.
        adapter: what is trained.
    """

    def __init__(
        self,
        lm: CausalLM,
        job: TrainJob,
        encoded: Sequence[TrainingTokens],
        signature: str,
        adapter: AdapterWeights,
    ) -> None:
        self._loss = BatchLoss(lm, job.validation, encoded, adapter)
        self._job, self._encoded = job, encoded
        self._signature = _signed(signature, encoded)
        self._file = job.output / FILE
        self._known = {event.examples: event.loss for event in _read(job, self._signature)}

    def known(self, examples: Collection[int]) -> list[Validated]:
        """What was measured before, after these numbers of examples."""
        return [Validated(self._job.key, at, loss) for at, loss in sorted(self._known.items()) if at in examples]

    def measure(self, examples: int) -> Generator[list[TrainEvent], None, None]:
        """The event of the loss after so many examples, batch by batch; none where there is nothing to measure."""
        if not self._encoded:
            return
        if examples not in self._known:
            total = tokens = 0.0
            size = max(self._job.sft.batch_size, 8)
            for at in range(0, len(self._encoded), size):
                chosen = range(at, min(at + size, len(self._encoded)))
                count = sum(len(self._encoded[index].completion) for index in chosen)
                with torch.inference_mode():
                    total += float(self._loss(chosen)) * count
                tokens += count
                yield []
            self._known[examples] = total / tokens
            self._write()
        yield [Validated(self._job.key, examples, self._known[examples])]

    def _write(self) -> None:
        with replacing_file(self._file) as partial:
            partial.write_text(json.dumps({"signature": self._signature, "losses": self._known}), encoding="utf-8")


def measured(job: TrainJob, encoded: Sequence[TrainingTokens], signature: str) -> list[Validated]:
    """The losses that a finished training left, in order."""
    return sorted(_read(job, _signed(signature, encoded)), key=lambda event: event.examples)


def _signed(signature: str, encoded: Sequence[TrainingTokens]) -> str:
    data = repr([(each.prompt, each.completion) for each in encoded])
    return f"{signature}:{hashlib.sha256(data.encode()).hexdigest()}"


def _read(job: TrainJob, signature: str) -> list[Validated]:
    path: Path = job.output / FILE
    if not job.validation or not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["signature"] != signature:
        return []
    return [Validated(job.key, int(examples), loss) for examples, loss in found["losses"].items()]
