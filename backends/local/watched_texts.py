"""How likely texts are that are not learned, while an adapter is trained."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch

from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.batch_loss import BatchLoss
from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.watched_file import Texts, WatchedFile, encoded_text, moments
from windowshift.core.contract.training import TextLogprob, TrainEvent, TrainJob


def encoded_texts(lm: CausalLM, job: TrainJob) -> list[TrainingTokens | str]:
    """The texts of a job as the model reads them."""
    return [encoded_text(lm.chat_of(job.model), lm.context, example) for example in job.watched]


class WatchedTexts:
    """Measures how likely `TrainJob.watched` are; what was measured is kept beside the adapters.

    Each text is read in a pass of its own, without gradients, so that neither the adapter nor the optimizer knows of it
    and no number depends on which other texts are read.

    Args:
        lm: the model.
        job: the job, as it was given.
        texts: those of `encoded_texts`.
        signature: of the training; what another training left is not taken for this one's.
        due: after how many examples each of `watched_at` is reached, see `encoding.threshold`.
        adapter: what is trained.
    """

    def __init__(
        self,
        lm: CausalLM,
        job: TrainJob,
        texts: Texts,
        signature: str,
        due: Callable[[int], int],
        adapter: AdapterWeights,
    ) -> None:
        read = [tokens for tokens in texts if not isinstance(tokens, str)]
        examples = [one for one, tokens in zip(job.watched, texts, strict=True) if not isinstance(tokens, str)]
        self._loss, self._job, self._texts, self._due = BatchLoss(lm, examples, read, adapter), job, texts, due
        self._file = WatchedFile(job, texts, signature)
        self._left = moments(job, texts)

    def reached(self, examples: int) -> Generator[list[TrainEvent], None, None]:
        """The events of the numbers that are reached after so many examples, text by text.

        What was measured before, as by a process that was killed, is told again.
        """
        while self._left and examples >= self._due(self._left[0]):
            wanted = self._left.pop(0)
            if wanted not in self._file.known:
                found = []
                place = 0
                for tokens in self._texts:
                    if isinstance(tokens, str):
                        found.append(TextLogprob(None, problem=tokens))
                        continue
                    with torch.inference_mode():
                        mean = float(self._loss([place]))
                    found.append(TextLogprob(-mean * len(tokens.completion), len(tokens.completion)))
                    place += 1
                    yield []
                self._file.put(wanted, found)
            yield [self._file.told(wanted)]

    def passed(self, examples: int) -> list[TrainEvent]:
        """What was measured before so many examples were seen, of a training that goes on there; what is lost, too."""
        told: list[TrainEvent] = []
        while self._left and examples > self._due(self._left[0]):
            told.append(self._file.told(self._left.pop(0)))
        return told
